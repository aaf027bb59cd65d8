//! What a command finds in its root besides the stage's files: put in place by renaming before it runs, and taken back after it.
//!
//! What stood there is set aside meanwhile, where the command cannot get. Nothing is mounted, so nothing keeps the command from moving
//! what it was lent: it is found again by its open handle, and what it was lent is never part of a layer.

use crate::beneath::{Dir, FileError, kind};
use crate::sandbox::SandboxError;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What the stage's files look like after the command, apart from what it did. Paths are relative to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Directories in which something was put and taken away, that the command did not change: their times say otherwise.
    pub untouched_dirs: Vec<PathBuf>,
    /// What was set aside, with everything below.
    pub untouched: Vec<PathBuf>,
}

/// Everything that was put in place, in order.
#[derive(Debug)]
pub(super) struct Fixtures {
    root: Dir,
    /// Where things lie that were set aside.
    aside: Dir,
    placed: Vec<Placed>,
    /// Directories that were made on the way, in order.
    made: Vec<PathBuf>,
    /// Directories that were changed by that, as they were before and after.
    changed: Vec<Changed>,
}

#[derive(Debug)]
struct Placed {
    /// Path below the root.
    path: PathBuf,
    parent: Dir,
    name: OsString,
    /// The thing itself, to be found wherever it is moved.
    handle: OwnedFd,
    /// Where it goes back to; what has no home is thrown away.
    home: Option<PathBuf>,
    /// Name of what stood in its place.
    aside: Option<OsString>,
}

#[derive(Debug)]
struct Changed {
    path: PathBuf,
    dir: Dir,
    before: Stat,
    after: Option<Stat>,
}

impl Fixtures {
    /// Begins on the root `root`; `aside` is an empty directory on the same file system.
    pub(super) fn new(root: &Path, aside: &Path) -> Result<Self, SandboxError> {
        Ok(Self {
            root: Dir::open(root)?,
            aside: Dir::open(aside)?,
            placed: Vec::new(),
            made: Vec::new(),
            changed: Vec::new(),
        })
    }

    /// Puts `source` in the place of `target`, links of the image followed. It goes back to `source` when `stays` says so.
    pub(super) fn put(&mut self, source: &Path, target: &Path, stays: bool) -> Result<(), SandboxError> {
        let path = self.root.landing(target)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SandboxError::Setup("nothing can stand in the place of `/`".into()));
        };
        let directory = self.open_or_make(parent)?;
        self.note(parent, &directory)?;
        let aside = match directory.metadata(name)? {
            None => None,
            Some(_) => {
                let free = OsString::from(format!("aside-{}", self.placed.len()));
                directory.rename(name, &self.aside, &free)?;
                Some(free)
            }
        };
        let (Some(from), Some(from_name)) = (source.parent(), source.file_name()) else {
            return Err(SandboxError::Setup(format!("`{}` cannot be lent", source.display())));
        };
        let from = Dir::open(from)?;
        from.rename(from_name, &directory, name)?;
        let handle = handle(&directory, name)?;
        self.placed.push(Placed {
            name: name.to_owned(),
            parent: directory,
            handle,
            home: stays.then(|| source.to_owned()),
            aside,
            path,
        });
        Ok(())
    }

    /// The thing that was put in place last, wherever it will be.
    pub(super) fn last(&self) -> Result<Option<OwnedFd>, SandboxError> {
        let again = |placed: &Placed| rustix::io::fcntl_dupfd_cloexec(&placed.handle, 3);
        self.placed
            .last()
            .map(again)
            .transpose()
            .map_err(|e| SandboxError::system("keep what is lent", e))
    }

    /// Opens a directory, without links, and makes what is missing of it.
    fn open_or_make(&mut self, path: &Path) -> Result<Dir, SandboxError> {
        let mut at = PathBuf::new();
        let mut dir = self.root.plain_dir(Path::new(""))?;
        for part in path.iter() {
            if dir.metadata(part)?.is_none() {
                self.note(&at, &dir)?;
                dir.create_dir(part, 0o755)?;
                self.made.push(at.join(part));
            }
            at.push(part);
            dir = dir.plain_dir(Path::new(part))?;
        }
        Ok(dir)
    }

    /// Remembers what a directory looks like before something is put there the first time.
    fn note(&mut self, path: &Path, dir: &Dir) -> Result<(), SandboxError> {
        if self.changed.iter().any(|known| known.path == path) {
            return Ok(());
        }
        let Some(before) = dir.metadata(OsStr::new(""))? else {
            return Ok(());
        };
        self.changed.push(Changed {
            path: path.to_owned(),
            dir: dir.plain_dir(Path::new(""))?,
            before,
            after: None,
        });
        Ok(())
    }

    /// Ends putting things in place: what changes from now on is the command's.
    pub(super) fn ready(&mut self) -> Result<(), SandboxError> {
        for changed in &mut self.changed {
            // What the command could see of the time would be that of the sandbox.
            changed
                .dir
                .set_own_mtime(changed.before.st_mtime, nanoseconds(&changed.before))?;
            changed.after = changed.dir.metadata(OsStr::new(""))?;
        }
        Ok(())
    }

    /// Takes everything back, when no process of the command is left.
    pub(super) fn take_back(mut self) -> Result<Report, SandboxError> {
        let mut report = Report::default();
        for changed in &self.changed {
            let now = changed.dir.metadata(OsStr::new(""))?;
            if now.zip(changed.after).is_some_and(|(now, after)| is_same(&now, &after)) {
                report.untouched_dirs.push(changed.path.clone());
            }
        }
        while let Some(placed) = self.placed.pop() {
            self.take(&placed)?;
            if placed.aside.is_some() {
                report.untouched.push(placed.path);
            }
        }
        for path in self.made.iter().rev() {
            self.unmake(path)?;
        }
        for changed in &self.changed {
            if report.untouched_dirs.contains(&changed.path) {
                // One that was made itself is gone.
                drop(
                    changed
                        .dir
                        .set_own_mtime(changed.before.st_mtime, nanoseconds(&changed.before)),
                );
            }
        }
        Ok(report)
    }

    fn take(&self, placed: &Placed) -> Result<(), SandboxError> {
        let now = rustix::fs::fstat(&placed.handle).map_err(|e| SandboxError::system("look at what was lent", e))?;
        let there = placed.parent.metadata(&placed.name)?;
        let is_there = there.is_some_and(|there| (there.st_dev, there.st_ino) == (now.st_dev, now.st_ino));
        match (&placed.home, is_there) {
            (Some(home), true) => move_home(&placed.parent, &placed.name, home)?,
            (Some(home), false) => self.search(placed, &now, home)?,
            (None, true) => self.throw_away(&placed.parent, &placed.name)?,
            // Nothing of a mount comes into a layer, wherever the command has moved it.
            (None, false) => {
                if let Some((parent, name)) = self.found(placed, &now)? {
                    self.throw_away(&parent, &name)?;
                }
            }
        }
        if let Some(aside) = &placed.aside {
            if placed.parent.metadata(&placed.name)?.is_some() {
                placed.parent.remove_all(&placed.name)?;
            }
            self.aside.rename(aside, &placed.parent, &placed.name)?;
        }
        Ok(())
    }

    /// Moves out of the root what is not needed any more; it is removed with the aside's directory.
    fn throw_away(&self, parent: &Dir, name: &OsStr) -> Result<(), SandboxError> {
        let free = OsString::from(format!("done-{}", self.placed.len()));
        Ok(parent.rename(name, &self.aside, &free)?)
    }

    /// Finds what was lent, and the command has moved or removed.
    fn search(&self, placed: &Placed, now: &Stat, home: &Path) -> Result<(), SandboxError> {
        let gone = |what: &str| SandboxError::Setup(format!("what is mounted on `/{}` {what}", placed.path.display()));
        if now.st_nlink == 0 || (kind(now).is_dir() && now.st_nlink < 2) {
            // All it held is removed, as on a mount; there is an empty one again.
            return Ok(std::fs::create_dir(home).map_err(|e| FileError::new("create directory", home, e))?);
        }
        match self.found(placed, now)? {
            Some((parent, name)) => move_home(&parent, &name, home),
            None => Err(gone("was moved away by the command")),
        }
    }

    /// Where in the root something is now that was put elsewhere.
    fn found(&self, placed: &Placed, now: &Stat) -> Result<Option<(Dir, OsString)>, SandboxError> {
        let link = format!("/proc/self/fd/{}", placed.handle.as_raw_fd());
        let path = std::fs::read_link(link).map_err(|e| SandboxError::system("find what was lent", e))?;
        let root = std::fs::canonicalize(self.root.path()).map_err(|e| SandboxError::system("look up the root", e))?;
        let Ok(below) = path.strip_prefix(root) else {
            return Ok(None);
        };
        let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
            return Ok(None);
        };
        // What was removed has a path that names nothing.
        let Ok(parent) = self.root.plain_dir(parent) else {
            return Ok(None);
        };
        let found = parent.metadata(name)?;
        let is_it = found.is_some_and(|found| (found.st_dev, found.st_ino) == (now.st_dev, now.st_ino));
        Ok(is_it.then(|| (parent, name.to_owned())))
    }

    /// Removes a directory that was made, unless the command has put something there.
    fn unmake(&self, path: &Path) -> Result<(), SandboxError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let Ok(dir) = self.root.plain_dir(path) else {
            return Ok(());
        };
        if dir.names()?.is_empty() {
            self.root.plain_dir(parent)?.remove_all(name)?;
        }
        Ok(())
    }
}

fn move_home(parent: &Dir, name: &OsStr, home: &Path) -> Result<(), SandboxError> {
    let (Some(to), Some(to_name)) = (home.parent(), home.file_name()) else {
        return Ok(());
    };
    Ok(parent.rename(name, &Dir::open(to)?, to_name)?)
}

fn handle(parent: &Dir, name: &OsStr) -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent.descriptor(), name, flags, Mode::empty())
        .map_err(|e| SandboxError::system("open what is lent", e))
}

fn nanoseconds(stat: &Stat) -> i64 {
    i64::try_from(stat.st_mtime_nsec).unwrap_or_default()
}

/// Tells whether nobody has changed a directory between.
fn is_same(one: &Stat, other: &Stat) -> bool {
    let looks = |stat: &Stat| {
        let times = (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_uid, stat.st_gid, times)
    };
    looks(one) == looks(other)
}

/// Checks that what is put in place of a directory finds one, or nothing: a link of the image would lead elsewhere.
pub(super) fn real_directory(root: &Path, name: &str) -> Result<(), SandboxError> {
    let stat = Dir::open(root)?.metadata(OsStr::new(name))?;
    match stat.map(|stat| kind(&stat)) {
        None | Some(FileType::Directory) => Ok(()),
        Some(_) => Err(SandboxError::Setup(format!(
            "cannot mount `/{name}`: the image's `/{name}` is no directory"
        ))),
    }
}
