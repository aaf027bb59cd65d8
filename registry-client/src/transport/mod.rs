//! Requests to a registry: logins, redirects, and who may see what.
//!
//! A login is sent only to the registry it was made for, or to the place `registries.toml` names for it; never along a
//! redirect to another place.

pub(crate) mod answer;
pub(crate) mod challenge;
pub(crate) mod guard;
mod pace;
pub(crate) mod retry;
pub(crate) mod tls;
mod token;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use answer::Answer;
use answer::{COMMIT_TIMEOUT, interrupted, no_answer, too_slow};
use challenge::Challenge;
pub(crate) use pace::Pace;
use retry::Budget;
use tls::Trust;
use token::{Authorization, Logins};

use crate::config::{Location, is_loopback};
use crate::credentials::{Credential, Lookup};
use crate::error::{RegistryError, Result};
use crate::options::ClientOptions;
use crate::reference::Reference;

const REDIRECT_LIMIT: usize = 5;
/// Many large uploads at once end in resets at ECR (reference: dotnet/sdk-container-builds #279).
const UPLOAD_LIMIT: usize = 4;
/// A layer part is in memory about four times while it is sent.
const PARTS_LIMIT: usize = 1;

/// Sends requests; knows where registries are and how to log in.
pub(crate) struct Transport {
    options: ClientOptions,
    clients: Mutex<HashMap<Trust, reqwest::Client>>,
    slots: Mutex<HashMap<(String, Direction), Arc<Semaphore>>>,
    logins: Logins,
    pace: Pace,
    /// Hosts that have refused a request for its size.
    small_requests: Mutex<HashSet<String>>,
}

/// Which way a blob goes; each has slots of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Download,
    Upload,
    /// Uploads by ECR's layer parts, which are held in memory.
    Parts,
}

/// A repository and the place it is reached at.
pub(crate) struct Endpoint {
    name: Reference,
    location: Location,
    base: Url,
    http: reqwest::Client,
    offline: bool,
    stall_timeout: Duration,
    /// Login to use in place of a stored one.
    login: Option<Credential>,
}

/// What is sent along.
pub(crate) enum Payload {
    None,
    Bytes(Bytes),
    /// Can be sent once only; the caller watches its progress.
    Stream(reqwest::Body),
}

/// One request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// What is being done, for messages: `the upload of sha256:…`.
    pub(crate) operation: &'a str,
    /// What a token must allow: `repository:a/b:pull`.
    pub(crate) scopes: Vec<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
}

impl Endpoint {
    /// Returns the name as the user wrote it, without tag.
    pub(crate) fn name(&self) -> &Reference {
        &self.name
    }

    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Silence after which a connection counts as dead.
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Names the host in a message, with the place it is mapped to.
    pub(crate) fn label(&self) -> String {
        let name = self.name.registry();
        if name == self.location.host || name == "docker.io" && self.location.host.ends_with(".docker.io") {
            return name.to_owned();
        }
        format!("{name} (at {})", self.location.host)
    }

    /// Makes a URL below the repository, such as `blobs/uploads/`.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(&format!("{}/{path}", self.location.repository))
            .map_err(|_| RegistryError::Protocol {
                host: self.label(),
                operation: "a request".to_owned(),
                reason: "its address is no URL".to_owned(),
            })
    }

    /// Names what a token must allow in this repository.
    pub(crate) fn scope(&self, actions: &str) -> String {
        format!("repository:{}:{actions}", self.location.repository)
    }
}

impl Transport {
    pub(crate) fn new(options: ClientOptions) -> Result<Self> {
        // A bundle that cannot be used is reported at once, not in the middle of a build.
        if let Some(path) = &options.ca_bundle {
            tls::read_bundle(path)?;
        }
        Ok(Self {
            options,
            clients: Mutex::default(),
            slots: Mutex::default(),
            logins: Logins::default(),
            pace: Pace::default(),
            small_requests: Mutex::default(),
        })
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Returns what one whole operation may spend on trying again.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.options.retry_budget)
    }

    /// Refuses a use of the network that goes another way than by a request of this transport.
    pub(crate) fn check_online(&self, name: &Reference) -> Result<()> {
        if !self.options.offline {
            return Ok(());
        }
        Err(RegistryError::Offline {
            host: name.registry().to_owned(),
            operation: format!("`{name}`"),
        })
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Tells whether a host has refused a request for its size.
    pub(crate) fn wants_small_requests(&self, endpoint: &Endpoint) -> bool {
        let hosts = self.small_requests.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.contains(&endpoint.location.host)
    }

    /// Remembers that a host has refused a request for its size.
    pub(crate) fn note_small_requests(&self, endpoint: &Endpoint) {
        let mut hosts = self.small_requests.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.insert(endpoint.location.host.clone());
    }

    /// Finds the place of a repository.
    pub(crate) fn endpoint(&self, name: &Reference) -> Result<Endpoint> {
        self.endpoint_at(name, self.options.registries.locate(name)?, None)
    }

    /// Finds the places a repository can be read from: its mirrors in order, and at last the place itself.
    pub(crate) fn places(&self, name: &Reference) -> Result<Vec<Endpoint>> {
        let last = self.endpoint(name)?;
        let mut places = Vec::new();
        for mirror in self.options.registries.mirrors(name) {
            // A mirror has a name of its own: no login that was made for the original goes there.
            let own: Reference = format!("{}/{}", mirror.host, mirror.repository).parse()?;
            places.push(self.endpoint_at(&own, mirror, None)?);
        }
        places.push(last);
        Ok(places)
    }

    /// Finds the place of a registry, to check a login.
    pub(crate) fn registry(&self, host: &str, login: Credential) -> Result<Endpoint> {
        // A registry has no repository: any name below it carries the host.
        let name: Reference = format!("{host}/library/login").parse()?;
        let location = self.options.registries.locate_registry(name.registry());
        self.endpoint_at(&name, location, Some(login))
    }

    fn endpoint_at(&self, name: &Reference, location: Location, login: Option<Credential>) -> Result<Endpoint> {
        let scheme = if location.insecure { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/", location.host));
        let base = base.map_err(|_| RegistryError::InvalidReference {
            text: crate::digest::shorten(&location.host),
            reason: "the registry is not a host name with an optional port",
        })?;
        let trust = Trust {
            bundles: self
                .options
                .ca_bundle
                .iter()
                .chain(location.ca.iter())
                .cloned()
                .collect(),
            client_certificate: location.client_certificate.clone(),
            plain_http: location.insecure,
            loopback: is_loopback(&location.host),
        };
        let http = self.client(trust)?;
        Ok(Endpoint {
            name: name.without_tag(),
            location,
            base,
            http,
            offline: self.options.offline,
            stall_timeout: self.options.stall_timeout,
            login,
        })
    }

    pub(crate) fn client(&self, trust: Trust) -> Result<reqwest::Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = tls::build_client(&trust, &self.options.user_agent)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }

    /// Waits until another blob may go to or come from a host.
    pub(crate) async fn slot(&self, endpoint: &Endpoint, direction: Direction) -> Result<OwnedSemaphorePermit> {
        let concurrency = self.options.max_concurrent_per_host.max(1);
        let limit = match direction {
            Direction::Download => concurrency,
            Direction::Upload => concurrency.min(UPLOAD_LIMIT),
            Direction::Parts => PARTS_LIMIT,
        };
        let slots = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (endpoint.location.host.clone(), direction);
            Arc::clone(slots.entry(key).or_insert_with(|| Arc::new(Semaphore::new(limit))))
        };
        slots.acquire_owned().await.map_err(|_| RegistryError::Stopped {
            operation: "waiting for a connection",
        })
    }

    /// Sends a request, logging in when the registry asks for it. Any status but 401 is the caller's to judge.
    ///
    /// A payload that can be sent once only, and was refused for its login, ends in `Interrupted`: the caller starts over.
    pub(crate) async fn send(&self, endpoint: &Endpoint, request: Request<'_>) -> Result<Answer> {
        let key = (
            endpoint.name.name(),
            endpoint.location.host.clone(),
            request.scopes.clone(),
        );
        let Request {
            method,
            url,
            operation,
            scopes,
            headers,
            payload,
        } = request;
        let parts = Parts {
            method,
            url,
            operation,
            headers,
        };
        let known = match &endpoint.login {
            // A login being checked must be sent, not one that was granted before.
            Some(_) => None,
            None => self.logins.current(&key).await,
        };
        let (again, is_stream) = match &payload {
            Payload::None => (None, false),
            Payload::Bytes(bytes) => (Some(bytes.clone()), false),
            Payload::Stream(_) => (None, true),
        };
        let mut answer = Box::pin(exchange(endpoint, &parts, payload, known.as_ref())).await?;
        // Only the registry itself may ask for its login; a place it redirects to may not.
        if answer.status() != StatusCode::UNAUTHORIZED || !guard::same_origin(endpoint.base(), answer.response.url()) {
            return Ok(answer);
        }
        let (mut refused, mut is_last) = (known, false);
        loop {
            let challenges: Vec<Challenge> = answer
                .response
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(challenge::parse)
                .collect();
            let get = Box::pin(self.log_in(endpoint, answer, &challenges, &scopes, operation));
            let (fresh, is_own) = match &endpoint.login {
                Some(_) => (Arc::new(get.await?), true),
                None => self.logins.renew(&key, refused.as_ref(), get).await?,
            };
            if is_stream {
                return Err(interrupted(endpoint, operation, None));
            }
            let payload = again.clone().map_or(Payload::None, Payload::Bytes);
            answer = Box::pin(exchange(endpoint, &parts, payload, Some(&fresh))).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            // What another request was granted may have expired since; what was granted for this one has not.
            if is_own || is_last {
                return Err(answer.into_error(endpoint, operation).await);
            }
            (refused, is_last) = (Some(fresh), true);
        }
    }

    async fn log_in(
        &self,
        endpoint: &Endpoint,
        refusal: Answer,
        challenges: &[Challenge],
        scopes: &[String],
        operation: &str,
    ) -> Result<Authorization> {
        let bearer = challenges
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        if challenges.is_empty() {
            return Err(refusal.into_error(endpoint, operation).await);
        }
        let credential = self.credential(endpoint).await?;
        let is_ecr = [endpoint.name.registry(), &endpoint.location.host]
            .into_iter()
            .any(|host| crate::ecr::parse_host(host).is_some());
        let is_ecr_login = is_ecr && credential.as_ref().is_some_and(|login| login.user == "AWS");
        if bearer.is_some() && is_ecr_login {
            // ECR takes its password as Basic and has no token service: whoever names one wants the password.
            return Err(RegistryError::Challenge {
                host: endpoint.label(),
                reason: "it asked for a token login, which Amazon ECR never does; the login was not sent".to_owned(),
            });
        }
        match (bearer, credential) {
            (Some(bearer), credential) => token::bearer(endpoint, bearer, scopes, credential.as_ref()).await,
            (None, Some(credential)) => token::basic(endpoint, &credential),
            (None, None) => Err(refusal.into_error(endpoint, operation).await),
        }
    }

    async fn credential(&self, endpoint: &Endpoint) -> Result<Option<Credential>> {
        if let Some(login) = &endpoint.login {
            return Ok(Some(login.clone()));
        }
        let lookup = Lookup {
            name: &endpoint.name,
            location: &endpoint.location,
            ca: self.options.ca_bundle.as_deref(),
        };
        self.options.credentials.find(lookup).await
    }
}

/// What stays the same when a request is sent again.
struct Parts<'a> {
    method: Method,
    url: Url,
    operation: &'a str,
    headers: HeaderMap,
}

/// Sends once, and follows redirects of reads.
async fn exchange(
    endpoint: &Endpoint,
    parts: &Parts<'_>,
    payload: Payload,
    login: Option<&Arc<Authorization>>,
) -> Result<Answer> {
    if endpoint.offline {
        return Err(RegistryError::Offline {
            host: endpoint.label(),
            operation: parts.operation.to_owned(),
        });
    }
    let mut url = parts.url.clone();
    let mut payload = Some(payload);
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    for _ in 0..=REDIRECT_LIMIT {
        // ECR sends reads to S3, which refuses a request with two logins; and no other place may see ours.
        let login = login.filter(|_| guard::same_origin(endpoint.base(), &url));
        let mut request = endpoint
            .http
            .request(parts.method.clone(), url.clone())
            .headers(parts.headers.clone());
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login.header.clone());
        }
        let is_stream = matches!(payload, Some(Payload::Stream(_)));
        request = match payload.take() {
            Some(Payload::Bytes(bytes)) => request.body(bytes),
            Some(Payload::Stream(body)) => request.body(body),
            Some(Payload::None) | None => request,
        };
        tracing::debug!(method = %parts.method, url = guard::redact(&url), "request");
        let sent = if is_stream {
            request.send().await
        } else {
            let patience = if is_read {
                endpoint.stall_timeout
            } else {
                COMMIT_TIMEOUT
            };
            let waited = tokio::time::timeout(patience, request.send()).await;
            waited.map_err(|_| too_slow(endpoint, parts.operation, patience))?
        };
        let host = if guard::same_origin(endpoint.base(), &url) {
            endpoint.label()
        } else {
            host_of(&url)
        };
        let response = sent.map_err(|error| no_answer(host, parts.operation, error))?;
        tracing::debug!(status = response.status().as_u16(), "answer");
        let answer = Answer {
            response,
            authorization: login.cloned(),
        };
        match next_place(endpoint, parts.operation, &url, &answer)? {
            Some(next) if is_read => url = next,
            _ => return Ok(answer),
        }
    }
    Err(RegistryError::UnsafeLocation {
        host: endpoint.label(),
        operation: parts.operation.to_owned(),
        reason: format!("more than {REDIRECT_LIMIT} redirects"),
    })
}

/// Returns where a redirect leads.
fn next_place(endpoint: &Endpoint, operation: &str, from: &Url, answer: &Answer) -> Result<Option<Url>> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    match answer.header(LOCATION) {
        Some(location) => resolve_location(endpoint, operation, from, location).map(Some),
        None => Ok(None),
    }
}

/// Reads a `Location` header and checks that it may be followed.
pub(crate) fn resolve_location(endpoint: &Endpoint, operation: &str, from: &Url, location: &str) -> Result<Url> {
    let refuse = |reason: String| RegistryError::UnsafeLocation {
        host: endpoint.label(),
        operation: operation.to_owned(),
        reason,
    };
    let next = from.join(location).map_err(|_| refuse("it is no URL".to_owned()))?;
    guard::check(endpoint.base(), &next).map_err(refuse)?;
    Ok(next)
}

/// Names a URL's host and port in a message.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
