//! Tokens of Amazon ECR, got because of a host's name when nobody has logged in, and kept while they live.
//!
//! They are kept in memory and, where a directory is given, on disk for other processes. A token is good for what its AWS
//! caller may do, so a file is found only by who knows the caller, the endpoint and the registry.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Credential;
use crate::digest::Digest;
use crate::ecr::{self, Asker};
use crate::error::{RegistryError, Result};
use crate::secret::Secret;

/// A token is renewed this long before its end, so that an upload that has begun can finish.
const RENEWAL_MARGIN: Duration = Duration::from_secs(15 * 60);
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_LIMIT: u64 = 64 * 1024;
const LOCK_POLL: Duration = Duration::from_millis(20);
/// A holder that hangs must not stop everybody: after this time the token is got without the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(70);

/// Keeps a token for each caller, region and account. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct EcrTokens {
    directory: Option<PathBuf>,
    /// By host. `None`: ECR Public without AWS credentials.
    known: Arc<Mutex<HashMap<String, Option<Credential>>>>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    user: String,
    password: String,
    /// Seconds since 1970.
    expires_at: u64,
}

impl EcrTokens {
    /// Shares tokens with other processes by a directory.
    pub(super) fn in_directory(directory: PathBuf) -> Self {
        Self {
            directory: Some(directory),
            ..Self::default()
        }
    }

    /// Gets a token when the host is a registry of Amazon ECR. ECR Public needs none: failing to get one is no error.
    pub(super) async fn find(&self, host: &str, ca: Option<&Path>) -> Result<Option<Credential>> {
        let private = ecr::parse_host(host);
        if private.is_none() && !ecr::is_public(host) {
            return Ok(None);
        }
        // Held while AWS is asked: others who wait get the same token.
        let mut known = self.known.lock().await;
        match known.get(host) {
            Some(Some(credential)) if is_fresh(credential) => return Ok(Some(credential.clone())),
            Some(None) => return Ok(None),
            _ => {}
        }
        let found = match &private {
            Some(registry) => Some(self.get(&Asker::private(registry, ca).await?).await?),
            None => self.get_public(ca).await,
        };
        known.insert(host.to_owned(), found.clone());
        Ok(found)
    }

    async fn get_public(&self, ca: Option<&Path>) -> Option<Credential> {
        let got = match Asker::public(ca).await {
            Ok(Some(asker)) => self.get(&asker).await,
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        got.inspect_err(|error| tracing::debug!(%error, "no token for ECR Public"))
            .ok()
    }

    async fn get(&self, asker: &Asker) -> Result<Credential> {
        let Some(directory) = &self.directory else {
            return fetch(asker).await;
        };
        let path = directory.join(Digest::of(asker.key.as_bytes()).hex());
        let lock = match prepare(directory).and_then(|()| open_lock(&path)) {
            Ok(lock) => lock,
            // A directory that cannot be written costs a call, not a push.
            Err(error) => {
                tracing::debug!(%error, "tokens are not kept");
                return fetch(asker).await;
            }
        };
        wait_for(&lock).await;
        if let Some(credential) = read(&path).filter(is_fresh) {
            return Ok(credential);
        }
        let credential = fetch(asker).await?;
        if let Err(error) = write(&path, &credential) {
            tracing::debug!(%error, "a token is not kept");
        }
        drop(lock);
        Ok(credential)
    }
}

fn is_fresh(credential: &Credential) -> bool {
    credential
        .expires_at
        .is_some_and(|end| SystemTime::now() + RENEWAL_MARGIN < end)
}

async fn fetch(asker: &Asker) -> Result<Credential> {
    let token = asker.token().await?;
    Ok(Credential {
        user: token.user,
        secret: token.password,
        is_identity_token: false,
        expires_at: Some(token.expires_at),
    })
}

fn prepare(directory: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(DIRECTORY_MODE).create(directory);
    made.map_err(|error| RegistryError::io("create", directory, error))
}

fn open_lock(path: &Path) -> Result<File> {
    let path = path.with_extension("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&path);
    file.map_err(|error| RegistryError::io("open", &path, error))
}

/// Waits for the lock so that a build that is stopped meanwhile ends at once.
async fn wait_for(lock: &File) {
    let mut waited = Duration::ZERO;
    while lock.try_lock().is_err() && waited < LOCK_PATIENCE {
        tokio::time::sleep(LOCK_POLL).await;
        waited += LOCK_POLL;
    }
}

/// A file that others could have written or read is no token of ours.
fn read(path: &Path) -> Option<Credential> {
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    let own = fs::metadata("/proc/self").ok()?;
    if meta.mode() & 0o077 != 0 || meta.uid() != own.uid() {
        tracing::warn!(path = %path.display(), "a kept token is not for its owner alone, and is not used");
        return None;
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes).ok()?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    Some(Credential {
        user: kept.user,
        secret: Secret::new(kept.password),
        is_identity_token: false,
        expires_at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(kept.expires_at)),
    })
}

fn write(path: &Path, credential: &Credential) -> Result<()> {
    let since = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let kept = Kept {
        user: credential.user.clone(),
        password: credential.secret.expose().to_owned(),
        expires_at: credential.expires_at.map_or(0, since),
    };
    let text = serde_json::to_vec(&kept).expect("strings and numbers always serialise");
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        // What a dead process of the same id left may have another mode.
        if temporary.exists() {
            fs::remove_file(&temporary)?;
        }
        let mut file = File::options()
            .create_new(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        file.write_all(&text)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| RegistryError::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_kept_token_is_the_owner_s_alone() {
        let dir = TestDir::new("tokens");
        let path = dir.path().join("key");
        let credential = Credential {
            user: "AWS".to_owned(),
            secret: Secret::new("hunter2"),
            is_identity_token: false,
            expires_at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(4_000_000_000)),
        };
        write(&path, &credential).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path), Some(credential.clone()));
        assert!(is_fresh(&credential));
        for mode in [0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path), None, "{mode:o}");
        }
        fs::write(&path, "{").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path), None);
    }
}
