//! The steps of a build under way, by key: equal steps of two stages, or of a stage that two platforms need, are done once.

use crate::cache::local::Record;
use crate::cache::turns::Turn;
use roadstead_registry_client::Digest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// A step that its holder looks up or does. Whoever has an equal one waits, then finds the result; without one, it does the step itself.
pub(super) type Held = OwnedMutexGuard<Option<Record>>;

/// A step that is being done here, kept from stages of this build and, unless the cache is not asked, from other builds.
#[derive(Debug)]
pub(super) struct Doing {
    pub(super) step: Held,
    pub(super) _turn: Option<Turn>,
}

/// All steps that were looked up.
#[derive(Debug, Default)]
pub(super) struct Steps(Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Option<Record>>>>>);

impl Steps {
    /// Waits until nobody else holds the step of `key`. Gives what it gave in this build, if it was done.
    pub(super) async fn hold(&self, key: &Digest) -> Held {
        let step = {
            let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(steps.entry(key.clone()).or_default())
        };
        step.lock_owned().await
    }
}
