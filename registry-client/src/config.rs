//! `registries.toml`: where a registry really is, and how it is reached.
//!
//! ```toml
//! [[registry]]
//! prefix = "public.ecr.aws/docker/library"   # whole path components; the longest prefix wins
//! location = "mirror.example:5000/docker"    # replaces the prefix; without it the name itself is meant
//! insecure = true                            # plain http
//! ca = "mirror-ca.pem"                       # trusted besides the system's roots; relative to this file
//! ```
//!
//! As with docker, `localhost`, 127.0.0.0/8 and `[::1]` are plain http without an entry; `ca`, or `insecure = false`, makes
//! them https.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::error::{RegistryError, Result};
use crate::reference::{Reference, is_path_component, is_registry};

const FILE_NAME: &str = "registries.toml";
/// Names a directory that replaces the usual ones.
const DIRECTORY_VARIABLE: &str = "ROADSTEAD_CONFIG";
const SYSTEM_DIRECTORY: &str = "/etc/roadstead";
const FILE_LIMIT: u64 = 1024 * 1024;
/// Docker Hub's names say `docker.io`; its API is at another host.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Says where a repository really is.
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
}

/// Maps name prefixes to locations.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConfig {
    /// Longest prefix first.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    prefix: String,
    location: Option<String>,
    insecure: Option<bool>,
    ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    prefix: Spanned<String>,
    location: Option<Spanned<String>>,
    insecure: Option<bool>,
    ca: Option<PathBuf>,
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
            let entry = read_entry(raw, text, origin)?;
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
        Ok(Self { entries })
    }

    /// Finds where a repository really is.
    #[must_use]
    pub fn locate(&self, name: &Reference) -> Location {
        let full = name.name();
        let found = self
            .entries
            .iter()
            .find_map(|entry| Some((entry, rest_below(&full, &entry.prefix)?)));
        let target = match found {
            // The prefix may be the whole name: then a location without a path still needs a repository.
            Some((
                Entry {
                    location: Some(location),
                    ..
                },
                "",
            )) if !location.contains('/') => {
                format!("{location}/{}", name.repository())
            }
            Some((
                Entry {
                    location: Some(location),
                    ..
                },
                rest,
            )) => format!("{location}{rest}"),
            _ => full.clone(),
        };
        self.location(&target, found.map(|(entry, _)| entry))
    }

    /// Finds where a registry's own pages are, such as the one that checks a login.
    pub(crate) fn locate_registry(&self, host: &str) -> Location {
        let entry = self.entries.iter().find(|entry| entry.prefix == host);
        let target = entry
            .and_then(|entry| entry.location.clone())
            .unwrap_or_else(|| host.to_owned());
        self.location(&target, entry)
    }

    fn location(&self, target: &str, entry: Option<&Entry>) -> Location {
        let (host, repository) = target.split_once('/').unwrap_or((target, ""));
        let host = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        let ca = entry.and_then(|entry| entry.ca.clone());
        let insecure = entry
            .and_then(|entry| entry.insecure)
            .unwrap_or_else(|| ca.is_none() && is_loopback(host));
        Location {
            host: host.to_owned(),
            repository: repository.to_owned(),
            insecure,
            ca,
        }
    }
}

/// Returns what follows a prefix that ends at a path component; it is empty or starts with `/`.
fn rest_below<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn read_entry(raw: RawEntry, text: &str, origin: &Path) -> Result<Entry> {
    let prefix = read_place(&raw.prefix, "prefix", text, origin)?;
    let location = raw
        .location
        .as_ref()
        .map(|location| read_place(location, "location", text, origin))
        .transpose()?;
    if raw.insecure == Some(true) && raw.ca.is_some() {
        let message = format!("`{prefix}` has both `insecure` and `ca`; plain http has no certificate");
        return Err(config_error(origin, text, raw.prefix.span().start, message));
    }
    let directory = origin.parent().unwrap_or(Path::new(""));
    let ca = raw.ca.map(|path| directory.join(path));
    Ok(Entry {
        prefix,
        location,
        insecure: raw.insecure,
        ca,
    })
}

fn read_place(value: &Spanned<String>, key: &str, text: &str, origin: &Path) -> Result<String> {
    let place = value.get_ref().trim_end_matches('/');
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let good_path = path.is_empty() || path.split('/').all(is_path_component);
    if !is_registry(host) || !good_path {
        let message = format!(
            "`{key}` must be a host, with a port and a path where needed, and without `https://`: `{}`",
            crate::digest::shorten(place)
        );
        return Err(config_error(origin, text, value.span().start, message));
    }
    let host = host.to_ascii_lowercase();
    Ok(if path.is_empty() {
        host
    } else {
        format!("{host}/{path}")
    })
}

fn config_error(path: &Path, text: &str, offset: usize, message: String) -> RegistryError {
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    RegistryError::Config {
        path: path.to_owned(),
        line,
        message,
    }
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
        let location = config.locate(&name.parse().unwrap());
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
        let location = config.locate(&"localhost:5001/x".parse().unwrap());
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
