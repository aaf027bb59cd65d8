//! Upload by the layer parts of Amazon ECR's own API, which resumes part by part.

use futures_util::future::BoxFuture;

use super::chunks::Gather;
use super::strategy::{Job, Strategy};
use crate::ecr::{self, PART_SIZE, PartUpload};
use crate::error::{RegistryError, Result};
use crate::progress::BlobEvent;
use crate::transport::Direction;

/// The strategy.
pub(super) struct EcrParts;

impl Strategy for EcrParts {
    fn name(&self) -> &'static str {
        "ecr-parts"
    }

    fn upload<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let host = job.endpoint.name().registry();
            let registry = ecr::parse_host(host).ok_or_else(|| RegistryError::Protocol {
                host: host.to_owned(),
                operation: format!("the upload of blob {}", job.descriptor.digest),
                reason: "`upload = \"ecr-parts\"` is for registries of Amazon ECR alone".to_owned(),
            })?;
            // Parts are held in memory: one blob at a time.
            let _slot = job.target.transport.slot(job.endpoint, Direction::Parts).await?;
            let options = job.target.transport.options();
            let repository = &job.endpoint.location().repository;
            let opened = PartUpload::open(&registry, repository, options.ca_bundle.as_deref()).await;
            let mut upload = opened.map_err(|error| unknown_repository(error, job))?;
            let mut content = Gather::new(job.content().await?);
            let mut sent = 0;
            while let Some(part) = content.next(PART_SIZE).await? {
                send(job, &mut upload, &part, sent).await?;
                sent += part.len() as u64;
                let bytes = part.len() as u64;
                job.progress.blob(&job.descriptor.digest, BlobEvent::Advanced { bytes });
            }
            upload.complete(&job.descriptor.digest).await
        })
    }
}

/// Sends a part, again if need be; those before it stay.
async fn send(job: &Job<'_>, upload: &mut PartUpload, part: &[u8], from: u64) -> Result<()> {
    let mut attempt = 1;
    loop {
        let Err(error) = upload.send(part).await else {
            return Ok(());
        };
        let Some(delay) = job.target.budget.delay(&error, attempt) else {
            return Err(error);
        };
        job.goes_on(&error, from);
        tokio::time::sleep(delay).await;
        attempt += 1;
    }
}

/// Says the same as the registry would, so that the repository can be made.
fn unknown_repository(error: RegistryError, job: &Job<'_>) -> RegistryError {
    match error {
        RegistryError::EcrCall { code, message, .. } if code == "RepositoryNotFoundException" => {
            RegistryError::RepositoryUnknown {
                host: job.endpoint.name().registry().to_owned(),
                repository: job.endpoint.location().repository.clone(),
                ecr: true,
                detail: message,
            }
        }
        other => other,
    }
}
