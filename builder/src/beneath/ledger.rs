//! What files are to be in an image, where they cannot be made so on this disk.
//!
//! A device that a base layer brings must not come into existence where nothing guards it: a socket nobody listens on stands for it.
//! And who may give files to nobody else writes down whose they are, with modes that would lock the builder out and attributes that only
//! root may set. Files below the directories that were named once ([`record`]) look, through [`super::Dir`], as it is written.

use super::Owner;
use rustix::fs::{FileType, Mode, RawMode, Stat};
use rustix::thread::CapabilitySet;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, PoisonError, RwLock};

/// Character devices that are the same everywhere and hold nothing: null, zero, full, random, urandom, tty, console and ptmx.
const HARMLESS: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// Bits of a mode that are no kind.
const PERMISSIONS: RawMode = 0o7777;

/// What is written down rather than done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recording {
    /// Devices that could do harm, or that cannot be made.
    Devices,
    /// These, and whatever only root may do.
    Everything,
}

/// Device and inode.
pub(super) type Id = (u64, u64);

/// What is written of one file. What is not, is as on the disk, or root's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: Option<u16>,
    /// What it stands for: its kind, its device number, and when the socket was made.
    pub(super) node: Option<(RawMode, u64, Born)>,
    /// `security.capability`.
    pub(super) capability: Option<Box<[u8]>>,
}

/// When a file was made, where the file system knows that: a socket that somebody else has made later is one.
pub(super) type Born = (i64, u32);

#[derive(Debug, Default)]
struct Ledger {
    roots: Vec<(PathBuf, Recording)>,
    lines: HashMap<Id, Line>,
}

static LEDGER: LazyLock<RwLock<Ledger>> = LazyLock::new(RwLock::default);

/// Has what is done below `root` recorded as far as it cannot be done. Counts for directories opened from then on.
pub fn record(root: &Path) {
    let what = match owns_files() {
        true => Recording::Devices,
        false => Recording::Everything,
    };
    let mut ledger = LEDGER.write().unwrap_or_else(PoisonError::into_inner);
    ledger.roots.retain(|(known, _)| known != root);
    ledger.roots.push((root.to_owned(), what));
}

/// Tells whether this process may make files of any owner and mode.
fn owns_files() -> bool {
    let needed = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Tells what is recorded below a path.
pub(super) fn recording(path: &Path) -> Option<Recording> {
    let ledger = LEDGER.read().unwrap_or_else(PoisonError::into_inner);
    let found = ledger.roots.iter().find(|(root, _)| path.starts_with(root));
    found.map(|(_, what)| *what)
}

pub(super) fn line(id: Id) -> Option<Line> {
    let ledger = LEDGER.read().unwrap_or_else(PoisonError::into_inner);
    ledger.lines.get(&id).cloned()
}

/// Changes what is written of a file. A line that says nothing is none.
pub(super) fn write(id: Id, change: impl FnOnce(&mut Line)) {
    let mut ledger = LEDGER.write().unwrap_or_else(PoisonError::into_inner);
    let mut line = ledger.lines.remove(&id).unwrap_or_default();
    change(&mut line);
    if line != Line::default() {
        ledger.lines.insert(id, line);
    }
}

/// Tells whether a device may come into existence.
pub(super) fn is_harmless(kind: FileType, device: u64) -> bool {
    let number = (rustix::fs::major(device), rustix::fs::minor(device));
    // To the overlay the device 0:0 is a deletion.
    kind == FileType::CharacterDevice && (HARMLESS.contains(&number) || device == 0)
}

/// The mode that a file has on the disk, so that the builder can read and write it and nobody is given its rights.
pub(super) fn mode_on_disk(mode: RawMode, is_directory: bool) -> RawMode {
    (mode & 0o777) | if is_directory { 0o700 } else { 0o600 }
}

impl Line {
    pub(super) fn set_owner(&mut self, owner: Owner) {
        (self.uid, self.gid) = (owner.uid, owner.gid);
    }

    /// Makes metadata say what is written.
    pub(super) fn show(&self, what: Recording, stat: &mut Stat) {
        if what == Recording::Everything {
            (stat.st_uid, stat.st_gid) = (self.uid, self.gid);
            if let Some(mode) = self.mode {
                stat.st_mode = (stat.st_mode & !PERMISSIONS) | RawMode::from(mode);
            }
        }
        if let Some((kind, device, _)) = self.node {
            stat.st_mode = (stat.st_mode & PERMISSIONS) | kind;
            stat.st_rdev = device;
        }
    }
}

/// The bits of a mode that say what a file is.
pub(super) fn kind_bits(kind: FileType) -> RawMode {
    kind.as_raw_mode() & !PERMISSIONS
}

/// A mode without the bits that say what a file is.
pub(super) fn permissions(mode: RawMode) -> Mode {
    Mode::from_raw_mode(mode & PERMISSIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_hold_nothing_are_made() {
        let device = |major, minor| rustix::fs::makedev(major, minor);
        for harmless in [(1, 3), (5, 2), (0, 0)] {
            assert!(is_harmless(FileType::CharacterDevice, device(harmless.0, harmless.1)));
        }
        for other in [(1, 1), (8, 0), (10, 229)] {
            assert!(!is_harmless(FileType::CharacterDevice, device(other.0, other.1)));
        }
        assert!(!is_harmless(FileType::BlockDevice, device(1, 3)));
    }

    #[test]
    fn a_line_that_says_nothing_is_none() {
        let id = (u64::MAX, 1);
        write(id, |line| line.set_owner(Owner { uid: 5, gid: 6 }));
        assert_eq!(line(id).map(|line| (line.uid, line.gid)), Some((5, 6)));
        write(id, |line| line.set_owner(Owner { uid: 0, gid: 0 }));
        assert_eq!(line(id), None);
    }
}
