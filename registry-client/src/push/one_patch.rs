//! Upload by one PATCH that streams the whole blob, without `Content-Range`, and one PUT.
//!
//! Every registry takes this form (go-containerregistry, `write.go`). ECR answers the PATCH with 201 in place of 202
//! (aws/containers-roadmap #2831).

use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::feed::{self, Report};
use super::session::{self, Upload};
use super::strategy::{Job, Strategy};
use crate::copy::BlobStream;
use crate::error::Result;
use crate::transport::{Endpoint, Payload, Request, Transport};

/// The strategy.
pub(super) struct OnePatch;

impl Strategy for OnePatch {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn streams(&self) -> bool {
        true
    }

    fn upload<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let transport = &job.target.transport;
            let mut upload = job.session().await?;
            let content = job.content().await?;
            let operation = format!("the upload of blob {}", job.descriptor.digest);
            let report = Report {
                progress: job.progress,
                digest: Some(&job.descriptor.digest),
            };
            let size = Some(job.descriptor.size);
            patch(transport, job.endpoint, &mut upload, &operation, content, size, report).await?;
            session::commit(transport, job.endpoint, &upload, &job.descriptor.digest).await
        })
    }
}

/// Sends all content into an upload, which goes on where `upload` says afterwards.
pub(super) async fn patch(
    transport: &Transport,
    endpoint: &Endpoint,
    upload: &mut Upload,
    operation: &str,
    content: BlobStream<'_>,
    size: Option<u64>,
    report: Report<'_>,
) -> Result<()> {
    let request = Request {
        method: Method::PATCH,
        url: upload.url.clone(),
        operation,
        scopes: session::scopes(endpoint),
        headers: headers(size),
        payload: Payload::None,
    };
    let answer = feed::send(transport, endpoint, request, content, report).await?;
    if !matches!(answer.status().as_u16(), 200 | 201 | 202 | 204) || answer.is_web_page() {
        return Err(session::lost(answer.into_error(endpoint, operation).await));
    }
    upload.follow(endpoint, operation, &answer)
}

fn headers(size: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(size) = size {
        // Known, it saves chunked transfer encoding, which not every proxy passes on.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    headers
}
