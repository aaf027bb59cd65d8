//! From a source onto the disk: a blob's content, written and hashed on a thread of its own.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;

use super::{BlobStream, ImageSource};
use crate::error::{RegistryError, Result};
use crate::files::stopped;
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::store::BlobWriter;

/// Pieces on their way to the disk. A piece is at most a few hundred KiB, and six blobs come at once: a longer queue would
/// show in the peak memory wherever the disk is the slower one.
const QUEUE: usize = 4;

/// Writes a blob as a file of its own. It appears when it is complete, and is the one described.
pub(crate) async fn store_blob(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    progress: &dyn Progress,
    writer: BlobWriter,
    path: &Path,
) -> Result<()> {
    let writer = pour(source, descriptor, progress, writer, path).await?;
    let (digest, size) = (descriptor.digest.clone(), descriptor.size);
    let commit = tokio::task::spawn_blocking(move || writer.commit_expecting(&digest, Some(size)));
    commit.await.map_err(stopped)?
}

/// Writes a blob's content to `writer`, which comes back. A source that sends too much is not heard to its end; what else
/// it sent is for the caller to check.
pub(crate) async fn pour<W: Write + Send + 'static>(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    progress: &dyn Progress,
    writer: W,
    path: &Path,
) -> Result<W> {
    let content = source.blob(descriptor, progress).await?;
    progress.blob(&descriptor.digest, BlobEvent::Started { total: descriptor.size });
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Dropping the sender ends the thread.
    let disk = tokio::task::spawn_blocking(move || write_all(writer, receiver));
    let received = receive(content, sender, descriptor, progress).await;
    // A full disk is the cause, a download that could not go on its consequence.
    let writer = disk
        .await
        .map_err(stopped)?
        .map_err(|error| RegistryError::io("write", path, error))?;
    received.map(|()| writer)
}

/// Passes the pieces on; an error of the source ends it.
async fn receive(
    mut content: BlobStream<'_>,
    sender: mpsc::Sender<Bytes>,
    descriptor: &Descriptor,
    progress: &dyn Progress,
) -> Result<()> {
    let mut received = 0;
    while let Some(piece) = content.try_next().await? {
        let bytes = piece.len() as u64;
        received += bytes;
        if received > descriptor.size {
            return Err(RegistryError::SizeMismatch {
                what: format!("blob {}", descriptor.digest),
                expected: descriptor.size,
                actual: received,
            });
        }
        sender.send(piece).await.map_err(|_| RegistryError::Stopped {
            operation: "writing a blob",
        })?;
        progress.blob(&descriptor.digest, BlobEvent::Advanced { bytes });
    }
    Ok(())
}

/// Writes what comes, until nobody sends any more.
fn write_all<W: Write>(mut writer: W, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<W> {
    while let Some(piece) = pieces.blocking_recv() {
        writer.write_all(&piece)?;
    }
    Ok(writer)
}
