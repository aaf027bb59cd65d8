//! Artifacts: which files of the source directory are kept, and their copy.

mod copy;
mod select;

use std::path::Path;

use crate::buildspec::Artifacts;
use crate::error::FileError;
use crate::logs::Log;

/// Why the artifacts could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactsError {
    #[error("no matching artifact paths found")]
    NoMatch,
    #[error("no matching base directory path found for {0}")]
    NoBaseDirectory(String),
    #[error("bad pattern `{pattern}` in artifacts: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("two artifacts would have the name `{0}`")]
    SameName(String),
    #[error("the artifact directory holds a symbolic link at `{0}`")]
    LinkInTheWay(String),
    #[error("artifacts have more than {} files", select::MAX_FILES)]
    TooMany,
    #[error(transparent)]
    File(#[from] FileError),
}

/// Copies what `artifacts` selects from `source` to `destination`, logging as CodeBuild does; gives the copied paths.
pub(crate) fn keep(
    artifacts: &Artifacts,
    source: &Path,
    destination: &Path,
    log: &Log,
) -> Result<Vec<String>, ArtifactsError> {
    let chosen = select::select(artifacts, source, destination, log)?;
    if chosen.is_empty() {
        return Err(ArtifactsError::NoMatch);
    }
    copy::copy(&chosen, source, destination)
}

#[cfg(test)]
mod tests;
