//! Queue URLs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Queue, QueueError, sqlite};
use crate::environment;

/// The queue of this machine.
pub(crate) fn default_url() -> String {
    format!("sqlite:{}", environment::data_directory().join("queue.db").display())
}

/// Opens a queue by its URL: `sqlite:FILE`, `sqs://HOST/ACCOUNT/NAME` or `sqs://` and a queue's URL without its scheme.
///
/// `results` is where logs, artifacts and records go that the queue itself does not keep; the data directory when not given.
pub(crate) async fn open(url: &str, results: Option<&Path>, ca: Option<&Path>) -> Result<Arc<dyn Queue>, QueueError> {
    open_or_make(url, results, ca, true).await
}

/// Opens a queue like [`open`], to look at it alone: one that is not there is not made.
pub(crate) async fn open_existing(
    url: &str,
    results: Option<&Path>,
    ca: Option<&Path>,
) -> Result<Arc<dyn Queue>, QueueError> {
    open_or_make(url, results, ca, false).await
}

async fn open_or_make(
    url: &str,
    results: Option<&Path>,
    ca: Option<&Path>,
    make: bool,
) -> Result<Arc<dyn Queue>, QueueError> {
    let results = results.map_or_else(|| environment::data_directory().join("jobs"), PathBuf::from);
    if let Some(file) = url.strip_prefix("sqlite:") {
        if file.is_empty() {
            return Err(QueueError::Url {
                url: url.to_owned(),
                reason: "`sqlite:` needs a file",
            });
        }
        return Ok(Arc::new(sqlite::SqliteQueue::open(Path::new(file), &results, make)?));
    }
    if let Some(rest) = url.strip_prefix("sqs://") {
        return open_sqs(rest, &results, ca).await;
    }
    Err(QueueError::Url {
        url: url.to_owned(),
        reason: "queues are `sqlite:FILE` and `sqs://HOST/ACCOUNT/NAME`",
    })
}

#[cfg(feature = "sqs")]
async fn open_sqs(rest: &str, results: &Path, ca: Option<&Path>) -> Result<Arc<dyn Queue>, QueueError> {
    let parts: Vec<&str> = rest.split('/').collect();
    if !matches!(parts[..], [host, account, name] if !host.is_empty() && !account.is_empty() && !name.is_empty()) {
        let reason = "an SQS queue is `sqs://HOST/ACCOUNT/NAME`";
        return Err(QueueError::Url {
            url: format!("sqs://{rest}"),
            reason,
        });
    }
    let client = crate::aws::sqs::client(parts[0], ca).await?;
    Ok(Arc::new(super::sqs::SqsQueue::new(
        client,
        &format!("https://{rest}"),
        results,
    )))
}

#[cfg(not(feature = "sqs"))]
async fn open_sqs(rest: &str, _results: &Path, _ca: Option<&Path>) -> Result<Arc<dyn Queue>, QueueError> {
    Err(QueueError::Url {
        url: format!("sqs://{rest}"),
        reason: "this binary was built without SQS",
    })
}
