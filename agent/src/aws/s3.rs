//! Objects of Amazon S3, by signed addresses: one GET needs no SDK of its own.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;

use super::AwsError;

/// Time for which the address is good; a download begins at once.
const EXPIRY: Duration = Duration::from_secs(900);

/// Makes an address of `bucket`'s object `key` that can be fetched for a while, signed by the AWS default chain. `AWS_ENDPOINT_URL`
/// is honoured.
pub(crate) async fn signed_url(bucket: &str, key: &str, ca: Option<&Path>) -> Result<String, AwsError> {
    let config = super::loader(None, ca)?.load().await;
    let region = config.region().map(ToString::to_string);
    let region = region.ok_or_else(|| AwsError::S3("no region: set AWS_REGION".to_owned()))?;
    let provider = config.credentials_provider();
    let provider = provider.ok_or_else(|| AwsError::S3("no credentials".to_owned()))?;
    let credentials = provider.provide_credentials().await;
    let credentials =
        credentials.map_err(|error| AwsError::S3(format!("no credentials: {}", crate::error::chain(&error))))?;
    let url = address(config.endpoint_url(), &region, bucket, key);

    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRY);
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let failed = |error: &dyn std::fmt::Display| AwsError::S3(format!("cannot sign a request: {error}"));
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&region)
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?;
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::UnsignedPayload);
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
