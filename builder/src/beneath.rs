//! File calls that cannot leave a directory: every path is resolved by openat2 below an open root, every last component without
//! following it. Base layers, contexts and archives are hostile; nothing in this crate touches their files another way.

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
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
        })
    }

    /// Gives the metadata of what `path` leads to with this directory as the root, or `None` when there is nothing.
    ///
    /// # Errors
    /// When the lookup fails for another reason than absence.
    pub fn follow(&self, path: &Path) -> Result<Option<Stat>> {
        match self.resolve(path, OFlags::PATH, ResolveFlags::IN_ROOT) {
            Ok(fd) => fs::fstat(&fd).map(Some).map_err(self.error("stat", path)),
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
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("stat", name)(e)),
        }
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

    /// Creates a regular file that must not exist yet.
    ///
    /// # Errors
    /// When something of that name exists or the call fails.
    pub fn create_file(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)).map_err(self.error("create", name))?;
        Ok(File::from(fd))
    }

    /// Creates a directory; its mode is set without regard to the umask.
    ///
    /// # Errors
    /// When the call fails, `EEXIST` included.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)).map_err(self.error("create directory", name))?;
        self.set_mode(name, mode)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// When the call fails.
    pub fn create_link(&self, name: &OsStr, target: &OsStr) -> Result<()> {
        fs::symlinkat(target, &self.fd, name).map_err(self.error("create link", name))
    }

    /// Creates a second name for `from`'s file `from_name`.
    ///
    /// # Errors
    /// When the call fails.
    pub fn create_hard_link(&self, name: &OsStr, from: &Self, from_name: &OsStr) -> Result<()> {
        fs::linkat(&from.fd, from_name, &self.fd, name, AtFlags::empty()).map_err(self.error("create hard link", name))
    }

    /// Creates a device, a pipe or (for `kind` character and device 0) an overlay whiteout.
    ///
    /// # Errors
    /// When the call fails; an ordinary user may create no devices but whiteouts.
    pub fn create_node(&self, name: &OsStr, kind: FileType, mode: u32, device: u64) -> Result<()> {
        fs::mknodat(&self.fd, name, kind, Mode::from_raw_mode(mode & 0o7777), device)
            .map_err(self.error("create node", name))?;
        self.set_mode(name, mode)
    }

    /// Sets the mode of a file that is no link.
    ///
    /// # Errors
    /// When the call fails.
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> Result<()> {
        // fchmodat follows a last link; every caller has just made the file or checked it, below a directory that only we write.
        fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
            .map_err(self.error("change mode of", name))
    }

    /// Sets the owner of the file itself.
    ///
    /// # Errors
    /// When the call fails; `EINVAL` where the id is not mapped in this user namespace.
    pub fn set_owner(&self, name: &OsStr, owner: Owner) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| {
            if e == Errno::INVAL {
                unmapped_owner(&self.path.join(name), owner)
            } else {
                self.error("change owner of", name)(e)
            }
        })
    }

    /// Sets the modification time of the file itself, in seconds and nanoseconds since 1970.
    ///
    /// # Errors
    /// When the call fails.
    pub fn set_mtime(&self, name: &OsStr, seconds: i64, nanoseconds: i64) -> Result<()> {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(self.error("set time of", name))
    }

    /// Removes `name`, a whole tree when it is a directory. Absence is success.
    ///
    /// # Errors
    /// When a call fails.
    pub fn remove_all(&self, name: &OsStr) -> Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(self.error("remove", name)(e)),
        }
        let inside = self.plain_dir(Path::new(name))?;
        for child in inside.names()? {
            inside.remove_all(&child)?;
        }
        fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(self.error("remove", name))
    }

    /// Gives the path without links that `path` leads to with this directory as the root. What does not exist yet counts as no link,
    /// so this tells where a file would be made, also through a link to nowhere.
    ///
    /// # Errors
    /// When a lookup fails, or after 255 links.
    pub fn landing(&self, path: &Path) -> Result<PathBuf> {
        const MAX_LINKS: usize = 255;
        let parts = |path: &Path| {
            path.components()
                .rev()
                .map(|c| c.as_os_str().to_owned())
                .collect::<Vec<_>>()
        };
        let (mut open, mut done, mut links) = (parts(path), PathBuf::new(), 0);
        while let Some(part) = open.pop() {
            match part.as_bytes() {
                b"/" => done.clear(),
                b"." => {}
                b".." => drop(done.pop()),
                _ => match self.link_at(&done, &part)? {
                    None => done.push(part),
                    Some(_) if links == MAX_LINKS => return Err(self.error("follow links of", path)(Errno::LOOP)),
                    Some(target) => {
                        links += 1;
                        open.extend(parts(Path::new(&target)));
                    }
                },
            }
        }
        Ok(done)
    }

    /// Reads the link `name` of `parent`, or gives `None` when there is none.
    fn link_at(&self, parent: &Path, name: &OsStr) -> Result<Option<OsString>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = match self.resolve(parent, flags, how) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(self.error("open directory", parent)(e)),
        };
        match fs::readlinkat(&fd, name, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(self.error("read link", parent.join(name))(e)),
        }
    }

    /// Walks `path` with this directory as the root and creates what is missing, mode 0755; links are followed, also to what does not
    /// exist yet, but never lead out.
    ///
    /// `owner` is given to created directories only.
    ///
    /// # Errors
    /// When a component is no directory, or a call fails.
    pub fn make_dirs(&self, path: &Path, owner: Option<Owner>) -> Result<Self> {
        let mut dir = self.plain_dir(Path::new(""))?;
        for name in self.landing(path)?.iter() {
            if dir.metadata(name)?.is_none() {
                dir.create_dir(name, 0o755)?;
                if let Some(owner) = owner {
                    dir.set_owner(name, owner)?;
                }
            }
            dir = dir.plain_dir(Path::new(name))?;
        }
        Ok(dir)
    }

    /// Names `name` of this directory for the calls that know no directory handle; the last component is not followed by them.
    fn proc_path(&self, name: &OsStr) -> PathBuf {
        let base = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd()));
        if name.is_empty() {
            base.join(".")
        } else {
            base.join(name)
        }
    }

    /// Reads the extended attributes of the file itself, sorted by name; those of the overlay file system are left out.
    ///
    /// # Errors
    /// When a call fails; a file system without attributes gives none.
    pub fn xattrs(&self, name: &OsStr) -> Result<Vec<Xattr>> {
        let path = self.proc_path(name);
        let size = match fs::llistxattr_query(&path) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Ok(size) => size,
            Err(e) => return Err(self.error("list attributes of", name)(e)),
        };
        let mut list = vec![0u8; size + 256];
        let size = fs::llistxattr(&path, list.as_mut_slice()).map_err(self.error("list attributes of", name))?;
        let mut found = Vec::new();
        for key in list[..size].split(|b| *b == 0).filter(|k| !k.is_empty()) {
            let key = OsStr::from_bytes(key);
            if kept_xattr(key) {
                found.push((key.to_owned(), self.xattr(name, key)?.unwrap_or_default()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Reads one extended attribute of the file itself.
    ///
    /// # Errors
    /// When the call fails for another reason than absence.
    pub fn xattr(&self, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        // The kernel's bound on one value.
        let mut value = vec![0u8; 65536];
        match fs::lgetxattr(self.proc_path(name), key, value.as_mut_slice()) {
            Ok(size) => {
                value.truncate(size);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(e) => Err(self.error("read attribute of", name)(e)),
        }
    }

    /// Sets one extended attribute of the file itself.
    ///
    /// # Errors
    /// When the call fails.
    pub fn set_xattr(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<()> {
        fs::lsetxattr(self.proc_path(name), key, value, XattrFlags::empty())
            .map_err(self.error("set attribute of", name))
    }
}

/// Explains an owner that this user namespace does not map.
fn unmapped_owner(path: &Path, owner: Owner) -> FileError {
    let text = format!(
        "user {} or group {} is not mapped here; install `uidmap` and give this user ranges in /etc/subuid and /etc/subgid, or run as root",
        owner.uid, owner.gid
    );
    FileError::new(
        "change owner of",
        path,
        std::io::Error::new(std::io::ErrorKind::InvalidInput, text),
    )
}

/// Tells whether an attribute belongs in an image. Overlay's own would let a layer steer the mount; labels are the host's.
#[must_use]
pub fn kept_xattr(key: &OsStr) -> bool {
    let key = key.as_bytes();
    key == b"security.capability" || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
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

/// Copies all of `from` to `to`, in the kernel where it can.
///
/// # Errors
/// The first failing call.
pub fn copy_contents(from: &File, to: &File) -> std::io::Result<u64> {
    let mut total = 0;
    loop {
        match fs::copy_file_range(from, None, to, None, 64 << 20) {
            Ok(0) => return Ok(total),
            Ok(n) => total += n as u64,
            Err(Errno::INTR) => {}
            // Other file systems, old kernels, files of /proc: by hand from where it stopped.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                let (mut from, mut to) = (from, to);
                return Ok(total + std::io::copy(&mut from, &mut to)?);
            }
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
