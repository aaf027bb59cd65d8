//! A blob while it is written, for those who send it before it ends.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::files::{FileSection, Reader, stopped};

/// How far a blob has got.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Bytes that lie in its file.
    pub(super) written: u64,
    /// What it is, when all of it lies there.
    pub(super) digest: Option<Digest>,
    /// Whether it is a blob of the store.
    pub(super) published: bool,
}

/// A blob that is being written, from its beginning on.
#[derive(Debug)]
pub struct Growing {
    state: watch::Receiver<State>,
    /// `None` while a thread reads.
    reader: Option<Reader>,
}

impl Growing {
    pub(super) fn new(file: File, path: &Path, state: watch::Receiver<State>) -> Self {
        let reader = Reader::new(FileSection::part(Arc::new(file), path, 0, 0));
        Self {
            state,
            reader: Some(reader),
        }
    }

    /// Says what the blob is; `None` while it is written.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.state.borrow().digest.clone()
    }

    /// Another view of the same blob, which says what it has become.
    #[must_use]
    pub fn watcher(&self) -> Self {
        Self {
            state: self.state.clone(),
            reader: None,
        }
    }

    /// Waits until there are more than so many bytes, or all; then tells how many, and if these are all what they are.
    pub(crate) async fn beyond(&mut self, bytes: u64) -> Result<(u64, Option<Digest>)> {
        let grown = |state: &State| state.written > bytes || state.digest.is_some();
        let state = self.state.wait_for(grown).await.map_err(|_| GIVEN_UP)?;
        Ok((state.written, state.digest.clone()))
    }

    /// Waits until it is a blob of the store; gives its digest and its size in bytes.
    pub(crate) async fn published(&mut self) -> Result<(Digest, u64)> {
        let state = self
            .state
            .wait_for(|state| state.published)
            .await
            .map_err(|_| GIVEN_UP)?;
        state
            .digest
            .clone()
            .map(|digest| (digest, state.written))
            .ok_or(GIVEN_UP)
    }

    /// How much was read.
    pub(crate) fn position(&self) -> u64 {
        self.reader.as_ref().map_or(0, Reader::position)
    }

    /// Reads on, when there is more; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let (written, _) = self.beyond(self.position()).await?;
        let mut reader = self.reader.take().ok_or(GIVEN_UP)?;
        reader.grow(written);
        let reading = move || {
            let piece = reader.next();
            (reader, piece)
        };
        let (reader, piece) = tokio::task::spawn_blocking(reading).await.map_err(stopped)?;
        self.reader = Some(reader);
        piece
    }
}

const GIVEN_UP: RegistryError = RegistryError::Stopped {
    operation: "writing a blob",
};
