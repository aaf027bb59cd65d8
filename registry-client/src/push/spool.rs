//! What keeps content that is sent while it is made, in case it must be sent again.

use std::io::Write as _;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::copy::{BlobStream, ImageSource, StoreImage, write_all};
use crate::digest::{Digest, DigestWriter};
use crate::error::{RegistryError, Result};
use crate::files::stopped;
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::store::{BlobWriter, Store};

const QUEUE: usize = 4;

/// Keeps content of unknown digest.
#[derive(Debug)]
pub struct Spool {
    place: Place,
}

#[derive(Debug)]
enum Place {
    Store {
        store: Store,
        pieces: mpsc::Sender<Bytes>,
        /// Hashing and writing on a thread of their own: they would hold up the other uploads of this one.
        writing: JoinHandle<std::io::Result<BlobWriter>>,
    },
    Memory {
        limit: u64,
        hash: DigestWriter<std::io::Sink>,
        /// `None` once there was more than the limit.
        pieces: Option<Vec<Bytes>>,
    },
}

impl Spool {
    /// Keeps the content as a blob of a store: all of it, however much there is. Needs a tokio runtime.
    ///
    /// # Errors
    /// `Io` when no file can be made.
    pub fn in_store(store: &Store) -> Result<Self> {
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let writer = store.writer()?;
        Ok(Self {
            place: Place::Store {
                store: store.clone(),
                pieces,
                writing: tokio::task::spawn_blocking(move || write_all(writer, receiver)),
            },
        })
    }

    /// Keeps at most `limit` bytes in memory. An upload that breaks after more had been sent cannot be repeated.
    #[must_use]
    pub fn in_memory(limit: u64) -> Self {
        Self {
            place: Place::Memory {
                limit,
                hash: DigestWriter::new(std::io::sink()),
                pieces: Some(Vec::new()),
            },
        }
    }

    /// Keeps a piece. May be dropped before its end, and then has not kept it.
    pub(super) async fn keep(&mut self, piece: &Bytes) -> Result<()> {
        match &mut self.place {
            Place::Store { store, pieces, writing } => match pieces.reserve().await {
                Ok(place) => place.send(piece.clone()),
                Err(_) => {
                    let written = writing.await.map_err(stopped)?;
                    let error = written.err().unwrap_or_else(|| std::io::ErrorKind::BrokenPipe.into());
                    return Err(RegistryError::io("write a blob in", store.dir(), error));
                }
            },
            Place::Memory { limit, hash, pieces } => {
                hash.write_all(piece)
                    .map_err(|error| RegistryError::io("hash", std::path::Path::new("memory"), error))?;
                if hash.written() > *limit {
                    *pieces = None;
                }
                if let Some(pieces) = pieces {
                    pieces.push(piece.clone());
                }
            }
        }
        Ok(())
    }

    /// Ends the content: says what it was, and gives what can be sent again.
    pub(super) async fn finish(self, media_type: &str) -> Result<(Descriptor, Kept)> {
        match self.place {
            Place::Store { store, pieces, writing } => {
                drop(pieces);
                let failed = |error| RegistryError::io("write a blob in", store.dir(), error);
                let writer = writing.await.map_err(stopped)?.map_err(failed)?;
                let (digest, size) = tokio::task::spawn_blocking(|| writer.commit())
                    .await
                    .map_err(stopped)??;
                let descriptor = Descriptor::new(media_type, digest, size);
                let image = StoreImage::described(&store, &descriptor);
                Ok((descriptor, Kept::Store(Box::new(image))))
            }
            Place::Memory { limit, hash, pieces } => {
                let (_, digest, size) = hash.finish();
                let kept = pieces.map_or(Kept::Nothing { limit }, Kept::Memory);
                Ok((Descriptor::new(media_type, digest, size), kept))
            }
        }
    }
}

const STOPPED: RegistryError = RegistryError::Stopped {
    operation: "writing a blob",
};

/// Content that can be sent again, or how much would have been kept of it.
pub(super) enum Kept {
    Store(Box<StoreImage>),
    Memory(Vec<Bytes>),
    Nothing { limit: u64 },
}

/// A blob in memory.
pub(super) struct Pieces(pub(super) Vec<Bytes>);

impl ImageSource for Pieces {
    fn label(&self) -> String {
        "content in memory".to_owned()
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        Box::pin(async { Err(STOPPED) })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async { Err(RegistryError::missing_in_store(&descriptor.digest)) })
    }

    fn blob<'a>(
        &'a self,
        _descriptor: &'a Descriptor,
        _progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        let pieces = self.0.iter().cloned().map(Ok);
        Box::pin(async { Ok(Box::pin(futures_util::stream::iter(pieces)) as BlobStream<'a>) })
    }

    fn repositories(&self, _digest: &Digest) -> Vec<crate::reference::Reference> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_keeps_what_fits_and_hashes_all() {
        for (limit, fits) in [(6, true), (5, false)] {
            let mut spool = Spool::in_memory(limit);
            for piece in ["abc", "def"] {
                spool.keep(&Bytes::from_static(piece.as_bytes())).await.unwrap();
            }
            let (descriptor, kept) = spool.finish("x").await.unwrap();
            assert_eq!((descriptor.digest, descriptor.size), (Digest::of(b"abcdef"), 6));
            assert_eq!(matches!(kept, Kept::Memory(_)), fits);
        }
    }
}
