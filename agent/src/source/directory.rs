//! A directory as source: a copy in which links stay links, so that nothing outside is read.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::SourceError;
use crate::error::FileError;

/// Files and directories of a source at most.
const MAX_ENTRIES: usize = 2_000_000;

/// Copies `from` to `to`. Sockets, pipes and devices are left out, as git and every archive leave them out.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), SourceError> {
    let real = from
        .canonicalize()
        .map_err(FileError::at("open the source directory", from))?;
    let mut entries = 0;
    copy_directory(&real, to, &mut entries)
}

fn copy_directory(from: &Path, to: &Path, entries: &mut usize) -> Result<(), SourceError> {
    DirBuilder::new()
        .mode(0o700)
        .create(to)
        .map_err(FileError::at("create", to))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(FileError::at("read", from))? {
        names.push(entry.map_err(FileError::at("read", from))?);
    }
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        *entries += 1;
        if *entries > MAX_ENTRIES {
            return Err(SourceError::TooMany(MAX_ENTRIES));
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(FileError::at("read", &source))?;
        if kind.is_dir() {
            copy_directory(&source, &target, entries)?;
        } else if kind.is_symlink() {
            let destination = fs::read_link(&source).map_err(FileError::at("read", &source))?;
            symlink(destination, &target).map_err(FileError::at("create", &target))?;
        } else if !(kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()) {
            copy_file(&source, &target)?;
        }
    }
    let permissions = fs::metadata(from).map_err(FileError::at("read", from))?.permissions();
    // The owner must be able to write and to remove what the job will work in.
    let mode = fs::Permissions::from_mode((permissions.mode() & 0o777) | 0o700);
    fs::set_permissions(to, mode).map_err(FileError::at("set the mode of", to))?;
    Ok(())
}

fn copy_file(source: &Path, target: &Path) -> Result<(), SourceError> {
    fs::copy(source, target).map_err(FileError::at("copy", source))?;
    // Times are kept: make and its like decide by them what to build.
    let modified = fs::metadata(source)
        .and_then(|found| found.modified())
        .map_err(FileError::at("read", source))?;
    let touched = File::open(target).and_then(|file| file.set_times(FileTimes::new().set_modified(modified)));
    touched.map_err(FileError::at("set the time of", target))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn links_stay_links_and_modes_stay() {
        let scratch = Scratch::new().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/run"), "x").unwrap();
        fs::set_permissions(from.join("a/run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc", from.join("etc")).unwrap();
        symlink("a/run", from.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_link(to.join("etc")).unwrap(), Path::new("/etc"));
        assert_eq!(fs::read(to.join("link")).unwrap(), b"x");
        assert_eq!(
            fs::metadata(to.join("a/run")).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert!(to.join("a/b").is_dir() && !to.join("socket").exists());
        assert!(copy(&from, &to).is_err(), "a destination that exists");
        assert!(copy(&from.join("none"), &scratch.path().join("x")).is_err());
    }
}
