//! Objects by signed addresses, as Amazon S3 has them: read, looked for and written. No login of a registry ever goes there.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, Method, Response, Url};

use crate::config::is_loopback;
use crate::copy::BlobStream;
use crate::error::{RegistryError, Result};
use crate::files::FileSection;
use crate::transport::answer::no_answer;
use crate::transport::guard;
use crate::transport::retry::retry;
use crate::transport::tls::Trust;
use crate::transport::{Transport, host_of};

/// Bytes a second below which an upload is given up.
const LEAST_SPEED: u64 = 64 << 10;

/// One object of one service. The address may be a secret: it is told without its query.
pub(crate) struct Object<'a> {
    transport: &'a Transport,
    url: Url,
    operation: String,
}

impl<'a> Object<'a> {
    pub(crate) fn new(transport: &'a Transport, url: &str) -> Result<Self> {
        let url = Url::parse(url).ok().filter(|url| url.host_str().is_some());
        let url = url.ok_or_else(|| RegistryError::Protocol {
            host: "the address".to_owned(),
            operation: "an object".to_owned(),
            reason: "it is no URL of http or https".to_owned(),
        })?;
        let operation = format!("`{}`", guard::redact(&url));
        if transport.options().offline {
            return Err(RegistryError::Offline {
                host: host_of(&url),
                operation,
            });
        }
        Ok(Self {
            transport,
            url,
            operation,
        })
    }

    /// Tells whether the object is there. A service may say 403 of one that is not.
    pub(crate) async fn exists(&self) -> Result<bool> {
        let ask = || self.send(Method::HEAD, None);
        let response = retry(&self.transport.budget(), |_| {}, ask).await?;
        match response.status().as_u16() {
            200..=299 => Ok(true),
            403 | 404 => Ok(false),
            _ => Err(self.wrong(&response)),
        }
    }

    /// Opens the object; `None` when there is none.
    pub(crate) async fn open(&self) -> Result<Option<BlobStream<'static>>> {
        let ask = || async {
            let response = self.send(Method::GET, None).await?;
            match response.status().as_u16() {
                500.. | 429 => Err(self.wrong(&response)),
                _ => Ok(response),
            }
        };
        let response = retry(&self.transport.budget(), |_| {}, ask).await?;
        match response.status().as_u16() {
            200..=299 => {}
            404 => return Ok(None),
            _ => return Err(self.wrong(&response)),
        }
        let (host, operation) = (host_of(&self.url), self.operation.clone());
        let stall = self.transport.options().stall_timeout;
        Ok(Some(stream(response, host, operation, stall)))
    }

    /// Writes the file `path` as the object.
    pub(crate) async fn write(&self, path: &Path) -> Result<()> {
        let ask = || async {
            let file = File::open(path).map_err(|error| RegistryError::io("open", path, error))?;
            let size = file
                .metadata()
                .map_err(|error| RegistryError::io("read", path, error))?
                .len();
            let content = FileSection::whole(file, path)?.stream();
            let response = self.send(Method::PUT, Some((size, content))).await?;
            match response.status().is_success() {
                true => Ok(()),
                false => Err(self.wrong(&response)),
            }
        };
        retry(&self.transport.budget(), |_| {}, ask).await
    }

    async fn send(&self, method: Method, content: Option<(u64, BlobStream<'static>)>) -> Result<Response> {
        let options = self.transport.options();
        let trust = Trust {
            bundles: options.ca_bundle.iter().cloned().collect(),
            client_certificate: None,
            plain_http: self.url.scheme() == "http",
            loopback: self.url.host_str().is_some_and(is_loopback),
        };
        let mut request = self.transport.client(trust)?.request(method, self.url.clone());
        let mut patience = options.stall_timeout;
        if let Some((size, content)) = content {
            patience += Duration::from_secs(size / LEAST_SPEED);
            request = request.header(CONTENT_LENGTH, size).body(Body::wrap_stream(content));
        }
        let sent = tokio::time::timeout(patience, request.send()).await;
        let sent = sent.map_err(|_| self.too_slow(patience))?;
        sent.map_err(|error| no_answer(host_of(&self.url), &self.operation, error))
    }

    fn too_slow(&self, waited: Duration) -> RegistryError {
        RegistryError::TooSlow {
            host: host_of(&self.url),
            operation: self.operation.clone(),
            seconds: waited.as_secs(),
        }
    }

    fn wrong(&self, response: &Response) -> RegistryError {
        RegistryError::Status {
            host: host_of(&self.url),
            operation: self.operation.clone(),
            status: response.status().as_u16(),
            detail: response.status().canonical_reason().unwrap_or_default().to_owned(),
            retry_after: None,
        }
    }
}

fn stream(response: Response, host: String, operation: String, stall: Duration) -> BlobStream<'static> {
    let interrupted = move |source: Option<reqwest::Error>| RegistryError::Interrupted {
        host: host.clone(),
        operation: operation.clone(),
        source: source.map(|error| Box::new(error.without_url()).into()),
    };
    let state = Some((response, interrupted));
    futures_util::stream::unfold(state, move |state| async move {
        let (mut response, interrupted) = state?;
        let next: Result<Option<Bytes>> = match tokio::time::timeout(stall, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(interrupted(Some(error))),
            Err(_) => Err(interrupted(None)),
        };
        match next {
            Ok(None) => None,
            Ok(Some(chunk)) => Some((Ok(chunk), Some((response, interrupted)))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
