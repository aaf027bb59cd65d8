//! What the calls of one job share.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use roadstead_proto::record::PushedImage;
use roadstead_registry_client::{Client, ClientOptions, Error, Store};

use super::builders::Builders;
use crate::client::Network;
use crate::data_directory;
use crate::logs::Secrets;

/// What the calls of one job share.
#[derive(Debug)]
pub(super) struct Context {
    docker_config: PathBuf,
    secrets: Secrets,
    network: Network,
    pushed: Mutex<Vec<PushedImage>>,
    builders: Builders,
}

impl Context {
    pub(super) fn new(docker_config: PathBuf, secrets: Secrets, network: Network) -> Self {
        Self {
            docker_config,
            secrets,
            network,
            pushed: Mutex::default(),
            builders: Builders::default(),
        }
    }

    /// The job's own docker configuration.
    pub(super) fn docker_config(&self) -> &Path {
        &self.docker_config
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A client with the logins of this moment; an older one may hold tokens from before a `docker login`.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let options = self.network.options()?;
        let credentials = options.credentials.with_job(self.docker_config.clone());
        Client::new(ClientOptions { credentials, ..options })
    }

    /// The local images.
    pub(super) fn store(&self) -> Result<Store, Error> {
        data_directory::store()
    }

    /// The names of the job's builder.
    pub(super) fn builders(&self) -> &Builders {
        &self.builders
    }

    /// What was pushed so far.
    pub(super) fn pushed(&self) -> Vec<PushedImage> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a push; a later one of the same tag takes the place of an earlier.
    pub(super) fn note_pushed(&self, image: PushedImage) {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.retain(|earlier| (&earlier.name, &earlier.tag) != (&image.name, &image.tag));
        pushed.push(image);
    }
}
