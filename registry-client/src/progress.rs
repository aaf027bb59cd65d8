//! Telling somebody how blobs are coming along.

use crate::digest::Digest;
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
    /// Something went wrong and is tried again. An upload starts over: what has advanced does not count any more.
    Retrying {
        /// What went wrong.
        reason: String,
    },
}

/// Takes the events of blobs. Called from several tasks; must not block.
pub trait Progress: Send + Sync {
    /// Takes an event.
    fn blob(&self, digest: &Digest, event: BlobEvent);
}

/// Takes all events and shows none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn blob(&self, _digest: &Digest, _event: BlobEvent) {}
}
