//! The names that a job's builder goes by. There is one builder; `docker buildx create` gives it another name.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The name it always has.
pub(super) const DEFAULT: &str = "default";

/// The names of one job, and the one in use.
#[derive(Debug, Default)]
pub(super) struct Builders(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    others: BTreeSet<String>,
    used: Option<String>,
}

impl Builders {
    fn with<T>(&self, work: impl FnOnce(&mut Names) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the builder goes by `name`.
    pub(super) fn knows(&self, name: &str) -> bool {
        name == DEFAULT || self.with(|names| names.others.contains(name))
    }

    /// All names, the one it always has first.
    pub(super) fn all(&self) -> Vec<String> {
        self.with(|names| [DEFAULT.to_owned()].into_iter().chain(names.others.clone()).collect())
    }

    /// The name in use.
    pub(super) fn used(&self) -> String {
        self.with(|names| names.used.clone().unwrap_or_else(|| DEFAULT.to_owned()))
    }

    /// Gives the builder one more name; false when it has it.
    pub(super) fn add(&self, name: &str) -> bool {
        !self.knows(name) && self.with(|names| names.others.insert(name.to_owned()))
    }

    /// Takes a name into use.
    pub(super) fn take_into_use(&self, name: &str) {
        self.with(|names| names.used = Some(name.to_owned()));
    }

    /// Takes a name away; false when there is none such.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.with(|names| {
            if names.used.as_deref() == Some(name) {
                names.used = None;
            }
            names.others.remove(name)
        })
    }
}
