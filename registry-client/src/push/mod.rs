//! Sending images: blobs first, children before the index, the name last.

mod manifests;
mod one_patch;
mod session;

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use reqwest::header::HeaderMap;

pub(crate) use manifests::push;
use session::Session;

use crate::ecr;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, Progress};
use crate::pull::fetch_blob;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::retry::retry;
use crate::transport::{Direction, Endpoint, Payload, Request, Transport};

/// How a blob came to be in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushedHow {
    /// It was there before.
    Existed,
    /// The registry took it over from another repository.
    Mounted {
        /// That repository.
        from: Reference,
    },
    /// It was sent.
    Uploaded,
}

/// Brings a blob into a repository in the cheapest way there is.
pub(crate) async fn push_blob(
    transport: &Transport,
    target: &Reference,
    descriptor: &Descriptor,
    store: &Store,
    progress: &dyn Progress,
) -> Result<PushedHow> {
    let endpoint = transport.endpoint(target)?;
    let slot = transport.slot(&endpoint, Direction::Upload).await?;
    if retry(|_| (), async || has_blob(transport, &endpoint, descriptor).await).await? {
        progress.blob(&descriptor.digest, BlobEvent::Exists);
        return Ok(PushedHow::Existed);
    }
    let mount = mount_source(transport, &endpoint, descriptor, store);
    // ECR closes the connection when a push begins for a repository it does not have (docker/build-push-action #850).
    let opening = AtomicBool::new(true);
    let notify = |error: &RegistryError| {
        progress.blob(
            &descriptor.digest,
            BlobEvent::Retrying {
                reason: error.to_string(),
            },
        );
    };
    let result = retry(notify, || async {
        opening.store(true, Ordering::Relaxed);
        let session = session::open(transport, &endpoint, descriptor, mount.as_ref()).await?;
        opening.store(false, Ordering::Relaxed);
        let upload = match session {
            Session::Mounted { from } => {
                progress.blob(&descriptor.digest, BlobEvent::Mounted { from: from.clone() });
                return Ok(PushedHow::Mounted { from });
            }
            Session::Open { upload } => upload,
        };
        fetch_missing(transport, descriptor, store, progress).await?;
        one_patch::upload(transport, &endpoint, upload, descriptor, store, progress).await?;
        progress.blob(&descriptor.digest, BlobEvent::Done);
        Ok(PushedHow::Uploaded)
    })
    .await;
    drop(slot);
    result.map_err(|error| name_missing_repository(error, &endpoint, opening.load(Ordering::Relaxed)))
}

/// Brings several blobs into a repository at once.
async fn push_blobs(
    transport: &Transport,
    target: &Reference,
    blobs: &[Descriptor],
    store: &Store,
    progress: &dyn Progress,
) -> Result<()> {
    // The number at once is bounded by the slots of the host.
    let mut running: FuturesUnordered<BoxFuture<'_, Result<PushedHow>>> = FuturesUnordered::new();
    for blob in blobs {
        running.push(Box::pin(push_blob(transport, target, blob, store, progress)));
    }
    while running.try_next().await?.is_some() {}
    Ok(())
}

async fn has_blob(transport: &Transport, endpoint: &Endpoint, descriptor: &Descriptor) -> Result<bool> {
    let operation = format!("the look-up of blob {}", descriptor.digest);
    let request = Request {
        method: Method::HEAD,
        url: endpoint.url(&format!("blobs/{}", descriptor.digest))?,
        operation: &operation,
        scopes: session::scopes(endpoint),
        headers: HeaderMap::new(),
        payload: Payload::None,
    };
    let answer = transport.send(endpoint, request).await?;
    match answer.status().as_u16() {
        200 => Ok(true),
        404 => Ok(false),
        _ => Err(answer.into_error(endpoint, &operation).await),
    }
}

/// Finds a repository of the same registry that has the blob.
fn mount_source(
    transport: &Transport,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    store: &Store,
) -> Option<Endpoint> {
    let here = endpoint.location();
    let candidates = store
        .sources(&descriptor.digest)
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

/// A base layer that nobody needed to read was never downloaded; when it cannot be mounted either, it is now.
async fn fetch_missing(
    transport: &Transport,
    descriptor: &Descriptor,
    store: &Store,
    progress: &dyn Progress,
) -> Result<()> {
    if store.has(&descriptor.digest) {
        return Ok(());
    }
    let mut result = Err(RegistryError::BlobMissing {
        digest: descriptor.digest.clone(),
    });
    for source in store.sources(&descriptor.digest) {
        result = fetch_blob(transport, &source, descriptor, store, progress).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

fn name_missing_repository(error: RegistryError, endpoint: &Endpoint, opening: bool) -> RegistryError {
    let host = endpoint.name().registry();
    match error {
        RegistryError::Interrupted { .. } if opening && ecr::parse_host(host).is_some() => {
            RegistryError::RepositoryUnknown {
                host: host.to_owned(),
                repository: endpoint.name().repository().to_owned(),
                ecr: true,
                detail: "the registry closed the connection when the upload began".to_owned(),
            }
        }
        other => other,
    }
}
