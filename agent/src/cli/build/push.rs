//! Pushing: layers while the build goes on, the manifest when it is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadstead_builder::image::assemble::Image;
use roadstead_builder::layer::write::Layer;
use roadstead_builder::solve::{BlobHook, Cancel, LayerHook, Tools};
use roadstead_registry_client::{Descriptor, Growing, NoProgress, Reference, media_type};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::CliError;

/// Uploads layers while they are written, and while later steps run.
pub(super) struct EarlyPush {
    target: Option<Target>,
}

/// Where layers go. The hooks are called from several threads.
#[derive(Clone)]
struct Target {
    tools: Arc<Tools>,
    repository: Reference,
    uploads: Arc<Mutex<Uploads>>,
}

#[derive(Default)]
struct Uploads {
    tasks: tokio::task::JoinSet<()>,
    /// Blobs that were sent while they were written, and what ends when that is over.
    growing: Vec<(Growing, oneshot::Receiver<()>)>,
}

impl Target {
    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a blob while it is written. A failure is met again, and told, by the push at the end.
    fn send_growing(&self, growing: Growing, runtime: &Handle) {
        let (over, is_over) = oneshot::channel();
        let watcher = growing.watcher();
        let Self { tools, repository, .. } = self.clone();
        let upload = async move {
            let sending = tools.client.push_growing(
                &repository,
                media_type::OCI_LAYER_TAR,
                growing,
                &tools.store,
                &NoProgress,
            );
            drop(Box::pin(sending).await);
            drop(over);
        };
        let mut uploads = self.uploads();
        uploads.growing.push((watcher, is_over));
        uploads.tasks.spawn_on(upload, runtime);
    }

    /// Sends a layer that is finished, unless it was sent while it was written.
    fn send(&self, descriptor: Descriptor, runtime: &Handle) {
        // A base layer that is not here may never be needed: it is mounted or copied at the end.
        if !self.tools.store.has(&descriptor.digest) {
            return;
        }
        let mut uploads = self.uploads();
        let is_it = |(blob, _): &(Growing, _)| blob.digest().as_ref() == Some(&descriptor.digest);
        let growing = uploads.growing.iter().position(is_it);
        let growing = growing.map(|at| uploads.growing.swap_remove(at).1);
        let Self { tools, repository, .. } = self.clone();
        let upload = async move {
            if let Some(is_over) = growing {
                // It says nothing, and ends.
                drop(is_over.await);
            }
            // What has arrived already is found there.
            drop(
                Box::pin(
                    tools
                        .client
                        .push_blob(&repository, &descriptor, &tools.store, &NoProgress),
                )
                .await,
            );
        };
        uploads.tasks.spawn_on(upload, runtime);
    }
}

impl EarlyPush {
    pub(super) fn new(tools: &Arc<Tools>, repository: Option<&Reference>) -> Self {
        let target = repository.map(|repository| Target {
            tools: Arc::clone(tools),
            repository: repository.clone(),
            uploads: Arc::default(),
        });
        Self { target }
    }

    pub(super) fn layer_hook(&self) -> Option<LayerHook> {
        let (target, runtime) = (self.target.clone()?, Handle::current());
        let hook = move |layer: &Layer| target.send(layer.descriptor.clone(), &runtime);
        Some(LayerHook(Arc::new(hook)))
    }

    pub(super) fn blob_hook(&self) -> Option<BlobHook> {
        let (target, runtime) = (self.target.clone()?, Handle::current());
        let hook = move |growing| target.send_growing(growing, &runtime);
        Some(BlobHook(Arc::new(hook)))
    }

    pub(super) async fn finish(self) {
        let Some(target) = self.target else { return };
        let mut tasks = std::mem::take(&mut target.uploads().tasks);
        while tasks.join_next().await.is_some() {}
    }
}

/// Sends an image, or an index with all of its images, under a name; with a digest for a name, the repository gets no tag.
pub(super) async fn push(tools: &Arc<Tools>, image: &Image, name: &Reference, cancel: &Cancel) -> Result<(), CliError> {
    let vertex = tools.progress.start(format!("pushing {name}"));
    let pushing = tools.client.push(&tools.store, &image.descriptor, name, &NoProgress);
    let pushed = tokio::select! {
        pushed = Box::pin(pushing) => pushed,
        () = cancel.canceled() => return Err(CliError::failed("the build was canceled")),
    };
    match pushed {
        Ok(digest) => {
            vertex.note(format!("digest: {digest}"));
            vertex.done();
            Ok(())
        }
        Err(error) => {
            vertex.failed(error.to_string());
            Err(CliError::registry(error))
        }
    }
}
