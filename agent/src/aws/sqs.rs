//! The client of Amazon SQS.

use std::path::Path;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;

use crate::queue::QueueError;

/// Time of one request; more than the 20 seconds of a long poll, or every empty poll would be an error.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);

/// Makes a client by the AWS default chain; `AWS_ENDPOINT_URL` is honoured. A region in the queue's host goes before the
/// environment's.
pub(crate) async fn client(host: &str, ca: Option<&Path>) -> Result<Client, QueueError> {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let loader = super::loader(region_of(host), ca).map_err(|error| QueueError::Service {
        operation: "read the configuration",
        url: host.to_owned(),
        reason: crate::error::chain(&error),
    })?;
    let loader = loader.timeout_config(timeouts);
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
