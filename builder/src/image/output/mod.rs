//! Other forms of what was built: its files in a directory or a tar.

mod delete;

pub use delete::keep_only;

use crate::beneath::{Dir, FileError, Owner, kind};
use crate::layer::extract;
use crate::layer::limits::Limits;
use crate::layer::tar::{EntryHeader, TarWriter};
use crate::rootfs::diff::{self, DEFAULT_EPOCH, DiffError, MAX_DEPTH};
use rustix::fs::FileType;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    /// Two platforms have files of one name, and no directories of their own.
    #[error("cannot write `/{}` of {second} over that of {first}: `platform-split=false` needs other names", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Who came first.
        first: String,
        /// Who came next.
        second: String,
    },
}

type Result<T> = std::result::Result<T, OutputError>;

/// A root file system, mounted for reading.
#[derive(Debug)]
pub struct Root<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// What it is called in messages.
    pub name: String,
    /// The directory of the output that it goes into; empty for the top.
    pub below: PathBuf,
}

/// Writes root file systems as one tar. With an epoch, no time is later; without, the times are those of the image.
///
/// # Errors
/// `Twice` when two have a file of one name; when reading or writing fails.
pub fn tar(roots: &[Root<'_>], epoch: Option<i64>, out: impl Write) -> Result<()> {
    check_names(roots)?;
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(256 << 10, out));
    for root in roots {
        if !root.below.as_os_str().is_empty() {
            directory(&root.below, epoch, &mut tar)?;
        }
        let options = diff::Options {
            epoch,
            read_only: true,
            below: root.below.clone(),
            // An image of many layers may be larger than any of them.
            limits: Limits::NONE,
            ..diff::Options::default()
        };
        diff::write(&Dir::open(root.path)?, &mut tar, &options)?;
    }
    tar.finish()
        .map_err(OutputError::Write)?
        .flush()
        .map_err(OutputError::Write)
}

/// Writes the entry of a platform's own directory.
fn directory(path: &Path, epoch: Option<i64>, tar: &mut TarWriter<impl Write>) -> Result<()> {
    let header = EntryHeader {
        path,
        file_type: FileType::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: epoch.unwrap_or(DEFAULT_EPOCH),
        device: 0,
        target: None,
        hard_link: None,
        xattrs: &[],
    };
    tar.append(&header, &mut io::empty()).map_err(OutputError::Write)
}

/// Checks that no file of one root stands in the place of another's. Directories may be those of several.
fn check_names(roots: &[Root<'_>]) -> Result<()> {
    let mut names: HashMap<PathBuf, usize> = HashMap::new();
    let shared = |root: &Root<'_>| roots.iter().filter(|other| other.below == root.below).count() > 1;
    for (at, root) in roots.iter().enumerate().filter(|(_, root)| shared(root)) {
        let dir = Dir::open(root.path)?;
        walk(&dir, Path::new(""), &mut |path, is_directory| {
            let path = root.below.join(path);
            match names.get(&path) {
                Some(first) if *first != at => Err(OutputError::Twice {
                    path,
                    first: roots[*first].name.clone(),
                    second: root.name.clone(),
                }),
                Some(_) => Ok(()),
                None if is_directory => Ok(()),
                None => {
                    names.insert(path, at);
                    Ok(())
                }
            }
        })?;
    }
    Ok(())
}

/// Shows every path of a tree, and whether it is a directory.
fn walk(root: &Dir, path: &Path, show: &mut impl FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    if path.iter().count() > MAX_DEPTH {
        return Err(DiffError::TooDeep.into());
    }
    let dir = root.plain_dir(path)?;
    for name in dir.names()? {
        let Some(stat) = dir.metadata(&name)? else { continue };
        let (full, is_directory) = (path.join(&name), kind(&stat) == FileType::Directory);
        show(&full, is_directory)?;
        if is_directory {
            walk(root, &full, show)?;
        }
    }
    Ok(())
}

/// Copies root file systems into a directory; `owner` is given to everything (docker's client owns what it receives).
///
/// # Errors
/// As [`tar`]; when a file cannot be made.
pub fn local(roots: &[Root<'_>], epoch: Option<i64>, destination: &Path, owner: Owner) -> Result<()> {
    check_names(roots)?;
    std::fs::create_dir_all(destination).map_err(|e| FileError::new("create directory", destination, e))?;
    let root = Dir::open(destination)?;
    let (read, write) = io::pipe().map_err(OutputError::Write)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || tar(roots, epoch, write));
        let options = extract::Options {
            form: extract::Form::Archive,
            owner: Some(owner),
            lowers: &[],
            limits: Limits::NONE,
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
