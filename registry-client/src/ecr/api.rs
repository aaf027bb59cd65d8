//! Calls of Amazon ECR's API through the AWS SDK: credentials, region, trust, errors.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::{Builder, tls};

use super::EcrHost;
use crate::error::{RegistryError, Result};
use crate::transport::tls::read_bundle;

/// Names a CA bundle for calls to AWS, as for the AWS CLI.
const CA_VARIABLE: &str = "AWS_CA_BUNDLE";
/// Credential providers may ask the network; behind a broken one the SDK alone would wait for minutes.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Says which endpoint of the API is asked, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings<'a> {
    /// Region; without one, the default chain's.
    pub(super) region: Option<&'a str>,
    pub(super) fips: bool,
    /// IPv6 as well as IPv4.
    pub(super) dual_stack: bool,
    /// Certificates to trust besides the system's and those of `$AWS_CA_BUNDLE`.
    pub(super) ca: Option<&'a Path>,
}

impl<'a> Settings<'a> {
    /// For the API beside a registry: same region, same kind of endpoint.
    pub(super) fn of(host: &'a EcrHost, ca: Option<&'a Path>) -> Self {
        Self {
            region: Some(&host.region),
            fips: host.fips,
            dual_stack: host.dual_stack(),
            ca,
        }
    }

    /// Loads AWS's default chain.
    pub(super) async fn load(self) -> Result<SdkConfig> {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
        if let Some(region) = self.region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if self.fips {
            loader = loader.use_fips(true);
        }
        if self.dual_stack {
            loader = loader.use_dual_stack(true);
        }
        let from_environment = std::env::var_os(CA_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let bundles: Vec<&Path> = self.ca.into_iter().chain(from_environment.as_deref()).collect();
        if !bundles.is_empty() {
            loader = loader.http_client(https_client(&bundles)?);
        }
        Ok(loader.load().await)
    }
}

/// Says who the caller is: the id of the access key, which is no secret; `None` when there are no credentials.
pub(super) async fn caller(config: &SdkConfig) -> std::result::Result<String, String> {
    let provider = config.credentials_provider().ok_or("there are no AWS credentials")?;
    match provider.provide_credentials().await {
        Ok(credentials) => Ok(credentials.access_key_id().to_owned()),
        Err(error) => Err(chain(&error)),
    }
}

/// Waits for a call at most as long as `TIMEOUT`, and tells what went wrong.
pub(super) async fn call<T, E, R>(
    operation: &str,
    permission: &'static str,
    sent: impl Future<Output = std::result::Result<T, SdkError<E, R>>>,
) -> Result<T>
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let failed = |code: &str, message: String, transient: bool| RegistryError::EcrCall {
        operation: operation.to_owned(),
        code: code.to_owned(),
        message,
        permission,
        transient,
    };
    match tokio::time::timeout(TIMEOUT, sent).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let code = error.code().unwrap_or_default();
            // The SDK has tried again on its own; what it calls a dispatch failure may pass later all the same.
            let on_the_way = matches!(
                error,
                SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) | SdkError::ResponseError(_)
            );
            let transient =
                on_the_way && caller_is_known(&error) || matches!(code, "ServerException" | "ThrottlingException");
            Err(failed(code, reason(&error), transient))
        }
        Err(_) => Err(failed(
            "",
            format!("no answer within {} seconds", TIMEOUT.as_secs()),
            false,
        )),
    }
}

/// A chain without credentials fails as a dispatch, too; asking it again only takes time.
fn caller_is_known<E, R>(error: &SdkError<E, R>) -> bool
where
    E: Error + 'static,
    R: std::fmt::Debug,
{
    !format!("{error:?}").contains("Credentials")
}

/// Prefers what the service said; the SDK's own chain is for failures on the way.
fn reason<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    if let (Some(code), Some(message)) = (error.code(), error.message()) {
        return crate::digest::shorten(&format!("{code}: {message}"));
    }
    match error.source() {
        Some(source) => chain(source),
        None => crate::digest::shorten(&error.to_string()),
    }
}

/// Each cause on one line; the list of all credential providers comes in many.
fn chain(error: &dyn Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut source: Option<&dyn Error> = Some(error);
    while let Some(current) = source {
        let text = current.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        source = current.source();
    }
    crate::digest::shorten(&texts.join(": "))
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
