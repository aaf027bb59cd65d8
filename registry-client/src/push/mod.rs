//! Sending blobs and manifests to a registry.

mod chunks;
#[cfg(feature = "ecr")]
mod ecr_parts;
mod feed;
mod growing;
mod manifests;
mod one_patch;
mod session;
mod strategy;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};

pub(crate) use growing::push_growing;
pub(crate) use manifests::put_manifest;
use session::Session;
use strategy::{Job, Strategies};

use crate::copy::{ImageSource, RegistryTarget};
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::reference::Reference;
use crate::transport::retry::retry;
use crate::transport::{Direction, Endpoint, Payload, Request, Transport};

/// How a blob came to be where it was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushedHow {
    /// It was there before.
    Existed,
    /// The registry took it over from another repository.
    Mounted {
        /// That repository.
        from: Reference,
    },
    /// It was sent, or written.
    Uploaded,
}

/// Brings a blob into a repository in the cheapest way there is.
pub(crate) async fn push_blob(
    target: &RegistryTarget,
    descriptor: &Descriptor,
    source: &dyn ImageSource,
    progress: &dyn Progress,
) -> Result<PushedHow> {
    let transport = &target.transport;
    let endpoint = target.endpoint()?;
    let _slot = transport.slot(&endpoint, Direction::Upload).await?;
    let look_up = || async { has_blob(transport, &endpoint, descriptor, session::scopes(&endpoint)).await };
    if retry(&target.budget, |_| (), look_up).await? {
        progress.blob(&descriptor.digest, BlobEvent::Exists);
        return Ok(PushedHow::Existed);
    }
    let mut opened = None;
    if let Some(from) = mount_source(transport, &endpoint, source.repositories(&descriptor.digest)) {
        match mount(target, &endpoint, &from, descriptor).await? {
            Some(Session::Mounted { from }) => {
                progress.blob(&descriptor.digest, BlobEvent::Mounted { from: from.clone() });
                return Ok(PushedHow::Mounted { from });
            }
            Some(Session::Open { upload }) => opened = Some(upload),
            None => {}
        }
    }
    let job = Job::new(target, &endpoint, descriptor, source, progress, opened);
    upload(&job).await?;
    progress.blob(&descriptor.digest, BlobEvent::Done);
    Ok(PushedHow::Uploaded)
}

/// Sends a blob, by another strategy when one fails.
async fn upload(job: &Job<'_>) -> Result<()> {
    let strategies = Strategies::of(job.endpoint);
    let transport = &job.target.transport;
    let (mut attempt, mut broken) = (1, 0);
    loop {
        let small = transport.wants_small_requests(job.endpoint);
        let strategy = strategies.choose(broken, small);
        let Err(error) = strategy.upload(job).await else {
            return Ok(());
        };
        if matches!(error, RegistryError::Status { status: 413, .. }) && strategies.can_chunk() && !small {
            transport.note_small_requests(job.endpoint);
            job.restarts(&error);
            continue;
        }
        let Some(delay) = job.target.budget.delay(&error, attempt) else {
            return Err(job.explain(error));
        };
        tracing::debug!(%error, attempt, ?delay, strategy = strategy.name(), "sending a blob again");
        job.restarts(&error);
        tokio::time::sleep(delay).await;
        attempt += 1;
        // An upload that did not begin says nothing of how bytes are best sent.
        broken += u32::from(!job.is_opening());
        // When only the last answer was lost, all has arrived.
        let look_up = has_blob(transport, job.endpoint, job.descriptor, session::scopes(job.endpoint));
        if look_up.await.unwrap_or(false) {
            return Ok(());
        }
    }
}

/// Asks whether the repository has a blob.
pub(crate) async fn has_blob(
    transport: &Transport,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    scopes: Vec<String>,
) -> Result<bool> {
    let operation = format!("the look-up of blob {}", descriptor.digest);
    let request = Request {
        method: Method::HEAD,
        url: endpoint.url(&format!("blobs/{}", descriptor.digest))?,
        operation: &operation,
        scopes,
        headers: HeaderMap::new(),
        payload: Payload::None,
    };
    let answer = transport.send(endpoint, request).await?;
    match answer.status().as_u16() {
        200 if answer.is_web_page() => Err(answer.into_error(endpoint, &operation).await),
        200 => match answer.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok()) {
            Some(size) if size != descriptor.size => Err(RegistryError::SizeMismatch {
                what: format!("blob {} at {}", descriptor.digest, endpoint.label()),
                expected: descriptor.size,
                actual: size,
            }),
            _ => Ok(true),
        },
        404 => Ok(false),
        _ => Err(answer.into_error(endpoint, &operation).await),
    }
}

/// Finds a repository of the same registry that has the blob.
fn mount_source(transport: &Transport, endpoint: &Endpoint, repositories: Vec<Reference>) -> Option<Endpoint> {
    let here = endpoint.location();
    let candidates = repositories
        .into_iter()
        .filter_map(|source| transport.endpoint(&source).ok());
    let is_neighbour = |other: &Endpoint| {
        let there = other.location();
        there.host == here.host && there.insecure == here.insecure && there.repository != here.repository
    };
    // Two names may lead to one place; a login for the one need not be good for the other.
    let mut neighbours: Vec<Endpoint> = candidates.filter(is_neighbour).collect();
    neighbours.sort_by_key(|other| other.name().registry() != endpoint.name().registry());
    neighbours.into_iter().next()
}

/// Has a blob mounted; `None` when the registry will not, for whatever reason: then it is sent.
async fn mount(
    target: &RegistryTarget,
    endpoint: &Endpoint,
    from: &Endpoint,
    descriptor: &Descriptor,
) -> Result<Option<Session>> {
    let asked = || async { session::mount(&target.transport, endpoint, from, descriptor).await };
    match retry(&target.budget, |_| (), asked).await {
        Ok(session) => Ok(Some(session)),
        Err(error @ RegistryError::Offline { .. }) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "mount refused");
            Ok(None)
        }
    }
}
