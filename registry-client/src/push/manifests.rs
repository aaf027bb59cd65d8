//! Sending manifests and indexes.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::session;
use crate::copy::RegistryTarget;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::pull::head_manifest;
use crate::transport::answer::Answer;
use crate::transport::retry::retry;
use crate::transport::{Payload, Request};

/// Sends a manifest or an index, under a tag or else by its digest alone.
pub(crate) async fn put_manifest(
    target: &RegistryTarget,
    document: &Descriptor,
    bytes: Bytes,
    tag: Option<&str>,
) -> Result<()> {
    let result = put(target, document, bytes, tag).await;
    let (Some(tag), Err(error @ RegistryError::Status { status: 400..=499, .. })) = (tag, &result) else {
        return result;
    };
    // A tag that may not change is no obstacle when it means this very image.
    let name = target.reference.without_tag().with_tag(tag)?;
    match head_manifest(&target.transport, &name, &target.budget).await {
        Ok(Some(there)) if there.digest == document.digest => Ok(()),
        Ok(Some(there)) if says_immutable(error) => Err(RegistryError::TagImmutable {
            tag: tag.to_owned(),
            repository: target.reference.name(),
            existing: there.digest,
            pushed: document.digest.clone(),
        }),
        _ => result,
    }
}

/// ECR says `TAG_INVALID: The image tag … already exists … and cannot be overwritten because the repository is immutable`;
/// others answer 409, or name the tag immutable in some way.
fn says_immutable(error: &RegistryError) -> bool {
    let RegistryError::Status { status, detail, .. } = error else {
        return false;
    };
    let detail = detail.to_ascii_lowercase();
    *status == 409
        || ["immutab", "already exists", "cannot be overwritten"]
            .iter()
            .any(|part| detail.contains(part))
}

async fn put(target: &RegistryTarget, document: &Descriptor, bytes: Bytes, tag: Option<&str>) -> Result<()> {
    let transport = &target.transport;
    let endpoint = target.endpoint()?;
    let operation = format!("the push of manifest {} to `{}`", document.digest, target.reference);
    let kind = HeaderValue::try_from(&document.media_type).map_err(|_| RegistryError::InvalidDocument {
        what: "manifest",
        reason: "its media type cannot be sent in a header".to_owned(),
    })?;
    let name = tag.map_or_else(|| document.digest.to_string(), str::to_owned);
    let url = endpoint.url(&format!("manifests/{name}"))?;
    let once = || async {
        transport.pace().manifest(endpoint.name().registry()).await;
        let request = Request {
            method: Method::PUT,
            url: url.clone(),
            operation: &operation,
            scopes: session::scopes(&endpoint),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, kind.clone())]),
            payload: Payload::Bytes(bytes.clone()),
        };
        let answer = transport.send(&endpoint, request).await?;
        // ECR sends no `Location`, and the digest is known here anyway: the status says all.
        if answer.status().is_success() && !answer.is_web_page() {
            stored_as_sent(&answer, document, &operation)
        } else {
            Err(answer.into_error(&endpoint, &operation).await)
        }
    };
    if retry(&target.budget, |_| (), once).await? {
        return Ok(());
    }
    // Something that takes everything may stand before the registry: only what can be found again has arrived.
    let by_digest = target.reference.without_tag();
    let name = match tag {
        Some(tag) => by_digest.with_tag(tag)?,
        None => by_digest.with_digest(document.digest.clone()),
    };
    match head_manifest(transport, &name, &target.budget).await? {
        Some(there) if there.digest == document.digest => Ok(()),
        _ => Err(RegistryError::Protocol {
            host: endpoint.label(),
            operation,
            reason: "it took the manifest, and does not have it".to_owned(),
        }),
    }
}

/// Tells whether the answer leaves no doubt. A registry that says what digest it stored must say ours; 201 is what the
/// specification asks for.
fn stored_as_sent(answer: &Answer, document: &Descriptor, operation: &str) -> Result<bool> {
    let stored = answer
        .header("docker-content-digest")
        .and_then(|text| text.parse().ok());
    match stored {
        Some(actual) if actual != document.digest => Err(RegistryError::DigestMismatch {
            what: format!("what the registry stored in {operation}"),
            expected: document.digest.clone(),
            actual,
        }),
        Some(_) => Ok(true),
        None => Ok(answer.status() == 201),
    }
}
