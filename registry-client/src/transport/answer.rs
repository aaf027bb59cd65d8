//! Making sense of answers: bounded bodies, the registry's own words, and errors of the connection.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::Endpoint;
use super::token::Authorization;
use crate::digest::shorten;
use crate::ecr;
use crate::error::{ConnectProblem, RegistryError, Result};

/// What is read of an error's body.
const ERROR_BODY_LIMIT: u64 = 64 * 1024;
/// Longest time a document (manifest, config, token, error) may take: a server that gives a byte now and then would hold a build for days.
pub(crate) const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A registry may copy a whole blob within its object store before it answers a write.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// An answer together with what is needed to report on it.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) authorization: Option<std::sync::Arc<Authorization>>,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns a header as text.
    pub(crate) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn content_type(&self) -> String {
        // Parameters say nothing here, and may be anything.
        let text = self.header(CONTENT_TYPE).unwrap_or_default();
        shorten(text.split(';').next().unwrap_or_default().trim())
    }

    /// Tells whether a web page came in place of a registry's answer.
    pub(crate) fn is_web_page(&self) -> bool {
        self.content_type().to_ascii_lowercase().starts_with("text/html")
    }

    /// Reads a body that is held in memory.
    pub(crate) async fn bytes(self, endpoint: &Endpoint, operation: &str, limit: u64) -> Result<Vec<u8>> {
        let too_large = || RegistryError::TooLarge {
            host: endpoint.label(),
            what: operation.to_owned(),
            limit,
        };
        if self.response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut response = self.response;
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = next_chunk(&mut response, endpoint, operation).await? {
                if bytes.len() as u64 + chunk.len() as u64 > limit {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        let read = tokio::time::timeout(DOCUMENT_TIMEOUT, reading).await;
        read.unwrap_or_else(|_| Err(too_slow(endpoint, operation, DOCUMENT_TIMEOUT)))
    }

    /// Turns an answer that was not hoped for into an error.
    pub(crate) async fn into_error(self, endpoint: &Endpoint, operation: &str) -> RegistryError {
        let status = self.status();
        let retry_after = self
            .header(RETRY_AFTER)
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_secs);
        if self.is_web_page() && matches!(status.as_u16(), 200 | 400 | 404 | 405) {
            let content_type = self.content_type();
            return RegistryError::NotRegistry {
                host: endpoint.label(),
                operation: operation.to_owned(),
                content_type,
            };
        }
        // A place that was redirected to is not what `docker login` is for.
        let is_own = super::guard::same_origin(endpoint.base(), self.response.url());
        let authorization = self.authorization.clone();
        let (codes, detail) = self.detail(endpoint, operation).await;
        let host = endpoint.name().registry().to_owned();
        let operation = operation.to_owned();
        match status.as_u16() {
            401 if is_own => {
                let with_credentials = authorization.is_some_and(|authorization| authorization.has_login);
                RegistryError::Unauthorized {
                    host,
                    operation,
                    with_credentials,
                    detail,
                }
            }
            403 => RegistryError::Denied {
                host,
                operation,
                detail,
            },
            404 if codes.iter().any(|code| code == "NAME_UNKNOWN") => {
                let ecr = ecr::parse_host(&host).is_some();
                let repository = endpoint.name().repository().to_owned();
                RegistryError::RepositoryUnknown {
                    host,
                    repository,
                    ecr,
                    detail,
                }
            }
            status => RegistryError::Status {
                host: endpoint.label(),
                operation,
                status,
                detail,
                retry_after,
            },
        }
    }

    /// Returns the codes of an error's body, and a line to show. A body that cannot be read says nothing.
    async fn detail(self, endpoint: &Endpoint, operation: &str) -> (Vec<String>, String) {
        let authorization = self.authorization.clone();
        let is_web_page = self.is_web_page();
        let bytes = self
            .bytes(endpoint, operation, ERROR_BODY_LIMIT)
            .await
            .unwrap_or_default();
        let text = match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) if !body.errors.is_empty() => {
                let lines: Vec<String> = body.errors.iter().take(3).map(line).collect();
                let codes = body.errors.into_iter().map(|item| item.code).collect();
                return (codes, scrub(&lines.join("; "), authorization.as_deref()));
            }
            _ if is_web_page => String::new(),
            _ => String::from_utf8_lossy(&bytes).trim().to_owned(),
        };
        (Vec::new(), scrub(&text, authorization.as_deref()))
    }
}

fn line(item: &ErrorItem) -> String {
    match (item.code.is_empty(), item.message.is_empty()) {
        (false, false) => format!("{}: {}", item.code, item.message),
        _ => format!("{}{}", item.code, item.message),
    }
}

/// Some servers echo the request: what was sent as a login must not come back in a message.
fn scrub(text: &str, authorization: Option<&Authorization>) -> String {
    let mut text = text.to_owned();
    for secret in authorization.iter().flat_map(|authorization| &authorization.secrets) {
        if !secret.expose().is_empty() {
            text = text.replace(secret.expose(), "***");
        }
    }
    shorten(&text)
}

/// Reads the next piece of a body; a connection that stands still is an error.
pub(crate) async fn next_chunk(
    response: &mut Response,
    endpoint: &Endpoint,
    operation: &str,
) -> Result<Option<bytes::Bytes>> {
    match tokio::time::timeout(endpoint.stall_timeout(), response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| interrupted(endpoint, operation, Some(error))),
        Err(_) => Err(interrupted(endpoint, operation, None)),
    }
}

pub(crate) fn too_slow(endpoint: &Endpoint, operation: &str, waited: Duration) -> RegistryError {
    RegistryError::TooSlow {
        host: endpoint.label(),
        operation: operation.to_owned(),
        seconds: waited.as_secs(),
    }
}

pub(crate) fn interrupted(endpoint: &Endpoint, operation: &str, error: Option<reqwest::Error>) -> RegistryError {
    let source = error.map(|error| Box::new(error.without_url()).into());
    RegistryError::Interrupted {
        host: endpoint.label(),
        operation: operation.to_owned(),
        source,
    }
}

/// Tells apart why a request got no answer at all.
pub(crate) fn no_answer(host: String, operation: &str, error: reqwest::Error) -> RegistryError {
    let error = error.without_url();
    if !error.is_connect() {
        return RegistryError::Interrupted {
            host,
            operation: operation.to_owned(),
            source: Some(Box::new(error)),
        };
    }
    let problem = connect_problem(&error);
    RegistryError::Connect {
        host,
        problem,
        source: Some(Box::new(error)),
    }
}

fn connect_problem(error: &reqwest::Error) -> ConnectProblem {
    if error.is_dns() {
        return ConnectProblem::UnknownHost;
    }
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(error) = current.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return ConnectProblem::Refused,
                io::ErrorKind::TimedOut => return ConnectProblem::Timeout,
                _ => {}
            }
        }
        // rustls is no direct dependency: its errors are known by their words, which its tests pin.
        let text = current.to_string();
        if text.contains("UnknownIssuer") {
            return ConnectProblem::UnknownIssuer;
        }
        if text.contains("peer certificate") || text.contains("corrupt message") || text.contains("fatal alert") {
            return ConnectProblem::Tls;
        }
        // An io::Error shows its inner error as itself, and gives that one's source as its own.
        source = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => current.source(),
        };
    }
    if error.is_timeout() {
        ConnectProblem::Timeout
    } else {
        ConnectProblem::Other
    }
}
