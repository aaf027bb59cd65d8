//! File calls that cannot leave a directory: every path is resolved by openat2 below an open root, every last component without
//! following it. Base layers, contexts and archives are hostile; nothing in this crate touches their files another way.

mod attributes;
mod ledger;
mod make;
mod recorded;
mod remove;
mod rename;

pub use attributes::kept_xattr;
pub use ledger::record;

use ledger::Recording;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

/// Tells which file operation failed, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`", path.display())]
pub struct FileError {
    /// What was tried, such as `open`.
    pub operation: &'static str,
    /// The path, as far as it is known.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: std::io::Error,
}

impl FileError {
    /// Makes an error of a failed call.
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self {
            operation,
            path: path.into(),
            source: source.into(),
        }
    }
}

type Result<T> = std::result::Result<T, FileError>;

/// Owner of a file: user id and group id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One extended attribute: name and value.
pub type Xattr = (OsString, Vec<u8>);

/// An open directory below which names are looked up.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// What is written down rather than done below it.
    recording: Option<Recording>,
}

impl Dir {
    /// Opens a trusted path as a root.
    ///
    /// # Errors
    /// When it is no directory or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|e| FileError::new("open directory", path, e))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            recording: ledger::recording(path),
        })
    }

    /// The path for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, operation: &'static str, name: impl AsRef<Path>) -> impl FnOnce(Errno) -> FileError {
        let path = self.path.join(name.as_ref().strip_prefix("/").unwrap_or(name.as_ref()));
        move |e| FileError::new(operation, path, e)
    }

    fn resolve(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> std::result::Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        // EAGAIN: a rename raced with the lookup; the kernel asks to try again.
        for _ in 0..64 {
            match fs::openat2(
                &self.fd,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                how | ResolveFlags::NO_MAGICLINKS,
            ) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens the directory `path` names when this directory is the root; links are followed but never lead out.
    ///
    /// # Errors
    /// When it does not exist or is no directory.
    pub fn find_dir(&self, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self
            .resolve(path, flags, ResolveFlags::IN_ROOT)
            .map_err(self.error("open directory", path))?;
        Ok(Self {
            fd,
            path: self.path.join(path.strip_prefix("/").unwrap_or(path)),
            recording: self.recording,
        })
    }

    /// Opens the directory `path` without following any link.
    ///
    /// # Errors
    /// When it does not exist, is no directory, or a link stands in the way.
    pub fn plain_dir(&self, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = self
            .resolve(path, flags, how)
            .map_err(self.error("open directory", path))?;
        Ok(Self {
            fd,
            path: self.path.join(path),
            recording: self.recording,
        })
    }

    /// Gives the metadata of what `path` leads to with this directory as the root, or `None` when there is nothing.
    ///
    /// # Errors
    /// When the lookup fails for another reason than absence.
    pub fn follow(&self, path: &Path) -> Result<Option<Stat>> {
        match self.resolve(path, OFlags::PATH, ResolveFlags::IN_ROOT) {
            Ok(fd) => {
                let stat = fs::fstat(&fd).map_err(self.error("stat", path))?;
                Ok(Some(self.as_recorded(stat, &fd, OsStr::new(""))))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(self.error("look up", path)(e)),
        }
    }

    /// Gives the true path, links resolved, of what `path` leads to with this directory as the root.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn canonical(&self, path: &Path) -> Result<PathBuf> {
        let fd = self
            .resolve(path, OFlags::PATH, ResolveFlags::IN_ROOT)
            .map_err(self.error("look up", path))?;
        let link = |fd: &OwnedFd| {
            fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
                .map(|l| PathBuf::from(OsString::from_vec(l.into_bytes())))
        };
        let target = link(&fd).map_err(self.error("look up", path))?;
        let root = link(&self.fd).map_err(self.error("look up", path))?;
        let below = target
            .strip_prefix(&root)
            .map_err(|_| self.error("look up", path)(Errno::XDEV))?;
        Ok(below.to_owned())
    }

    /// Gives the metadata of `name` itself, or `None`.
    ///
    /// # Errors
    /// When the call fails for another reason than absence.
    pub fn metadata(&self, name: &OsStr) -> Result<Option<Stat>> {
        let (name, flags) = if name.is_empty() {
            (OsStr::new(""), AtFlags::EMPTY_PATH)
        } else {
            (name, AtFlags::SYMLINK_NOFOLLOW)
        };
        match fs::statat(&self.fd, name, flags) {
            Ok(stat) => Ok(Some(self.as_recorded(stat, &self.fd, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("stat", name)(e)),
        }
    }

    /// Gives what tells this directory from any that is made in its place: device, inode, and when it was made, where the file system
    /// knows that.
    ///
    /// # Errors
    /// When the call fails.
    pub fn identity(&self) -> Result<[u64; 4]> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, wanted).map_err(self.error("stat", ""))?;
        let born = match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
            true => (stat.stx_btime.tv_sec.cast_unsigned(), u64::from(stat.stx_btime.tv_nsec)),
            false => (0, 0),
        };
        let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok([device, stat.stx_ino, born.0, born.1])
    }

    /// Lists the names in this directory in byte order.
    ///
    /// # Errors
    /// When reading fails.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        let entries = fs::Dir::read_from(&self.fd).map_err(self.error("read directory", ""))?;
        for entry in entries {
            let entry = entry.map_err(self.error("read directory", ""))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a regular file of this directory for reading; never a link, never a pipe that would block.
    ///
    /// # Errors
    /// When it is not there or not regular.
    pub fn open_file(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty()).map_err(self.error("open", name))?;
        let stat = fs::fstat(&fd).map_err(self.error("stat", name))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.error("open as a regular file", name)(Errno::INVAL));
        }
        Ok(File::from(fd))
    }

    /// Reads a file such as `/etc/passwd` with this directory as the root; `None` when there is none. At most `limit` bytes.
    ///
    /// # Errors
    /// When it is larger than `limit` or cannot be read.
    pub fn read_small(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        // Opening a device may do something already: a hostile image's passwd must not start the host's watchdog.
        match self.follow(path)? {
            Some(stat) if kind(&stat) != FileType::RegularFile => {
                return Err(self.error("read (no regular file)", path)(Errno::INVAL));
            }
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = match self.resolve(path, flags, ResolveFlags::IN_ROOT) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(self.error("open", path)(e)),
        };
        let mut bytes = Vec::new();
        File::from(fd)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| FileError::new("read", self.path.join(path), e))?;
        if bytes.len() as u64 > limit {
            return Err(self.error("read (too large)", path)(Errno::FBIG));
        }
        Ok(Some(bytes))
    }

    /// Reads a symbolic link.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_link(&self, name: &OsStr) -> Result<OsString> {
        let target = fs::readlinkat(&self.fd, name, Vec::new()).map_err(self.error("read link", name))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }
}

/// Cleans a path written by a user or an archive: `.` and empty parts go, `..` goes up but never above the root, no leading slash.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// The kind of a file by its mode.
#[must_use]
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Bytes of a file that are read and written at once. The kernel's own ways of copying take several times as long for small files.
const PIECE: u64 = 64 << 10;

/// Copies all of `from` to `to`; what is beyond the first piece in the kernel where it can, so that file systems may share it.
///
/// # Errors
/// The first failing call.
pub fn copy_contents(from: &File, mut to: &File) -> std::io::Result<()> {
    let mut piece = Vec::with_capacity(usize::try_from(PIECE).unwrap_or_default());
    while from.take(PIECE).read_to_end(&mut piece)? > 0 {
        to.write_all(&piece)?;
        if (piece.len() as u64) < PIECE || copy_in_kernel(from, to)? {
            break;
        }
        piece.clear();
    }
    Ok(())
}

/// Copies the rest of a file; tells whether the kernel has done so.
fn copy_in_kernel(from: &File, to: &File) -> std::io::Result<bool> {
    loop {
        match fs::copy_file_range(from, None, to, None, 64 << 20) {
            Ok(0) => return Ok(true),
            Ok(_) | Err(Errno::INTR) => {}
            // Other file systems, old kernels, files of /proc: by hand from where it stopped.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_never_leaves() {
        for (path, want) in [
            ("/a/./b/", "a/b"),
            ("../../etc", "etc"),
            ("a/../../b", "b"),
            (".", ""),
            ("/", ""),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn removal_needs_no_depth() {
        let base = std::env::temp_dir().join(format!("roadstead-deep-{}", std::process::id()));
        std::fs::create_dir_all(base.join("tree/.removing-0/x")).unwrap();
        std::fs::write(base.join("tree/.removing-0/x/file"), "").unwrap();
        // Deeper than any path may be long, as a command can make by changing into each.
        let mut dir = Dir::open(&base.join("tree")).unwrap();
        for _ in 0..1500 {
            dir.create_dir(OsStr::new("deep"), 0o755).unwrap();
            std::io::Write::write_all(&mut dir.create_file(OsStr::new("f")).unwrap(), b"x").unwrap();
            dir = dir.plain_dir(Path::new("deep")).unwrap();
        }
        let root = Dir::open(&base).unwrap();
        root.remove_all(OsStr::new("tree")).unwrap();
        assert!(root.names().unwrap().is_empty());
        std::fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn links_never_lead_out() {
        let base = std::env::temp_dir().join(format!("roadstead-beneath-{}", std::process::id()));
        std::fs::create_dir_all(base.join("root/in")).unwrap();
        std::fs::create_dir_all(base.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("root/abs")).unwrap();
        std::os::unix::fs::symlink("../../..", base.join("root/in/up")).unwrap();
        let root = Dir::open(&base.join("root")).unwrap();
        root.find_dir(Path::new("abs")).unwrap_err();
        assert_eq!(root.canonical(Path::new("in/up/in")).unwrap(), Path::new("in"));
        // A missing target of a link is made where the link points within the root, never outside.
        root.make_dirs(Path::new("abs/x"), None).unwrap();
        assert!(base.join("root/etc/x").is_dir() && !base.join("etc/x").exists() && !Path::new("/etc/x").exists());
        root.plain_dir(Path::new("in/up")).unwrap_err();
        root.make_dirs(Path::new("/in/up/new/er"), None).unwrap();
        assert!(base.join("root/new/er").is_dir());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
