//! The AWS services the agent uses, a file a service.

pub(crate) mod s3;
pub(crate) mod sqs;

use std::path::{Path, PathBuf};

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_smithy_http_client::{Builder, tls};

use crate::error::FileError;

/// Why the configuration for AWS cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AwsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot use the CA bundle: {0}")]
    Bundle(String),
    #[error("S3: {0}")]
    S3(String),
}

/// Begins the AWS default chain; certificates of `ca` and of `AWS_CA_BUNDLE` are trusted as well.
fn loader(region: Option<&str>, ca: Option<&Path>) -> Result<ConfigLoader, AwsError> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let variable = std::env::var_os("AWS_CA_BUNDLE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let bundles: Vec<&Path> = ca.into_iter().chain(variable.as_deref()).collect();
    if bundles.is_empty() {
        return Ok(loader);
    }
    let mut roots = tls::TrustStore::default();
    for path in bundles {
        let pem = std::fs::read(path).map_err(FileError::at("read the CA bundle", path))?;
        roots = roots.with_pem_certificate(pem);
    }
    let context = tls::TlsContext::builder().with_trust_store(roots).build();
    let context = context.map_err(|error| AwsError::Bundle(error.to_string()))?;
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    Ok(loader.http_client(Builder::new().tls_provider(provider).tls_context(context).build_https()))
}
