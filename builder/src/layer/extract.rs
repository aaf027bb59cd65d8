//! Tar to files below a root. Archives are hostile: every path is resolved below the root, sizes and counts are bounded.

use super::limits::{Counter, Exceeded, Limits};
use super::lowers::{self, is_opaque, is_whiteout};
use super::own::Own;
use super::read::{Entry, TarReader};
use super::sparse::Sparse;
use crate::beneath::{Dir, FileError, Owner, clean, kind};
use rustix::fs::{FileType, Stat, makedev};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// Marks an opaque directory for an overlay mounted with `userxattr`.
pub const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// Tells why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The bytes are no tar, or its compression is broken.
    #[error("the archive is damaged")]
    Archive(#[source] io::Error),
    /// An entry that no honest archive holds.
    #[error("entry `{}` of the archive {what}", path.display())]
    Entry {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The archive unpacks to more than is allowed.
    #[error("the archive unpacks to {0}")]
    TooLarge(Exceeded),
    /// A file could not be made.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ExtractError {
    /// What to do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge(exceeded) => Some(exceeded.hint()),
            _ => None,
        }
    }
}

type Result<T> = std::result::Result<T, ExtractError>;

/// What an archive is unpacked as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Files, whatever they are called (ADD).
    #[default]
    Archive,
    /// An image layer, into a directory of its own: its whiteouts become those of the overlay.
    Overlay,
    /// An image layer, applied to the files of those below: its whiteouts remove. What comes out is what an overlay of all would show.
    Tree,
}

/// Says how to unpack.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// What it is unpacked as.
    pub form: Form,
    /// Given to everything unpacked, in place of the archive's owners.
    pub owner: Option<Owner>,
    /// Lower layers, uppermost first: a directory that the archive implies takes its mode and owner from there.
    pub lowers: &'a [Dir],
    /// How much is taken from the archive.
    pub limits: Limits,
}

impl From<io::Error> for ExtractError {
    /// Takes a failed read: behind a bound it is the bound, else the archive is damaged.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Exceeded>()) {
            Some(exceeded) => Self::TooLarge(*exceeded),
            None => Self::Archive(error),
        }
    }
}

/// Opens a possibly compressed stream: gzip (also of several members), zstd, bzip2, xz or plain, told by its first bytes.
///
/// # Errors
/// When the first bytes cannot be read or a decoder cannot be made.
pub fn decompress<'a>(input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut input = BufReader::with_capacity(256 << 10, input);
    let magic = input.fill_buf()?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            // 128 MiB windows are the most that zstd images use in practice; larger ones are a memory bomb.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(256 << 20, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        _ => Box::new(input),
    })
}

/// Tells whether a file is an archive that ADD unpacks: its first header, after decompression, is a tar header.
///
/// # Errors
/// When reading fails; a file that only looks compressed is no archive.
pub fn is_archive(input: impl Read + Send) -> io::Result<bool> {
    let mut block = [0u8; 512];
    let Ok(mut stream) = decompress(input) else {
        return Ok(false);
    };
    if stream.read_exact(&mut block).is_err() {
        return Ok(false);
    }
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&block);
    // The sum over the header with its own field as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) })
        .sum();
    Ok(header.cksum().is_ok_and(|c| c == sum) && block[0] != 0)
}

/// Unpacks `archive` (already decompressed) below `root`.
///
/// # Errors
/// At the first entry that cannot be made as it says; `root` then holds part of the archive and must be thrown away.
pub fn extract(archive: impl Read, root: &Dir, options: &Options<'_>) -> Result<()> {
    let mut extractor = Extractor {
        root,
        options,
        made: HashSet::new(),
        own: (options.form == Form::Tree).then(Own::default),
        times: Vec::new(),
    };
    extractor.note(root, OsStr::new(""))?;
    let mut archive = TarReader::new(options.limits.stream(archive));
    let mut counter = Counter::new(options.limits);
    while let Some(entry) = archive.next_entry()? {
        let size = entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.size);
        counter.add(size).map_err(ExtractError::TooLarge)?;
        extractor.entry(&entry, &mut archive.content())?;
    }
    if options.form != Form::Archive {
        // What follows the end mark (padding, signatures) still counts for the digest: read it to the end.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    root: &'a Dir,
    options: &'a Options<'a>,
    /// Directories known to exist with the right metadata.
    made: HashSet<PathBuf>,
    /// What is the layer's own, where it is applied to the files of others.
    own: Option<Own>,
    /// Times of directories, set last since every new entry changes them. Of one path the last counts.
    times: Vec<(PathBuf, i64)>,
}

impl Extractor<'_> {
    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let raw = PathBuf::from(OsString::from_vec(entry.path.clone()));
        if entry.path.contains(&0) {
            return Err(ExtractError::Entry {
                path: raw,
                what: "has a NUL byte in its name",
            });
        }
        if raw.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
            return Err(ExtractError::Entry {
                path: raw,
                what: "has `..` in its path",
            });
        }
        let path = clean(&raw);
        let owner = self.owner(entry, &path)?;
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return self.root_entry(entry, owner);
        };
        let parent_dir = self.parent(parent)?;
        if self.options.form != Form::Archive
            && let Some(hidden) = name.as_bytes().strip_prefix(b".wh.")
        {
            return self.whiteout(&parent_dir, OsStr::from_bytes(hidden), &path);
        }
        self.place(entry, content, &parent_dir, name, &path, owner)
    }

    /// The archive's own root: it counts for a layer by itself, not for ADD into an existing directory. The root of several layers is
    /// nobody's: the overlay takes the uppermost directory's, which is a new one.
    fn root_entry(&self, entry: &Entry, owner: Owner) -> Result<()> {
        if self.options.form == Form::Overlay {
            self.root.set_owner(OsStr::new("."), owner)?;
            self.root.set_mode(OsStr::new("."), entry.mode)?;
        }
        Ok(())
    }

    fn owner(&self, entry: &Entry, path: &Path) -> Result<Owner> {
        let what = "has an owner beyond 32 bits";
        let id = |wide: u64| {
            u32::try_from(wide).map_err(|_| ExtractError::Entry {
                path: path.to_owned(),
                what,
            })
        };
        Ok(self.options.owner.unwrap_or(Owner {
            uid: id(entry.uid)?,
            gid: id(entry.gid)?,
        }))
    }

    /// Opens the directory an entry goes into, making what the archive implies but does not list.
    fn parent(&mut self, path: &Path) -> Result<Dir> {
        if !path.as_os_str().is_empty() && !self.made.contains(path) {
            let mut prefix = PathBuf::new();
            for part in path.iter() {
                let above = prefix.clone();
                prefix.push(part);
                if self.made.contains(&prefix) {
                    continue;
                }
                let dir = self.root.find_dir(&above)?;
                match dir.metadata(part)? {
                    Some(stat) if self.leads_on(&stat) => self.keep_time(&prefix, &stat),
                    Some(_) => {
                        dir.remove_all(part)?;
                        self.implied(&dir, part)?;
                        self.hide_lower(&dir, part)?;
                    }
                    None => {
                        self.implied(&dir, part)?;
                        self.like_lower(&dir, part, &prefix)?;
                    }
                }
                self.note(&dir, part)?;
                self.made.insert(prefix.clone());
            }
        }
        let found = self.root.find_dir(path)?;
        if !self.is_own(&found, OsStr::new(""))? {
            // A link of this layer leads to a directory of another one. In a directory of its own it would lead nowhere.
            return Err(FileError::new("open directory", found.path(), Errno::NOENT).into());
        }
        Ok(found)
    }

    /// Tells whether a path may go on through what stands there. A link of a layer below is hidden by the directory that is implied.
    fn leads_on(&self, stat: &Stat) -> bool {
        match kind(stat) {
            FileType::Directory => true,
            FileType::Symlink => self.own.as_ref().is_none_or(|own| own.has(stat)),
            _ => false,
        }
    }

    fn implied(&self, dir: &Dir, name: &OsStr) -> Result<()> {
        dir.create_dir(name, 0o755)?;
        self.options
            .owner
            .map_or(Ok(()), |owner| Ok(dir.set_owner(name, owner)?))
    }

    /// Makes an implied directory look like that of the layers below which it stands for.
    fn like_lower(&mut self, dir: &Dir, name: &OsStr, path: &Path) -> Result<()> {
        let Some((lower, stat)) = self.hidden_by(path)? else {
            return Ok(());
        };
        if kind(&stat) == FileType::Directory {
            let owner = Owner {
                uid: stat.st_uid,
                gid: stat.st_gid,
            };
            dir.set_owner(name, owner)?;
            dir.set_mode(name, stat.st_mode)?;
            for (key, value) in lower.xattrs(name)? {
                dir.set_xattr(name, &key, &value)?;
            }
            self.times.push((path.to_owned(), stat.st_mtime));
        }
        Ok(())
    }

    /// Has a directory of the layers below keep its time, whatever is made in it.
    fn keep_time(&mut self, path: &Path, stat: &Stat) {
        if self.options.form == Form::Tree && kind(stat) == FileType::Directory {
            self.times.push((path.to_owned(), stat.st_mtime));
        }
    }

    /// Has a directory that took the place of something else show nothing of the layers below: that was hidden before.
    fn hide_lower(&self, dir: &Dir, name: &OsStr) -> Result<()> {
        match self.options.form {
            Form::Overlay => Ok(dir.set_xattr(name, OsStr::new(OPAQUE_XATTR), b"y")?),
            Form::Archive | Form::Tree => Ok(()),
        }
    }

    /// Forgets the directories at and below a path that was removed.
    fn forget(&mut self, path: &Path) {
        // Whoever knows a directory knows those above it.
        if self.made.contains(path) {
            self.made.retain(|known| !known.starts_with(path));
        }
    }

    fn place(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        dir: &Dir,
        name: &OsStr,
        path: &Path,
        owner: Owner,
    ) -> Result<()> {
        let there = dir.metadata(name)?;
        let stays =
            entry.kind == EntryType::Directory && there.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory);
        if there.is_some() && !stays {
            dir.remove_all(name)?;
            self.forget(path);
        }
        match entry.kind {
            EntryType::Directory => {
                match there {
                    Some(_) if stays => self.take_over(dir, name)?,
                    there => {
                        dir.create_dir(name, 0o700)?;
                        there.map_or(Ok(()), |_| self.hide_lower(dir, name))?;
                    }
                }
                self.made.insert(path.to_owned());
            }
            EntryType::Regular => {
                let mut file = dir.create_file(name)?;
                let written = match &entry.sparse {
                    Some(sparse) => with_holes(sparse, content, &mut file),
                    None => io::copy(content, &mut file).map(drop),
                };
                written.map_err(|e| FileError::new("write", dir.path().join(name), e))?;
            }
            EntryType::Symlink => dir.create_link(name, link_target(entry, path)?)?,
            EntryType::Link => return self.hard_link(dir, name, link_target(entry, path)?, path),
            EntryType::Char | EntryType::Block | EntryType::Fifo => node(entry, dir, name)?,
            _ => {
                return Err(ExtractError::Entry {
                    path: path.to_owned(),
                    what: "is of a kind that is not known",
                });
            }
        }
        self.finish_entry(entry, dir, name, path, owner)
    }

    /// Makes a directory of the layers below this layer's own: it has no attributes but those that its entry gives it.
    fn take_over(&self, dir: &Dir, name: &OsStr) -> Result<()> {
        if !self.is_own(dir, name)? {
            for (key, _) in dir.xattrs(name)? {
                dir.remove_xattr(name, &key)?;
            }
        }
        Ok(())
    }

    fn finish_entry(&mut self, entry: &Entry, dir: &Dir, name: &OsStr, path: &Path, owner: Owner) -> Result<()> {
        self.note(dir, name)?;
        dir.set_owner(name, owner)?;
        if entry.kind != EntryType::Symlink {
            // After the owner: chown clears setuid.
            dir.set_mode(name, entry.mode)?;
            for (key, value) in &entry.xattrs {
                dir.set_xattr(name, key, value)?;
            }
        }
        if entry.kind == EntryType::Directory {
            self.times.push((path.to_owned(), entry.mtime));
            return Ok(());
        }
        Ok(dir.set_mtime(name, entry.mtime, 0)?)
    }

    fn hard_link(&self, dir: &Dir, name: &OsStr, target: &OsStr, path: &Path) -> Result<()> {
        let target = clean(Path::new(target));
        let what = "is a hard link to nothing in the archive";
        let missing = || ExtractError::Entry {
            path: path.to_owned(),
            what,
        };
        let (Some(parent), Some(target_name)) = (target.parent(), target.file_name()) else {
            return Err(missing());
        };
        let from = self.root.find_dir(parent).map_err(|_| missing())?;
        let is_file = |stat: &Stat| kind(stat) != FileType::Directory;
        if !from.metadata(target_name)?.as_ref().is_some_and(is_file) || !self.is_own(&from, target_name)? {
            return Err(missing());
        }
        Ok(dir.create_hard_link(name, &from, target_name)?)
    }

    /// Takes `.wh.NAME`, a deletion, and `.wh..wh..opq`, which hides what the layers below have in a directory.
    fn whiteout(&mut self, dir: &Dir, hidden: &OsStr, path: &Path) -> Result<()> {
        if hidden == OsStr::new(".wh..opq") {
            return self.opaque(dir);
        }
        if hidden.as_bytes().starts_with(b".wh.") {
            // Bookkeeping of aufs (`.wh..wh.plnk`): nothing to unpack.
            return Ok(());
        }
        if hidden.is_empty() || hidden == OsStr::new(".") || hidden == OsStr::new("..") {
            return Err(ExtractError::Entry {
                path: path.to_owned(),
                what: "is a whiteout of nothing",
            });
        }
        dir.remove_all(hidden)?;
        self.forget(&path.with_file_name(hidden));
        let place = self.root.canonical(path.parent().unwrap_or(Path::new("")))?;
        // One that hides nothing would be listed in a directory that is this layer's alone.
        if self.own.is_some() || self.hidden_by(&place.join(hidden))?.is_none() {
            return Ok(());
        }
        Ok(dir.create_node(hidden, FileType::CharacterDevice, 0, 0)?)
    }

    /// Finds what the layers below show at `path`, unless this one has hidden it already.
    fn hidden_by(&self, path: &Path) -> Result<Option<(Dir, Stat)>> {
        let found = lowers::find(self.options.lowers, path)?;
        if found.is_some() {
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                if is_opaque(&self.root.find_dir(above)?)? {
                    return Ok(None);
                }
            }
        }
        Ok(found)
    }

    fn opaque(&self, dir: &Dir) -> Result<()> {
        let Some(own) = &self.own else {
            remove_whiteouts(dir)?;
            return Ok(dir.set_xattr(OsStr::new(""), OsStr::new(OPAQUE_XATTR), b"y")?);
        };
        let top = self.root.metadata(OsStr::new(""))?;
        let is_top = top.zip(dir.metadata(OsStr::new(""))?);
        // The overlay shows everything in its top, whatever is said of it.
        match is_top.is_some_and(|(top, this)| (top.st_dev, top.st_ino) == (this.st_dev, this.st_ino)) {
            true => Ok(()),
            false => Ok(own.only(dir)?),
        }
    }

    /// Notes that `name` is the layer's own.
    fn note(&mut self, dir: &Dir, name: &OsStr) -> Result<()> {
        if let Some(own) = &mut self.own
            && let Some(stat) = dir.metadata(name)?
        {
            own.note(&stat);
        }
        Ok(())
    }

    /// Tells whether `name` is the layer's own; in a directory of its own everything is.
    fn is_own(&self, dir: &Dir, name: &OsStr) -> Result<bool> {
        match &self.own {
            Some(own) => Ok(dir.metadata(name)?.is_some_and(|stat| own.has(&stat))),
            None => Ok(true),
        }
    }

    fn finish(self) -> Result<()> {
        for (path, mtime) in &self.times {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            // A later entry may have replaced it.
            let Ok(dir) = self.root.find_dir(parent) else { continue };
            if dir.metadata(name)?.is_some() {
                dir.set_mtime(name, *mtime, 0)?;
            }
        }
        Ok(())
    }
}

/// Writes each stretch of data to its place.
fn with_holes(sparse: &Sparse, content: &mut dyn Read, file: &mut std::fs::File) -> io::Result<()> {
    use std::io::Seek as _;
    for (offset, length) in &sparse.stretches {
        file.seek(io::SeekFrom::Start(*offset))?;
        io::copy(&mut content.take(*length), file)?;
    }
    file.set_len(sparse.size)
}

/// Removes whiteouts, which hide nothing any more.
fn remove_whiteouts(top: &Dir) -> Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let dir = top.plain_dir(&path)?;
        for name in dir.names()? {
            match dir.metadata(&name)? {
                Some(stat) if is_whiteout(&stat) => dir.remove_all(&name)?,
                Some(stat) if kind(&stat) == FileType::Directory => open.push(path.join(&name)),
                _ => {}
            }
        }
    }
    Ok(())
}

fn link_target<'a>(entry: &'a Entry, path: &Path) -> Result<&'a OsStr> {
    if entry.link.is_empty() || entry.link.contains(&0) {
        return Err(ExtractError::Entry {
            path: path.to_owned(),
            what: "is a link without target",
        });
    }
    Ok(OsStr::from_bytes(&entry.link))
}

fn node(entry: &Entry, dir: &Dir, name: &OsStr) -> Result<()> {
    let device = makedev(entry.device.0, entry.device.1);
    let file_type = match entry.kind {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    if file_type == FileType::CharacterDevice && device == 0 {
        // To the overlay this is a whiteout, not a device.
        let path = dir.path().join(name);
        return Err(ExtractError::Entry {
            path,
            what: "is a device 0:0, which is reserved",
        });
    }
    let device = if file_type == FileType::Fifo { 0 } else { device };
    Ok(dir.create_node(name, file_type, entry.mode, device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::{EntryHeader, TarWriter};

    fn entry(path: &str, file_type: FileType) -> EntryHeader<'_> {
        EntryHeader {
            path: Path::new(path),
            file_type,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 9,
            device: 0,
            target: None,
            hard_link: None,
            xattrs: &[],
        }
    }

    fn archive(entries: &[(EntryHeader<'_>, &[u8])]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (header, content) in entries {
            let header = EntryHeader {
                size: content.len() as u64,
                ..header.clone()
            };
            tar.append(&header, &mut &content[..]).unwrap();
        }
        tar.finish().unwrap()
    }

    fn unpack(bytes: &[u8], layer: bool) -> (PathBuf, Result<()>) {
        let base = std::env::temp_dir().join(format!("roadstead-extract-{}-{:p}", std::process::id(), bytes));
        std::fs::create_dir_all(&base).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let owner = Some(Owner {
            uid,
            gid: rustix::process::getgid().as_raw(),
        });
        let result = extract(
            bytes,
            &Dir::open(&base).unwrap(),
            &Options {
                form: match layer {
                    true => Form::Overlay,
                    false => Form::Archive,
                },
                owner,
                lowers: &[],
                limits: Limits { bytes: 5000, files: 5 },
            },
        );
        (base, result)
    }

    #[test]
    fn escapes_are_impossible() {
        let link = EntryHeader {
            target: Some(b"/tmp"),
            ..entry("out", FileType::Symlink)
        };
        let bytes = archive(&[
            (link, b""),
            (entry("out/roadstead-escaped", FileType::RegularFile), b"x"),
        ]);
        let (base, result) = unpack(&bytes, true);
        assert!(matches!(result, Err(ExtractError::File(_))), "{result:?}");
        assert!(!Path::new("/tmp/roadstead-escaped").exists());
        std::fs::remove_dir_all(base).unwrap();

        let (base, result) = unpack(&archive(&[(entry("a/../../x", FileType::RegularFile), b"x")]), true);
        assert!(matches!(result, Err(ExtractError::Entry { .. })), "{result:?}");
        std::fs::remove_dir_all(base).unwrap();

        let hard = EntryHeader {
            hard_link: Some(Path::new("../../etc/passwd")),
            ..entry("p", FileType::RegularFile)
        };
        let (base, result) = unpack(&archive(&[(hard, b"")]), true);
        assert!(matches!(result, Err(ExtractError::Entry { .. })), "{result:?}");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let bytes = archive(&[
            (entry("d", FileType::Directory), b""),
            (entry("d/f", FileType::RegularFile), b"one"),
            (entry("d", FileType::RegularFile), b"two"),
            (entry("e/f/g", FileType::RegularFile), b"three"),
        ]);
        let (base, result) = unpack(&bytes, false);
        result.unwrap();
        assert_eq!(std::fs::read(base.join("d")).unwrap(), b"two");
        assert_eq!(std::fs::read(base.join("e/f/g")).unwrap(), b"three");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn more_than_the_limits_is_an_error() {
        let file = |size: usize| (entry("f", FileType::RegularFile), vec![0; size]);
        let dir = || (entry("d", FileType::Directory), Vec::new());
        for (entries, want) in [
            (vec![file(5000), dir(), dir(), dir(), dir()], None),
            (vec![file(3000), file(2001)], Some(Exceeded::Bytes(5000))),
            (vec![dir(), dir(), dir(), dir(), dir(), dir()], Some(Exceeded::Files(5))),
        ] {
            let entries: Vec<_> = entries
                .iter()
                .map(|(header, content)| (header.clone(), content.as_slice()))
                .collect();
            let (base, result) = unpack(&archive(&entries), true);
            match (result, want) {
                (Ok(()), None) => {}
                (Err(ExtractError::TooLarge(found)), Some(want)) => assert_eq!(found, want),
                (result, _) => panic!("{result:?}"),
            }
            std::fs::remove_dir_all(base).unwrap();
        }
        // What follows the end counts too.
        let mut bytes = archive(&[]);
        bytes.resize(20 << 20, 0);
        let (base, result) = unpack(&bytes, true);
        assert!(matches!(result, Err(ExtractError::TooLarge(_))), "{result:?}");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn damaged_archives_are_errors() {
        let good = archive(&[(entry("f", FileType::RegularFile), &[7; 2000])]);
        let (base, result) = unpack(&good[..1000], false);
        assert!(
            matches!(result, Err(ExtractError::Archive(_) | ExtractError::File(_))),
            "{result:?}"
        );
        std::fs::remove_dir_all(base).unwrap();
        assert!(is_archive(&good[..]).unwrap());
        assert!(!is_archive(&b"#!/bin/sh\n"[..]).unwrap());
        assert!(!is_archive(&[0x1f, 0x8b, 8, 0][..]).unwrap());
    }
}
