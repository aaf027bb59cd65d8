//! What all files of an unpacked layer look like, in one digest: it tells whether somebody has written to them since.
//!
//! Contents are not read. A file that is written to, replaced, given another mode or another attribute gets a new change time, which
//! nobody can set.

use crate::beneath::{Dir, FileError, kind};
use roadstead_registry_client::{Digest, DigestWriter};
use rustix::fs::{FileType, Stat};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;

/// What a tree looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Digest of what every file looks like.
    pub(super) digest: Digest,
    /// Bytes that its files take, about.
    pub(super) size: u64,
}

/// Size of a directory, and what sizes of files are multiples of, about.
const BLOCK: u64 = 4096;

/// Walks what lies below `root` in byte order. The root's own times don't count, since a rename into its place changes them.
///
/// # Errors
/// When a directory cannot be read.
pub(super) fn of(root: &Dir) -> Result<Fingerprint, FileError> {
    let mut size = 0_u64;
    let mut digest = DigestWriter::new(std::io::sink());
    let mut add = |bytes: &[u8]| {
        // A sink takes everything.
        drop(digest.write_all(bytes));
    };
    if let Some(top) = root.metadata(OsStr::new(""))? {
        add(&numbers(&[top.st_mode.into(), top.st_uid.into(), top.st_gid.into()]));
    }
    // Paths in place of open directories: their number would be bounded by that of a process's files.
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let dir = root.plain_dir(&path)?;
        let names = dir.names()?;
        add(&numbers(&[names.len() as u64]));
        for name in names {
            add(&numbers(&[name.len() as u64]));
            add(name.as_encoded_bytes());
            let Some(stat) = dir.metadata(&name)? else { continue };
            add(&looks(&stat));
            size = size.saturating_add(stat.st_size.cast_unsigned().next_multiple_of(BLOCK));
            if kind(&stat) == FileType::Directory {
                open.push(path.join(&name));
            }
        }
    }
    Ok(Fingerprint {
        digest: digest.finish().1,
        size,
    })
}

fn looks(stat: &Stat) -> Vec<u8> {
    let mut all = vec![
        u64::from(stat.st_mode),
        u64::from(stat.st_uid),
        u64::from(stat.st_gid),
        stat.st_rdev,
        stat.st_mtime.cast_unsigned(),
        stat.st_mtime_nsec,
        stat.st_ctime.cast_unsigned(),
        stat.st_ctime_nsec,
    ];
    // Some file systems give directories other sizes and numbers each time they are mounted.
    if kind(stat) != FileType::Directory {
        all.extend([stat.st_size.cast_unsigned(), stat.st_ino]);
    }
    numbers(&all)
}

fn numbers(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    fn fingerprint(path: &Path) -> Fingerprint {
        of(&Dir::open(path).unwrap()).unwrap()
    }

    #[test]
    fn any_change_shows_and_a_rename_of_the_whole_does_not() {
        let base = std::env::temp_dir().join(format!("roadstead-fingerprint-{}", std::process::id()));
        let tree = base.join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "content").unwrap();
        std::os::unix::fs::symlink("file", tree.join("a/b/link")).unwrap();
        let moved = base.join("moved");
        let before = fingerprint(&tree);
        std::fs::rename(&tree, &moved).unwrap();
        assert_eq!(fingerprint(&moved), before);
        let file = moved.join("a/b/file");
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |file| {
                // Another byte, and the modification time set back.
                let modified = std::fs::metadata(file).unwrap().modified().unwrap();
                std::fs::write(file, "c0ntent").unwrap();
                let file = std::fs::File::options().write(true).open(file).unwrap();
                file.set_modified(modified).unwrap();
            },
            |file| {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700)).unwrap();
            },
            |file| std::fs::write(file.with_file_name("new"), "").unwrap(),
            |file| std::fs::remove_file(file).unwrap(),
        ];
        let mut last = before;
        for (number, change) in changes.iter().enumerate() {
            // The clock of change times ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            change(&file);
            let now = fingerprint(&moved);
            assert_ne!(now, last, "change {number}");
            last = now;
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
