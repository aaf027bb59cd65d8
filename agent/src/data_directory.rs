//! The data directory: made for its owner alone, and used by nobody else.

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use roadstead_builder::beneath::FileError;
use roadstead_builder::rootfs::scratch::private_dir;
use roadstead_builder::sandbox::user_name;
use roadstead_registry_client::{Error, Store};

use crate::environment;
use crate::error::CliError;

/// Blobs of private images lie below, and whoever can open the file of a lock can stop every build.
const PRIVATE: u32 = 0o700;
/// Bits that let others write.
const OTHERS_WRITE: u32 = 0o022;
/// Parts that once were made for everybody to read.
const ONCE_OPEN: [&str; 2] = ["store", "cache"];
const PARTS: [&str; 7] = ["store", "cache", "layers", "cache-mounts", "contexts", "inputs", "tmp"];
/// What else may lie in a directory that serves nothing but this; names of the queue's files begin with `queue.db`.
const BESIDE: [&str; 3] = ["jobs", "ecr-tokens", "lost+found"];

/// Why nobody should build with what is in a directory.
#[derive(Debug)]
enum Unsafe {
    /// It belongs to somebody else.
    Foreign { owner: u32, user: u32 },
    /// Others can write to it, and it may be meant for them.
    Shared,
}

impl std::error::Error for Unsafe {}

impl fmt::Display for Unsafe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { owner, user } => {
                write!(formatter, "it belongs to {}, not to {}", shown(*owner), shown(*user))
            }
            Self::Shared => formatter.write_str("other users can write to it, and it holds other things, too"),
        }
    }
}

fn shown(user: u32) -> String {
    match user_name(user) {
        Some(name) => format!("user {user} ({name})"),
        None => format!("user {user}"),
    }
}

/// Makes the data directory where there is none, closes it to others, and gives its path.
///
/// # Errors
/// When it or a part of it belongs to another user, who could change what is built; when it cannot be made or closed.
pub(crate) fn open() -> Result<PathBuf, FileError> {
    let data = environment::data_directory();
    private_dir(&data)?;
    close_top(&data)?;
    for part in ONCE_OPEN {
        private_dir(&data.join(part))?;
    }
    for part in PARTS {
        let path = data.join(part);
        match own(&path) {
            Ok(found) if ONCE_OPEN.contains(&part) => close(&path, &found)?,
            Err(error) if error.source.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(data)
}

/// Opens the local store, as `roadstead build` uses it.
///
/// # Errors
/// As for [`open`], and when it is no store.
pub(crate) fn store() -> Result<Store, Error> {
    let data = open().map_err(|error| Error::Io {
        operation: error.operation,
        path: error.path,
        source: error.source,
    })?;
    Store::open(&data.join("store"))
}

/// Makes the failure one that is shown, with what can be done about it.
pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    let is_unsafe = is_unsafe(&error);
    let failed = CliError::failed(error);
    match is_unsafe {
        true => {
            failed.hint("give it to the user who builds (`chown -R`), or let ROADSTEAD_DATA name another directory")
        }
        false => failed,
    }
}

fn is_unsafe(error: &dyn std::error::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.get_ref().is_some_and(|inner| inner.is::<Unsafe>()))
}

/// A directory that serves other things as well, such as `/tmp`, keeps its mode: its parts are closed.
fn close_top(data: &Path) -> Result<(), FileError> {
    let found = own(data)?;
    if holds_nothing_else(data)? {
        return close(data, &found);
    }
    match found.mode() & OTHERS_WRITE {
        0 => Ok(()),
        _ => Err(FileError::new("use", data, io::Error::other(Unsafe::Shared))),
    }
}

fn holds_nothing_else(data: &Path) -> Result<bool, FileError> {
    let failed = |error| FileError::new("read", data, error);
    for entry in fs::read_dir(data).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let known = |name: &str| PARTS.contains(&name) || BESIDE.contains(&name) || name.starts_with("queue.db");
        if !name.to_str().is_some_and(known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Looks at a directory that must be the user's own. In a user namespace the user outside has the same id as the process.
fn own(path: &Path) -> Result<Metadata, FileError> {
    let found = fs::metadata(path).map_err(|error| FileError::new("look at", path, error))?;
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    match owner == user {
        true => Ok(found),
        false => {
            let foreign = io::Error::other(Unsafe::Foreign { owner, user });
            Err(FileError::new("use", path, foreign))
        }
    }
}

fn close(path: &Path, found: &Metadata) -> Result<(), FileError> {
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
        // Nothing will be written there; whoever needs that finds out.
        Err(error) if error.kind() != io::ErrorKind::ReadOnlyFilesystem => {
            Err(FileError::new("change the mode of", path, error))
        }
        _ => Ok(()),
    }
}
