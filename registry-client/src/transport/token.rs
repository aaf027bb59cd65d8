//! Logins that were granted: one for each repository and scope, got once however many requests wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::answer::{Answer, no_answer};
use super::challenge::Challenge;
use super::{Endpoint, guard};
use crate::credentials::Credential;
use crate::error::{RegistryError, Result};
use crate::secret::Secret;

const TOKEN_BODY_LIMIT: u64 = 1024 * 1024;
/// Life of a token whose answer names none (distribution, "Token Authentication Specification").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is not used in the last seconds of its life.
const MARGIN: Duration = Duration::from_secs(5);
const CLIENT_ID: &str = "roadstead";
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// What to send as `Authorization`.
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// Texts that must not show up in a message.
    pub(crate) secrets: Vec<Secret>,
    /// Whether it stands for a user, or is a token for anybody.
    pub(crate) has_login: bool,
    ends_at: Option<Instant>,
}

impl Authorization {
    fn is_alive(&self) -> bool {
        self.ends_at.is_none_or(|end| Instant::now() + MARGIN < end)
    }
}

/// Repository as written, host it is at, and scopes.
pub(crate) type Key = (String, String, Vec<String>);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Authorization>>>>;

/// Keeps the logins granted in this process.
#[derive(Default)]
pub(crate) struct Logins {
    slots: Mutex<HashMap<Key, Slot>>,
}

impl Logins {
    fn slot(&self, key: &Key) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// Returns the login known for a key, if it is still good.
    pub(crate) async fn current(&self, key: &Key) -> Option<Arc<Authorization>> {
        self.slot(key).lock().await.clone().filter(|known| known.is_alive())
    }

    /// Returns another login than the one refused, and whether it was granted for this request: requests that were refused
    /// together share one.
    pub(crate) async fn renew(
        &self,
        key: &Key,
        refused: Option<&Arc<Authorization>>,
        get: impl Future<Output = Result<Authorization>>,
    ) -> Result<(Arc<Authorization>, bool)> {
        let slot = self.slot(key);
        let mut known = slot.lock().await;
        if let Some(other) = known.as_ref().filter(|known| known.is_alive())
            && !refused.is_some_and(|refused| Arc::ptr_eq(refused, other))
        {
            return Ok((Arc::clone(other), false));
        }
        // A login that was refused is not kept, even when no other can be had.
        *known = None;
        let fresh = Arc::new(get.await?);
        *known = Some(Arc::clone(&fresh));
        Ok((fresh, true))
    }
}

/// Makes the header for a user and a password.
pub(crate) fn basic(endpoint: &Endpoint, credential: &Credential) -> Result<Authorization> {
    let encoded = credential.basic();
    let header = header_value(endpoint, &format!("Basic {}", encoded.expose()))?;
    let ends_at = credential.expires_at.and_then(|end| {
        let left = end.duration_since(std::time::SystemTime::now()).unwrap_or_default();
        // A clock that is wrong must not make every login look dead: the registry judges it anyway.
        let left = left.max(DEFAULT_LIFE);
        Instant::now().checked_add(left)
    });
    Ok(Authorization {
        header,
        secrets: vec![encoded, credential.secret.clone()],
        has_login: true,
        ends_at,
    })
}

/// Gets a token from the place the registry names.
pub(crate) async fn bearer(
    endpoint: &Endpoint,
    challenge: &Challenge,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<Authorization> {
    let Challenge::Bearer { realm, service, scope } = challenge else {
        return Err(refuse(endpoint, "the registry asked for no token"));
    };
    let realm: Url = realm
        .parse()
        .map_err(|_| refuse(endpoint, "the address of its token service is no URL"))?;
    // Plain http is allowed only where the administrator allows it for the registry itself.
    guard::check(endpoint.base(), &realm).map_err(|reason| {
        refuse(
            endpoint,
            &format!("the address of its token service is not safe: {reason}"),
        )
    })?;
    let mut wanted: Vec<&str> = scope
        .iter()
        .flat_map(|scope| scope.split(' '))
        .filter(|scope| !scope.is_empty())
        .collect();
    for scope in scopes {
        if !wanted.contains(&scope.as_str()) {
            wanted.push(scope);
        }
    }
    let host = realm.host_str().unwrap_or_default().to_owned();
    let request = token_request(endpoint, realm, service.as_deref(), &wanted, credential)?;
    let operation = "the request for a token";
    let response = tokio::time::timeout(TOKEN_TIMEOUT, request.send()).await;
    let response = response
        .map_err(|_| RegistryError::Interrupted {
            host: host.clone(),
            operation: operation.to_owned(),
            source: None,
        })?
        .map_err(|error| no_answer(host, operation, error))?;
    read_token(endpoint, response, credential).await
}

/// A refresh token is exchanged by POST, as OAuth2 says; anything else is a GET, as all registries take it.
fn token_request(
    endpoint: &Endpoint,
    mut realm: Url,
    service: Option<&str>,
    scopes: &[&str],
    credential: Option<&Credential>,
) -> Result<reqwest::RequestBuilder> {
    if let Some(identity) = credential.filter(|credential| credential.is_identity_token) {
        let mut form = Url::parse("http://form.invalid/").map_err(|_| refuse(endpoint, "a form cannot be made"))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT_ID)
            .append_pair("service", service.unwrap_or_default())
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", identity.secret.expose());
        let body = form.query().unwrap_or_default().to_owned();
        return Ok(endpoint
            .http()
            .post(realm)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body));
    }
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(credential) = credential {
            query.append_pair("account", &credential.user);
        }
    }
    let request = endpoint.http().get(realm);
    Ok(match credential {
        Some(credential) => request.header(AUTHORIZATION, basic(endpoint, credential)?.header),
        None => request,
    })
}

async fn read_token(
    endpoint: &Endpoint,
    response: reqwest::Response,
    credential: Option<&Credential>,
) -> Result<Authorization> {
    #[derive(Deserialize)]
    struct Body {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let operation = "the login";
    let sent = credential
        .map(|credential| basic(endpoint, credential).map(Arc::new))
        .transpose()?;
    let answer = Answer {
        response,
        authorization: sent,
    };
    if !answer.status().is_success() || answer.is_web_page() {
        return Err(match answer.into_error(endpoint, operation).await {
            // Token services answer a wrong password with any of these.
            RegistryError::Denied {
                host,
                operation,
                detail,
            } => RegistryError::Unauthorized {
                host,
                operation,
                with_credentials: credential.is_some(),
                detail,
            },
            RegistryError::Status {
                status: 400,
                operation,
                detail,
                ..
            } => RegistryError::Unauthorized {
                host: endpoint.name().registry().to_owned(),
                operation,
                with_credentials: credential.is_some(),
                detail,
            },
            other => other,
        });
    }
    let bytes = answer.bytes(endpoint, operation, TOKEN_BODY_LIMIT).await?;
    let body: Body =
        serde_json::from_slice(&bytes).map_err(|_| refuse(endpoint, "its token service gave no valid answer"))?;
    let token = body
        .token
        .filter(|token| !token.is_empty())
        .or(body.access_token)
        .unwrap_or_default();
    if token.is_empty() {
        return Err(refuse(endpoint, "its token service gave no token"));
    }
    let life = body
        .expires_in
        .map_or(DEFAULT_LIFE, Duration::from_secs)
        .max(DEFAULT_LIFE);
    let header = header_value(endpoint, &format!("Bearer {token}"))?;
    let ends_at = Instant::now().checked_add(life);
    Ok(Authorization {
        header,
        secrets: vec![Secret::new(token)],
        has_login: credential.is_some(),
        ends_at,
    })
}

fn header_value(endpoint: &Endpoint, text: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::try_from(text).map_err(|_| refuse(endpoint, "the login holds characters no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn refuse(endpoint: &Endpoint, reason: &str) -> RegistryError {
    RegistryError::Challenge {
        host: endpoint.label(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(token: &'static str) -> Authorization {
        Authorization {
            header: HeaderValue::from_static(token),
            secrets: Vec::new(),
            has_login: false,
            ends_at: None,
        }
    }

    #[tokio::test]
    async fn requests_refused_together_share_a_login_and_know_it() {
        let (logins, key) = (Logins::default(), Key::default());
        let renew = |refused, token| {
            let (logins, key) = (&logins, &key);
            async move {
                let (login, is_own) = logins.renew(key, refused, async { Ok(granted(token)) }).await.unwrap();
                (login, is_own)
            }
        };
        let (first, is_own) = renew(None, "a").await;
        assert!(is_own);
        let (shared, is_own) = renew(None, "b").await;
        assert!(Arc::ptr_eq(&first, &shared) && !is_own);
        let (second, is_own) = renew(Some(&shared), "c").await;
        assert_eq!((second.header.to_str().unwrap(), is_own), ("c", true));
    }
}
