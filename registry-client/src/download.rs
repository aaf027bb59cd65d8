//! A file by its URL: what ADD and contexts fetch. No login of a registry ever goes there.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, LAST_MODIFIED, LOCATION};
use reqwest::{Response, Url};

use crate::config::is_loopback;
use crate::digest::{Digest, DigestWriter};
use crate::error::{RegistryError, Result};
use crate::secret::Secret;
use crate::transport::answer::no_answer;
use crate::transport::guard;
use crate::transport::retry::retry;
use crate::transport::tls::Trust;
use crate::transport::{Transport, host_of};

/// As Go's client, which BuildKit uses.
const REDIRECT_LIMIT: usize = 10;

/// What came of a download.
#[derive(Clone, Debug)]
pub struct Downloaded {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// The `Last-Modified` header as it was sent.
    pub last_modified: Option<String>,
}

/// Says what is fetched and who may see it.
struct Job<'a> {
    url: &'a Url,
    /// Value of the `Authorization` header; goes to the URL's own host only.
    authorization: Option<&'a Secret>,
    operation: String,
    stall_timeout: Duration,
    limit: u64,
}

/// Fetches `url` into the file `path`, which is made anew. Errors that pass are tried again, from the beginning.
pub(crate) async fn download(
    transport: &Transport,
    url: &str,
    authorization: Option<&Secret>,
    path: &Path,
) -> Result<Downloaded> {
    let options = transport.options();
    let url = Url::parse(url).ok().filter(|url| url.host_str().is_some());
    let url = url.ok_or_else(|| RegistryError::Protocol {
        host: "the address".to_owned(),
        operation: "a download".to_owned(),
        reason: "it is no URL of http or https".to_owned(),
    })?;
    let operation = format!("`{}`", guard::redact(&url));
    if options.offline {
        return Err(RegistryError::Offline {
            host: host_of(&url),
            operation,
        });
    }
    let job = Job {
        url: &url,
        authorization,
        operation,
        stall_timeout: options.stall_timeout,
        limit: options.max_layer_size,
    };
    retry(&transport.budget(), |_| {}, || job.once(transport, path)).await
}

impl Job<'_> {
    async fn once(&self, transport: &Transport, path: &Path) -> Result<Downloaded> {
        let mut response = self.open(transport).await?;
        let last_modified = response.headers().get(LAST_MODIFIED);
        let last_modified = last_modified.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let failed = |source| RegistryError::Io {
            operation: "write",
            path: path.to_owned(),
            source,
        };
        let too_large = || RegistryError::TooLarge {
            host: host_of(self.url),
            what: self.operation.clone(),
            limit: self.limit,
        };
        if response.content_length().is_some_and(|length| length > self.limit) {
            return Err(too_large());
        }
        let mut file = DigestWriter::new(File::create(path).map_err(failed)?);
        while let Some(chunk) = self.chunk(&mut response).await? {
            if file.written() + chunk.len() as u64 > self.limit {
                return Err(too_large());
            }
            file.write_all(&chunk).map_err(failed)?;
        }
        let (_, digest, size) = file.finish();
        Ok(Downloaded {
            digest,
            size,
            last_modified,
        })
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>> {
        let interrupted = |source: Option<reqwest::Error>| RegistryError::Interrupted {
            host: host_of(self.url),
            operation: self.operation.clone(),
            source: source.map(|error| Box::new(error.without_url()).into()),
        };
        match tokio::time::timeout(self.stall_timeout, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| interrupted(Some(error))),
            Err(_) => Err(interrupted(None)),
        }
    }

    /// Asks for the file, and follows redirects.
    async fn open(&self, transport: &Transport) -> Result<Response> {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let response = self.ask(transport, &url).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                url = self.next_place(&url, &response)?;
                continue;
            }
            if status.is_success() {
                return Ok(response);
            }
            return Err(RegistryError::Status {
                host: host_of(&url),
                operation: self.operation.clone(),
                status: status.as_u16(),
                detail: status.canonical_reason().unwrap_or_default().to_owned(),
                retry_after: None,
            });
        }
        Err(self.refused(format!("more than {REDIRECT_LIMIT} redirects")))
    }

    async fn ask(&self, transport: &Transport, url: &Url) -> Result<Response> {
        let options = transport.options();
        let trust = Trust {
            bundles: options.ca_bundle.iter().cloned().collect(),
            client_certificate: None,
            plain_http: url.scheme() == "http",
            loopback: url.host_str().is_some_and(is_loopback),
        };
        let mut request = transport.client(trust)?.get(url.clone());
        if let Some(secret) = self.authorization.filter(|_| guard::same_origin(self.url, url)) {
            let value = HeaderValue::from_str(secret.expose());
            let mut value = value.map_err(|_| self.refused("the secret for its login is no header".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let waited = tokio::time::timeout(options.stall_timeout, request.send()).await;
        let sent = waited.map_err(|_| RegistryError::TooSlow {
            host: host_of(url),
            operation: self.operation.clone(),
            seconds: options.stall_timeout.as_secs(),
        })?;
        sent.map_err(|error| no_answer(host_of(url), &self.operation, error))
    }

    fn next_place(&self, from: &Url, response: &Response) -> Result<Url> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        let next = next.ok_or_else(|| self.refused("a redirect without a place".to_owned()))?;
        guard::check(from, &next).map_err(|reason| self.refused(reason))?;
        Ok(next)
    }

    fn refused(&self, reason: String) -> RegistryError {
        RegistryError::UnsafeLocation {
            host: host_of(self.url),
            operation: self.operation.clone(),
            reason,
        }
    }
}
