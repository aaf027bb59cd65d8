//! Layers whose files a step turned out to need, and which cannot be had.
//!
//! A cache may know what a step gave without having its blob: as long as nobody needs the files, the digest is enough. When somebody
//! does, the build begins again and runs these steps; what it has done so far is remembered, and not done twice.

use roadstead_registry_client::Digest;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The diff_ids of such layers.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<HashSet<Digest>>);

impl Lost {
    /// Adds layers. Tells whether any of them is new: only then can another beginning end otherwise.
    pub(super) fn add<'a>(&self, diff_ids: impl IntoIterator<Item = &'a Digest>) -> bool {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lost.len();
        lost.extend(diff_ids.into_iter().cloned());
        lost.len() > before
    }

    /// Tells whether the layer is one of them.
    pub(super) fn has(&self, diff_id: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(diff_id)
    }
}
