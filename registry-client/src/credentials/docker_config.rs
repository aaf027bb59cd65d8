//! Docker's `config.json`: who has the login to a registry.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Credential;
use crate::error::{RegistryError, Result};
use crate::secret::Secret;

pub(super) const FILE_NAME: &str = "config.json";
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Name of Docker Hub in an image's name.
const DOCKER_HUB: &str = "docker.io";
/// Key under which docker keeps the login to Docker Hub.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Docker's sign that the secret is an OAuth2 refresh token.
const TOKEN_USER: &str = "<token>";

/// What of docker's `config.json` matters here.
#[derive(Default, Deserialize)]
pub(super) struct DockerConfig {
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

    pub(super) fn look_up<'a>(&self, host: &'a str, repository: Option<&str>, path: &Path) -> Result<Stored<'a>> {
        let server = if host == DOCKER_HUB { DOCKER_HUB_KEY } else { host };
        let keys = keys_by_length(host, repository);
        let helper = keys
            .iter()
            .map(String::as_str)
            .chain([server])
            .find_map(|key| self.helpers.get(key));
        if let Some(helper) = helper {
            let name = helper.clone();
            return Ok(Stored::Helper { name, server });
        }
        for key in keys {
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

pub(super) fn read_config(path: &Path) -> Result<DockerConfig> {
    match read_file(path)? {
        Some(bytes) => DockerConfig::parse(&bytes, path),
        None => Ok(DockerConfig::default()),
    }
}

pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
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

pub(super) fn parse_reason(error: &serde_json::Error) -> String {
    format!("it is not valid at line {} column {}", error.line(), error.column())
}

pub(super) fn file_error(path: &Path, message: String) -> RegistryError {
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
pub(super) fn normal_key(key: &str) -> String {
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

pub(super) fn credential(user: String, password: String, identity: Option<String>) -> Credential {
    let is_identity_token = identity.is_some() || user == TOKEN_USER;
    Credential {
        user,
        secret: Secret::new(identity.unwrap_or(password)),
        is_identity_token,
        expires_at: None,
    }
}
