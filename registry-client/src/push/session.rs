//! Beginning and ending an upload.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Url};

use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::transport::{Answer, Endpoint, Payload, Request, Transport, resolve_location};

/// What the registry made of our wish to upload.
pub(super) enum Session {
    /// It has the blob now, from another repository.
    Mounted { from: Reference },
    /// It waits for the bytes.
    Open { upload: Url },
}

/// What a token must allow for a push.
pub(super) fn scopes(endpoint: &Endpoint) -> Vec<String> {
    vec![endpoint.scope("pull,push")]
}

/// Begins an upload, by mounting where a source is known.
///
/// A registry that does not mount answers with an upload that goes on as usual; one that refuses to is asked again without.
pub(super) async fn open(
    transport: &Transport,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    mount: Option<&Endpoint>,
) -> Result<Session> {
    let Some(source) = mount else {
        return open_plain(transport, endpoint, descriptor).await;
    };
    match open_mounting(transport, endpoint, descriptor, source).await {
        Err(error) if !error.is_transient() => {
            tracing::debug!(%error, "mount refused");
            open_plain(transport, endpoint, descriptor).await
        }
        other => other,
    }
}

async fn open_mounting(
    transport: &Transport,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    source: &Endpoint,
) -> Result<Session> {
    let mut url = endpoint.url("blobs/uploads/")?;
    url.query_pairs_mut()
        .append_pair("mount", &descriptor.digest.to_string())
        .append_pair("from", &source.location().repository);
    let operation = format!("the mount of blob {} from `{}`", descriptor.digest, source.name());
    let mut scopes = scopes(endpoint);
    scopes.push(source.scope("pull"));
    let answer = post(transport, endpoint, url.clone(), &operation, scopes).await?;
    match answer.status().as_u16() {
        201 => Ok(Session::Mounted {
            from: source.name().clone(),
        }),
        202 => Ok(Session::Open {
            upload: upload_location(endpoint, &operation, &url, &answer)?,
        }),
        _ => Err(answer.into_error(endpoint, &operation).await),
    }
}

async fn open_plain(transport: &Transport, endpoint: &Endpoint, descriptor: &Descriptor) -> Result<Session> {
    let url = endpoint.url("blobs/uploads/")?;
    let operation = format!("the upload of blob {}", descriptor.digest);
    let answer = post(transport, endpoint, url.clone(), &operation, scopes(endpoint)).await?;
    match answer.status().as_u16() {
        202 => Ok(Session::Open {
            upload: upload_location(endpoint, &operation, &url, &answer)?,
        }),
        _ => Err(answer.into_error(endpoint, &operation).await),
    }
}

async fn post(
    transport: &Transport,
    endpoint: &Endpoint,
    url: Url,
    operation: &str,
    scopes: Vec<String>,
) -> Result<Answer> {
    let payload = Payload::Bytes(Bytes::new());
    transport
        .send(
            endpoint,
            Request {
                method: Method::POST,
                url,
                operation,
                scopes,
                headers: no_content(),
                payload,
            },
        )
        .await
}

/// Ends an upload: the registry checks the digest and keeps the blob.
pub(super) async fn commit(
    transport: &Transport,
    endpoint: &Endpoint,
    mut upload: Url,
    descriptor: &Descriptor,
) -> Result<()> {
    upload
        .query_pairs_mut()
        .append_pair("digest", &descriptor.digest.to_string());
    let operation = format!("the end of the upload of blob {}", descriptor.digest);
    let payload = Payload::Bytes(Bytes::new());
    let request = Request {
        method: Method::PUT,
        url: upload,
        operation: &operation,
        scopes: scopes(endpoint),
        headers: no_content(),
        payload,
    };
    let answer = transport.send(endpoint, request).await?;
    match answer.status().as_u16() {
        200 | 201 | 204 => Ok(()),
        _ => Err(answer.into_error(endpoint, &operation).await),
    }
}

/// Reads where an upload goes on.
pub(super) fn upload_location(endpoint: &Endpoint, operation: &str, from: &Url, answer: &Answer) -> Result<Url> {
    let location = answer.header(LOCATION).ok_or_else(|| RegistryError::Protocol {
        host: endpoint.label(),
        operation: operation.to_owned(),
        reason: "it names no place for the upload".to_owned(),
    })?;
    resolve_location(endpoint, operation, from, location)
}

/// Some proxies refuse a write without a length.
fn no_content() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))])
}
