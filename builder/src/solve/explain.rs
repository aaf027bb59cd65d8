//! `--explain-cache`: which input of a step is another than in the build before.
//!
//! Every build notes digests of its steps' inputs by their names, never the values: a build argument may be a secret all the same.

use crate::cache::key::Inputs;
use crate::notes::Note;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Changes when the meaning of the file does.
const FORM: &str = "roadstead-inputs/1";
/// Largest file read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Changed inputs, or files, that are named.
const MOST: usize = 5;

/// By the step's place in its build.
type Steps = BTreeMap<String, Inputs>;

/// What a build before had for inputs, and what this one has.
#[derive(Debug, Default)]
pub struct Explain {
    note: Option<Note>,
    before: Steps,
    now: Mutex<Steps>,
    /// Whether it is told.
    speaks: bool,
}

impl Explain {
    /// Reads what the last build of the same kind had, which `build` names: its context, Dockerfile and target.
    #[must_use]
    pub fn open(dir: &Path, build: &str, speaks: bool) -> Self {
        let note = Note::new(dir, FORM, build.as_bytes(), MAX_FILE);
        let before = note.read().unwrap_or_default();
        Self {
            note: Some(note),
            before,
            now: Mutex::default(),
            speaks,
        }
    }

    /// Whether somebody wants to know.
    pub(super) fn speaks(&self) -> bool {
        self.speaks
    }

    /// Notes the inputs of a step. A copy has two keys, by what it copies from and by its files.
    pub(super) fn note(&self, step: &str, inputs: Inputs) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let known = now.entry(step.to_owned()).or_default();
        known.retain(|(name, _)| !inputs.iter().any(|(new, _)| new == name));
        known.extend(inputs);
    }

    /// Says why a step runs; `files` are those of a copy that are known to have changed. `None` when nobody wants to know.
    pub(super) fn why(&self, step: &str, is_asked: bool, files: &[String]) -> Option<String> {
        if !self.speaks {
            return None;
        }
        if !is_asked {
            return Some("runs since the cache is not asked".to_owned());
        }
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(before), Some(now)) = (self.before.get(step), now.get(step)) else {
            return Some("runs since no build before had this step".to_owned());
        };
        let mut changed: Vec<String> = now
            .iter()
            .filter(|input| !before.contains(input))
            .map(|(name, _)| told(name, files))
            .collect();
        let has = |name: &String| now.iter().any(|(known, _)| known == name);
        changed.extend(
            before
                .iter()
                .filter(|(name, _)| !has(name))
                .map(|(name, _)| format!("{name} (gone)")),
        );
        changed.dedup();
        Some(match changed.is_empty() {
            true => "runs since its result is no longer in the cache".to_owned(),
            false => format!("runs since these are others than before: {}", list(&changed)),
        })
    }

    /// Writes the inputs of this build for the next one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> io::Result<()> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.note {
            Some(note) if *now != self.before && !now.is_empty() => note.write(&*now),
            _ => Ok(()),
        }
    }
}

/// Names an input as users know it.
fn told(name: &str, files: &[String]) -> String {
    match name {
        "version" => "the version of roadstead's cache".to_owned(),
        "parent" => "the layers below".to_owned(),
        "epoch" => "SOURCE_DATE_EPOCH".to_owned(),
        "from" => "what it copies from".to_owned(),
        name if name.starts_with("content") && !files.is_empty() => format!("the files ({})", list(files)),
        name if name.starts_with("content") => "the files or their modes, owners or attributes".to_owned(),
        name if name.starts_with("argv") => "the command".to_owned(),
        name if name.starts_with("words") => "the instruction".to_owned(),
        name => name.to_owned(),
    }
}

fn list(all: &[String]) -> String {
    let mut text = all.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > MOST {
        text.push_str(&format!(" and {} more", all.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::KeyBuilder;

    fn inputs(env: &[&str], parent: &str) -> Inputs {
        let mut key = KeyBuilder::new("RUN");
        key.add("parent", parent).add_all("env", env.iter());
        key.inputs()
    }

    #[test]
    fn what_changed_is_named_and_no_value_is_kept() {
        let dir = std::env::temp_dir().join(format!("roadstead-explain-{}", std::process::id()));
        let first = Explain::open(&dir, "build", true);
        first.note("a", inputs(&["X=secret-1", "Y=1"], "p"));
        assert_eq!(
            first.why("a", true, &[]).unwrap(),
            "runs since no build before had this step"
        );
        first.save().unwrap();
        let text = std::fs::read_to_string(std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path()).unwrap();
        assert!(!text.contains("secret-1") && text.contains("env X"), "{text}");
        let second = Explain::open(&dir, "build", true);
        second.note("a", inputs(&["X=secret-2", "Y=1"], "p"));
        assert_eq!(
            second.why("a", true, &[]).unwrap(),
            "runs since these are others than before: env X"
        );
        let second = Explain::open(&dir, "build", true);
        second.note("a", inputs(&["Y=1"], "q"));
        let why = second.why("a", true, &[]).unwrap();
        assert!(
            why.contains("the layers below") && why.contains("env X (gone)"),
            "{why}"
        );
        second.note("a", inputs(&["X=secret-1", "Y=1"], "p"));
        assert!(second.why("a", true, &[]).unwrap().contains("no longer in the cache"));
        assert!(second.why("a", false, &[]).unwrap().contains("not asked"));
        assert_eq!(Explain::open(&dir, "build", false).why("a", true, &[]), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
