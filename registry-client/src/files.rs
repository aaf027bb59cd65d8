//! Parts of files as streams: a blob of the store, a member of an archive.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::copy::BlobStream;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;

/// Memory of a stream is this times the queue, and what its reader holds.
const PIECE_SIZE: u64 = 256 * 1024;
const QUEUE: usize = 4;

/// A part of a file. Several may share one file.
#[derive(Clone, Debug)]
pub(crate) struct FileSection {
    file: Arc<File>,
    /// For messages.
    path: PathBuf,
    start: u64,
    length: u64,
}

impl FileSection {
    /// Means a whole file.
    pub(crate) fn whole(file: File, path: &Path) -> Result<Self> {
        let meta = file
            .metadata()
            .map_err(|error| RegistryError::io("read", path, error))?;
        Ok(Self::part(Arc::new(file), path, 0, meta.len()))
    }

    /// Means a part, which must lie within the file.
    pub(crate) fn part(file: Arc<File>, path: &Path, start: u64, length: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            start,
            length,
        }
    }

    /// Makes sure that the part is as long as its descriptor says.
    pub(crate) fn expect_size(&self, descriptor: &Descriptor, what: impl Fn() -> String) -> Result<()> {
        if self.length == descriptor.size {
            return Ok(());
        }
        Err(RegistryError::SizeMismatch {
            what: what(),
            expected: descriptor.size,
            actual: self.length,
        })
    }

    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns where the part begins.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Reads bytes of the part from `position` on, which must lie within it.
    pub(crate) fn read_at(&self, position: u64, piece: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(piece, self.start + position)
            .map_err(|error| RegistryError::io("read", &self.path, error))
    }

    /// Reads a small part whole; `None` when it is larger than `limit` bytes.
    pub(crate) fn read_small(&self, limit: u64) -> Result<Option<Bytes>> {
        if self.length > limit {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        self.read_at(0, &mut bytes)?;
        Ok(Some(bytes.into()))
    }

    /// Reads the part on a thread of its own, a few pieces ahead.
    pub(crate) fn stream(self) -> BlobStream<'static> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        // Not awaited: it ends with the part, or when nobody receives any more.
        drop(tokio::task::spawn_blocking(move || self.read_all(&sender)));
        Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        }))
    }

    fn read_all(&self, sender: &mpsc::Sender<Result<Bytes>>) {
        let mut position = 0;
        while position < self.length {
            let length = PIECE_SIZE.min(self.length - position);
            let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            let read = self.read_at(position, &mut piece);
            let is_last = read.is_err();
            if sender.blocking_send(read.map(|()| Bytes::from(piece))).is_err() || is_last {
                return;
            }
            position += length;
        }
    }
}

/// For the end of a thread that was to work for us: a panic in it, or the runtime's shutdown.
pub(crate) fn stopped(_: tokio::task::JoinError) -> RegistryError {
    RegistryError::Stopped {
        operation: "work on a file",
    }
}
