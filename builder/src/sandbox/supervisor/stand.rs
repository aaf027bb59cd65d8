//! Directories in the root that stand for those of /proc and /sys: a command that opened the kernel's could walk out of its root by
//! `..`. They hold names only; whatever is below them is answered by path.

use super::ids::as_user;
use super::paths::{Inside, Tree};
use super::tree::{Caller, World, is_masked, real};
use crate::beneath::{Dir, FileError, kind};
use rustix::fs::{FileType, Stat};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// Letters of a process's short name.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Length of a process's short name: that of `self`.
pub(super) const SHORT: usize = 4;

/// The stand-ins.
#[derive(Debug)]
pub(super) struct Stand {
    root: Dir,
    /// Whether there is one: before, no process can be in it.
    pub(super) is_used: bool,
}

enum Entry {
    File,
    Directory,
    Link(OsString),
}

impl Stand {
    pub(super) fn new(root: &Path) -> Result<Self, FileError> {
        Ok(Self {
            root: Dir::open(root)?,
            is_used: false,
        })
    }

    /// Makes the stand-in of a directory show what the kernel's holds now, and opens it.
    pub(super) fn show(&mut self, world: &World, caller: Caller, inside: &Inside) -> Result<Dir, FileError> {
        self.is_used = true;
        let dir = self.open(inside)?;
        let wanted = as_user(caller.owner, || entries(world, inside));
        let there: HashSet<OsString> = dir.names()?.into_iter().collect();
        for name in &there {
            if !wanted.get(name).is_some_and(|entry| is_there(&dir, name, entry)) {
                dir.remove_all(name)?;
            }
        }
        for (name, entry) in &wanted {
            if dir.metadata(name)?.is_none() {
                make(&dir, name, entry)?;
            }
        }
        Ok(dir)
    }

    /// What the stand-in looks like, opened by [`Self::show`] or not.
    pub(super) fn stat(&mut self, inside: &Inside) -> Result<Option<Stat>, FileError> {
        self.is_used = true;
        self.open(inside)?.metadata(OsStr::new(""))
    }

    /// Opens it; makes what is missing. No link that the command may have put there is followed.
    fn open(&self, inside: &Inside) -> Result<Dir, FileError> {
        let mut dir = self.root.plain_dir(Path::new(inside.tree.name()))?;
        for part in &inside.parts {
            let name = OsStr::from_bytes(part);
            match dir.metadata(name)?.map(|stat| kind(&stat)) {
                Some(FileType::Directory) => {}
                Some(_) => {
                    dir.remove_all(name)?;
                    dir.create_dir(name, 0o755)?;
                }
                None => dir.create_dir(name, 0o755)?,
            }
            dir = dir.plain_dir(Path::new(name))?;
        }
        Ok(dir)
    }

    /// Gives a process a name in /proc that is as long as `self`, which cannot stand for several processes at once.
    pub(super) fn short_name(&self, process: i32) -> Result<OsString, FileError> {
        let mut rest = process.unsigned_abs() as usize;
        let mut name = Vec::with_capacity(SHORT);
        for _ in 0..SHORT {
            name.push(LETTERS.get(rest % LETTERS.len()).copied().unwrap_or_default());
            rest /= LETTERS.len();
        }
        // Only numbers begin with a digit there, and no name of the kernel's has this form.
        let name = OsString::from_vec(name);
        let proc = self.root.plain_dir(Path::new(Tree::Proc.name()))?;
        if proc.metadata(&name)?.is_none() {
            proc.create_link(&name, OsStr::new(&process.to_string()))?;
        }
        Ok(name)
    }
}

/// What the kernel's directory holds, as far as the command sees it.
fn entries(world: &World, inside: &Inside) -> HashMap<OsString, Entry> {
    let path = real(inside);
    let is_top = inside.tree == Tree::Proc && inside.parts.is_empty();
    let mut found = HashMap::new();
    let all = std::fs::read_dir(&path).into_iter().flatten().flatten();
    for entry in all {
        let name = entry.file_name();
        let is_process = name.to_str().is_some_and(|name| name.parse::<i32>().is_ok());
        let mut below = inside.clone();
        below.parts.push(name.as_bytes().to_vec());
        if (is_top && is_process) || is_masked(&below) {
            continue;
        }
        let Ok(file_type) = entry.file_type() else { continue };
        let entry = match (file_type.is_dir(), file_type.is_symlink()) {
            (true, _) => Entry::Directory,
            (_, true) => {
                let text = std::fs::read_link(entry.path()).unwrap_or_default();
                let within = world.within(text.as_os_str().as_bytes());
                Entry::Link(within.unwrap_or(text).into_os_string())
            }
            _ => Entry::File,
        };
        found.insert(name, entry);
    }
    if is_top {
        let own = world
            .processes
            .list()
            .into_iter()
            .map(|process| (process.to_string().into(), Entry::Directory));
        found.extend(own);
    }
    found
}

fn is_there(dir: &Dir, name: &OsStr, entry: &Entry) -> bool {
    let Ok(Some(stat)) = dir.metadata(name) else {
        return false;
    };
    match entry {
        Entry::File => kind(&stat) == FileType::RegularFile,
        Entry::Directory => kind(&stat) == FileType::Directory,
        Entry::Link(text) => dir.read_link(name).is_ok_and(|found| found == *text),
    }
}

fn make(dir: &Dir, name: &OsStr, entry: &Entry) -> Result<(), FileError> {
    match entry {
        Entry::File => {
            dir.create_file(name)?;
            dir.set_mode(name, 0o444)
        }
        Entry::Directory => dir.create_dir(name, 0o755),
        // What has no text cannot be a link.
        Entry::Link(text) if text.is_empty() => dir.create_file(name).map(drop),
        Entry::Link(text) => dir.create_link(name, text),
    }
}
