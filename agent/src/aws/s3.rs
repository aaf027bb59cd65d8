//! Objects of Amazon S3, by signed addresses: one GET needs no SDK of its own.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;

use roadstead_registry_client::Secret;

use super::AwsError;

/// Time for which an address is good; what it is for begins at once.
const EXPIRY: Duration = Duration::from_secs(900);

/// Which service, and who asks it. What is not given comes from the AWS default chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    /// Access key, secret key and, for passing ones, session token.
    pub(crate) keys: Option<(String, Secret, Option<Secret>)>,
}

/// Signs addresses of one service.
#[derive(Debug)]
pub(crate) struct Signer {
    region: String,
    endpoint: Option<String>,
    credentials: Credentials,
}

impl Signer {
    /// Asks for region and credentials; `AWS_ENDPOINT_URL` is honoured.
    pub(crate) async fn new(settings: &Settings, ca: Option<&Path>) -> Result<Self, AwsError> {
        let config = super::loader(settings.region.as_deref(), ca)?.load().await;
        let region = config.region().map(ToString::to_string);
        let region = region.ok_or_else(|| AwsError::S3("no region: set AWS_REGION".to_owned()))?;
        let credentials = match &settings.keys {
            Some((key, secret, token)) => {
                let token = token.as_ref().map(|token| token.expose().to_owned());
                Credentials::new(key, secret.expose(), token, None, "given")
            }
            None => {
                let provider = config.credentials_provider();
                let provider = provider.ok_or_else(|| AwsError::S3("no credentials".to_owned()))?;
                let credentials = provider.provide_credentials().await;
                credentials.map_err(|error| AwsError::S3(format!("no credentials: {}", crate::error::chain(&error))))?
            }
        };
        let endpoint = settings
            .endpoint
            .clone()
            .or_else(|| config.endpoint_url().map(str::to_owned));
        Ok(Self {
            region,
            endpoint,
            credentials,
        })
    }

    /// Makes an address of `bucket`'s object `key` that can be used for a while with one method.
    pub(crate) fn sign(&self, method: &str, bucket: &str, key: &str) -> Result<String, AwsError> {
        let url = address(self.endpoint.as_deref(), &self.region, bucket, key);
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(EXPIRY);
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let failed = |error: &dyn std::fmt::Display| AwsError::S3(format!("cannot sign a request: {error}"));
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| failed(&error))?;
        let request = SignableRequest::new(method, &url, std::iter::empty(), SignableBody::UnsignedPayload);
        let request = request.map_err(|error| failed(&error))?;
        let signed = sign(request, &parameters.into()).map_err(|error| failed(&error))?;
        let (instructions, _) = signed.into_parts();
        let query: Vec<String> = instructions
            .params()
            .iter()
            .map(|(name, value)| format!("{}={}", percent(name, false), percent(value, false)))
            .collect();
        Ok(format!("{url}?{}", query.join("&")))
    }
}

/// The address of an object: below the bucket's own host, or below the endpoint where one is set. A dot in the bucket's name would
/// fit no certificate.
fn address(endpoint: Option<&str>, region: &str, bucket: &str, key: &str) -> String {
    let key = percent(key, true);
    match endpoint {
        Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/')),
        None if bucket.contains('.') => format!("https://s3.{}/{bucket}/{key}", domain(region)),
        None => format!("https://{bucket}.s3.{}/{key}", domain(region)),
    }
}

fn domain(region: &str) -> String {
    match region.starts_with("cn-") {
        true => format!("{region}.amazonaws.com.cn"),
        false => format!("{region}.amazonaws.com"),
    }
}

/// Encodes as RFC 3986 has it.
fn percent(text: &str, with_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (with_slashes && byte == b'/');
        match plain {
            true => out.push(char::from(byte)),
            false => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (endpoint, region, bucket, want) in [
            (
                None,
                "eu-central-1",
                "b",
                "https://b.s3.eu-central-1.amazonaws.com/a/x%20y.tar",
            ),
            (
                None,
                "cn-north-1",
                "b",
                "https://b.s3.cn-north-1.amazonaws.com.cn/a/x%20y.tar",
            ),
            (
                None,
                "us-east-1",
                "b.c",
                "https://s3.us-east-1.amazonaws.com/b.c/a/x%20y.tar",
            ),
            (
                Some("http://127.0.0.1:5000/"),
                "us-east-1",
                "b",
                "http://127.0.0.1:5000/b/a/x%20y.tar",
            ),
        ] {
            assert_eq!(address(endpoint, region, bucket, "a/x y.tar"), want);
        }
    }
}
