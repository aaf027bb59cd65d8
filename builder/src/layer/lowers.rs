//! The layers below one as the overlay shows them together: what a whiteout or an opaque directory hides is not there.

use super::extract::OPAQUE_XATTR;
use crate::beneath::{Dir, FileError, kind};
use rustix::fs::{FileType, Stat};
use std::ffi::OsStr;
use std::path::Path;

type Result<T> = std::result::Result<T, FileError>;

/// Tells whether a node is what the overlay takes for a deletion.
#[must_use]
pub fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Tells whether a directory of a layer hides what the layers below have in it.
///
/// # Errors
/// When its attributes cannot be read.
pub fn is_opaque(dir: &Dir) -> Result<bool> {
    let value = dir.xattr(OsStr::new(""), OsStr::new(OPAQUE_XATTR))?;
    Ok(value.is_some_and(|value| value == b"y"))
}

/// Tells whether `lowers`, uppermost first, show a directory at `path`.
///
/// # Errors
/// When a lookup fails.
pub fn has_directory(lowers: &[Dir], path: &Path) -> Result<bool> {
    Ok(!merged(lowers, path)?.is_empty())
}

/// Finds what `lowers`, uppermost first, show at `path`, links not followed: gives its metadata, and the directory of a layer that holds it.
///
/// # Errors
/// When a lookup fails.
pub fn find(lowers: &[Dir], path: &Path) -> Result<Option<(Dir, Stat)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    for dir in merged(lowers, parent)? {
        if let Some(stat) = dir.metadata(name)? {
            return Ok(Some((dir, stat)).filter(|(_, stat)| !is_whiteout(stat)));
        }
    }
    Ok(None)
}

/// Opens the directories that together are the one at `path`.
fn merged(lowers: &[Dir], path: &Path) -> Result<Vec<Dir>> {
    let top = |lower: &Dir| lower.plain_dir(Path::new(""));
    let mut dirs: Vec<Dir> = lowers.iter().map(top).collect::<Result<_>>()?;
    for name in path.iter() {
        let mut inside = Vec::new();
        for dir in &dirs {
            match dir.metadata(name)? {
                None => {}
                Some(stat) if kind(&stat) == FileType::Directory => {
                    let found = dir.plain_dir(Path::new(name))?;
                    let hides = is_opaque(&found)?;
                    inside.push(found);
                    if hides {
                        break;
                    }
                }
                Some(_) => break,
            }
        }
        dirs = inside;
    }
    Ok(dirs)
}
