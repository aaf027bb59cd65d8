//! Sending a stream as the body of one request, with its progress watched.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use reqwest::Body;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::copy::BlobStream;
use crate::digest::Digest;
use crate::error::Result;
use crate::progress::{BlobEvent, Progress};
use crate::transport::answer::{COMMIT_TIMEOUT, interrupted};
use crate::transport::{Answer, Endpoint, Payload, Request, Transport};

const QUEUE: usize = 4;
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Who hears how a stream gets on.
#[derive(Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) progress: &'a dyn Progress,
    /// `None` when nobody knows yet what it will be.
    pub(super) digest: Option<&'a Digest>,
}

impl Report<'_> {
    fn advanced(self, bytes: u64) {
        if let (Some(digest), true) = (self.digest, bytes > 0) {
            self.progress.blob(digest, BlobEvent::Advanced { bytes });
        }
    }
}

/// Sends `content` as the body of a request, and gives the answer.
///
/// An error of the content ends the request, and is the error. A request that stands still is given up.
pub(super) async fn send(
    transport: &Transport,
    endpoint: &Endpoint,
    mut request: Request<'_>,
    content: BlobStream<'_>,
    report: Report<'_>,
) -> Result<Answer> {
    let operation = request.operation;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    request.payload = Payload::Stream(Body::wrap_stream(futures_util::stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) },
    )));
    let sent = AtomicU64::new(0);
    let mut pump = pin!(pump(content, sender, &sent));
    let mut request = pin!(transport.send(endpoint, request));
    let (mut pumping, mut reported, mut moved_at) = (true, 0, Instant::now());
    loop {
        let answer = tokio::select! {
            pumped = &mut pump, if pumping => {
                pumped?;
                pumping = false;
                None
            }
            answer = &mut request => Some(answer),
            () = tokio::time::sleep(REPORT_INTERVAL) => None,
        };
        let now = sent.load(Ordering::Relaxed);
        if now > reported {
            report.advanced(now - reported);
            (reported, moved_at) = (now, Instant::now());
        }
        match answer {
            Some(answer) => return answer,
            None if moved_at.elapsed() > COMMIT_TIMEOUT => return Err(interrupted(endpoint, operation, None)),
            None => {}
        }
    }
}

/// Moves pieces from the content to the request, as fast as the request takes them.
async fn pump(mut content: BlobStream<'_>, sender: mpsc::Sender<io::Result<Bytes>>, sent: &AtomicU64) -> Result<()> {
    loop {
        match content.try_next().await {
            Ok(None) => return Ok(()),
            Ok(Some(piece)) => {
                let bytes = piece.len() as u64;
                if sender.send(Ok(piece)).await.is_err() {
                    // The request has ended early; its answer says why.
                    return Ok(());
                }
                sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                // Without this, a body of unknown length would look complete to the registry.
                drop(sender.send(Err(io::Error::other("the content ended early"))).await);
                return Err(error);
            }
        }
    }
}
