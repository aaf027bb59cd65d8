//! Shims: `docker` and `aws` of a job are this binary under other names, served by the job's runner.

use std::ffi::OsString;
use std::path::Path;

use roadstead_proto::record::{PushedImage, Record};

use crate::error::FileError;
use crate::logs::Secrets;
use crate::scratch::Scratch;

/// Why the shims could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error(transparent)]
    File(#[from] FileError),
}

/// The runner's side of the shims.
#[derive(Debug)]
pub(crate) struct Server;

impl Server {
    pub(crate) fn start(_scratch: &Scratch, _secrets: &Secrets) -> Result<Self, ShimError> {
        Ok(Self)
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        Vec::new()
    }

    pub(crate) async fn stop(&self) -> Vec<PushedImage> {
        Vec::new()
    }

    pub(crate) async fn check_deploy_files(&self, _artifacts: &Path, _record: &Record) -> Result<(), String> {
        Ok(())
    }
}
