//! What a step changed: the upper directory of its overlay, written as a layer; or a whole root file system, written as a tar. What a
//! step changed in a tree that has no overlay is for `changes` to find, and written by the same hand.

use crate::beneath::{Dir, FileError, kind};
use crate::layer::limits::{Counter, Exceeded, Limits};
use crate::layer::lowers::{self, is_opaque, is_whiteout};
use crate::layer::tar::{EntryHeader, TarWriter};
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Time that stands in every layer for files made by a build without `SOURCE_DATE_EPOCH`: 1980-01-01T00:00:01Z, the earliest that zip
/// files and other formats can hold. Changing it changes every digest.
pub const DEFAULT_EPOCH: i64 = 315_532_801;

/// Tells why a diff could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// Reading the changes failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Writing the archive failed.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// A file has a name that readers of a layer take for a deletion.
    #[error("cannot keep `/{}`: in an image layer a name that begins with `.wh.` means a deletion", .0.display())]
    Whiteout(PathBuf),
    /// A device that stands for a deletion where layers lie unpacked.
    #[error("cannot keep `/{}`: a device 0:0 is reserved", .0.display())]
    Reserved(PathBuf),
    /// A directory is nested too deeply.
    #[error("cannot keep a directory nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The layer is larger than is allowed.
    #[error("the layer holds {0}")]
    TooLarge(#[from] Exceeded),
}

/// Deepest nesting of directories written: no honest image comes near, and a command can nest without end.
pub(crate) const MAX_DEPTH: usize = 1024;

/// Says how a tree is written.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// Times later than this are written as it.
    pub epoch: Option<i64>,
    /// Whether the times on disk stay as they are. A layer's are set as in the archive, so that later steps see what the image will hold.
    pub read_only: bool,
    /// Directory of the archive that everything is written into.
    pub below: PathBuf,
    /// Paths that are the sandbox's own and never belong to a layer.
    pub leave_out: &'a [PathBuf],
    /// Whether overlay whiteouts are turned into the image format's.
    pub whiteouts: bool,
    /// The layers below: the overlay marks new directories opaque too, but only one that hides something needs a marker.
    pub lowers: &'a [Dir],
    /// How much may be written.
    pub limits: Limits,
}

/// Writes what lies below `root`, in byte order, and tells how many entries there were. The root's own entry is not written.
///
/// # Errors
/// When reading or writing fails.
pub fn write<W: Write>(root: &Dir, tar: &mut TarWriter<W>, options: &Options<'_>) -> Result<usize, DiffError> {
    let mut writer = Writer::new(tar, options);
    writer.directory(root, Path::new(""), 0)?;
    Ok(writer.count)
}

/// Writes entries, and counts them.
pub(super) struct Writer<'a, W: Write> {
    tar: &'a mut TarWriter<W>,
    options: &'a Options<'a>,
    /// First path of files with several names.
    names: HashMap<(u64, u64), PathBuf>,
    pub(super) count: usize,
    counter: Counter,
}

impl<'a, W: Write> Writer<'a, W> {
    pub(super) fn new(tar: &'a mut TarWriter<W>, options: &'a Options<'a>) -> Self {
        Self {
            tar,
            options,
            names: HashMap::new(),
            count: 0,
            counter: Counter::new(options.limits),
        }
    }

    fn directory(&mut self, root: &Dir, path: &Path, depth: usize) -> Result<(), DiffError> {
        if depth > MAX_DEPTH {
            return Err(DiffError::TooDeep);
        }
        let dir = root.plain_dir(path)?;
        if self.options.whiteouts
            && !path.as_os_str().is_empty()
            && is_opaque(&dir)?
            && lowers::has_directory(self.options.lowers, path)?
        {
            self.opaque(path)?;
        }
        for name in dir.names()? {
            let full = path.join(&name);
            if self.options.leave_out.contains(&full) {
                continue;
            }
            if self.options.whiteouts {
                check_name(&name, &full)?;
            }
            let Some(stat) = dir.metadata(&name)? else { continue };
            let file_type = kind(&stat);
            if self.options.whiteouts && is_whiteout(&stat) {
                self.whiteout(&full)?;
                continue;
            }
            // A socket cannot live in a tar; its maker makes it again.
            if file_type == FileType::Socket {
                continue;
            }
            self.entry(&dir, &name, &full, &stat)?;
            if file_type == FileType::Directory {
                self.directory(root, &full, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Writes that nothing of the layers below is at `path` any more.
    pub(super) fn whiteout(&mut self, path: &Path) -> Result<(), DiffError> {
        let mut hidden = OsString::from(".wh.");
        hidden.push(path.file_name().unwrap_or_default());
        self.marker(&path.with_file_name(hidden))
    }

    /// Writes that the directory `path` shows nothing of the layers below.
    pub(super) fn opaque(&mut self, path: &Path) -> Result<(), DiffError> {
        self.marker(&path.join(".wh..wh..opq"))
    }

    fn marker(&mut self, path: &Path) -> Result<(), DiffError> {
        let header = EntryHeader {
            path,
            file_type: FileType::RegularFile,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: self.options.epoch.unwrap_or(DEFAULT_EPOCH),
            device: 0,
            target: None,
            hard_link: None,
            xattrs: &[],
        };
        self.count += 1;
        self.tar.append(&header, &mut io::empty()).map_err(DiffError::Write)
    }

    /// Writes one file. Tells whether its time was set, and with it the time of its last change.
    pub(super) fn entry(&mut self, dir: &Dir, name: &OsStr, path: &Path, stat: &Stat) -> Result<bool, DiffError> {
        let file_type = kind(stat);
        let mtime = self
            .options
            .epoch
            .map_or(stat.st_mtime, |epoch| stat.st_mtime.min(epoch));
        // The archive holds whole seconds: later steps must not see more, or what they write depends on who unpacked the layer.
        let is_touched = !self.options.read_only && (mtime != stat.st_mtime || stat.st_mtime_nsec != 0);
        if is_touched {
            dir.set_mtime(name, mtime, 0)?;
        }
        let target = if file_type == FileType::Symlink {
            Some(dir.read_link(name)?)
        } else {
            None
        };
        let first = if stat.st_nlink > 1 && file_type != FileType::Directory {
            let id = (stat.st_dev, stat.st_ino);
            let first = self.names.get(&id).cloned();
            if first.is_none() {
                self.names.insert(id, path.to_owned());
            }
            first
        } else {
            None
        };
        let xattrs = if first.is_some() { Vec::new() } else { dir.xattrs(name)? };
        let path = self.options.below.join(path);
        let first = first.map(|first| self.options.below.join(first));
        let header = EntryHeader {
            path: &path,
            file_type,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime,
            device: stat.st_rdev,
            target: target.as_deref().map(std::os::unix::ffi::OsStrExt::as_bytes),
            hard_link: first.as_deref(),
            xattrs: &xattrs,
        };
        self.count += 1;
        let has_content = file_type == FileType::RegularFile && header.hard_link.is_none();
        self.counter.add(if has_content { header.size } else { 0 })?;
        if has_content && header.size > 0 {
            let mut file = dir.open_file(name)?;
            self.tar.append(&header, &mut file).map_err(DiffError::Write)?;
        } else {
            self.tar.append(&header, &mut io::empty()).map_err(DiffError::Write)?;
        }
        Ok(is_touched)
    }
}

/// Refuses names that mean something else in a layer.
pub(super) fn check_name(name: &OsStr, path: &Path) -> Result<(), DiffError> {
    match name.as_encoded_bytes().starts_with(b".wh.") {
        true => Err(DiffError::Whiteout(path.to_owned())),
        false => Ok(()),
    }
}
