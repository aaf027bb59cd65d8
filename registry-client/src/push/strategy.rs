//! How the bytes of a blob are sent: the strategies, and which one is used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use reqwest::Url;

use super::chunks::Chunks;
#[cfg(feature = "ecr")]
use super::ecr_parts::EcrParts;
use super::one_patch::OnePatch;
use super::session;
use crate::config::UploadKind;
use crate::copy::{BlobStream, ImageSource, RegistryTarget};
use crate::ecr;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::transport::Endpoint;

/// A blob on its way to a repository.
pub(super) struct Job<'a> {
    pub(super) target: &'a RegistryTarget,
    pub(super) endpoint: &'a Endpoint,
    pub(super) descriptor: &'a Descriptor,
    source: &'a dyn ImageSource,
    pub(super) progress: &'a dyn Progress,
    /// An upload that a declined mount has opened.
    opened: Mutex<Option<Url>>,
    /// Whether an upload is being opened.
    opening: AtomicBool,
}

/// A way to send a blob.
///
/// # Guarantees
/// On success the repository has the blob, and has checked its digest. After an error nothing is left that would stand in
/// the way of another try, by whatever strategy.
pub(super) trait Strategy: Send + Sync {
    /// Names the strategy in logs.
    fn name(&self) -> &'static str;

    /// Whether it takes content whose size is not known before its end.
    fn streams(&self) -> bool {
        false
    }

    /// Sends the blob from its beginning.
    fn upload<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<()>>;
}

/// The strategies that a host may be sent to by.
pub(super) struct Strategies {
    forced: Option<UploadKind>,
    is_ecr: bool,
}

/// Uploads by one PATCH that may break before the blob is sent in chunks, of which each can be sent again.
const STREAM_TRIES: u32 = 2;

impl Strategies {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self {
            forced: endpoint.location().upload,
            is_ecr: cfg!(feature = "ecr") && ecr::parse_host(endpoint.name().registry()).is_some(),
        }
    }

    /// Whether chunks may take the place of one large request. ECR's chunks are not to be trusted
    /// (aws/containers-roadmap #2831); it has its layer parts.
    pub(super) fn can_chunk(&self) -> bool {
        self.forced.is_none()
    }

    /// Chooses after some uploads that broke; `small` asks for small requests.
    pub(super) fn choose(&self, broken: u32, small: bool) -> &'static dyn Strategy {
        let kind = match self.forced {
            Some(forced) => forced,
            None if self.is_ecr && (small || broken > 0) => UploadKind::EcrParts,
            None if small || broken >= STREAM_TRIES => UploadKind::Chunks,
            None => UploadKind::Stream,
        };
        match kind {
            UploadKind::Stream => &OnePatch,
            #[cfg(feature = "ecr")]
            UploadKind::EcrParts => &EcrParts,
            #[cfg(not(feature = "ecr"))]
            UploadKind::EcrParts => &OnePatch,
            UploadKind::Chunks => &Chunks,
        }
    }
}

impl<'a> Job<'a> {
    pub(super) fn new(
        target: &'a RegistryTarget,
        endpoint: &'a Endpoint,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
        opened: Option<Url>,
    ) -> Self {
        Self {
            target,
            endpoint,
            descriptor,
            source,
            progress,
            opened: Mutex::new(opened),
            opening: AtomicBool::new(false),
        }
    }

    /// Opens the content at its beginning.
    pub(super) async fn content(&self) -> Result<BlobStream<'_>> {
        let content = self.source.blob(self.descriptor, self.progress).await?;
        self.progress.blob(
            &self.descriptor.digest,
            BlobEvent::Started {
                total: self.descriptor.size,
            },
        );
        Ok(content)
    }

    /// Opens an upload, or takes the one that is open.
    pub(super) async fn session(&self) -> Result<session::Upload> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(url) = opened {
            return Ok(session::Upload::at(url));
        }
        self.opening.store(true, Ordering::Relaxed);
        let upload = session::open(&self.target.transport, self.endpoint, self.descriptor).await?;
        self.opening.store(false, Ordering::Relaxed);
        Ok(upload)
    }

    /// Whether the upload that failed had not even begun.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.load(Ordering::Relaxed)
    }

    /// Tells that all is sent again.
    pub(super) fn restarts(&self, error: &RegistryError) {
        self.goes_on(error, 0);
    }

    /// Tells that what comes after some bytes is sent again.
    pub(super) fn goes_on(&self, error: &RegistryError, from: u64) {
        let reason = error.to_string();
        self.progress
            .blob(&self.descriptor.digest, BlobEvent::Retrying { reason, from });
    }

    /// Names the cause of a failure better than the connection did: ECR closes it when a push begins for a repository it
    /// does not have (docker/build-push-action #850).
    pub(super) fn explain(&self, error: RegistryError) -> RegistryError {
        let host = self.endpoint.name().registry();
        match error {
            RegistryError::Interrupted { .. } if self.is_opening() && ecr::parse_host(host).is_some() => {
                RegistryError::RepositoryUnknown {
                    host: host.to_owned(),
                    repository: self.endpoint.location().repository.clone(),
                    ecr: true,
                    detail: "the registry closed the connection when the upload began".to_owned(),
                }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_or_a_failure_chooses() {
        let names = |forced, is_ecr, small| {
            let strategies = Strategies { forced, is_ecr };
            [0, 1, 2].map(|broken| strategies.choose(broken, small).name())
        };
        assert_eq!(names(None, false, false), ["stream", "stream", "chunks"]);
        assert_eq!(names(None, false, true), ["chunks"; 3]);
        assert_eq!(names(Some(UploadKind::Stream), false, true), ["stream"; 3]);
        #[cfg(feature = "ecr")]
        assert_eq!(names(None, true, false), ["stream", "ecr-parts", "ecr-parts"]);
    }
}
