//! COPY and ADD into a mounted root file system, by BuildKit's rules for directories, owners and links.

use crate::beneath::{Dir, FileError, Owner, clean, copy_contents, kind};
use crate::context::files::{Entry, SelectError, Selected, Tree};
use crate::layer::extract::{self, ExtractError};
use crate::layer::limits::Limits;
use rustix::fs::FileType;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Plain files that a thread takes at once.
const CHUNK: usize = 32;

/// Says where to and how files are copied.
#[derive(Debug)]
pub struct Target<'a> {
    /// The root file system.
    pub root: &'a Dir,
    /// Absolute destination as the Dockerfile has it, WORKDIR applied; a trailing `/` means a directory.
    pub destination: &'a str,
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<Chmod>,
    /// Whether archives among the sources are unpacked (ADD).
    pub unpack: bool,
    /// Whether a destination that is not there takes owner and mode of a source that is a directory.
    pub becomes: bool,
    /// How much is taken from an archive.
    pub limits: Limits,
    /// Times later than this, in seconds since 1970, become it, and all are whole seconds: as a layer will have them. Without it they
    /// stay as they are.
    pub epoch: Option<i64>,
}

impl Target<'_> {
    fn set_time(&self, dir: &Dir, name: &OsStr, entry: &Entry) -> Result<()> {
        let (seconds, nanoseconds) = match self.epoch {
            Some(epoch) => (entry.mtime.min(epoch), 0),
            None => (entry.mtime, entry.mtime_nanoseconds),
        };
        Ok(dir.set_mtime(name, seconds, nanoseconds)?)
    }
}

/// Holds `--chmod`: an octal mode, or symbolic clauses such as `u+x,go=r`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// The mode itself.
    Octal(u32),
    /// Clauses in order.
    Symbolic(Vec<Clause>),
}

/// One symbolic clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

/// Tells why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Reading the source failed.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Writing failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// An archive could not be unpacked.
    #[error("cannot unpack `{}`", path.display())]
    Extract {
        /// The archive.
        path: PathBuf,
        #[source]
        /// Why.
        source: ExtractError,
    },
    /// A directory would replace a file, or the other way round.
    #[error("cannot copy to `{}`: {what}", path.display())]
    Conflict {
        /// The destination.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
}

type Result<T> = std::result::Result<T, CopyError>;

impl Chmod {
    /// Parses octal (`755`, `0755`) or symbolic (`u=rwX,go=rX`) modes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.chars().all(|c| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|m| *m <= 0o7777 && !text.is_empty())
                .map(Self::Octal);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let operators = part.find(['+', '-', '='])?;
            let mut who = 0;
            for letter in part[..operators].chars() {
                who |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return None,
                };
            }
            let permissions = part[operators + 1..].to_owned();
            let copies = matches!(permissions.as_str(), "u" | "g" | "o");
            if !copies && !permissions.chars().all(|c| "rwxXst".contains(c)) {
                return None;
            }
            let operator = part[operators..].chars().next()?;
            clauses.push(Clause {
                who: if who == 0 { 0o7777 } else { who },
                operator,
                permissions,
            });
        }
        Some(Self::Symbolic(clauses))
    }

    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let bits = self.permissions.chars().fold(0, |bits, c| {
            // The permissions of one class for all.
            let copied = |shift: u32| ((mode >> shift) & 7) * 0o111;
            bits | match c {
                'u' => copied(6),
                'g' => copied(3),
                'o' => copied(0),
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                _ => 0,
            }
        }) & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !(self.who & 0o777)) | bits,
        }
    }
}

/// Copies every selected source to the target.
///
/// Directories give their contents; an existing top directory keeps its owner and mode, nested ones take the source's.
///
/// # Errors
/// The first failing operation. The root then holds part of the copy and must be thrown away.
pub fn copy(tree: &Tree, sources: &[Selected], target: &Target<'_>) -> Result<()> {
    for selected in sources {
        let Some(top) = selected.entries.first() else { continue };
        if target.unpack && top.file_type == FileType::RegularFile && unpack(tree, selected, top, target)? {
            continue;
        }
        let copier = Copier { tree, selected, target };
        copier.run(top)?;
    }
    Ok(())
}

/// Writes one heredoc file.
///
/// # Errors
/// As [`copy`].
pub fn write_inline(name: &str, content: &[u8], target: &Target<'_>) -> Result<()> {
    let (dir, name) = place(target, OsStr::new(name), false)?;
    clear_for_file(target.root, &dir, &name)?;
    let file = dir.create_file(&name)?;
    let mut out = &file;
    std::io::Write::write_all(&mut out, content).map_err(|e| FileError::new("write", dir.path().join(&name), e))?;
    dir.set_owner(&name, target.owner.unwrap_or(Owner { uid: 0, gid: 0 }))?;
    dir.set_mode(&name, target.mode.as_ref().map_or(0o644, |m| m.apply(0o644, false)))?;
    Ok(())
}

/// Finds the directory and name that a file goes to.
fn place(target: &Target<'_>, source_name: &OsStr, is_dir: bool) -> Result<(Dir, OsString)> {
    let cleaned = clean(Path::new(target.destination));
    let wants_dir =
        target.destination.ends_with('/') || target.destination.ends_with("/.") || cleaned.as_os_str().is_empty();
    // A link leads to where the file really goes, be it there already or not.
    let path = target.root.landing(&cleaned)?;
    let exists_as_dir = target
        .root
        .follow(&path)?
        .is_some_and(|stat| kind(&stat) == FileType::Directory);
    if is_dir || wants_dir || exists_as_dir {
        return Ok((target.root.make_dirs(&path, target.owner)?, source_name.to_owned()));
    }
    let parent = target
        .root
        .make_dirs(path.parent().unwrap_or(Path::new("")), target.owner)?;
    Ok((parent, path.file_name().unwrap_or_default().to_owned()))
}

/// Names a file as the image has it.
fn shown(root: &Dir, dir: &Dir, name: &OsStr) -> PathBuf {
    let path = dir.path().join(name);
    Path::new("/").join(path.strip_prefix(root.path()).unwrap_or(&path))
}

fn clear_for_file(root: &Dir, dir: &Dir, name: &OsStr) -> Result<()> {
    match dir.metadata(name)? {
        Some(stat) if kind(&stat) == FileType::Directory => Err(CopyError::Conflict {
            path: shown(root, dir, name),
            what: "a directory stands where a file would go",
        }),
        Some(_) => Ok(dir.remove_all(name)?),
        None => Ok(()),
    }
}

fn unpack(tree: &Tree, selected: &Selected, top: &Entry, target: &Target<'_>) -> Result<bool> {
    let open = || -> Result<std::fs::File> {
        let (dir, name) = tree.parent_of(selected, top)?;
        Ok(dir.open_file(&name)?)
    };
    let failed = |source| CopyError::Extract {
        path: selected.path.clone(),
        source,
    };
    if !extract::is_archive(open()?).map_err(|e| failed(ExtractError::Archive(e)))? {
        return Ok(false);
    }
    let dir = target
        .root
        .make_dirs(&clean(Path::new(target.destination)), target.owner)?;
    let stream = extract::decompress(open()?).map_err(|e| failed(ExtractError::Archive(e)))?;
    // As with BuildKit, what an archive holds keeps its owners.
    let options = extract::Options {
        limits: target.limits,
        ..extract::Options::default()
    };
    extract::extract(stream, &dir, &options).map_err(failed)?;
    Ok(true)
}

struct Copier<'a> {
    tree: &'a Tree,
    selected: &'a Selected,
    target: &'a Target<'a>,
}

/// Where an entry goes, and where it comes from: the directories that hold it.
struct Place {
    to: Dir,
    from: Dir,
}

/// The places of entries, of which neighbours share one.
struct Places<'a> {
    copier: &'a Copier<'a>,
    base: &'a Dir,
    last: Option<(PathBuf, Place)>,
}

impl<'a> Places<'a> {
    fn new(copier: &'a Copier<'a>, base: &'a Dir) -> Self {
        let last = None;
        Self { copier, base, last }
    }

    fn of(&mut self, entry: &Entry) -> Result<&Place> {
        let parent = entry.relative.parent().unwrap_or(Path::new(""));
        let last = match self.last.take().filter(|(known, _)| known == parent) {
            Some(last) => last,
            None => {
                let place = Place {
                    // Directories inside were made by this copy or stood there; a link in their place is followed within the root.
                    to: self.copier.inside(self.base, parent)?,
                    from: self.copier.tree.parent_of(self.copier.selected, entry)?.0,
                };
                (parent.to_owned(), place)
            }
        };
        Ok(&self.last.insert(last).1)
    }
}

impl Copier<'_> {
    fn run(&self, top: &Entry) -> Result<()> {
        let is_dir = top.file_type == FileType::Directory;
        let becomes = is_dir && self.target.becomes && !self.is_there()?;
        let (base, name) = place(self.target, &self.selected.name, is_dir)?;
        if becomes {
            let place = Place {
                to: base.plain_dir(Path::new(""))?,
                from: self.tree.parent_of(self.selected, top)?.0,
            };
            self.attributes(&place, OsStr::new("."), top)?;
        }
        if !is_dir {
            let place = Place {
                to: base,
                from: self.tree.parent_of(self.selected, top)?.0,
            };
            return self.file(&place, &name, top, &mut HashMap::new());
        }
        self.inside_out(&base)?;
        self.directory_times(&base)
    }

    /// Copies what lies in a directory: directories and whatever refers to others first, then plain files side by side.
    fn inside_out(&self, base: &Dir) -> Result<()> {
        // Names seen in this copy by device and inode, so that hard links stay links.
        let mut links = HashMap::new();
        let mut plain = Vec::new();
        let mut places = Places::new(self, base);
        for entry in self.selected.entries.iter().skip(1) {
            let name = entry.relative.file_name().unwrap_or_default();
            if entry.file_type == FileType::Directory {
                self.directory(places.of(entry)?, name, entry)?;
            } else if entry.file_type == FileType::RegularFile && entry.hard_link.is_none() {
                plain.push(entry);
            } else {
                self.file(places.of(entry)?, name, entry, &mut links)?;
            }
        }
        self.side_by_side(base, &plain)
    }

    fn side_by_side(&self, base: &Dir, files: &[&Entry]) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // Neighbours lie in one directory, which a thread looks up once.
        let chunks: Vec<&[&Entry]> = files.chunks(CHUNK).collect();
        let next = AtomicUsize::new(0);
        let failure = OnceLock::new();
        let work = || {
            let mut places = Places::new(self, base);
            while failure.get().is_none()
                && let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let copied = chunk.iter().try_for_each(|entry| {
                    let name = entry.relative.file_name().unwrap_or_default();
                    self.file(places.of(entry)?, name, entry, &mut HashMap::new())
                });
                if let Err(error) = copied {
                    drop(failure.set(error));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..chunks.len().min(cores) {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    fn is_there(&self) -> Result<bool> {
        let destination = clean(Path::new(self.target.destination));
        Ok(self.target.root.follow(&destination)?.is_some())
    }

    fn inside(&self, base: &Dir, parent: &Path) -> Result<Dir> {
        if parent.as_os_str().is_empty() {
            return Ok(base.plain_dir(Path::new(""))?);
        }
        let below = base
            .path()
            .strip_prefix(self.target.root.path())
            .unwrap_or(Path::new(""));
        Ok(self.target.root.find_dir(&below.join(parent))?)
    }

    fn directory(&self, place: &Place, name: &OsStr, entry: &Entry) -> Result<()> {
        let dir = &place.to;
        match dir.metadata(name)? {
            Some(stat) if kind(&stat) == FileType::Directory => {}
            Some(stat) if kind(&stat) == FileType::Symlink => {
                return Err(CopyError::Conflict {
                    path: shown(self.target.root, dir, name),
                    what: "a link stands where a directory would go",
                });
            }
            Some(_) => {
                return Err(CopyError::Conflict {
                    path: shown(self.target.root, dir, name),
                    what: "a file stands where a directory would go",
                });
            }
            None => dir.create_dir(name, 0o700)?,
        }
        self.attributes(place, name, entry)
    }

    fn file(&self, place: &Place, name: &OsStr, entry: &Entry, links: &mut HashMap<(u64, u64), PathBuf>) -> Result<()> {
        let dir = &place.to;
        clear_for_file(self.target.root, dir, name)?;
        if let Some(earlier) = entry.hard_link.and_then(|id| links.get(&id)) {
            let from = self.inside_root(earlier.parent().unwrap_or(Path::new("")))?;
            return Ok(dir.create_hard_link(name, &from, earlier.file_name().unwrap_or_default())?);
        }
        match entry.file_type {
            FileType::RegularFile => {
                let from_name = self.name_of(entry);
                let source = place.from.open_file(&from_name)?;
                let out = dir.create_file(name)?;
                let failed = |e| FileError::new("copy", place.from.path().join(&from_name), e);
                copy_contents(&source, &out).map_err(failed)?;
            }
            FileType::Symlink => dir.create_link(name, entry.target.as_deref().unwrap_or_default())?,
            kind => dir.create_node(name, kind, entry.mode, entry.device)?,
        }
        self.attributes(place, name, entry)?;
        if let Some(id) = entry.hard_link {
            links.insert(id, dir.path().join(name));
        }
        Ok(())
    }

    fn inside_root(&self, path: &Path) -> Result<Dir> {
        let below = path.strip_prefix(self.target.root.path()).unwrap_or(Path::new(""));
        Ok(self.target.root.find_dir(below)?)
    }

    /// The entry's name in the tree it is copied from.
    fn name_of(&self, entry: &Entry) -> OsString {
        let full = self.selected.path.join(&entry.relative);
        full.file_name().unwrap_or_default().to_owned()
    }

    fn attributes(&self, place: &Place, name: &OsStr, entry: &Entry) -> Result<()> {
        let dir = &place.to;
        dir.set_owner(
            name,
            self.target.owner.unwrap_or(Owner {
                uid: entry.uid,
                gid: entry.gid,
            }),
        )?;
        if entry.file_type != FileType::Symlink {
            let is_dir = entry.file_type == FileType::Directory;
            dir.set_mode(
                name,
                self.target
                    .mode
                    .as_ref()
                    .map_or(entry.mode, |m| m.apply(entry.mode, is_dir)),
            )?;
            for (key, value) in place.from.xattrs(&self.name_of(entry))? {
                dir.set_xattr(name, &key, &value)?;
            }
        }
        self.target.set_time(dir, name, entry)
    }

    /// Sets the times of nested directories last, since every file made in them changed them.
    fn directory_times(&self, base: &Dir) -> Result<()> {
        for entry in self
            .selected
            .entries
            .iter()
            .skip(1)
            .rev()
            .filter(|e| e.file_type == FileType::Directory)
        {
            let dir = self.inside(base, entry.relative.parent().unwrap_or(Path::new("")))?;
            let name = entry.relative.file_name().unwrap_or_default();
            self.target.set_time(&dir, name, entry)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chmod_octal_and_symbolic() {
        for (text, mode, is_dir, want) in [
            ("755", 0o600, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o755, false, 0o700),
            ("a=rX", 0o755, false, 0o555),
            ("a=rX", 0o644, false, 0o444),
            ("a=rX", 0o644, true, 0o555),
            ("u=rw,go=r", 0o777, false, 0o644),
            ("+x", 0o600, false, 0o711),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o755, true, 0o1755),
            ("g=u", 0o750, false, 0o770),
            ("o+g", 0o750, false, 0o755),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, is_dir), want, "{text}");
        }
        for bad in ["", "888", "u", "z+x", "u+q", "77777"] {
            assert_eq!(Chmod::parse(bad), None, "{bad}");
        }
    }
}
