//! Tokens of Amazon ECR, got because of a host's name when nobody has logged in, and kept while they live.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use super::Credential;
use crate::ecr;
use crate::error::Result;

/// A token is renewed this long before its end, so that an upload that has begun can finish.
const RENEWAL_MARGIN: Duration = Duration::from_secs(15 * 60);

/// Keeps a token for each region and account. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct EcrTokens {
    known: Arc<Mutex<HashMap<(String, String), Credential>>>,
}

impl EcrTokens {
    /// Gets a token when the host is a private registry of Amazon ECR.
    pub(super) async fn find(&self, host: &str, ca: Option<&Path>) -> Result<Option<Credential>> {
        let Some(registry) = ecr::parse_host(host) else {
            return Ok(None);
        };
        let key = (registry.region.clone(), registry.account.clone());
        // Held while AWS is asked: others who wait get the same token.
        let mut known = self.known.lock().await;
        let is_fresh = |credential: &&Credential| {
            credential
                .expires_at
                .is_some_and(|end| SystemTime::now() + RENEWAL_MARGIN < end)
        };
        if let Some(credential) = known.get(&key).filter(is_fresh) {
            return Ok(Some(credential.clone()));
        }
        let token = ecr::token_for(&registry, ca).await?;
        let credential = Credential {
            user: token.user,
            secret: token.password,
            is_identity_token: false,
            expires_at: Some(token.expires_at),
        };
        known.insert(key, credential.clone());
        Ok(Some(credential))
    }
}
