//! Getting one blob: streamed into the store, and taken up again where it broke off.

use std::io::Write as _;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::reference::Reference;
use crate::store::{BlobWriter, Store};
use crate::transport::answer::{interrupted, next_chunk};
use crate::transport::retry::{delay, retry};
use crate::transport::{Answer, Direction, Endpoint, Payload, Request, Transport};

/// Pieces on their way from the network to the disk. A piece is at most a few hundred KiB, and six blobs come at once: a
/// longer queue would show in the peak memory wherever the disk is the slower one.
const QUEUE: usize = 4;
/// A download that moved on by this much has its tries given back. Less would let a server keep us busy for ever.
const PROGRESS_THAT_COUNTS: u64 = 1024 * 1024;

/// Streams a blob into the store; does nothing when it is there.
pub(crate) async fn fetch_blob(
    transport: &Transport,
    name: &Reference,
    descriptor: &Descriptor,
    store: &Store,
    progress: &dyn Progress,
) -> Result<()> {
    if store.blob_size(&descriptor.digest) == Some(descriptor.size) {
        progress.blob(&descriptor.digest, BlobEvent::Exists);
        return Ok(());
    }
    let endpoint = transport.endpoint(name)?;
    let slot = transport.slot(&endpoint, Direction::Download).await?;
    progress.blob(&descriptor.digest, BlobEvent::Started { total: descriptor.size });
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writer = store.writer()?;
    let path = store.blob_path(&descriptor.digest);
    // Hashing and writing are done on a thread of their own; dropping the sender ends it.
    let disk = tokio::task::spawn_blocking(move || write_all(writer, receiver));
    let mut download = Download {
        transport,
        endpoint: &endpoint,
        descriptor,
        progress,
        sender,
        received: 0,
    };
    let received = download.run().await;
    drop(download);
    drop(slot);
    let stopped = |_| RegistryError::Stopped {
        operation: "writing a blob",
    };
    // A full disk is the cause, a download that could not go on its consequence.
    let writer = disk
        .await
        .map_err(stopped)?
        .map_err(|error| RegistryError::io("write", &path, error))?;
    received?;
    let (digest, size) = (descriptor.digest.clone(), descriptor.size);
    let commit = tokio::task::spawn_blocking(move || writer.commit_expecting(&digest, Some(size)));
    commit.await.map_err(stopped)??;
    progress.blob(&descriptor.digest, BlobEvent::Done);
    Ok(())
}

/// Gets a small blob into memory.
pub(crate) async fn read_blob(
    transport: &Transport,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>> {
    let operation = format!("the pull of blob {}", descriptor.digest);
    let bytes = retry(
        |_| (),
        || async {
            let answer = request_blob(transport, endpoint, descriptor, &operation, 0).await?;
            answer.bytes(endpoint, &operation, limit.min(descriptor.size)).await
        },
    )
    .await?;
    let what = format!("blob {} sent by {}", descriptor.digest, endpoint.label());
    if bytes.len() as u64 != descriptor.size {
        return Err(RegistryError::SizeMismatch {
            what,
            expected: descriptor.size,
            actual: bytes.len() as u64,
        });
    }
    let actual = Digest::of(&bytes);
    if actual != descriptor.digest {
        return Err(RegistryError::DigestMismatch {
            what,
            expected: descriptor.digest.clone(),
            actual,
        });
    }
    Ok(bytes)
}

fn write_all(mut writer: BlobWriter, mut pieces: mpsc::Receiver<Bytes>) -> std::io::Result<BlobWriter> {
    while let Some(piece) = pieces.blocking_recv() {
        writer.write_all(&piece)?;
    }
    Ok(writer)
}

struct Download<'a> {
    transport: &'a Transport,
    endpoint: &'a Endpoint,
    descriptor: &'a Descriptor,
    progress: &'a dyn Progress,
    sender: mpsc::Sender<Bytes>,
    /// Bytes handed to the disk; a new try goes on from here.
    received: u64,
}

impl Download<'_> {
    async fn run(&mut self) -> Result<()> {
        let (mut attempt, mut mark) = (1, 0);
        loop {
            let Err(error) = self.once().await else { return Ok(()) };
            if self.received >= mark + PROGRESS_THAT_COUNTS {
                (attempt, mark) = (1, self.received);
            }
            let Some(delay) = delay(&error, attempt) else {
                return Err(error);
            };
            tracing::debug!(%error, attempt, received = self.received, "taking up a blob again");
            self.progress.blob(
                &self.descriptor.digest,
                BlobEvent::Retrying {
                    reason: error.to_string(),
                },
            );
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    /// Gets what is missing. A connection that ends early is an error that can be tried again.
    async fn once(&mut self) -> Result<()> {
        let operation = format!("the pull of blob {}", self.descriptor.digest);
        let mut answer = request_blob(
            self.transport,
            self.endpoint,
            self.descriptor,
            &operation,
            self.received,
        )
        .await?;
        // A server that does not know ranges starts from the beginning.
        let mut skip = if answer.status() == 206 { 0 } else { self.received };
        while let Some(mut piece) = next_chunk(&mut answer.response, self.endpoint, &operation).await? {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            let piece = piece.split_off(skipped);
            let total = self.received + piece.len() as u64;
            if total > self.descriptor.size {
                let what = format!("blob {} sent by {}", self.descriptor.digest, self.endpoint.label());
                return Err(RegistryError::SizeMismatch {
                    what,
                    expected: self.descriptor.size,
                    actual: total,
                });
            }
            if piece.is_empty() {
                continue;
            }
            let bytes = piece.len() as u64;
            self.sender.send(piece).await.map_err(|_| RegistryError::Stopped {
                operation: "writing a blob",
            })?;
            self.received = total;
            self.progress
                .blob(&self.descriptor.digest, BlobEvent::Advanced { bytes });
        }
        if self.received < self.descriptor.size {
            return Err(interrupted(self.endpoint, &operation, None));
        }
        Ok(())
    }
}

/// Asks for a blob from a position on; gives only answers that hold it.
async fn request_blob(
    transport: &Transport,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    operation: &str,
    position: u64,
) -> Result<Answer> {
    let mut headers = HeaderMap::new();
    if position > 0 {
        let range = HeaderValue::try_from(format!("bytes={position}-"));
        headers.insert(
            RANGE,
            range.map_err(|_| protocol(endpoint, operation, "no range can be asked for"))?,
        );
    }
    let request = Request {
        method: Method::GET,
        url: endpoint.url(&format!("blobs/{}", descriptor.digest))?,
        operation,
        scopes: vec![endpoint.scope("pull")],
        headers,
        payload: Payload::None,
    };
    let answer = transport.send(endpoint, request).await?;
    match answer.status().as_u16() {
        200 => Ok(answer),
        206 if position > 0 && answer.header(CONTENT_RANGE).and_then(range_start) == Some(position) => Ok(answer),
        206 => Err(protocol(endpoint, operation, "another range than the one asked for")),
        // Nothing begins at this position: the registry's blob ends there, before its size.
        416 if position > 0 => Err(RegistryError::SizeMismatch {
            what: format!("blob {} sent by {}", descriptor.digest, endpoint.label()),
            expected: descriptor.size,
            actual: position,
        }),
        404 => Err(match answer.into_error(endpoint, operation).await {
            RegistryError::Status { .. } => RegistryError::BlobUnknown {
                host: endpoint.label(),
                repository: endpoint.name().repository().to_owned(),
                digest: descriptor.digest.clone(),
            },
            other => other,
        }),
        _ => Err(answer.into_error(endpoint, operation).await),
    }
}

fn protocol(endpoint: &Endpoint, operation: &str, reason: &str) -> RegistryError {
    RegistryError::Protocol {
        host: endpoint.label(),
        operation: operation.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Reads the start of `bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    text.trim()
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_range_is_read() {
        for (text, start) in [
            ("bytes 5-9/10", Some(5)),
            ("bytes 0-9/*", Some(0)),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes -9/10", None),
            ("bytes 99999999999999999999-", None),
        ] {
            assert_eq!(range_start(text), start, "{text}");
        }
    }
}
