//! Sending a whole image or index: all blobs, then the manifests from the leaves up.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::{push_blobs, session};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, detect_media_type, media_type};
use crate::progress::Progress;
use crate::pull::head_manifest;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::answer::Answer;
use crate::transport::retry::retry;
use crate::transport::{Endpoint, Payload, Request, Transport};

const NESTING_LIMIT: usize = 3;

/// An image or index with all below it, in the order to send.
#[derive(Default)]
struct Plan {
    blobs: Vec<Descriptor>,
    /// Children before parents; the last is what the name will mean.
    manifests: Vec<Document>,
}

struct Document {
    media_type: String,
    digest: Digest,
    bytes: Bytes,
}

/// Sends an image or index of the store under a name. Returns its digest.
pub(crate) async fn push(
    transport: &Transport,
    store: &Store,
    image: &Descriptor,
    target: &Reference,
    progress: &dyn Progress,
) -> Result<Digest> {
    if let Some(expected) = target.digest().filter(|expected| **expected != image.digest) {
        let what = format!("the image to push as `{target}`");
        return Err(RegistryError::DigestMismatch {
            what,
            expected: expected.clone(),
            actual: image.digest.clone(),
        });
    }
    let mut plan = Plan::default();
    plan.add(store, image, 0)?;
    push_blobs(transport, target, &plan.blobs, store, progress).await?;
    let endpoint = transport.endpoint(target)?;
    let last = plan.manifests.len().saturating_sub(1);
    for (position, document) in plan.manifests.iter().enumerate() {
        let by_digest = document.digest.to_string();
        let name = match target.digest() {
            _ if position < last => &by_digest,
            Some(_) if target.tag().is_none() => &by_digest,
            _ => target.tag_or_latest(),
        };
        put(transport, &endpoint, target, document, name).await?;
    }
    // From now on a manifest of this repository holds the blobs, which is what ECR wants of a mount's source.
    for blob in &plan.blobs {
        store.add_source(&blob.digest, target)?;
    }
    Ok(image.digest.clone())
}

impl Plan {
    fn add(&mut self, store: &Store, descriptor: &Descriptor, depth: usize) -> Result<()> {
        if self.manifests.iter().any(|known| known.digest == descriptor.digest) {
            return Ok(());
        }
        let bytes = store.read_blob(&descriptor.digest, MANIFEST_LIMIT)?;
        let media_type = detect_media_type(&bytes, Some(&descriptor.media_type))?;
        if media_type::is_index(&media_type) {
            if depth >= NESTING_LIMIT {
                let reason = format!("indexes are nested deeper than {NESTING_LIMIT}");
                return Err(RegistryError::InvalidDocument {
                    what: "image index",
                    reason,
                });
            }
            for child in &Index::parse(&bytes)?.manifests {
                self.add(store, child, depth + 1)?;
            }
        } else {
            let manifest = Manifest::parse(&bytes)?;
            let layers = manifest.layers.into_iter();
            let own =
                layers.filter(|layer| !media_type::is_foreign_layer(&layer.media_type) || store.has(&layer.digest));
            for blob in own.chain([manifest.config]) {
                if !self.blobs.iter().any(|known| known.digest == blob.digest) {
                    self.blobs.push(blob);
                }
            }
        }
        self.manifests.push(Document {
            media_type,
            digest: descriptor.digest.clone(),
            bytes: bytes.into(),
        });
        Ok(())
    }
}

/// A registry that says what digest it stored must say ours.
fn stored_as_sent(answer: &Answer, document: &Document, operation: &str) -> Result<()> {
    let stored = answer
        .header("docker-content-digest")
        .and_then(|text| text.parse().ok());
    match stored {
        Some(actual) if actual != document.digest => Err(RegistryError::DigestMismatch {
            what: format!("what the registry stored in {operation}"),
            expected: document.digest.clone(),
            actual,
        }),
        _ => Ok(()),
    }
}

async fn put(
    transport: &Transport,
    endpoint: &Endpoint,
    target: &Reference,
    document: &Document,
    name: &str,
) -> Result<()> {
    let operation = format!("the push of manifest {} to `{}`", document.digest, target);
    let result = retry(
        |_| (),
        || async {
            let kind = HeaderValue::try_from(&document.media_type).map_err(|_| RegistryError::InvalidDocument {
                what: "manifest",
                reason: "its media type cannot be sent in a header".to_owned(),
            })?;
            let request = Request {
                method: Method::PUT,
                url: endpoint.url(&format!("manifests/{name}"))?,
                operation: &operation,
                scopes: session::scopes(endpoint),
                headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]),
                payload: Payload::Bytes(document.bytes.clone()),
            };
            let answer = transport.send(endpoint, request).await?;
            // ECR sends no `Location`, and the digest is known here anyway: the status says all.
            if answer.status().is_success() {
                stored_as_sent(&answer, document, &operation)
            } else {
                Err(answer.into_error(endpoint, &operation).await)
            }
        },
    )
    .await;
    match result {
        // A tag that may not change is no obstacle when it means this very image.
        Err(error @ RegistryError::Status { status: 400..=499, .. }) => match head_manifest(transport, target).await {
            Ok(Some(there)) if there.digest == document.digest => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}
