//! The copy of selected files, which neither reads nor writes through a symbolic link.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::ArtifactsError;
use super::select::Chosen;
use crate::error::FileError;

/// Copies the files and gives their paths below `destination`.
pub(super) fn copy(chosen: &Chosen, source: &Path, destination: &Path) -> Result<Vec<String>, ArtifactsError> {
    fs::create_dir_all(destination).map_err(FileError::at("create", destination))?;
    let mut copied = Vec::new();
    for (name, place) in chosen {
        debug_assert!(place.starts_with(source), "selection stays below the source");
        let target = prepare(destination, name)?;
        copy_file(place, &target)?;
        copied.push(name.clone());
    }
    Ok(copied)
}

/// Makes the directories above `name`, refusing a link among them: the build may have put one where the artifacts go.
fn prepare(destination: &Path, name: &str) -> Result<PathBuf, ArtifactsError> {
    let mut path = destination.to_owned();
    let mut parts = name.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => return Err(ArtifactsError::LinkInTheWay(path.display().to_string())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if parts.peek().is_some() {
                    fs::create_dir(&path).map_err(FileError::at("create", &path))?;
                }
            }
            Err(error) => return Err(FileError::at("read", &path)(error).into()),
        }
    }
    Ok(path)
}

fn copy_file(from: &Path, to: &Path) -> Result<(), ArtifactsError> {
    let no_follow = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow)
        .open(from)
        .map_err(FileError::at("open", from))?;
    let mode = reader
        .metadata()
        .map_err(FileError::at("read", from))?
        .permissions()
        .mode()
        & 0o777;
    // A file of an earlier run is replaced, not written into: it may have another name elsewhere.
    match fs::remove_file(to) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::at("replace", to)(error).into()),
    }
    let mut writer: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode | 0o200)
        .custom_flags(no_follow)
        .open(to)
        .map_err(FileError::at("create", to))?;
    io::copy(&mut reader, &mut writer).map_err(FileError::at("write", to))?;
    Ok(())
}
