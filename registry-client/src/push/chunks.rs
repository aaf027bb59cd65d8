//! Upload in chunks: several PATCHes with `Content-Range`, each at our own offset.
//!
//! What the registry answers as `Range` after a PATCH is not trusted, since some leave it where it was
//! (aws/containers-roadmap #2831): the digest decides at the end. Only after a failure is the registry asked how far it
//! got.

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::session::{self, Upload};
use super::strategy::{Job, Strategy};
use crate::copy::BlobStream;
use crate::error::{RegistryError, Result};
use crate::progress::BlobEvent;
use crate::transport::{Payload, Request};

/// A chunk is held in memory, since it may have to be sent again; four uploads may be under way.
const CHUNK_SIZE: u64 = 8 * 1024 * 1024;
/// A registry that wants larger chunks than this is not obeyed.
const LARGEST_CHUNK: u64 = 32 * 1024 * 1024;

/// The strategy.
pub(super) struct Chunks;

impl Strategy for Chunks {
    fn name(&self) -> &'static str {
        "chunks"
    }

    fn upload<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut upload = job.session().await?;
            let size = upload.min_chunk.unwrap_or(0).clamp(CHUNK_SIZE, LARGEST_CHUNK);
            let mut content = Gather::new(job.content().await?);
            let mut start = 0;
            while let Some(chunk) = content.next(usize::try_from(size).unwrap_or(usize::MAX)).await? {
                send_chunk(job, &mut upload, start, &chunk).await?;
                start += chunk.len() as u64;
                job.progress.blob(
                    &job.descriptor.digest,
                    BlobEvent::Advanced {
                        bytes: chunk.len() as u64,
                    },
                );
            }
            session::commit(&job.target.transport, job.endpoint, &upload, &job.descriptor.digest).await
        })
    }
}

/// Gathers the pieces of a stream into chunks of one size.
pub(super) struct Gather<'a> {
    content: BlobStream<'a>,
    rest: Bytes,
}

impl<'a> Gather<'a> {
    pub(super) fn new(content: BlobStream<'a>) -> Self {
        Self {
            // Asked again after its end, a stream may do anything.
            content: Box::pin(content.fuse()),
            rest: Bytes::new(),
        }
    }

    /// Returns the next chunk, which is smaller than `size` only at the end; `None` after the last.
    pub(super) async fn next(&mut self, size: usize) -> Result<Option<Bytes>> {
        let mut chunk = BytesMut::new();
        while chunk.len() < size {
            if self.rest.is_empty() {
                match self.content.try_next().await? {
                    Some(piece) => self.rest = piece,
                    None => break,
                }
            }
            let take = (size - chunk.len()).min(self.rest.len());
            chunk.extend_from_slice(&self.rest.split_to(take));
        }
        Ok((!chunk.is_empty()).then(|| chunk.freeze()))
    }
}

/// Sends a chunk, again if need be.
async fn send_chunk(job: &Job<'_>, upload: &mut Upload, start: u64, chunk: &Bytes) -> Result<()> {
    let mut attempt = 1;
    loop {
        let Err(error) = patch(job, upload, start, chunk).await else {
            return Ok(());
        };
        let Some(delay) = job.target.budget.delay(&error, attempt) else {
            return Err(error);
        };
        tokio::time::sleep(delay).await;
        attempt += 1;
        match session::received(&job.target.transport, job.endpoint, upload).await {
            Ok(Some(received)) if received == start => job.goes_on(&error, start),
            // It does not say, or has taken the chunk in part or whole: the upload's address then holds a state that the
            // registry does not accept any more (distribution, `blobupload.go`), and all is sent again in another one.
            _ => return Err(error),
        }
    }
}

async fn patch(job: &Job<'_>, upload: &mut Upload, start: u64, chunk: &Bytes) -> Result<()> {
    let operation = format!("the upload of blob {}", job.descriptor.digest);
    let range = format!("{start}-{}", start + chunk.len() as u64 - 1);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(chunk.len() as u64));
    headers.insert(
        CONTENT_RANGE,
        HeaderValue::try_from(range).map_err(|_| RegistryError::Stopped {
            operation: "writing a range",
        })?,
    );
    let request = Request {
        method: Method::PATCH,
        url: upload.url.clone(),
        operation: &operation,
        scopes: session::scopes(job.endpoint),
        headers,
        payload: Payload::Bytes(chunk.clone()),
    };
    let answer = job.target.transport.send(job.endpoint, request).await?;
    if !matches!(answer.status().as_u16(), 200 | 201 | 202 | 204) || answer.is_web_page() {
        return Err(session::lost(answer.into_error(job.endpoint, &operation).await));
    }
    upload.follow(job.endpoint, &operation, &answer)
}
