//! `docker login` and `docker logout`: writing docker's `config.json`.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::docker_config::{DOCKER_HUB_KEY, FILE_NAME, file_error, normal_key, parse_reason, read_file};
use crate::error::{RegistryError, Result};
use crate::reference::is_registry;
use crate::secret::Secret;

/// Only the owner reads passwords.
const FILE_MODE: u32 = 0o600;
const LOCK_FILE: &str = ".config.json.lock";
const TEMPORARY_FILE: &str = ".config.json.new";

/// Keeps a login in `dir/config.json`, as docker does; other content of the file stays.
///
/// The login is not checked here: `Client::ping_login` does that.
///
/// # Errors
/// `Io` or `CredentialFile` when the file cannot be read or written, `InvalidReference` when `registry` is not a host.
pub fn login(dir: &Path, registry: &str, user: &str, secret: &Secret) -> Result<()> {
    let key = key_of(registry)?;
    if user.is_empty() || user.contains(':') {
        return Err(file_error(
            &dir.join(FILE_NAME),
            "a user name is not empty and has no colon".to_owned(),
        ));
    }
    let auth = STANDARD.encode(format!("{user}:{}", secret.expose()));
    change(dir, |auths| {
        auths.retain(|name, _| normal_key(name) != normal_key(&key));
        auths.insert(key, serde_json::json!({ "auth": auth }));
        true
    })?;
    Ok(())
}

/// Removes a login from `dir/config.json`. Returns whether there was one.
///
/// # Errors
/// As for [`login`].
pub fn logout(dir: &Path, registry: &str) -> Result<bool> {
    let key = key_of(registry)?;
    change(dir, |auths| {
        let before = auths.len();
        auths.retain(|name, _| normal_key(name) != normal_key(&key));
        auths.len() < before
    })
}

/// Docker keeps its own hub under a URL, and all others under `host[:port]`.
fn key_of(registry: &str) -> Result<String> {
    let key = normal_key(registry);
    let (host, path) = key.split_once('/').unwrap_or((&key, ""));
    if !is_registry(host) || !path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        return Err(RegistryError::InvalidReference {
            text: crate::digest::shorten(registry),
            reason: "a registry is a host name with an optional port",
        });
    }
    Ok(if key == "docker.io" {
        DOCKER_HUB_KEY.to_owned()
    } else {
        key
    })
}

fn change(dir: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool> {
    fs::create_dir_all(dir).map_err(|error| RegistryError::io("create", dir, error))?;
    let lock = lock(dir)?;
    let path = dir.join(FILE_NAME);
    let mut config = match read_file(&path)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| file_error(&path, parse_reason(&error)))?,
        None => Value::Object(Map::new()),
    };
    let shape = || file_error(&path, "it is not a JSON object with an object `auths`".to_owned());
    let auths = config
        .as_object_mut()
        .ok_or_else(shape)?
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()));
    let changed = change(auths.as_object_mut().ok_or_else(shape)?);
    if changed {
        write(dir, &path, &config)?;
    }
    drop(lock);
    Ok(changed)
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&path);
    let file = file.map_err(|error| RegistryError::io("open", &path, error))?;
    file.lock().map_err(|error| RegistryError::io("lock", &path, error))?;
    Ok(file)
}

/// Writes a new file and renames it, so that a reader never sees half a file. The caller holds the lock.
fn write(dir: &Path, path: &Path, config: &Value) -> Result<()> {
    let temporary = dir.join(TEMPORARY_FILE);
    let mut text = serde_json::to_vec_pretty(config).expect("a JSON value always serialises");
    text.push(b'\n');
    let write = || {
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        // The mode of an older file that was left behind would else stay.
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| RegistryError::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistriesConfig;
    use crate::credentials::{CredentialStore, Lookup};
    use crate::test_dir::TestDir;

    const ECR: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";

    #[tokio::test]
    async fn a_login_is_found_again_and_removed() {
        let dir = TestDir::new("login");
        fs::write(dir.path().join(FILE_NAME), r#"{"psFormat":"x"}"#).unwrap();
        login(dir.path(), &format!("https://{ECR}/"), "AWS", &Secret::new("old")).unwrap();
        login(dir.path(), ECR, "AWS", &Secret::new("pa:ss")).unwrap();
        login(dir.path(), "docker.io", "me", &Secret::new("x")).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&str> = json["auths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            (keys, json["psFormat"].as_str()),
            (vec![ECR, DOCKER_HUB_KEY], Some("x"))
        );
        let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = CredentialStore::new(Some(dir.path().to_owned()));
        let name = format!("{ECR}/app").parse().unwrap();
        let lookup = Lookup {
            name: &name,
            location: &RegistriesConfig::empty().locate(&name).unwrap(),
            ca: None,
        };
        let found = store.find(lookup).await.unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.secret.expose()), ("AWS", "pa:ss"));
        assert_eq!(
            (logout(dir.path(), ECR).unwrap(), logout(dir.path(), ECR).unwrap()),
            (true, false)
        );
    }

    #[test]
    fn what_is_not_a_registry_or_a_user_is_refused() {
        let dir = TestDir::new("login-bad");
        let secret = Secret::new("hunter2");
        for (registry, user) in [
            ("", "u"),
            ("a b", "u"),
            ("r.example", ""),
            ("r.example", "a:b"),
            ("../x", "u"),
        ] {
            let error = login(dir.path(), registry, user, &secret).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        fs::write(dir.path().join(FILE_NAME), "[]").unwrap();
        login(dir.path(), "r.example", "u", &secret).unwrap_err();
        assert_eq!(fs::read_to_string(dir.path().join(FILE_NAME)).unwrap(), "[]");
    }
}
