//! `ecr:GetAuthorizationToken` through the AWS SDK.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_ecr::types::AuthorizationData;
use aws_smithy_http_client::{Builder, tls};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{EcrHost, EcrToken};
use crate::error::{RegistryError, Result};
use crate::secret::Secret;
use crate::transport::tls::read_bundle;

/// Names a CA bundle for calls to AWS, as for the AWS CLI.
const CA_VARIABLE: &str = "AWS_CA_BUNDLE";
/// Credential providers may ask the network; behind a broken one the SDK alone would wait for minutes.
const TIMEOUT: Duration = Duration::from_secs(60);

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
    fetch(region, registry_id, false, ca).await
}

/// Gets a token for a registry's host.
pub(crate) async fn token_for(host: &EcrHost, ca: Option<&Path>) -> Result<EcrToken> {
    fetch(Some(&host.region), None, host.fips, ca).await
}

async fn fetch(region: Option<&str>, registry_id: Option<&str>, fips: bool, ca: Option<&Path>) -> Result<EcrToken> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if fips {
        loader = loader.use_fips(true);
    }
    let from_environment = std::env::var_os(CA_VARIABLE)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let bundles: Vec<&Path> = ca.into_iter().chain(from_environment.as_deref()).collect();
    if !bundles.is_empty() {
        loader = loader.http_client(https_client(&bundles)?);
    }
    let call = async {
        let client = aws_sdk_ecr::Client::new(&loader.load().await);
        let call = client.get_authorization_token();
        #[expect(
            deprecated,
            reason = "`--registry-ids` of the AWS CLI is still in buildspecs, and names the endpoint returned"
        )]
        let call = call.set_registry_ids(registry_id.map(|id| vec![id.to_owned()]));
        call.send().await
    };
    let failed = |message: String| RegistryError::EcrToken {
        region: region.map(str::to_owned),
        message,
    };
    let answer = tokio::time::timeout(TIMEOUT, call)
        .await
        .map_err(|_| failed(format!("no answer within {} seconds", TIMEOUT.as_secs())))?
        .map_err(|error| failed(reason(&error)))?;
    let data = answer
        .authorization_data()
        .first()
        .ok_or_else(|| failed("the answer holds no token".to_owned()))?;
    read_token(data).ok_or_else(|| failed("the token in the answer is not base64 of `user:password`".to_owned()))
}

/// Prefers what the service said; the SDK's own chain is for failures on the way.
fn reason(
    error: &aws_sdk_ecr::error::SdkError<aws_sdk_ecr::operation::get_authorization_token::GetAuthorizationTokenError>,
) -> String {
    use aws_sdk_ecr::error::ProvideErrorMetadata as _;
    if let (Some(code), Some(message)) = (error.code(), error.message()) {
        return crate::digest::shorten(&format!("{code}: {message}"));
    }
    let mut texts: Vec<String> = Vec::new();
    let mut source: Option<&dyn Error> = error.source();
    while let Some(current) = source {
        // Each cause on one line; the list of all credential providers comes in many.
        let text = current.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        source = current.source();
    }
    let text = if texts.is_empty() {
        error.to_string()
    } else {
        texts.join(": ")
    };
    crate::digest::shorten(&text)
}

fn read_token(data: &AuthorizationData) -> Option<EcrToken> {
    let decoded = String::from_utf8(STANDARD.decode(data.authorization_token()?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let expires_at = data.expires_at().and_then(|time| SystemTime::try_from(*time).ok());
    Some(EcrToken {
        user: user.to_owned(),
        password: Secret::new(password),
        proxy_endpoint: data.proxy_endpoint().unwrap_or_default().to_owned(),
        // Without a date, the shortest life AWS documents for any token is assumed.
        expires_at: expires_at.unwrap_or_else(|| SystemTime::now() + Duration::from_secs(3600)),
    })
}

fn https_client(bundles: &[&Path]) -> Result<aws_sdk_ecr::config::SharedHttpClient> {
    let mut roots = tls::TrustStore::default();
    for path in bundles {
        // Checked here, since the SDK panics on a certificate it cannot read.
        roots = roots.with_pem_certificate(read_bundle(path)?.pem);
    }
    let context = tls::TlsContext::builder().with_trust_store(roots).build();
    let context = context.map_err(|error| RegistryError::TlsSetup {
        source: Box::new(error),
    })?;
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    Ok(Builder::new().tls_provider(provider).tls_context(context).build_https())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_apart_at_the_first_colon() {
        let data = |text: &str| {
            AuthorizationData::builder()
                .authorization_token(STANDARD.encode(text))
                .build()
        };
        let token = read_token(&data("AWS:pa:ss")).unwrap();
        assert_eq!((token.user.as_str(), token.password.expose()), ("AWS", "pa:ss"));
        assert!(!format!("{token:?}").contains("pa:ss"));
        assert!(read_token(&data("no colon")).is_none());
        assert!(read_token(&AuthorizationData::builder().authorization_token("%").build()).is_none());
    }
}
