//! A context that lies on Amazon S3.

use std::path::PathBuf;

use roadstead_builder::solve::Fetcher;

#[cfg(feature = "sqs")]
use crate::aws::s3::{Settings, Signer};
use crate::error::CliError;

/// Fetches `BUCKET/KEY`, an archive.
pub(super) async fn fetch(place: &str, fetcher: &Fetcher<'_>) -> Result<PathBuf, CliError> {
    let Some((bucket, key)) = place
        .split_once('/')
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
    else {
        return Err(CliError::usage(format!(
            "invalid context `s3://{place}`: expected s3://BUCKET/KEY"
        )));
    };
    let vertex = fetcher.tools.progress.start(format!("load context s3://{place}"));
    let file = get(bucket, key, fetcher).await?;
    vertex.done();
    Ok(file)
}

#[cfg(feature = "sqs")]
async fn get(bucket: &str, key: &str, fetcher: &Fetcher<'_>) -> Result<PathBuf, CliError> {
    let signer = Signer::new(&Settings::default(), fetcher.ca_bundle).await;
    let url = signer.and_then(|signer| signer.sign("GET", bucket, key));
    let url = url.map_err(CliError::failed)?;
    fetcher.file(&url, None).await.map_err(super::failed)
}

#[cfg(not(feature = "sqs"))]
async fn get(_bucket: &str, _key: &str, _fetcher: &Fetcher<'_>) -> Result<PathBuf, CliError> {
    Err(CliError::usage("this roadstead was built without AWS"))
}
