//! What a step changed in a tree of files that has no overlay: the tree is compared with what it was, and what is other is written as
//! the layer that an overlay would have given.

use super::aside::Aside;
use super::diff::{DiffError, MAX_DEPTH, Options, Writer, check_name};
use super::snapshot::{self, Compared, Directory, Seen, Snapshot};
use crate::beneath::{Dir, kind};
use crate::layer::lowers::is_whiteout;
use crate::layer::tar::TarWriter;
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

/// Writes what is other below `root` than it was `before`, in byte order. Tells how many entries there were, and gives what the tree
/// looks like now.
///
/// # Errors
/// When reading or writing fails.
pub(super) fn write<W: Write>(
    root: &Dir,
    before: &Snapshot,
    tar: &mut TarWriter<W>,
    options: &Options<'_>,
    aside: &Aside,
) -> Result<(usize, Snapshot), DiffError> {
    let Compared { snapshot, changed } = snapshot::compare(root, Some(before), aside)?;
    let mut comparison = Comparison {
        root,
        before,
        after: snapshot,
        changed,
        aside,
        writer: Writer::new(tar, options),
    };
    comparison.directory(Path::new(""), 0, Some(0), 0)?;
    Ok((comparison.writer.count, comparison.after))
}

struct Comparison<'a, W: Write> {
    root: &'a Dir,
    before: &'a Snapshot,
    after: Snapshot,
    /// Of each directory of `after`, whether anything in it or below has changed.
    changed: Vec<bool>,
    aside: &'a Aside,
    writer: Writer<'a, W>,
}

/// One file among those of its directory.
struct Place<'a> {
    dir: &'a Dir,
    /// The directory's path and number.
    path: &'a Path,
    number: u32,
}

impl<W: Write> Comparison<'_, W> {
    /// Writes the changes in a directory. `before` is what it was, if it is the same one: all that lies in a new one is new.
    fn directory(&mut self, path: &Path, number: u32, before: Option<u32>, depth: usize) -> Result<(), DiffError> {
        if depth > MAX_DEPTH {
            return Err(DiffError::TooDeep);
        }
        let dir = self.root.plain_dir(path)?;
        let place = Place {
            dir: &dir,
            path,
            number,
        };
        let after = self.after.directory(number).clone();
        let was = before.map(|number| self.before.directory(number));
        let mut known = was.into_iter().flat_map(Directory::files).peekable();
        for file in after.files() {
            while let Some(gone) = known.next_if(|old| old.name < file.name) {
                self.gone(&place, gone.name)?;
            }
            let old = known.next_if(|old| old.name == file.name);
            self.file(&place, file, old, depth)?;
        }
        known.try_for_each(|gone| self.gone(&place, gone.name))
    }

    fn gone(&mut self, place: &Place<'_>, name: &OsStr) -> Result<(), DiffError> {
        if self.aside.is_left_out(place.path, name) {
            return Ok(());
        }
        self.writer.whiteout(&place.path.join(name))
    }

    fn file(
        &mut self,
        place: &Place<'_>,
        file: Seen<'_>,
        old: Option<Seen<'_>>,
        depth: usize,
    ) -> Result<(), DiffError> {
        let (path, name) = (place.path, file.name);
        if self.aside.is_left_out(path, name) || (old.is_some() && self.aside.is_untouched(path, name)) {
            return Ok(());
        }
        let stays = old.filter(|old| old.directory.is_some() == file.directory.is_some());
        let has_lost_a_name = |old: Seen<'_>| {
            self.aside.is_own_step && old.without_change.is_some() && old.without_change == file.without_change
        };
        let looks_same = stays.is_some_and(|old| old.looks == file.looks || has_lost_a_name(old));
        let Some(inside) = file.directory else {
            return match looks_same {
                true => Ok(()),
                false => self.entry(place, file).map(drop),
            };
        };
        let replaced = stays.and_then(|old| old.directory);
        let same = replaced.filter(|old| self.before.directory(*old).identity == self.after.directory(inside).identity);
        let looks_same = looks_same || self.aside.is_untouched_dir(path, name);
        if same.is_some() && looks_same && !self.changed[inside as usize] {
            return Ok(());
        }
        self.entry(place, file)?;
        let full = path.join(name);
        if replaced.is_some() && same.is_none() {
            self.writer.opaque(&full)?;
        }
        self.directory(&full, inside, same, depth + 1)
    }

    /// Writes one file, and notes what it looks like then.
    fn entry(&mut self, place: &Place<'_>, file: Seen<'_>) -> Result<(), DiffError> {
        let full = place.path.join(file.name);
        check_name(file.name, &full)?;
        let Some(stat) = place.dir.metadata(file.name)? else {
            return Ok(());
        };
        if is_whiteout(&stat) {
            return Err(DiffError::Reserved(full));
        }
        // A socket cannot live in a tar; its maker makes it again.
        if kind(&stat) == FileType::Socket {
            return Ok(());
        }
        let is_touched = self.writer.entry(place.dir, file.name, &full, &stat)?;
        let now = match is_touched {
            true => place.dir.metadata(file.name)?.unwrap_or(stat),
            false => stat,
        };
        self.after.note(place.number, file.at, &now);
        Ok(())
    }
}
