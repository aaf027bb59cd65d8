//! `registries.toml`: where a registry really is, and how it is reached.
//!
//! ```toml
//! [[registry]]
//! prefix = "docker.io/library"               # whole path components; the longest prefix wins
//! location = "hub.example:5000/docker"       # replaces the prefix; without it the name itself is meant
//! mirrors = ["mirror.example/hub"]           # asked before the location, in order, when something is read
//! insecure = true                            # plain http
//! ca = "ca.pem"                              # trusted besides the system's roots; relative to this file
//! client-cert = "client.pem"                 # shown to the registry, with
//! client-key = "client.key"                  # its key
//! credential = { user = "ci", password-file = "password" }
//! upload = "chunks"                          # how blobs are sent: stream, chunks or ecr-parts
//! blocked = false                            # true: names below the prefix cannot be used
//! ```
//!
//! A mirror's own entry (`prefix = "mirror.example"`) says how the mirror is reached. As with docker, `localhost`,
//! 127.0.0.0/8 and `[::1]` are plain http without an entry; `ca`, `client-cert`, or `insecure = false`, makes them https.
//! `docs/registries.md` explains every key.

mod entry;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{RegistryError, Result};
use crate::reference::Reference;
use entry::{Entry, RawEntry, config_error};

const FILE_NAME: &str = "registries.toml";
/// Names a directory that replaces the usual ones.
const DIRECTORY_VARIABLE: &str = "ROADSTEAD_CONFIG";
const SYSTEM_DIRECTORY: &str = "/etc/roadstead";
const FILE_LIMIT: u64 = 1024 * 1024;
/// Docker Hub's names say `docker.io`; its API is at another host.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Says where a repository really is, and how that place is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Host and, where given, port.
    pub host: String,
    /// Path of the repository there.
    pub repository: String,
    /// Whether to speak plain http.
    pub insecure: bool,
    /// Certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Certificate and key to show, both PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Login that the file names.
    pub credential: Option<CredentialRule>,
    /// How blobs are sent, when the file says so.
    pub upload: Option<UploadKind>,
}

/// Says where the login for a registry comes from. The secret itself is never in `registries.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialRule {
    /// No login, whatever other places hold.
    Anonymous,
    /// The program `docker-credential-<name>`.
    Helper(String),
    /// A user whose password is in a file; a line feed at its end does not count.
    PasswordFile {
        /// User name.
        user: String,
        /// The file.
        path: PathBuf,
    },
    /// A user whose password is in an environment variable.
    PasswordVariable {
        /// User name.
        user: String,
        /// Name of the variable.
        variable: String,
    },
}

/// How the bytes of a blob are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UploadKind {
    /// One streamed PATCH without `Content-Range`, as every registry takes it.
    Stream,
    /// Several PATCHes with `Content-Range`, for what limits the size of a request.
    Chunks,
    /// The layer parts of Amazon ECR's own API.
    EcrParts,
}

/// Says how a name resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// The prefix whose entry counts.
    pub prefix: Option<String>,
    /// Whether that entry forbids the name.
    pub blocked: bool,
    /// Places asked first when something is read.
    pub mirrors: Vec<Location>,
    /// The place that is meant.
    pub location: Location,
}

/// Maps name prefixes to locations.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConfig {
    origin: Option<PathBuf>,
    /// Longest prefix first.
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: Vec<RawEntry>,
}

impl RegistriesConfig {
    /// Returns a configuration without entries.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Loads the first file there is: in `$ROADSTEAD_CONFIG` alone when it is set, else in the user's and the system's
    /// directory (`~/.config/roadstead`, `/etc/roadstead`). Without a file there are no entries.
    ///
    /// # Errors
    /// `Io` or `Config` when a file is there and cannot be used.
    pub fn load_default() -> Result<Self> {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directories = match variable(DIRECTORY_VARIABLE) {
            Some(directory) => vec![directory],
            None => {
                let user = variable("HOME").map(|home| home.join(".config/roadstead"));
                user.into_iter().chain([PathBuf::from(SYSTEM_DIRECTORY)]).collect()
            }
        };
        match directories
            .iter()
            .map(|directory| directory.join(FILE_NAME))
            .find(|path| path.exists())
        {
            Some(path) => Self::load(&path),
            None => Ok(Self::empty()),
        }
    }

    /// Loads a file.
    ///
    /// # Errors
    /// `Io` when it cannot be read, `Config` with file and line when it is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |error| RegistryError::io("read", path, error);
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT {
            return Err(config_error(path, "", 0, "the file is larger than 1 MiB".to_owned()));
        }
        Self::from_toml(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    /// Parses the text of a file; `origin` is for messages, and for what relative paths are relative to.
    ///
    /// # Errors
    /// `Config` with line when it is wrong; a key that is not known is wrong, too.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            config_error(origin, text, start, error.message().to_owned())
        })?;
        let mut entries: Vec<Entry> = Vec::new();
        for raw in file.registry {
            let start = raw.prefix.span().start;
            let entry = entry::read(raw, text, origin)?;
            if entries.iter().any(|other| other.prefix == entry.prefix) {
                return Err(config_error(
                    origin,
                    text,
                    start,
                    format!("prefix `{}` is there twice", entry.prefix),
                ));
            }
            entries.push(entry);
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
        Ok(Self {
            origin: Some(origin.to_owned()),
            entries,
        })
    }

    /// Finds the place of a repository.
    ///
    /// # Errors
    /// `Blocked` when an entry forbids the name.
    pub fn locate(&self, name: &Reference) -> Result<Location> {
        let explanation = self.explain(name);
        if explanation.blocked {
            return Err(RegistryError::Blocked {
                name: name.name(),
                prefix: explanation.prefix.unwrap_or_default(),
            });
        }
        Ok(explanation.location)
    }

    /// Lists the places that are asked before the location when something is read.
    #[must_use]
    pub fn mirrors(&self, name: &Reference) -> Vec<Location> {
        self.explain(name).mirrors
    }

    /// Says how a name resolves, without judging it.
    #[must_use]
    pub fn explain(&self, name: &Reference) -> Explanation {
        let full = name.name();
        let found = self.entry_for(&full);
        let place = |target: &str, rest: &str| {
            // The prefix may be the whole name: then a place without a path still needs a repository.
            if rest.is_empty() && !target.contains('/') {
                format!("{target}/{}", name.repository())
            } else {
                format!("{target}{rest}")
            }
        };
        let (target, mirrors) = match found {
            Some((entry, rest)) => (
                entry
                    .location
                    .as_ref()
                    .map_or_else(|| full.clone(), |to| place(to, rest)),
                entry.mirrors.iter().map(|mirror| place(mirror, rest)).collect(),
            ),
            None => (full.clone(), Vec::new()),
        };
        let entry = found.map(|(entry, _)| entry);
        let own = |target: &String| location(target, self.entry_for(target).map(|(entry, _)| entry));
        Explanation {
            file: self.origin.clone(),
            prefix: entry.map(|entry| entry.prefix.clone()),
            blocked: entry.is_some_and(|entry| entry.blocked),
            mirrors: mirrors.iter().map(own).collect(),
            location: location(&target, entry),
        }
    }

    fn entry_for<'a>(&'a self, full: &'a str) -> Option<(&'a Entry, &'a str)> {
        self.entries
            .iter()
            .find_map(|entry| Some((entry, rest_below(full, &entry.prefix)?)))
    }

    /// Finds where a registry's own pages are, such as the one that checks a login.
    pub(crate) fn locate_registry(&self, host: &str) -> Location {
        let entry = self.entries.iter().find(|entry| entry.prefix == host);
        let target = entry
            .and_then(|entry| entry.location.clone())
            .unwrap_or_else(|| host.to_owned());
        location(&target, entry)
    }
}

fn location(target: &str, entry: Option<&Entry>) -> Location {
    let (host, repository) = target.split_once('/').unwrap_or((target, ""));
    let host = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
    let ca = entry.and_then(|entry| entry.ca.clone());
    let client_certificate = entry.and_then(|entry| entry.client_certificate.clone());
    let wants_tls = ca.is_some() || client_certificate.is_some();
    let insecure = entry
        .and_then(|entry| entry.insecure)
        .unwrap_or_else(|| !wants_tls && is_loopback(host));
    Location {
        host: host.to_owned(),
        repository: repository.to_owned(),
        insecure,
        ca,
        client_certificate,
        credential: entry.and_then(|entry| entry.credential.clone()),
        upload: entry.and_then(|entry| entry.upload),
    }
}

/// Returns what follows a prefix that ends at a path component; it is empty or starts with `/`.
fn rest_below<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Tells whether a host, with or without a port, is this machine by its name alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host_without_port(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Cuts off the port, and the brackets of an IPv6 address.
pub(crate) fn host_without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RegistriesConfig> {
        RegistriesConfig::from_toml(text, Path::new("/conf/registries.toml"))
    }

    fn place(config: &RegistriesConfig, name: &str) -> (String, bool) {
        let location = config.locate(&name.parse().unwrap()).unwrap();
        (format!("{}/{}", location.host, location.repository), location.insecure)
    }

    #[test]
    fn the_longest_prefix_of_whole_components_wins() {
        let config = parse(
            r#"
            [[registry]]
            prefix = "a.example"
            location = "127.0.0.1:5000"
            [[registry]]
            prefix = "a.example/team"
            location = "b.example/mirror/"
            [[registry]]
            prefix = "a.example/team/app"
            location = "c.example:5000"
            insecure = true
            [[registry]]
            prefix = "docker.io/library"
            location = "d.example/hub"
            "#,
        )
        .unwrap();
        for (name, expected, insecure) in [
            ("a.example/x", "127.0.0.1:5000/x", true),
            ("a.example/teamwork", "127.0.0.1:5000/teamwork", true),
            ("a.example/team/x:tag", "b.example/mirror/x", false),
            ("a.example/team/app", "c.example:5000/team/app", true),
            ("a.example/team/app/x", "c.example:5000/x", true),
            ("node:20", "d.example/hub/node", false),
            ("user/app", "registry-1.docker.io/user/app", false),
            ("e.example/app", "e.example/app", false),
        ] {
            assert_eq!(place(&config, name), (expected.to_owned(), insecure), "{name}");
        }
    }

    #[test]
    fn loopback_is_plain_http_unless_an_entry_says_otherwise() {
        let config = parse(
            "[[registry]]\nprefix='localhost:5001'\nca='ca.pem'\n[[registry]]\nprefix='localhost:5002'\ninsecure=false",
        )
        .unwrap();
        for (name, insecure) in [
            ("localhost:5000/x", true),
            ("127.9.9.9/x", true),
            ("[::1]:5000/x", true),
            ("localhost:5001/x", false),
            ("localhost:5002/x", false),
            ("127.example/x", false),
            ("10.0.0.1/x", false),
        ] {
            assert_eq!(place(&config, name).1, insecure, "{name}");
        }
        let location = config.locate(&"localhost:5001/x".parse().unwrap()).unwrap();
        assert_eq!(location.ca.as_deref(), Some(Path::new("/conf/ca.pem")));
        assert_eq!(config.locate_registry("localhost:5001").host, "localhost:5001");
    }

    #[test]
    fn mistakes_name_the_file_and_the_line() {
        for (text, line, part) in [
            ("[[registry]]\nprefix = 'a.example'\nlocatoin = 'x'\n", 3, "locatoin"),
            ("[[registry]]\n\nprefix = 'https://a.example'\n", 3, "prefix"),
            (
                "[[registry]]\nprefix = 'a.example'\nlocation = 'b.example/../x'\n",
                3,
                "location",
            ),
            (
                "[[registry]]\nprefix = 'a.example'\n[[registry]]\nprefix = 'a.example'\n",
                4,
                "twice",
            ),
            (
                "[[registry]]\nprefix = 'a.example'\nca = 'x'\ninsecure = true\n",
                2,
                "both",
            ),
            ("[[registry]]\nlocation = 'a.example'\n", 1, "prefix"),
            ("x", 1, ""),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("/conf/registries.toml:{line}: ")) && message.contains(part),
                "{message}"
            );
        }
    }
}
