//! Beginning and ending an upload by the distribution specification.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Url};

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::transport::{Answer, Endpoint, Payload, Request, Transport, resolve_location};

/// What the registry made of our wish to mount.
pub(super) enum Session {
    /// It has the blob now, from another repository.
    Mounted { from: Reference },
    /// It waits for the bytes.
    Open { upload: Url },
}

/// An upload that is open.
#[derive(Debug)]
pub(super) struct Upload {
    /// Where it goes on; a registry may move it with each step.
    pub(super) url: Url,
    /// Smallest chunk the registry wants, in bytes, save for the last.
    pub(super) min_chunk: Option<u64>,
}

impl Upload {
    pub(super) fn at(url: Url) -> Self {
        Self { url, min_chunk: None }
    }

    /// Follows the upload to where an answer says it goes on.
    pub(super) fn follow(&mut self, endpoint: &Endpoint, operation: &str, answer: &Answer) -> Result<()> {
        // A registry may move the upload with each step, or leave it where it is.
        if answer.header(LOCATION).is_some() {
            self.url = upload_location(endpoint, operation, &self.url, answer)?;
        }
        Ok(())
    }
}

/// What a token must allow for a push.
pub(super) fn scopes(endpoint: &Endpoint) -> Vec<String> {
    vec![endpoint.scope("pull,push")]
}

/// Asks for a mount.
///
/// A registry that does not mount answers with an upload that goes on as usual.
pub(super) async fn mount(
    transport: &Transport,
    endpoint: &Endpoint,
    source: &Endpoint,
    descriptor: &Descriptor,
) -> Result<Session> {
    let mut url = endpoint.url("blobs/uploads/")?;
    url.query_pairs_mut()
        .append_pair("mount", &descriptor.digest.to_string())
        .append_pair("from", &source.location().repository);
    let operation = format!("the mount of blob {} from `{}`", descriptor.digest, source.name());
    let mut scopes = scopes(endpoint);
    scopes.push(source.scope("pull"));
    let answer = send(transport, endpoint, Method::POST, url.clone(), &operation, scopes).await?;
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

/// Opens an upload.
pub(super) async fn open(transport: &Transport, endpoint: &Endpoint, descriptor: &Descriptor) -> Result<Upload> {
    open_for(
        transport,
        endpoint,
        &format!("the upload of blob {}", descriptor.digest),
    )
    .await
}

/// Opens an upload of content whose digest is not known yet.
pub(super) async fn open_for(transport: &Transport, endpoint: &Endpoint, operation: &str) -> Result<Upload> {
    let url = endpoint.url("blobs/uploads/")?;
    let answer = send(
        transport,
        endpoint,
        Method::POST,
        url.clone(),
        operation,
        scopes(endpoint),
    )
    .await?;
    match answer.status().as_u16() {
        202 => Ok(Upload {
            url: upload_location(endpoint, operation, &url, &answer)?,
            min_chunk: answer
                .header("oci-chunk-min-length")
                .and_then(|text| text.trim().parse().ok()),
        }),
        _ => Err(answer.into_error(endpoint, operation).await),
    }
}

/// Asks how much of an upload has arrived; `None` when the registry does not say. ECR answers 404 (dotnet/sdk #33019).
pub(super) async fn received(transport: &Transport, endpoint: &Endpoint, upload: &mut Upload) -> Result<Option<u64>> {
    let operation = "the look-up of an upload";
    let url = upload.url.clone();
    let answer = send(transport, endpoint, Method::GET, url, operation, scopes(endpoint)).await?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    upload.follow(endpoint, operation, &answer)?;
    Ok(answer.header(RANGE).and_then(range_end).map(|end| end + 1))
}

/// Reads the end of `0-9`; some write `bytes=0-9`.
fn range_end(text: &str) -> Option<u64> {
    text.trim()
        .strip_prefix("bytes=")
        .unwrap_or(text.trim())
        .split_once('-')?
        .1
        .parse()
        .ok()
}

async fn send(
    transport: &Transport,
    endpoint: &Endpoint,
    method: Method,
    url: Url,
    operation: &str,
    scopes: Vec<String>,
) -> Result<Answer> {
    let is_read = method == Method::GET;
    let request = Request {
        method,
        url,
        operation,
        scopes,
        // Some proxies refuse a write without a length.
        headers: if is_read { HeaderMap::new() } else { no_content() },
        payload: if is_read {
            Payload::None
        } else {
            Payload::Bytes(Bytes::new())
        },
    };
    transport.send(endpoint, request).await
}

/// Ends an upload: the registry checks the digest and keeps the blob.
pub(super) async fn commit(transport: &Transport, endpoint: &Endpoint, upload: &Upload, digest: &Digest) -> Result<()> {
    let mut url = upload.url.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    let operation = format!("the end of the upload of blob {digest}");
    let answer = send(transport, endpoint, Method::PUT, url, &operation, scopes(endpoint)).await?;
    match answer.status().as_u16() {
        200 | 201 | 204 if !answer.is_web_page() => Ok(()),
        _ => Err(lost(answer.into_error(endpoint, &operation).await)),
    }
}

/// An upload that the registry has lost, or taken part of, cannot go on; another one can begin (kaniko #607 #1290).
pub(super) fn lost(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Status {
            host,
            operation,
            status: 400 | 404 | 416,
            detail,
            ..
        } if detail.contains("BLOB_UPLOAD_") => RegistryError::UploadLost {
            host,
            operation,
            detail,
        },
        other => other,
    }
}

/// Reads where an upload goes on.
fn upload_location(endpoint: &Endpoint, operation: &str, from: &Url, answer: &Answer) -> Result<Url> {
    let location = answer.header(LOCATION).ok_or_else(|| RegistryError::Protocol {
        host: endpoint.label(),
        operation: operation.to_owned(),
        reason: "it names no place for the upload".to_owned(),
    })?;
    resolve_location(endpoint, operation, from, location)
}

fn no_content() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_range_is_read() {
        for (text, end) in [
            ("0-9", Some(9)),
            ("bytes=0-9", Some(9)),
            ("0-", None),
            ("9", None),
            ("", None),
        ] {
            assert_eq!(range_end(text), end, "{text}");
        }
    }
}
