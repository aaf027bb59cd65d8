//! Pushing: layers while the build goes on, the manifest when it is over.

use std::sync::{Arc, Mutex, PoisonError};

use roadstead_builder::image::assemble::Image;
use roadstead_builder::solve::{Cancel, LayerHook, Tools};
use roadstead_registry_client::{NoProgress, Reference};

use crate::error::CliError;

/// Uploads finished layers while later steps still run.
pub(super) struct EarlyPush {
    target: Option<(Uploads, Arc<Tools>, Reference)>,
}

/// The uploads under way; the hook that adds to them is called from several threads.
type Uploads = Arc<Mutex<tokio::task::JoinSet<()>>>;

impl EarlyPush {
    pub(super) fn new(tools: &Arc<Tools>, target: Option<&Reference>) -> Self {
        let target = target.map(|t| {
            (
                Arc::new(Mutex::new(tokio::task::JoinSet::new())),
                Arc::clone(tools),
                t.clone(),
            )
        });
        Self { target }
    }

    pub(super) fn hook(&self) -> Option<LayerHook> {
        let (tasks, tools, target) = self.target.clone()?;
        let runtime = tokio::runtime::Handle::current();
        Some(LayerHook(Arc::new(move |layer| {
            let (tools, target, descriptor) = (Arc::clone(&tools), target.clone(), layer.descriptor.clone());
            // A base layer that is not here may never be needed: it is mounted or copied at the end.
            if !tools.store.has(&descriptor.digest) {
                return;
            }
            let upload = async move {
                // A failure here is met again, and told, by the push at the end.
                drop(Box::pin(tools.client.push_blob(&target, &descriptor, &tools.store, &NoProgress)).await);
            };
            tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .spawn_on(upload, &runtime);
        })))
    }

    pub(super) async fn finish(self) {
        let Some((tasks, ..)) = self.target else { return };
        let mut tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
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
