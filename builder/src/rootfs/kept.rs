//! Unpacked layers that outlive a build, and whether they still are what was kept.
//!
//! ```text
//! layers/<chain id>/fs      the files, as overlay's lower directories have them
//! layers/<chain id>/seal    the fingerprint of the files; its own time tells when the layer was used last
//! ```
//!
//! Both appear together, by one rename. The first use in a process compares the files with the fingerprint; a layer that doesn't match
//! counts as not there, and is set aside: builds under way may have it mounted, so it is removed when none of them is left.

use super::fingerprint::{self, Fingerprint};
use super::overlay::{ChainId, Layers, OverlayError, Result, RootForm};
use crate::beneath::{Dir, FileError};
use crate::sealed;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Name of the files within a layer's directory. Short, since the names of all layers of a mount share 4 KiB.
pub(super) const FILES: &str = "fs";
pub(super) const SEAL: &str = "seal";
/// Changes when the form of unpacked layers or of their fingerprints does; older ones are then unpacked again.
const FORM: &str = "roadstead-unpacked/1";
/// Lock of those who set layers aside.
const ASIDE_LOCK: &str = ".aside.lock";
/// Largest seal read; one is two lines.
const MAX_SEAL: u64 = 4096;

/// Layers that this process has found sound, or made.
#[derive(Debug, Clone, Default)]
pub(super) struct Sound(Arc<Mutex<HashMap<ChainId, Arc<Mutex<bool>>>>>);

impl Sound {
    /// One lock a layer: whoever wants a layer that is being looked at waits for the outcome.
    fn of(&self, id: &ChainId) -> Arc<Mutex<bool>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(id.clone()).or_default())
    }
}

impl Layers {
    fn home(&self, id: &ChainId) -> PathBuf {
        self.dir.join(id.directory())
    }

    /// Where the files of a layer lie.
    pub(super) fn files(&self, id: &ChainId) -> PathBuf {
        self.home(id).join(FILES)
    }

    /// Tells whether the layer lies unpacked and is what it was. The first time in a process its files are looked at. For trees it is
    /// enough that it can be unpacked.
    #[must_use]
    pub fn has(&self, id: &ChainId) -> bool {
        if self.form() == RootForm::Directories {
            return self.known(id).is_some();
        }
        if std::fs::symlink_metadata(self.home(id)).is_err() {
            return false;
        }
        let slot = self.sound.of(id);
        let mut is_sound = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_sound {
            *is_sound = match self.look(id.directory(), Some(id)) {
                true => true,
                // What cannot be moved away is in the way of the next one: that is an error there.
                false => self.set_aside(id.directory(), Some(id)).unwrap_or(false),
            };
        }
        *is_sound
    }

    /// Sees to it that all layers of `chain` lie unpacked.
    ///
    /// # Errors
    /// When one does not: somebody has removed or damaged it while the build ran.
    pub(super) fn require(&self, chain: &[ChainId]) -> Result<()> {
        match chain.iter().find(|id| !self.has(id)) {
            Some(gone) => Err(OverlayError::Gone(self.files(gone))),
            None => Ok(()),
        }
    }

    /// Keeps the directory `path` as the unpacked form of `id`.
    pub(super) fn keep(&self, path: &Path, id: &ChainId) -> Result<()> {
        let whole = self.scratch_dir("layer")?;
        let files = whole.join(FILES);
        std::fs::rename(path, &files).map_err(|e| FileError::new("move layer to", &files, e))?;
        let found = fingerprint::of(&Dir::open(&files)?)?;
        let seal = whole.join(SEAL);
        let text = sealed::seal(FORM, id.directory(), line(id.hex(), &found).as_bytes());
        std::fs::write(&seal, text).map_err(|e| FileError::new("write", &seal, e))?;
        self.place(&whole, id)
    }

    fn place(&self, whole: &Path, id: &ChainId) -> Result<()> {
        let target = self.home(id);
        loop {
            match std::fs::rename(whole, &target) {
                Ok(()) => {
                    *self.sound.of(id).lock().unwrap_or_else(PoisonError::into_inner) = true;
                    return Ok(());
                }
                // Another build was first; the content is the same.
                Err(_) if self.has(id) => {
                    self.discard(whole);
                    return Ok(());
                }
                // What was in the way was damaged, and lies elsewhere now.
                Err(e) if is_taken(&e) && std::fs::symlink_metadata(&target).is_err() => {}
                Err(e) => return Err(FileError::new("move layer to", target, e).into()),
            }
        }
    }

    /// Looks at all layers that lie here; gives their number and the names of those that are damaged. With `repair` these are set aside.
    ///
    /// # Errors
    /// When the directory cannot be read, or a layer cannot be moved.
    pub fn check(&self, repair: bool) -> Result<(u64, Vec<String>)> {
        let (mut count, mut damaged) = (0, Vec::new());
        for name in Dir::open(&self.dir)?.names()? {
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            count += 1;
            let is_sound = self.look(&name, None) || (repair && self.set_aside(&name, None)?);
            if !is_sound {
                damaged.push(name.into_owned());
            }
        }
        Ok((count, damaged))
    }

    /// Compares the files of the layer `name` with what is written of them; the layer must be `id`, if that is given. One that is to be
    /// used is noted as used.
    fn look(&self, name: &str, id: Option<&ChainId>) -> bool {
        let home = self.dir.join(name);
        let seal = home.join(SEAL);
        let Some(noted) = self.noted(name) else { return false };
        let Some((whose, _)) = noted.split_once(' ') else {
            return false;
        };
        if id.is_some_and(|id| id.hex() != whose) {
            return false;
        }
        // Held until the use is noted: nobody removes the layer between.
        let Ok(_in_use) = self.in_use() else { return false };
        let found = Dir::open(&home.join(FILES)).and_then(|files| fingerprint::of(&files));
        let is_sound = found.is_ok_and(|found| noted == line(whose, &found));
        if is_sound
            && id.is_some()
            && let Ok(file) = File::options().write(true).open(&seal)
        {
            // Only the order of removal depends on it.
            drop(file.set_modified(SystemTime::now()));
        }
        is_sound
    }

    /// Reads what is written of the layer `name`.
    pub(super) fn noted(&self, name: &str) -> Option<String> {
        let seal = self.dir.join(name).join(SEAL);
        let meta = std::fs::symlink_metadata(&seal).ok()?;
        let bytes = (meta.is_file() && meta.len() <= MAX_SEAL).then(|| std::fs::read(&seal).ok())??;
        let noted = sealed::open(FORM, name, &bytes)?;
        String::from_utf8(noted.to_vec()).ok()
    }

    /// Moves a damaged layer out of the way, unless another process has put a sound one in its place. Tells whether there is one.
    fn set_aside(&self, name: &str, id: Option<&ChainId>) -> Result<bool> {
        let path = self.dir.join(ASIDE_LOCK);
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|e| FileError::new("open", &path, e))?;
        lock.lock().map_err(|e| FileError::new("lock", &path, e))?;
        let home = self.dir.join(name);
        if self.look(name, id) {
            return Ok(true);
        }
        match std::fs::rename(&home, super::scratch::trash(&self.scratch)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(FileError::new("move away damaged layer", home, e).into())
            }
            _ => Ok(false),
        }
    }
}

/// What a seal holds: whose files they are, and what they look like.
fn line(id: &str, found: &Fingerprint) -> String {
    format!("{id} {} {}", found.digest.hex(), found.size)
}

fn is_taken(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_registry_client::Digest;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("roadstead-kept-{name}-{}", std::process::id())))
        }

        /// Layers as a process of its own sees them.
        fn process(&self) -> Layers {
            Layers::open(&self.0.join("layers"), &self.0.join("tmp/build-1-0")).unwrap()
        }

        fn keep(&self, layers: &Layers, id: &ChainId) {
            let path = layers.scratch_dir("new").unwrap();
            std::fs::write(path.join("file"), "content").unwrap();
            layers.keep(&path, id).unwrap();
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_layer_that_somebody_wrote_to_is_not_there() {
        let place = Place::new("damaged");
        let id = ChainId::of(None, &Digest::of(b"layer"));
        let layers = place.process();
        place.keep(&layers, &id);
        assert!(layers.has(&id) && place.process().has(&id));
        assert_eq!(layers.check(false).unwrap(), (1, vec![]));
        let file = layers.files(&id).join("file");
        let seal = layers.home(&id).join(SEAL);
        let damages: [&dyn Fn(); 4] = [
            &|| std::fs::write(&file, "c0ntent").unwrap(),
            &|| std::fs::write(&seal, "x").unwrap(),
            &|| std::fs::remove_file(&seal).unwrap(),
            &|| std::fs::remove_dir_all(layers.files(&id)).unwrap(),
        ];
        for damage in damages {
            std::thread::sleep(std::time::Duration::from_millis(20));
            damage();
            assert_eq!(layers.check(false).unwrap(), (1, vec![id.directory().to_owned()]));
            let next = place.process();
            assert!(!next.has(&id) && !next.home(&id).exists());
            next.require(std::slice::from_ref(&id)).unwrap_err();
            place.keep(&next, &id);
            assert!(next.has(&id) && place.process().has(&id));
        }
    }

    #[test]
    fn a_sound_layer_stays_when_another_one_comes() {
        let place = Place::new("second");
        let id = ChainId::of(None, &Digest::of(b"layer"));
        let layers = place.process();
        place.keep(&layers, &id);
        place.keep(&place.process(), &id);
        assert!(place.process().has(&id));
        // A damaged one makes room.
        std::fs::write(layers.files(&id).join("more"), "").unwrap();
        place.keep(&place.process(), &id);
        assert!(place.process().has(&id));
        assert!(!layers.files(&id).join("more").exists());
    }
}
