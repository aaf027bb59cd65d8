//! A registry as a source and as a sink.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{BlobStream, ImageSink, ImageSource};
use crate::digest::Digest;
use crate::ecr;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::pull;
use crate::push::{self, PushedHow};
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::retry::{Budget, retry};
use crate::transport::{Endpoint, Transport};

/// An image of a registry, read from its mirrors first.
#[derive(Clone)]
pub struct RegistryImage {
    pub(crate) transport: Arc<Transport>,
    pub(crate) reference: Reference,
    pub(crate) budget: Budget,
    /// Manifests that were fetched, so that finding an image and copying it asks once.
    known: Arc<Mutex<Vec<(Descriptor, Bytes)>>>,
    /// Blobs that mirrors have sent wrongly.
    distrusted: Arc<Mutex<HashSet<Digest>>>,
}

/// An index, an image and a few more: what one look-up meets.
const KNOWN_LIMIT: usize = 8;

impl std::fmt::Debug for RegistryImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RegistryImage").field(&self.reference).finish()
    }
}

impl RegistryImage {
    pub(crate) fn new(transport: &Arc<Transport>, reference: &Reference) -> Self {
        Self {
            transport: Arc::clone(transport),
            reference: reference.clone(),
            budget: transport.budget(),
            known: Arc::default(),
            distrusted: Arc::default(),
        }
    }

    /// Means the same image by its digest: what the tag means may change meanwhile.
    pub(crate) fn fixed(&self, digest: &Digest) -> Self {
        Self {
            reference: self.reference.with_digest(digest.clone()),
            ..self.clone()
        }
    }

    /// Lists the places to read a blob from.
    pub(crate) fn places(&self, digest: &Digest) -> Result<Vec<Endpoint>> {
        let distrusted = self
            .distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest);
        match distrusted {
            true => Ok(vec![self.transport.endpoint(&self.reference)?]),
            false => self.transport.places(&self.reference),
        }
    }

    /// Keeps mirrors from being asked for a blob again. Returns whether they might have been.
    pub(crate) fn distrust(&self, digest: &Digest) -> bool {
        let has_mirrors = !self.transport.options().registries.mirrors(&self.reference).is_empty();
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        has_mirrors && distrusted.insert(digest.clone())
    }

    pub(crate) fn known(&self, digest: &Digest) -> Option<(Descriptor, Bytes)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .find(|(descriptor, _)| descriptor.digest == *digest)
            .cloned()
    }

    pub(crate) fn note(&self, descriptor: &Descriptor, bytes: &Bytes) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN_LIMIT {
            known.push((descriptor.clone(), bytes.clone()));
        }
    }
}

impl ImageSource for RegistryImage {
    fn label(&self) -> String {
        self.reference.to_string()
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        Box::pin(async { pull::root(self).await.map(|(descriptor, _)| descriptor) })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(pull::manifest(self, descriptor))
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        Box::pin(pull::open_blob(self, descriptor, progress))
    }

    fn has_blob<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async {
            let mut last = Ok(false);
            for endpoint in self.places(&descriptor.digest)? {
                let scopes = || vec![endpoint.scope("pull")];
                let look_up = || async { push::has_blob(&self.transport, &endpoint, descriptor, scopes()).await };
                last = retry(&self.budget, |_| (), look_up).await;
                if matches!(last, Ok(true)) {
                    break;
                }
            }
            last
        })
    }

    fn distrust(&self, digest: &Digest) -> bool {
        Self::distrust(self, digest)
    }

    fn repositories(&self, _digest: &Digest) -> Vec<Reference> {
        vec![self.reference.without_tag()]
    }
}

/// A name in a registry.
#[derive(Clone)]
pub struct RegistryTarget {
    pub(crate) transport: Arc<Transport>,
    pub(crate) reference: Reference,
    pub(crate) budget: Budget,
    /// Notes where blobs can be had from now on.
    notes: Option<Store>,
    pushed: Arc<Mutex<Vec<Digest>>>,
    create: Option<ecr_settings::Settings>,
    created: Arc<tokio::sync::Mutex<bool>>,
}

#[cfg(feature = "ecr")]
mod ecr_settings {
    pub(super) type Settings = crate::ecr::RepositorySettings;
}
#[cfg(not(feature = "ecr"))]
mod ecr_settings {
    pub(super) type Settings = std::convert::Infallible;
}

impl std::fmt::Debug for RegistryTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RegistryTarget").field(&self.reference).finish()
    }
}

impl RegistryTarget {
    pub(crate) fn new(transport: &Arc<Transport>, reference: &Reference) -> Self {
        Self {
            transport: Arc::clone(transport),
            reference: reference.clone(),
            budget: transport.budget(),
            notes: None,
            pushed: Arc::default(),
            create: None,
            created: Arc::default(),
        }
    }

    /// Notes in a store that the repository has the blobs: a later push may mount them from it.
    #[must_use]
    pub fn noting_sources(mut self, store: &Store) -> Self {
        self.notes = Some(store.clone());
        self
    }

    /// Makes the repository when Amazon ECR says that there is none.
    #[cfg(feature = "ecr")]
    #[must_use]
    pub fn creating_repository(mut self, settings: &ecr::RepositorySettings) -> Self {
        self.create = Some(settings.clone());
        self
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        self.transport.endpoint(&self.reference)
    }

    /// Makes the repository after an error that says there is none. Returns whether it is there now.
    pub(crate) async fn create_after(&self, error: &RegistryError) -> Result<bool> {
        let (RegistryError::RepositoryUnknown { .. }, Some(settings)) = (error, &self.create) else {
            return Ok(false);
        };
        self.create(settings).await
    }

    #[cfg(feature = "ecr")]
    async fn create(&self, settings: &ecr::RepositorySettings) -> Result<bool> {
        let endpoint = self.endpoint()?;
        let Some(host) = ecr::parse_host(endpoint.name().registry()) else {
            return Ok(false);
        };
        // Blobs that fail together create once, and all go on.
        let mut created = self.created.lock().await;
        if !*created {
            let repository = &endpoint.location().repository;
            let ca = self.transport.options().ca_bundle.as_deref();
            ecr::create_repository(&host, repository, settings, ca).await?;
            tracing::info!("created repository `{repository}`");
            *created = true;
        }
        Ok(true)
    }

    #[cfg(not(feature = "ecr"))]
    async fn create(&self, settings: &std::convert::Infallible) -> Result<bool> {
        match *settings {}
    }
}

impl ImageSink for RegistryTarget {
    fn accepts(&self, root: &Descriptor) -> Result<()> {
        match self.reference.digest() {
            Some(expected) if *expected != root.digest => Err(RegistryError::DigestMismatch {
                what: format!("the image to push as `{}`", self.reference),
                expected: expected.clone(),
                actual: root.digest.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<PushedHow>> {
        Box::pin(async move {
            let how = match push::push_blob(self, descriptor, source, progress).await {
                Err(error) if self.create_after(&error).await? => {
                    push::push_blob(self, descriptor, source, progress).await?
                }
                other => other?,
            };
            let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
            pushed.push(descriptor.digest.clone());
            Ok(how)
        })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(push::put_manifest(self, descriptor, bytes, None))
    }

    fn name<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let tag = match self.reference.digest() {
                Some(_) => self.reference.tag(),
                None => Some(self.reference.tag_or_latest()),
            };
            push::put_manifest(self, descriptor, bytes, tag).await?;
            // From now on a manifest of this repository holds the blobs, which is what ECR wants of a mount's source.
            if let Some(store) = &self.notes {
                let pushed = std::mem::take(&mut *self.pushed.lock().unwrap_or_else(PoisonError::into_inner));
                for digest in &pushed {
                    // The push has succeeded all the same.
                    if let Err(error) = store.add_source(digest, &self.reference) {
                        tracing::warn!(%error, "cannot note where a blob can be mounted from");
                        break;
                    }
                }
            }
            Ok(())
        })
    }
}
