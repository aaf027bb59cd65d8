//! What one build leaves for the next of its kind: small sealed files, of which the newest are kept. Losing one costs time only.

use crate::sealed;
use roadstead_registry_client::Digest;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Notes kept in one directory. An agent's jobs each have a context of their own, and none comes again.
const MOST: usize = 200;
/// Ending of a note that is being written.
const PART: &str = "part";
/// Age at which one that is being written is litter of a killed build.
const LITTER: Duration = Duration::from_secs(3600);

/// A note: where it lies, in which form, and whose it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    dir: PathBuf,
    form: &'static str,
    owner: String,
    limit: u64,
}

impl Note {
    /// Means the note of `about` in `dir`, of at most `limit` bytes. `form` changes when the meaning of its content does.
    pub(crate) fn new(dir: &Path, form: &'static str, about: &[u8], limit: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            form,
            owner: Digest::of(about).hex().to_owned(),
            limit,
        }
    }

    /// Reads it. One that is damaged, too large or of another form counts as none.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        let path = self.dir.join(&self.owner);
        if std::fs::metadata(&path).ok()?.len() > self.limit {
            return None;
        }
        let bytes = std::fs::read(&path).ok()?;
        serde_json::from_slice(sealed::open(self.form, &self.owner, &bytes)?).ok()
    }

    /// Writes it, and removes the oldest where there are too many.
    ///
    /// # Errors
    /// When it cannot be written; the one before is then still there.
    pub(crate) fn write(&self, content: &impl serde::Serialize) -> io::Result<()> {
        let content = serde_json::to_vec(content).map_err(io::Error::other)?;
        // Digests of short values can be guessed: they are nobody else's to see.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let path = self.dir.join(&self.owner);
        let part = path.with_extension(format!("{}.{PART}", std::process::id()));
        let bytes = sealed::seal(self.form, &self.owner, &content);
        let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, &path));
        written.inspect_err(|_| drop(std::fs::remove_file(&part)))?;
        self.sweep()
    }

    fn sweep(&self) -> io::Result<()> {
        let mut notes = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            // Another build may be sweeping, too.
            let Ok(modified) = std::fs::metadata(&path).and_then(|meta| meta.modified()) else {
                continue;
            };
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            match path.extension().is_some_and(|ending| ending == PART) {
                true if age > LITTER => drop(std::fs::remove_file(&path)),
                true => {}
                false => notes.push((modified, path)),
            }
        }
        notes.sort_unstable();
        let too_many = notes.len().saturating_sub(MOST);
        for (_, path) in notes.into_iter().take(too_many) {
            drop(std::fs::remove_file(path));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_newest_are_kept_and_nobody_else_sees_them() {
        let dir = std::env::temp_dir().join(format!("roadstead-notes-{}", std::process::id()));
        let note = |about: usize| Note::new(&dir, "test/1", &about.to_be_bytes(), 1000);
        for about in 0..=MOST {
            note(about).write(&about).unwrap();
            let then = SystemTime::now() - Duration::from_secs(10_000 - about as u64);
            let file = std::fs::File::open(dir.join(&note(about).owner)).unwrap();
            file.set_modified(then).unwrap();
        }
        std::fs::write(dir.join("left.1.part"), "").unwrap();
        let old = std::fs::File::open(dir.join("left.1.part")).unwrap();
        old.set_modified(SystemTime::now() - LITTER * 2).unwrap();
        note(MOST).write(&MOST).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), MOST);
        assert_eq!((note(0).read::<usize>(), note(1).read()), (None, Some(1)));
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            Note::new(&dir, "test/2", &1usize.to_be_bytes(), 1000).read::<usize>(),
            None
        );
        assert_eq!(
            Note::new(&dir, "test/1", &1usize.to_be_bytes(), 10).read::<usize>(),
            None
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
