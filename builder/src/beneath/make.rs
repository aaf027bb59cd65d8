//! Making files, directories, links and nodes below a root, and setting what belongs to them.

use super::ledger::{is_harmless, permissions};
use super::{Dir, FileError, Owner, Result};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

impl Dir {
    /// Creates a regular file that must not exist yet.
    ///
    /// # Errors
    /// When something of that name exists or the call fails.
    pub fn create_file(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)).map_err(self.error("create", name))?;
        self.note_new(name)?;
        Ok(File::from(fd))
    }

    /// Creates a directory; its mode is set without regard to the umask.
    ///
    /// # Errors
    /// When the call fails, `EEXIST` included.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)).map_err(self.error("create directory", name))?;
        self.note_new(name)?;
        self.set_mode(name, mode)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// When the call fails.
    pub fn create_link(&self, name: &OsStr, target: &OsStr) -> Result<()> {
        fs::symlinkat(target, &self.fd, name).map_err(self.error("create link", name))?;
        self.note_new(name)
    }

    /// Creates a second name for `from`'s file `from_name`.
    ///
    /// # Errors
    /// When the call fails.
    pub fn create_hard_link(&self, name: &OsStr, from: &Self, from_name: &OsStr) -> Result<()> {
        fs::linkat(&from.fd, from_name, &self.fd, name, AtFlags::empty()).map_err(self.error("create hard link", name))
    }

    /// Creates a device, a pipe or (for `kind` character and device 0) an overlay whiteout. Where devices are recorded, one that could do
    /// harm is not made, nor one that cannot be.
    ///
    /// # Errors
    /// When the call fails; an ordinary user may create no devices but whiteouts.
    pub fn create_node(&self, name: &OsStr, kind: FileType, mode: u32, device: u64) -> Result<()> {
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let may_stand_in = is_device && self.recording.is_some();
        let made = match may_stand_in && !is_harmless(kind, device) {
            true => Err(Errno::PERM),
            false => fs::mknodat(&self.fd, name, kind, permissions(mode), device),
        };
        match made {
            Err(Errno::PERM | Errno::ACCESS) if may_stand_in => self.create_stand_in(name, kind, device)?,
            made => {
                made.map_err(self.error("create node", name))?;
                self.note_new(name)?;
            }
        }
        self.set_mode(name, mode)
    }

    /// Sets the mode of a file that is no link.
    ///
    /// # Errors
    /// When the call fails.
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> Result<()> {
        let mode = self.mode_to_set(name, mode)?;
        // fchmodat follows a last link; every caller has just made the file or checked it, below a directory that only we write.
        fs::chmodat(&self.fd, name, permissions(mode), AtFlags::empty()).map_err(self.error("change mode of", name))
    }

    /// Sets the owner of the file itself.
    ///
    /// # Errors
    /// When the call fails; `EINVAL` where the id is not mapped in this user namespace.
    pub fn set_owner(&self, name: &OsStr, owner: Owner) -> Result<()> {
        // For the kernel these mean to leave the owner as it is.
        if owner.uid == u32::MAX || owner.gid == u32::MAX {
            return Err(self.error("give the owner 4294967295, which is nobody, to", name)(
                Errno::INVAL,
            ));
        }
        if self.writes_owner(name, owner)? {
            return Ok(());
        }
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
                // Below a set-group-id directory the bit is inherited, as by mkdir(2).
                let group_bit = dir.metadata(OsStr::new(""))?.map_or(0, |stat| stat.st_mode & 0o2000);
                dir.create_dir(name, 0o755 | group_bit)?;
                if let Some(owner) = owner {
                    dir.set_owner(name, owner)?;
                }
            }
            dir = dir.plain_dir(Path::new(name))?;
        }
        Ok(dir)
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
