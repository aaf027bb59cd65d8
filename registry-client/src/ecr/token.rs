//! `GetAuthorizationToken`, of private registries and of ECR Public.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_ecr::primitives::DateTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::api::{self, Settings};
use super::{EcrHost, EcrToken};
use crate::error::{RegistryError, Result};
use crate::secret::Secret;

/// ECR Public's API is here and in us-west-2 only (AWS General Reference, ecr-public).
const PUBLIC_REGION: &str = "us-east-1";
/// An anonymous pull must not wait long for AWS credentials that are not there.
const PUBLIC_TIMEOUT: Duration = Duration::from_secs(5);

/// Gets a token by the AWS default chain of credentials and regions; `AWS_ENDPOINT_URL` is honoured.
///
/// `registry_id` asks for the registry of another account; the token is the same for all that the caller may reach. The
/// certificates in `ca`, or else in `$AWS_CA_BUNDLE`, are trusted as well as the system's.
///
/// # Errors
/// `EcrToken` when AWS refuses or cannot be reached, `CaBundle` when the file cannot be used.
pub async fn authorization_token(
    region: Option<&str>,
    registry_id: Option<&str>,
    ca: Option<&Path>,
) -> Result<EcrToken> {
    let settings = Settings {
        region,
        ca,
        ..Settings::default()
    };
    fetch(&settings.load().await?, region, registry_id).await
}

/// Somebody who may ask for tokens.
pub(crate) struct Asker {
    config: SdkConfig,
    region: String,
    is_public: bool,
    /// Names the caller, the endpoint and the registry: two askers with equal keys get equal tokens.
    pub(crate) key: String,
}

impl Asker {
    /// Loads the AWS credentials for a private registry.
    pub(crate) async fn private(host: &EcrHost, ca: Option<&Path>) -> Result<Self> {
        let config = Settings::of(host, ca).load().await?;
        let caller = api::caller(&config).await.map_err(|message| RegistryError::EcrToken {
            region: Some(host.region.clone()),
            message,
        })?;
        Ok(Self {
            key: key(&config, &caller, &[&host.account, &host.region]),
            config,
            region: host.region.clone(),
            is_public: false,
        })
    }

    /// Loads the AWS credentials for ECR Public; without any, it is pulled from anonymously.
    pub(crate) async fn public(ca: Option<&Path>) -> Result<Option<Self>> {
        let settings = Settings {
            region: Some(PUBLIC_REGION),
            ca,
            ..Settings::default()
        };
        let config = settings.load().await?;
        let Ok(Ok(caller)) = tokio::time::timeout(PUBLIC_TIMEOUT, api::caller(&config)).await else {
            return Ok(None);
        };
        Ok(Some(Self {
            key: key(&config, &caller, &["public"]),
            config,
            region: PUBLIC_REGION.to_owned(),
            is_public: true,
        }))
    }

    /// Gets a token.
    pub(crate) async fn token(&self) -> Result<EcrToken> {
        if self.is_public {
            return fetch_public(&self.config).await;
        }
        fetch(&self.config, Some(&self.region), None).await
    }
}

fn key(config: &SdkConfig, caller: &str, registry: &[&str]) -> String {
    let endpoint = config.endpoint_url().unwrap_or_default();
    // The variable of the service alone is not in the configuration.
    let own = std::env::var("AWS_ENDPOINT_URL_ECR").unwrap_or_default();
    [&[caller, endpoint, own.as_str()], registry].concat().join("\n")
}

fn failed(region: Option<&str>) -> impl Fn(String) -> RegistryError + use<'_> {
    move |message| RegistryError::EcrToken {
        region: region.map(str::to_owned),
        message,
    }
}

async fn fetch(config: &SdkConfig, region: Option<&str>, registry_id: Option<&str>) -> Result<EcrToken> {
    let failed = failed(region);
    let call = aws_sdk_ecr::Client::new(config).get_authorization_token();
    #[expect(
        deprecated,
        reason = "`--registry-ids` of the AWS CLI is still in buildspecs, and names the endpoint returned"
    )]
    let call = call.set_registry_ids(registry_id.map(|id| vec![id.to_owned()]));
    let answer = api::call("get a token", "ecr:GetAuthorizationToken", call.send());
    let answer = answer.await.map_err(|error| token_error(error, &failed))?;
    let data = answer
        .authorization_data()
        .first()
        .ok_or_else(|| failed("the answer holds no token".to_owned()))?;
    let endpoint = data.proxy_endpoint().unwrap_or_default();
    read_token(data.authorization_token(), data.expires_at(), endpoint)
        .ok_or_else(|| failed("the token in the answer is not base64 of `user:password`".to_owned()))
}

async fn fetch_public(config: &SdkConfig) -> Result<EcrToken> {
    let failed = failed(Some(PUBLIC_REGION));
    let call = aws_sdk_ecrpublic::Client::new(config).get_authorization_token();
    let answer = api::call("get a token", "ecr-public:GetAuthorizationToken", call.send());
    let answer = answer.await.map_err(|error| token_error(error, &failed))?;
    let data = answer.authorization_data();
    let token = data.and_then(|data| data.authorization_token());
    read_token(token, data.and_then(|data| data.expires_at()), "https://public.ecr.aws")
        .ok_or_else(|| failed("the answer holds no token".to_owned()))
}

fn token_error(error: RegistryError, failed: impl Fn(String) -> RegistryError) -> RegistryError {
    match error {
        RegistryError::EcrCall { message, .. } => failed(message),
        other => other,
    }
}

fn read_token(token: Option<&str>, expires_at: Option<&DateTime>, endpoint: &str) -> Option<EcrToken> {
    let decoded = String::from_utf8(STANDARD.decode(token?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let expires_at = expires_at.and_then(|time| SystemTime::try_from(*time).ok());
    Some(EcrToken {
        user: user.to_owned(),
        password: Secret::new(password),
        proxy_endpoint: endpoint.to_owned(),
        // Without a date, the shortest life AWS documents for any token is assumed.
        expires_at: expires_at.unwrap_or_else(|| SystemTime::now() + Duration::from_secs(3600)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_apart_at_the_first_colon() {
        let read = |text: &str| read_token(Some(&STANDARD.encode(text)), None, "");
        let token = read("AWS:pa:ss").unwrap();
        assert_eq!((token.user.as_str(), token.password.expose()), ("AWS", "pa:ss"));
        assert!(!format!("{token:?}").contains("pa:ss"));
        assert!(read("no colon").is_none());
        assert!(read_token(Some("%"), None, "").is_none());
        assert!(read_token(None, None, "").is_none());
    }
}
