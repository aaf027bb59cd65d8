//! Where a job's files come from.

mod directory;
pub(crate) mod git;

use std::path::Path;

use roadstead_proto::job::{Job, SourceKind};

use crate::error::FileError;

/// Why a job's source could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("the source location `{0}` is not an absolute directory")]
    NotAbsolute(String),
    #[error("the source has more than {0} files")]
    TooMany(usize),
    #[error("`{0}` is no git URL that is taken here: https, http, ssh, file and user@host:path are")]
    Url(String),
    #[error("`{0}` is no git revision")]
    Revision(String),
    #[error(transparent)]
    Git(roadstead_builder::context::remote::RemoteError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Puts the source of `job` into `destination`, which must not exist yet.
pub(crate) async fn fetch(job: &Job, destination: &Path) -> Result<(), SourceError> {
    match job.source.kind {
        SourceKind::Directory => {
            let from = Path::new(&job.source.location).to_owned();
            if !from.is_absolute() {
                return Err(SourceError::NotAbsolute(job.source.location.clone()));
            }
            let to = destination.to_owned();
            match tokio::task::spawn_blocking(move || directory::copy(&from, &to)).await {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        _ => git::fetch(job, destination).await,
    }
}
