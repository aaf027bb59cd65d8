//! Other forms of a built image: its files in a directory or a tar.

use crate::beneath::{Dir, FileError, Owner};
use crate::layer::extract;
use crate::layer::tar::TarWriter;
use crate::rootfs::diff::{self, DiffError};
use std::io::{self, Write};
use std::path::Path;

/// Tells why an output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The archive could not be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    /// A file could not be read or made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The files could not be read.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// The destination directory could not be filled.
    #[error(transparent)]
    Extract(#[from] extract::ExtractError),
}

type Result<T> = std::result::Result<T, OutputError>;

/// Writes a root file system as a tar.
///
/// # Errors
/// When reading or writing fails.
pub fn tar(rootfs: &Path, epoch: i64, out: impl Write) -> Result<()> {
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(256 << 10, out));
    let options = diff::Options {
        epoch: Some(epoch),
        leave_out: &[],
        whiteouts: false,
        lowers: &[],
    };
    diff::write(&Dir::open(rootfs)?, &mut tar, &options)?;
    tar.finish()
        .map_err(OutputError::Write)?
        .flush()
        .map_err(OutputError::Write)
}

/// Copies a root file system into a directory; `owner` is given to everything (docker's client owns what it receives).
///
/// # Errors
/// When reading or writing fails.
pub fn local(rootfs: &Path, epoch: i64, destination: &Path, owner: Owner) -> Result<()> {
    std::fs::create_dir_all(destination).map_err(|e| FileError::new("create directory", destination, e))?;
    let root = Dir::open(destination)?;
    let (read, write) = io::pipe().map_err(OutputError::Write)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || tar(rootfs, epoch, write));
        let options = extract::Options {
            layer: false,
            owner: Some(owner),
            lowers: &[],
        };
        let extracted = extract::extract(read, &root, &options);
        let written = writing
            .join()
            .unwrap_or_else(|_| Err(OutputError::Write(io::Error::other("the writing thread ended early"))));
        // When unpacking failed the writer only saw a closed pipe.
        extracted?;
        written
    })
}
