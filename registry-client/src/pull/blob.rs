//! Reading one blob of a registry as a stream that is taken up again where it broke off, at the next place if need be.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use tokio::sync::OwnedSemaphorePermit;

use crate::copy::{BlobStream, RegistryImage};
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::transport::answer::{interrupted, next_chunk};
use crate::transport::{Answer, Direction, Endpoint, Payload, Request, Transport};

/// A download that moved on by this much has its tries given back. Less would let a server keep us busy for ever.
const PROGRESS_THAT_COUNTS: u64 = 1024 * 1024;

/// Opens a blob at its beginning.
///
/// The stream ends after exactly the descriptor's size, or with an error. What it carries is not checked here.
pub(crate) async fn open_blob<'a>(
    image: &'a RegistryImage,
    descriptor: &'a Descriptor,
    progress: &'a dyn Progress,
) -> Result<BlobStream<'a>> {
    let limit = image.transport.options().max_layer_size;
    if descriptor.size > limit {
        return Err(RegistryError::BlobTooLarge {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            limit,
        });
    }
    let download = Download {
        image,
        descriptor,
        progress,
        operation: format!("the pull of blob {}", descriptor.digest),
        places: image.places(&descriptor.digest)?,
        place: 0,
        open: None,
        received: 0,
        attempt: 1,
        mark: 0,
    };
    // The first answer is waited for, so that a blob that is not there is an error of the opening.
    let first = Box::pin(advance(download)).await?;
    Ok(Box::pin(futures_util::stream::try_unfold(
        Step::Piece(first),
        |step| async move {
            let (piece, download) = match step {
                Step::Piece(Some(next)) => next,
                Step::Piece(None) => return Ok(None),
                Step::More(download) => match Box::pin(advance(download)).await? {
                    Some(next) => next,
                    None => return Ok(None),
                },
            };
            Ok(Some((piece, Step::More(download))))
        },
    )))
}

enum Step<'a> {
    Piece(Option<(Bytes, Download<'a>)>),
    More(Download<'a>),
}

async fn advance(mut download: Download<'_>) -> Result<Option<(Bytes, Download<'_>)>> {
    Ok(download.next().await?.map(|piece| (piece, download)))
}

struct Download<'a> {
    image: &'a RegistryImage,
    descriptor: &'a Descriptor,
    progress: &'a dyn Progress,
    operation: String,
    /// Mirrors first.
    places: Vec<Endpoint>,
    place: usize,
    open: Option<Open>,
    /// Bytes handed on; a new try goes on from here.
    received: u64,
    attempt: u32,
    /// Where the tries were last given back.
    mark: u64,
}

/// An answer that is being read, and the right to do so.
struct Open {
    answer: Answer,
    /// What a server that does not know ranges sends again.
    skip: u64,
    _slot: OwnedSemaphorePermit,
}

impl Download<'_> {
    /// Returns the next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.piece().await {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(piece) => return Ok(piece),
                Err(error) => {
                    self.open = None;
                    self.recover(error).await?;
                }
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let endpoint = &self.places[self.place];
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let slot = self.image.transport.slot(endpoint, Direction::Download).await?;
                let answer = self.request(endpoint).await?;
                let skip = if answer.status() == 206 { 0 } else { self.received };
                self.open.insert(Open {
                    answer,
                    skip,
                    _slot: slot,
                })
            }
        };
        let Some(mut piece) = next_chunk(&mut open.answer.response, endpoint, &self.operation).await? else {
            if self.received < self.descriptor.size {
                return Err(interrupted(endpoint, &self.operation, None));
            }
            return Ok(None);
        };
        let skipped = usize::try_from(open.skip).unwrap_or(usize::MAX).min(piece.len());
        open.skip -= skipped as u64;
        let piece = piece.split_off(skipped);
        let total = self.received + piece.len() as u64;
        if total > self.descriptor.size {
            return Err(RegistryError::SizeMismatch {
                what: format!("blob {} sent by {}", self.descriptor.digest, endpoint.label()),
                expected: self.descriptor.size,
                actual: total,
            });
        }
        self.received = total;
        Ok(Some(piece))
    }

    async fn request(&self, endpoint: &Endpoint) -> Result<Answer> {
        let transport = &self.image.transport;
        request_blob(transport, endpoint, self.descriptor, &self.operation, self.received).await
    }

    /// Waits before another try, or turns to the next place; an error when there is none.
    async fn recover(&mut self, error: RegistryError) -> Result<()> {
        if self.place + 1 < self.places.len() {
            super::tell_mirror(&self.places[self.place], &error);
            self.place += 1;
            return Ok(());
        }
        if self.received >= self.mark + PROGRESS_THAT_COUNTS {
            (self.attempt, self.mark) = (1, self.received);
        }
        let Some(delay) = self.image.budget.delay(&error, self.attempt) else {
            return Err(error);
        };
        tracing::debug!(%error, attempt = self.attempt, received = self.received, "taking up a blob again");
        self.progress.blob(
            &self.descriptor.digest,
            BlobEvent::Retrying {
                reason: error.to_string(),
                from: self.received,
            },
        );
        tokio::time::sleep(delay).await;
        self.attempt += 1;
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
        200 if answer.is_web_page() => Err(answer.into_error(endpoint, operation).await),
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
