//! An archive as a build context.

use super::RemoteError;
use crate::beneath::Dir;
use crate::layer::extract::{self, ExtractError};
use crate::layer::limits::Limits;
use crate::layer::read::TarReader;
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

/// Unpacks `archive` below `directory`, whatever its compression; `false` when it is no archive. Owners and modes stay as they are.
///
/// # Errors
/// When it is damaged or larger than `limits`, or an entry is one that no honest archive holds.
pub fn unpack(archive: &Path, directory: &Path, limits: Limits) -> Result<bool, RemoteError> {
    let failed = |source: ExtractError| RemoteError::Archive {
        what: archive.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        source: Box::new(source),
    };
    let damaged = |error| failed(ExtractError::Archive(error));
    let mut file = File::open(archive).map_err(damaged)?;
    if !extract::is_archive(&file).map_err(damaged)? {
        return Ok(false);
    }
    file.rewind().map_err(damaged)?;
    let stream = extract::decompress(file).map_err(damaged)?;
    let options = extract::Options {
        limits,
        ..extract::Options::default()
    };
    extract::extract(stream, &Dir::open(directory)?, &options).map_err(failed)?;
    Ok(true)
}

/// Finds the time of the newest entry of an archive, in seconds since 1970.
///
/// # Errors
/// When it is damaged.
pub fn newest(archive: &Path) -> io::Result<Option<i64>> {
    let mut entries = TarReader::new(extract::decompress(File::open(archive)?)?);
    let mut newest = None;
    while let Some(entry) = entries.next_entry()? {
        newest = newest.max(Some(entry.mtime));
    }
    Ok(newest)
}
