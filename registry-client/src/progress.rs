//! Telling somebody how blobs are coming along.

use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// What happens to a blob on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobEvent {
    /// It is there already.
    Exists,
    /// The registry took it over from another repository.
    Mounted {
        /// That repository.
        from: Reference,
    },
    /// It begins to move.
    Started {
        /// Its size in bytes.
        total: u64,
    },
    /// Some of it has moved.
    Advanced {
        /// Bytes since the last event.
        bytes: u64,
    },
    /// It has arrived.
    Done,
    /// Something went wrong and is tried again.
    Retrying {
        /// What went wrong.
        reason: String,
        /// Bytes that still count; what has advanced beyond them is sent or fetched again.
        from: u64,
    },
}

/// Takes the events of blobs. Called from several tasks; must not block.
pub trait Progress: Send + Sync {
    /// Takes an event.
    fn blob(&self, digest: &Digest, event: BlobEvent);

    /// Takes the list of blobs that are about to move, or to be found in place.
    fn plan(&self, blobs: &[Descriptor]) {
        let _ = blobs;
    }
}

/// Takes all events and shows none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn blob(&self, _digest: &Digest, _event: BlobEvent) {}
}
