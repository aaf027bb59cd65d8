//! Files that COPY and ADD select: found below a root, in a fixed order, with a digest over exactly what a copy would take.

use super::Context;
use super::ignore::Ignore;
use super::pattern::{Pattern, PatternError};
use super::stat_cache::StatCache;
use crate::beneath::{Dir, FileError, Xattr, clean, kind};
use crate::dockerfile::instruction::nearest;
use roadstead_registry_client::Digest;
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Deepest directory nesting walked; the kernel's longest path allows not much more.
const MAX_DEPTH: usize = 1024;

/// Tells why files could not be selected or read.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A source without wildcard names nothing.
    #[error("`{0}` not found{1}")]
    NotFound(String, String),
    /// A malformed wildcard.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory is nested too deeply.
    #[error("`{}` is nested too deeply", .0.display())]
    TooDeep(PathBuf),
}

type Result<T> = std::result::Result<T, SelectError>;

/// A tree of files to copy from: the build context, or the root file system of a stage or an image.
#[derive(Debug)]
pub struct Tree {
    root: Dir,
    ignore: Option<Ignore>,
    /// Whether every file counts as owned by root, as files of the context do.
    owned_by_root: bool,
    /// The time of every file, in seconds since 1970, in place of its own.
    time: Option<i64>,
    /// What is known of its files.
    stats: Option<StatCache>,
}

/// Says which of the files that a source names are wanted.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `--parents`: the directories above a file come along.
    pub parents: bool,
    /// `--exclude`: what is left out, below a source that is a directory or by the source's own name.
    pub exclude: Ignore,
}

/// Holds one selected source with all that lies below it.
#[derive(Debug)]
pub struct Selected {
    /// Its path below the tree's root, links resolved.
    pub path: PathBuf,
    /// The name the user chose for it: the last part of the source as written.
    pub name: OsString,
    /// Itself first, then what lies below in byte order of the paths.
    pub entries: Vec<Entry>,
}

/// Holds one file, directory, link or node.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path below the selected source; empty for itself.
    pub relative: PathBuf,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits, setuid and sticky included.
    pub mode: u32,
    /// User id (0 in a context).
    pub uid: u32,
    /// Group id (0 in a context).
    pub gid: u32,
    /// Bytes, for regular files.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of it.
    pub mtime_nanoseconds: i64,
    /// Time of the last change of content or metadata, which nobody can set: seconds and nanoseconds.
    pub changed: (i64, i64),
    /// Its own time of modification, whatever time the tree's files are given: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Device and inode.
    pub id: (u64, u64),
    /// Device number, for devices.
    pub device: u64,
    /// Device and inode, when the file has several names.
    pub hard_link: Option<(u64, u64)>,
    /// Target, for links.
    pub target: Option<OsString>,
}

impl Tree {
    /// Opens a build context.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn context(context: &Context) -> Result<Self> {
        Ok(Self {
            root: Dir::open(&context.path)?,
            ignore: Some(context.ignore.clone()),
            owned_by_root: !context.keeps_owners,
            time: None,
            stats: context.stats.clone(),
        })
    }

    /// Opens a directory that was fetched, all of whose files have the time `time` when it is given.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn fetched(path: &Path, time: Option<i64>) -> Result<Self> {
        Ok(Self {
            root: Dir::open(path)?,
            ignore: None,
            owned_by_root: true,
            time,
            stats: None,
        })
    }

    /// Opens a root file system.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn rootfs(path: &Path) -> Result<Self> {
        Ok(Self {
            root: Dir::open(path)?,
            ignore: None,
            owned_by_root: false,
            time: None,
            stats: None,
        })
    }

    /// The time that all its files are given.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        self.time
    }

    /// Selects what `source` names: clipped to the root, wildcards expanded in byte order, a last link followed within the root.
    ///
    /// A wildcard that matches nothing gives nothing, as BuildKit does.
    ///
    /// # Errors
    /// When a source without wildcard does not exist or is ignored, and when reading fails.
    pub fn select(&self, source: &str, choice: &Choice) -> Result<Vec<Selected>> {
        if choice.parents {
            return self.select_with_parents(source, choice);
        }
        let mut selected = self.select_all(source)?;
        for one in &mut selected {
            one.leave_out(&choice.exclude);
        }
        selected.retain(|one| !one.entries.is_empty());
        Ok(selected)
    }

    /// Selects what matches below each directory that stands before `/./`, or below the root.
    fn select_with_parents(&self, source: &str, choice: &Choice) -> Result<Vec<Selected>> {
        let (pivot, wanted) = source.split_once("/./").unwrap_or(("", source));
        let wanted = clean(Path::new(wanted));
        let Some(text) = wanted.to_str().filter(|text| !text.is_empty()) else {
            return self.select(
                pivot,
                &Choice {
                    parents: false,
                    ..choice.clone()
                },
            );
        };
        let include = Ignore::only(text)?;
        let mut selected = self.select_all(pivot)?;
        selected.retain(|one| {
            one.entries
                .first()
                .is_some_and(|top| top.file_type == FileType::Directory)
        });
        for one in &mut selected {
            one.keep(|path| include.excludes(path));
            one.leave_out(&choice.exclude);
        }
        let found = selected.iter().any(|one| one.entries.len() > 1);
        if !found && !Pattern::is_pattern(source) {
            return Err(SelectError::NotFound(source.to_owned(), String::new()));
        }
        Ok(selected)
    }

    fn select_all(&self, source: &str) -> Result<Vec<Selected>> {
        let cleaned = clean(Path::new(source));
        let mut found = Vec::new();
        if Pattern::is_pattern(source) {
            let parts: Vec<&OsStr> = cleaned.iter().collect();
            self.expand(&parts, PathBuf::new(), &mut found)?;
        } else {
            if self.ignored(&cleaned) && !self.may_return(&cleaned) {
                return Err(SelectError::NotFound(
                    source.to_owned(),
                    ": the ignore file leaves it out".to_owned(),
                ));
            }
            if self.root.follow(&cleaned)?.is_none() {
                return Err(SelectError::NotFound(source.to_owned(), self.near(&cleaned)));
            }
            found.push(cleaned);
        }
        let selected: Vec<Selected> = found.iter().map(|path| self.load(path)).collect::<Result<_>>()?;
        // Nothing below an ignored directory was taken back in.
        if !Pattern::is_pattern(source) && selected.iter().all(|one| one.entries.is_empty()) {
            let why = ": the ignore file leaves it out".to_owned();
            return Err(SelectError::NotFound(source.to_owned(), why));
        }
        Ok(selected)
    }

    /// Ends a message with the file beside `path` whose name was probably meant.
    fn near(&self, path: &Path) -> String {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
            return String::new();
        };
        let Ok(names) = self.root.find_dir(parent).and_then(|dir| dir.names()) else {
            return String::new();
        };
        let mut known: Vec<&str> = names.iter().filter_map(|known| known.to_str()).collect();
        known.retain(|known| !self.ignored(&parent.join(known)));
        let found = nearest(name, known.into_iter());
        found.map_or_else(String::new, |known| {
            format!(": did you mean `{}`?", parent.join(known).display())
        })
    }

    fn expand(&self, parts: &[&OsStr], base: PathBuf, found: &mut Vec<PathBuf>) -> Result<()> {
        let Some((first, rest)) = parts.split_first() else {
            if !self.ignored(&base) || self.may_return(&base) {
                found.push(base);
            }
            return Ok(());
        };
        let text = first.to_string_lossy();
        if !Pattern::is_pattern(&text) {
            return match self.root.follow(&base.join(first))? {
                Some(_) => self.expand(rest, base.join(first), found),
                None => Ok(()),
            };
        }
        let pattern = Pattern::for_copy(&text)?;
        let Some(stat) = self.root.follow(&base)? else {
            return Ok(());
        };
        if kind(&stat) != FileType::Directory {
            return Ok(());
        }
        for name in self.root.find_dir(&base)?.names()? {
            if pattern.matches(name.as_bytes()) {
                self.expand(rest, base.join(&name), found)?;
            }
        }
        Ok(())
    }

    fn ignored(&self, path: &Path) -> bool {
        let Some(ignore) = &self.ignore else { return false };
        !path.as_os_str().is_empty() && ignore.excludes(path.as_os_str().as_bytes())
    }

    /// Tells whether an ignored directory must be walked all the same for the sake of `!` lines.
    fn may_return(&self, path: &Path) -> bool {
        self.ignore.as_ref().is_some_and(Ignore::has_exceptions) && self.root.find_dir(path).is_ok()
    }

    fn load(&self, path: &Path) -> Result<Selected> {
        let real = self.root.canonical(path)?;
        let mut entries = Vec::new();
        let parent = real.parent().unwrap_or(Path::new(""));
        let name = real.file_name().unwrap_or_default();
        self.walk(
            &self.root.plain_dir(parent)?,
            name,
            &real,
            PathBuf::new(),
            0,
            &mut entries,
        )?;
        Ok(Selected {
            name: path.file_name().unwrap_or_default().to_owned(),
            path: real,
            entries,
        })
    }

    fn walk(
        &self,
        dir: &Dir,
        name: &OsStr,
        full: &Path,
        relative: PathBuf,
        depth: usize,
        out: &mut Vec<Entry>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(SelectError::TooDeep(full.to_owned()));
        }
        let Some(stat) = dir.metadata(name)? else { return Ok(()) };
        let file_type = kind(&stat);
        let ignored = self.ignored(full);
        // A socket has no content to copy; docker's client leaves it out too.
        if file_type == FileType::Socket || (ignored && file_type != FileType::Directory) {
            return Ok(());
        }
        if ignored && !self.ignore.as_ref().is_some_and(Ignore::has_exceptions) {
            return Ok(());
        }
        let target = if file_type == FileType::Symlink {
            Some(dir.read_link(name)?)
        } else {
            None
        };
        let at = out.len();
        out.push(Entry {
            relative: relative.clone(),
            file_type,
            mode: stat.st_mode & 0o7777,
            uid: if self.owned_by_root { 0 } else { stat.st_uid },
            gid: if self.owned_by_root { 0 } else { stat.st_gid },
            size: if file_type == FileType::RegularFile {
                u64::try_from(stat.st_size).unwrap_or(0)
            } else {
                0
            },
            mtime: self.time.unwrap_or(stat.st_mtime),
            mtime_nanoseconds: match self.time {
                Some(_) => 0,
                None => i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            changed: change_time(&stat),
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            id: (stat.st_dev, stat.st_ino),
            device: stat.st_rdev,
            hard_link: (stat.st_nlink > 1 && file_type == FileType::RegularFile).then_some((stat.st_dev, stat.st_ino)),
            target,
        });
        if file_type != FileType::Directory {
            return Ok(());
        }
        let inside = if name.is_empty() {
            self.root.plain_dir(Path::new(""))?
        } else {
            dir.plain_dir(Path::new(name))?
        };
        for child in inside.names()? {
            self.walk(
                &inside,
                &child,
                &full.join(&child),
                relative.join(&child),
                depth + 1,
                out,
            )?;
        }
        // An ignored directory is there only for the sake of something below it.
        if ignored && out.len() == at + 1 {
            out.truncate(at);
        }
        Ok(())
    }

    /// Opens the directory that holds an entry, and gives the entry's name in it.
    ///
    /// # Errors
    /// When it is gone, or a link has taken a directory's place.
    pub fn parent_of(&self, selected: &Selected, entry: &Entry) -> Result<(Dir, OsString)> {
        let full = selected.path.join(&entry.relative);
        // `join("")` leaves a trailing slash, which file_name ignores.
        let parent = full.parent().unwrap_or(Path::new(""));
        Ok((
            self.root.plain_dir(parent)?,
            full.file_name().unwrap_or_default().to_owned(),
        ))
    }

    /// Tells whether every file is still what it was when it was selected.
    #[must_use]
    pub fn is_unchanged(&self, sources: &[Selected]) -> bool {
        let mut entries = sources.iter().flat_map(|s| s.entries.iter().map(move |e| (s, e)));
        // Neighbours lie in one directory.
        let mut last: Option<(PathBuf, Dir)> = None;
        entries.all(|(selected, entry)| {
            let full = selected.path.join(&entry.relative);
            let (parent, name) = (
                full.parent().unwrap_or(Path::new("")),
                full.file_name().unwrap_or_default(),
            );
            if last.as_ref().is_none_or(|(known, _)| known != parent) {
                let Ok(dir) = self.root.plain_dir(parent) else {
                    return false;
                };
                last = Some((parent.to_owned(), dir));
            }
            let Some((_, dir)) = &last else { return false };
            dir.metadata(name)
                .is_ok_and(|stat| stat.is_some_and(|stat| change_time(&stat) == entry.changed))
        })
    }

    /// Reads an entry's extended attributes.
    ///
    /// # Errors
    /// When a call fails.
    pub fn xattrs(&self, selected: &Selected, entry: &Entry) -> Result<Vec<Xattr>> {
        let (dir, name) = self.parent_of(selected, entry)?;
        Ok(dir.xattrs(&name)?)
    }

    /// Digests everything a copy of `sources` would take: paths, kinds, modes, owners, contents, links and attributes, not times.
    ///
    /// Files are read by as many threads as there are cores.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn digest(&self, sources: &[Selected]) -> Result<Digest> {
        let all = sources.iter().flat_map(|s| s.entries.iter().map(move |e| (s, e)));
        let mut names = HashMap::new();
        let mut jobs: Vec<(&Selected, &Entry, Option<usize>)> = Vec::new();
        for (at, (selected, entry)) in all.enumerate() {
            // Two names of one file are another image than two files.
            let first = entry
                .hard_link
                .map(|id| *names.entry(id).or_insert(at))
                .filter(|first| *first != at);
            jobs.push((selected, entry, first));
        }
        let next = AtomicUsize::new(0);
        let slots: Vec<OnceLock<[u8; 32]>> = jobs.iter().map(|_| OnceLock::new()).collect();
        let failure: OnceLock<SelectError> = OnceLock::new();
        let threads = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(16)
            .min(jobs.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while failure.get().is_none() {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some((selected, entry, first)) = jobs.get(at) else {
                            return;
                        };
                        match self.digest_entry(selected, entry, *first) {
                            Ok(hash) => drop(slots[at].set(hash)),
                            Err(e) => drop(failure.set(e)),
                        }
                    }
                });
            }
        });
        if let Some(e) = failure.into_inner() {
            return Err(e);
        }
        let mut all = Sha256::new();
        for slot in slots {
            all.update(slot.into_inner().unwrap_or_default());
        }
        Ok(Digest::from_sha256(all.finalize().into()))
    }

    fn digest_entry(&self, selected: &Selected, entry: &Entry, first_name: Option<usize>) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(if entry.relative.as_os_str().is_empty() {
            selected.name.as_bytes()
        } else {
            b""
        });
        field(entry.relative.as_os_str().as_bytes());
        field(
            format!(
                "{:?} {:o} {} {} {}",
                entry.file_type, entry.mode, entry.uid, entry.gid, entry.device
            )
            .as_bytes(),
        );
        field(first_name.map(|at| at.to_string()).unwrap_or_default().as_bytes());
        field(entry.target.as_deref().unwrap_or_default().as_bytes());
        let xattrs = self.xattrs(selected, entry)?;
        field(&(xattrs.len() as u64).to_be_bytes());
        for (name, value) in xattrs {
            field(name.as_bytes());
            field(&value);
        }
        if entry.file_type == FileType::RegularFile {
            // Framed by being a digest of its own: the content may be as long as it likes, and say what it likes.
            let content = match &self.stats {
                Some(stats) => {
                    let path = selected.path.join(&entry.relative);
                    stats.content(&clean(&path), entry, || self.content(selected, entry))?
                }
                None => Digest::from_sha256(self.content(selected, entry)?),
            };
            field(content.hex().as_bytes());
        }
        Ok(hash.finalize().into())
    }

    fn content(&self, selected: &Selected, entry: &Entry) -> Result<[u8; 32]> {
        let (dir, name) = self.parent_of(selected, entry)?;
        let mut file = dir.open_file(&name)?;
        let mut buffer = vec![0u8; 256 << 10];
        let mut content = Sha256::new();
        loop {
            let n = file
                .read(&mut buffer)
                .map_err(|e| FileError::new("read", dir.path().join(&name), e))?;
            if n == 0 {
                return Ok(content.finalize().into());
            }
            content.update(&buffer[..n]);
        }
    }

    /// Tells which files of `sources` are others than when a build before looked, as far as that is known.
    #[must_use]
    pub fn changes(&self, sources: &[Selected]) -> Vec<String> {
        let Some(stats) = &self.stats else { return Vec::new() };
        let paths = sources.iter().flat_map(|selected| {
            let files = selected
                .entries
                .iter()
                .filter(|entry| entry.file_type == FileType::RegularFile);
            files.map(|entry| clean(&selected.path.join(&entry.relative)))
        });
        let below: Vec<&Path> = sources.iter().map(|selected| selected.path.as_path()).collect();
        stats.changes(&below, &paths.collect())
    }
}

impl Selected {
    /// Keeps what `wanted` says of the paths below the source, and the directories above it. The source itself stays.
    fn keep(&mut self, wanted: impl Fn(&[u8]) -> bool) {
        let mut needed: std::collections::HashSet<PathBuf> = std::collections::HashSet::new();
        // What lies in a directory comes after it: seen from the end, a directory's content is decided first.
        let mut kept: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..).rev() {
            let path = &entry.relative;
            let is_top = path.as_os_str().is_empty();
            if !is_top && !wanted(path.as_os_str().as_bytes()) && !needed.contains(path) {
                continue;
            }
            if let Some(parent) = path.parent() {
                needed.insert(parent.to_owned());
            }
            kept.push(entry);
        }
        kept.reverse();
        self.entries = kept;
    }

    fn leave_out(&mut self, exclude: &Ignore) {
        if exclude.is_empty() {
            return;
        }
        let is_dir = self
            .entries
            .first()
            .is_some_and(|top| top.file_type == FileType::Directory);
        if is_dir {
            self.keep(|path| !exclude.excludes(path));
        } else if exclude.excludes(self.name.as_bytes()) {
            self.entries.clear();
        }
    }
}

fn change_time(stat: &rustix::fs::Stat) -> (i64, i64) {
    (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

/// Joins bytes to a path, for names that archives bring.
#[must_use]
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}
