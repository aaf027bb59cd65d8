//! The client of Amazon SQS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_sqs::Client;
use aws_smithy_http_client::{Builder, tls};

use crate::error::FileError;
use crate::queue::QueueError;

/// Time of one request; more than the 20 seconds of a long poll, or every empty poll would be an error.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);

/// Makes a client by the AWS default chain; `AWS_ENDPOINT_URL` is honoured. A region in the queue's host goes before the
/// environment's.
pub(crate) async fn client(host: &str, ca: Option<&Path>) -> Result<Client, QueueError> {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts);
    if let Some(region) = region_of(host) {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let variable = std::env::var_os("AWS_CA_BUNDLE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let bundles: Vec<&Path> = ca.into_iter().chain(variable.as_deref()).collect();
    if !bundles.is_empty() {
        let mut roots = tls::TrustStore::default();
        for path in bundles {
            let pem = std::fs::read(path).map_err(FileError::at("read the CA bundle", path))?;
            roots = roots.with_pem_certificate(pem);
        }
        let context = tls::TlsContext::builder()
            .with_trust_store(roots)
            .build()
            .map_err(|error| QueueError::Service {
                operation: "use the CA bundle",
                url: host.to_owned(),
                reason: error.to_string(),
            })?;
        let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        loader = loader.http_client(Builder::new().tls_provider(provider).tls_context(context).build_https());
    }
    Ok(Client::new(&loader.load().await))
}

/// The region in `sqs.REGION.amazonaws.com`.
fn region_of(host: &str) -> Option<&str> {
    let rest = host.strip_prefix("sqs.")?;
    let (region, domain) = rest.split_once('.')?;
    domain.starts_with("amazonaws.com").then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_host() {
        assert_eq!(region_of("sqs.eu-central-1.amazonaws.com"), Some("eu-central-1"));
        assert_eq!(region_of("sqs.cn-north-1.amazonaws.com.cn"), Some("cn-north-1"));
        assert_eq!(region_of("127.0.0.1:5001"), None);
        assert_eq!(region_of("sqs.evil.example.org"), None);
    }
}
