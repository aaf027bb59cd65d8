//! Upload by one PATCH that streams the whole blob, without `Content-Range`, and one PUT.
//!
//! Every registry takes this form (go-containerregistry, `write.go`). ECR answers the PATCH with 201 in place of 202
//! (aws/containers-roadmap #2831).

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, Url};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::session;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::store::Store;
use crate::transport::answer::{COMMIT_TIMEOUT, interrupted};
use crate::transport::{Answer, Endpoint, Payload, Request, Transport};

/// Memory of an upload is this times the queue, and what the socket holds.
const PIECE_SIZE: usize = 256 * 1024;
const QUEUE: usize = 4;
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Sends a blob of the store into an upload that was opened.
pub(super) async fn upload(
    transport: &Transport,
    endpoint: &Endpoint,
    upload: Url,
    descriptor: &Descriptor,
    store: &Store,
    progress: &dyn Progress,
) -> Result<()> {
    let file = store.open_blob(&descriptor.digest)?;
    let size = file
        .metadata()
        .map_err(|error| RegistryError::io("read", &store.blob_path(&descriptor.digest), error))?
        .len();
    if size != descriptor.size {
        let what = format!("blob {} in the local store", descriptor.digest);
        return Err(RegistryError::SizeMismatch {
            what,
            expected: descriptor.size,
            actual: size,
        });
    }
    progress.blob(&descriptor.digest, BlobEvent::Started { total: size });
    let sent = Arc::new(AtomicU64::new(0));
    let operation = format!("the upload of blob {}", descriptor.digest);
    let request = Request {
        method: Method::PATCH,
        url: upload.clone(),
        operation: &operation,
        scopes: session::scopes(endpoint),
        headers: headers(size),
        payload: Payload::Stream(stream(file, Arc::clone(&sent))),
    };
    let answer = watch(
        transport.send(endpoint, request),
        endpoint,
        &operation,
        descriptor,
        &sent,
        progress,
    )
    .await?;
    if !matches!(answer.status().as_u16(), 200 | 201 | 202 | 204) {
        return Err(answer.into_error(endpoint, &operation).await);
    }
    // A registry may move the upload with each step, or leave it where it is.
    let next = match answer.header(LOCATION) {
        Some(_) => session::upload_location(endpoint, &operation, &upload, &answer)?,
        None => upload,
    };
    session::commit(transport, endpoint, next, descriptor).await
}

fn headers(size: u64) -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        // Known here, it saves chunked transfer encoding, which not every proxy passes on.
        (CONTENT_LENGTH, HeaderValue::from(size)),
    ])
}

/// Reads the file on a thread of its own, a few pieces ahead of the network.
fn stream(file: File, sent: Arc<AtomicU64>) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    // Not awaited: it ends with the file, or when the request is dropped and nobody receives any more.
    drop(tokio::task::spawn_blocking(move || read_all(file, &sender)));
    let pieces = futures_util::stream::unfold((receiver, sent), |(mut receiver, sent)| async move {
        let piece = receiver.recv().await?;
        if let Ok(bytes) = &piece {
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Some((piece, (receiver, sent)))
    });
    Body::wrap_stream(pieces)
}

fn read_all(mut file: File, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_SIZE);
        let read = file.by_ref().take(PIECE_SIZE as u64).read_to_end(&mut piece);
        let (message, is_last) = match read {
            Ok(0) => return,
            Ok(_) => (Ok(Bytes::from(piece)), false),
            Err(error) => (Err(error), true),
        };
        if sender.blocking_send(message).is_err() || is_last {
            return;
        }
    }
}

/// Reports how a request gets on, and gives it up when it stands still.
async fn watch(
    request: impl Future<Output = Result<Answer>>,
    endpoint: &Endpoint,
    operation: &str,
    descriptor: &Descriptor,
    sent: &AtomicU64,
    progress: &dyn Progress,
) -> Result<Answer> {
    let mut request = pin!(request);
    let mut reported = 0;
    let mut moved_at = Instant::now();
    loop {
        let result = tokio::select! {
            answer = &mut request => Some(answer),
            () = tokio::time::sleep(REPORT_INTERVAL) => None,
        };
        let now = sent.load(Ordering::Relaxed);
        if now > reported {
            progress.blob(&descriptor.digest, BlobEvent::Advanced { bytes: now - reported });
            (reported, moved_at) = (now, Instant::now());
        }
        match result {
            Some(answer) => return answer,
            None if moved_at.elapsed() > COMMIT_TIMEOUT => return Err(interrupted(endpoint, operation, None)),
            None => {}
        }
    }
}
