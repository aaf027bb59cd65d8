//! Credentials: docker's `config.json`, credential helpers, and Amazon ECR.
//!
//! They are looked up under the name the user wrote, since `docker login` was made for it, and only after a registry has
//! asked for a login.

#[cfg(feature = "ecr")]
mod ecr_tokens;
mod helper;
mod login;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

pub use login::{login, logout};

use crate::error::{RegistryError, Result};
use crate::reference::Reference;
use crate::secret::Secret;

const FILE_NAME: &str = "config.json";
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Name of Docker Hub in an image's name.
const DOCKER_HUB: &str = "docker.io";
/// Key under which docker keeps the login to Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Docker's sign that the secret is an OAuth2 refresh token.
const TOKEN_USER: &str = "<token>";

/// A login found for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) user: String,
    pub(crate) secret: Secret,
    /// Whether the secret is an OAuth2 refresh token in place of a password.
    pub(crate) is_identity_token: bool,
    pub(crate) expires_at: Option<SystemTime>,
}

/// Finds logins. Cheap to clone; clones share the tokens fetched.
#[derive(Clone, Debug)]
pub struct CredentialStore {
    directory: Option<PathBuf>,
    #[cfg(feature = "ecr")]
    ecr_tokens: ecr_tokens::EcrTokens,
}

/// What of docker's `config.json` matters here.
#[derive(Default, Deserialize)]
struct DockerConfig {
    /// Sorted, so that a file with several spellings of a key means the same each time it is read.
    #[serde(default, deserialize_with = "null_as_empty")]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default, rename = "credHelpers", deserialize_with = "null_as_empty")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

/// Some tools write `null` for an empty map, and docker takes it.
fn null_as_empty<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

impl CredentialStore {
    /// Reads logins from a docker configuration directory; `None` means `$DOCKER_CONFIG`, else `~/.docker`.
    #[must_use]
    pub fn new(docker_config_dir: Option<PathBuf>) -> Self {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directory = docker_config_dir
            .or_else(|| variable("DOCKER_CONFIG"))
            .or_else(|| variable("HOME").map(|home| home.join(".docker")));
        Self {
            directory,
            #[cfg(feature = "ecr")]
            ecr_tokens: ecr_tokens::EcrTokens::default(),
        }
    }

    /// Finds the login for a repository; `None` means anonymous.
    ///
    /// Order: the credential helper named for the host, a login in the file (the longest path first), the general helper,
    /// Amazon ECR by the host's name.
    #[cfg_attr(
        not(feature = "ecr"),
        expect(unused_variables, reason = "only AWS is asked over https from here")
    )]
    pub(crate) async fn find(&self, name: &Reference, ca: Option<&Path>) -> Result<Option<Credential>> {
        if let Some(found) = self.find_stored(name.registry(), Some(name.repository())).await? {
            return Ok(Some(found));
        }
        #[cfg(feature = "ecr")]
        return self.ecr_tokens.find(name.registry(), ca).await;
        #[cfg(not(feature = "ecr"))]
        Ok(None)
    }

    /// Finds a stored login for a host alone, as for a mirror with an account of its own.
    pub(crate) async fn find_for_host(&self, host: &str) -> Result<Option<Credential>> {
        self.find_stored(host, None).await
    }

    async fn find_stored(&self, host: &str, repository: Option<&str>) -> Result<Option<Credential>> {
        let Some(path) = self.directory.as_ref().map(|directory| directory.join(FILE_NAME)) else {
            return Ok(None);
        };
        match read_config(&path)?.look_up(host, repository, &path)? {
            Stored::Login { key, credential } => {
                tracing::debug!(key, "a stored login");
                Ok(Some(credential))
            }
            Stored::Helper { name, server } => helper::get(&name, server).await,
            Stored::Nothing => Ok(None),
        }
    }
}

/// What a file says about the login to a host.
pub(crate) enum Stored<'a> {
    Login {
        /// The host, or the path below it, that the login was found under.
        key: String,
        credential: Credential,
    },
    /// A program has it.
    Helper {
        name: String,
        server: &'a str,
    },
    Nothing,
}

impl DockerConfig {
    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        // The text holds secrets: the parser's message may quote only a place, not content.
        serde_json::from_slice(bytes).map_err(|error| file_error(path, parse_reason(&error)))
    }

    fn look_up<'a>(&self, host: &'a str, repository: Option<&str>, path: &Path) -> Result<Stored<'a>> {
        let server = if host == DOCKER_HUB { DOCKER_HUB_KEY } else { host };
        if let Some(helper) = self.helpers.get(host).or_else(|| self.helpers.get(server)) {
            let name = helper.clone();
            return Ok(Stored::Helper { name, server });
        }
        for key in keys_by_length(host, repository) {
            let spelt = if key == DOCKER_HUB { DOCKER_HUB_KEY } else { &key };
            let mut entries: Vec<_> = self.auths.iter().filter(|(name, _)| normal_key(name) == key).collect();
            // The spelling of `docker login` comes before others.
            entries.sort_by_key(|(name, _)| *name != spelt);
            for (_, entry) in entries {
                if let Some(credential) = read_entry(entry, &key, path)? {
                    return Ok(Stored::Login { key, credential });
                }
            }
        }
        Ok(match &self.store {
            Some(helper) if !helper.is_empty() => Stored::Helper {
                name: helper.clone(),
                server,
            },
            _ => Stored::Nothing,
        })
    }
}

/// Looks a host up in the bytes of a file.
#[cfg(feature = "fuzzing")]
pub(crate) fn look_up<'a>(bytes: &[u8], host: &'a str, repository: Option<&str>) -> Result<Stored<'a>> {
    let path = Path::new(FILE_NAME);
    DockerConfig::parse(bytes, path)?.look_up(host, repository, path)
}

impl Default for CredentialStore {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Credential {
    /// Returns what follows `Basic` in a header.
    pub(crate) fn basic(&self) -> Secret {
        Secret::new(STANDARD.encode(format!("{}:{}", self.user, self.secret.expose())))
    }
}

fn read_config(path: &Path) -> Result<DockerConfig> {
    match read_file(path)? {
        Some(bytes) => DockerConfig::parse(&bytes, path),
        None => Ok(DockerConfig::default()),
    }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let failed = |error| RegistryError::io("read", path, error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(file_error(path, "the file is larger than 4 MiB".to_owned()));
    }
    Ok(Some(bytes))
}

fn parse_reason(error: &serde_json::Error) -> String {
    format!("it is not valid at line {} column {}", error.line(), error.column())
}

fn file_error(path: &Path, message: String) -> RegistryError {
    RegistryError::CredentialFile {
        path: path.to_owned(),
        message,
    }
}

/// Lists the keys that may hold the login: the whole path, each shorter one, the host.
fn keys_by_length(host: &str, repository: Option<&str>) -> Vec<String> {
    let mut key = match repository {
        Some(repository) => format!("{host}/{repository}"),
        None => host.to_owned(),
    };
    let mut keys = vec![key.clone()];
    while let Some(slash) = key.rfind('/') {
        key.truncate(slash);
        keys.push(key.clone());
    }
    keys
}

/// Brings the spellings of keys met in the wild to `host[/path]`.
fn normal_key(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    let (host, path) = bare
        .split_once('/')
        .map_or((bare, None), |(host, path)| (host, Some(path)));
    let host = host.to_ascii_lowercase();
    let host = if matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") {
        DOCKER_HUB
    } else {
        &host
    };
    path.map_or_else(|| host.to_owned(), |path| format!("{host}/{path}"))
}

/// An entry without content is docker's note that a helper has the login.
fn read_entry(entry: &AuthEntry, key: &str, path: &Path) -> Result<Option<Credential>> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (user, password) = match filled(&entry.auth) {
        Some(auth) => {
            let decoded = STANDARD
                .decode(auth.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let Some((user, password)) = pair else {
                return Err(file_error(
                    path,
                    format!("the `auth` of `{key}` is not base64 of `user:password`"),
                ));
            };
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        None => (
            filled(&entry.username).unwrap_or_default(),
            filled(&entry.password).unwrap_or_default(),
        ),
    };
    let identity = filled(&entry.identity_token);
    if user.is_empty() && identity.is_none() {
        return Ok(None);
    }
    Ok(Some(credential(user, password, identity)))
}

fn credential(user: String, password: String, identity: Option<String>) -> Credential {
    let is_identity_token = identity.is_some() || user == TOKEN_USER;
    Credential {
        user,
        secret: Secret::new(identity.unwrap_or(password)),
        is_identity_token,
        expires_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    async fn find(json: &str, name: &str) -> Result<Option<(String, String)>> {
        let dir = TestDir::new("credentials");
        std::fs::write(dir.path().join(FILE_NAME), json).unwrap();
        let store = CredentialStore::new(Some(dir.path().to_owned()));
        let found = store.find(&name.parse().unwrap(), None).await?;
        Ok(found.map(|credential| (credential.user, credential.secret.expose().to_owned())))
    }

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.to_owned(), password.to_owned()))
    }

    #[tokio::test]
    async fn the_longest_path_wins_and_spellings_are_equal() {
        let json = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{}"}},"https://r.example/team":{{"username":"t","password":"2"}},
            "https://index.docker.io/v1/":{{"auth":"{}"}},"empty.example":{{}}}},"credHelpers":null,"other":1}}"#,
            STANDARD.encode("h:1:x"),
            STANDARD.encode("hub:3")
        );
        for (name, expected) in [
            ("r.example/app", pair("h", "1:x")),
            ("r.example/team/app", pair("t", "2")),
            ("r.example/teamwork", pair("h", "1:x")),
            ("node", pair("hub", "3")),
            ("empty.example/app", None),
            ("x.r.example/app", None),
        ] {
            assert_eq!(find(&json, name).await.unwrap(), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn of_several_spellings_dockers_own_is_taken_each_time() {
        let entry = |user: &str| format!(r#"{{"username":"{user}","password":"x"}}"#);
        let json = format!(
            r#"{{"auths":{{"docker.io":{},"https://index.docker.io/v1/":{},"http://r.example":{{}},
            "https://r.example":{},"https://r.example/v2/":{}}}}}"#,
            entry("a"),
            entry("b"),
            entry("c"),
            entry("d")
        );
        for _ in 0..20 {
            assert_eq!(find(&json, "node").await.unwrap(), pair("b", "x"));
            assert_eq!(find(&json, "r.example/app").await.unwrap(), pair("c", "x"));
        }
    }

    #[tokio::test]
    async fn a_broken_file_is_an_error_that_shows_no_content() {
        for json in [
            r#"{"auths":{"r.example":{"auth":"hunter2"}}}"#,
            r#"{"auths":{"r.example":"hunter2"}}"#,
            "hunter2",
        ] {
            let error = find(json, "r.example/app").await.unwrap_err();
            assert!(matches!(error, RegistryError::CredentialFile { .. }), "{json}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn an_identity_token_is_told_from_a_password() {
        let dir = TestDir::new("identity");
        let json = r#"{"auths":{"r.example":{"auth":"dTo=","identitytoken":"t"}}}"#;
        std::fs::write(dir.path().join(FILE_NAME), json).unwrap();
        let store = CredentialStore::new(Some(dir.path().to_owned()));
        let found = store.find_for_host("r.example").await.unwrap().unwrap();
        assert_eq!((found.is_identity_token, found.secret.expose()), (true, "t"));
        assert_eq!(store.find_for_host("other.example").await.unwrap(), None);
    }
}
