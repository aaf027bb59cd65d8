//! `--cache-from` and `--cache-to`: what other machines have found out before a build, and what this one has after it.

mod parse;
#[cfg(feature = "sqs")]
mod s3;

use std::path::Path;
use std::sync::Arc;

use roadstead_builder::cache::imported::Imported;
use roadstead_builder::solve::{Built, CacheMode, CacheTo, Cancel, Tools, cache_document};
use roadstead_registry_client::{
    Descriptor, Error, ImageSink, ImageSource, LayoutImage, LayoutTarget, NoProgress, Reference, Selection, StoreImage,
    copy,
};

use crate::error::CliError;

pub(super) use parse::{Source, Target};

use parse::Place;

/// All caches of a build.
#[derive(Debug)]
pub(super) struct Caches {
    pub(super) from: Vec<Source>,
    pub(super) to: Vec<Target>,
}

impl Caches {
    /// Whether any of them carries the layers of all steps.
    pub(super) fn carries_all(&self) -> bool {
        self.to.iter().any(|to| to.mode == CacheMode::Max)
    }

    /// Whether the image itself is to hold one.
    pub(super) fn is_inline(&self) -> bool {
        self.to.iter().any(|to| matches!(to.place, Place::Inline))
    }

    /// Reads what other machines have found out. A cache that cannot be read is told of and left out, as with buildx: the image is the
    /// same without it.
    pub(super) async fn import(
        &self,
        tools: &Arc<Tools>,
        ca: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<Imported, CliError> {
        let mut imported = Imported::default();
        for from in &self.from {
            let label = from.place.label();
            let vertex = tools.progress.start(format!("importing cache manifest from {label}"));
            let reading = async {
                let source = from.place.source(tools, ca).await?;
                Box::pin(imported.add(source, from.place.repository(), from.mounts))
                    .await
                    .map_err(CliError::registry)
            };
            let read = tokio::select! {
                read = reading => read,
                () = cancel.canceled() => return Err(CliError::failed("the build was canceled")),
            };
            match read {
                Ok(_) => vertex.done(),
                Err(error) => {
                    vertex.failed(error.to_string());
                    tools.progress.warn(format!("the cache {label} is not used: {error}"));
                }
            }
        }
        Ok(imported)
    }

    /// Writes what this build has found out.
    pub(super) async fn export(
        &self,
        tools: &Arc<Tools>,
        ca: Option<&Path>,
        built: &Built,
        from: &Imported,
        cancel: &Cancel,
    ) -> Result<(), CliError> {
        for to in self.to.iter().filter(|to| !matches!(to.place, Place::Inline)) {
            let label = to.place.label();
            let vertex = tools.progress.start(format!("exporting cache to {label}"));
            let written = tokio::select! {
                written = to.write(tools, ca, built, from) => written,
                () = cancel.canceled() => return Err(CliError::failed("the build was canceled")),
            };
            match written {
                Ok(descriptor) => {
                    vertex.note(format!("exporting cache manifest {}", descriptor.digest));
                    vertex.done();
                }
                Err(error) => {
                    vertex.failed(error.to_string());
                    if !to.ignore_error {
                        return Err(error);
                    }
                    tools
                        .progress
                        .warn(format!("the cache {label} is not written: {error}"));
                }
            }
        }
        Ok(())
    }
}

impl Target {
    async fn write(
        &self,
        tools: &Arc<Tools>,
        ca: Option<&Path>,
        built: &Built,
        from: &Imported,
    ) -> Result<Descriptor, CliError> {
        let to = CacheTo {
            mode: self.mode,
            compression: self.compression,
            mounts: self.mounts,
            from,
        };
        let document = Box::pin(cache_document(tools, built, &to))
            .await
            .map_err(super::failed)?;
        let descriptor = document.write(&tools.store).map_err(CliError::registry)?;
        let source = StoreImage::described(&tools.store, &descriptor).fetching(&tools.client);
        let sink = self.place.sink(tools, ca).await?;
        let copied = Box::pin(copy(&source, &*sink, &Selection::All, &NoProgress)).await;
        copied.map_err(CliError::registry)
    }
}

impl Place {
    /// Names it in messages.
    fn label(&self) -> String {
        match self {
            Self::Registry(name) => name.to_string(),
            Self::Local { directory, tag } => format!("{}:{tag}", directory.display()),
            Self::S3(bucket) => bucket.label(),
            Self::Inline => "the image".to_owned(),
        }
    }

    /// The repository whose blobs may be mounted.
    fn repository(&self) -> Option<Reference> {
        match self {
            Self::Registry(name) => Some(name.without_tag()),
            _ => None,
        }
    }

    async fn source(&self, tools: &Tools, ca: Option<&Path>) -> Result<Arc<dyn ImageSource>, CliError> {
        Ok(match self {
            Self::Registry(name) => Arc::new(tools.client.image(name)),
            Self::Local { directory, tag } => {
                Arc::new(LayoutImage::open(directory, Some(tag)).map_err(CliError::registry)?)
            }
            Self::S3(bucket) => s3_image(bucket, tools, ca).await?,
            Self::Inline => return Err(CliError::registry(no_place())),
        })
    }

    async fn sink(&self, tools: &Tools, ca: Option<&Path>) -> Result<Arc<dyn ImageSink>, CliError> {
        Ok(match self {
            Self::Registry(name) => Arc::new(tools.client.target(name).noting_sources(&tools.store)),
            Self::Local { directory, tag } => {
                Arc::new(LayoutTarget::create(directory, Some(tag)).map_err(CliError::registry)?)
            }
            Self::S3(bucket) => s3_target(bucket, tools, ca).await?,
            Self::Inline => return Err(CliError::registry(no_place())),
        })
    }
}

fn no_place() -> Error {
    Error::InvalidDocument {
        what: "cache",
        reason: "an inline cache has no place of its own".to_owned(),
    }
}

#[cfg(feature = "sqs")]
async fn s3_image(bucket: &parse::Bucket, tools: &Tools, ca: Option<&Path>) -> Result<Arc<dyn ImageSource>, CliError> {
    let place = s3::Place::open(bucket, tools, ca).await;
    Ok(Arc::new(place.map_err(CliError::failed)?))
}

#[cfg(feature = "sqs")]
async fn s3_target(bucket: &parse::Bucket, tools: &Tools, ca: Option<&Path>) -> Result<Arc<dyn ImageSink>, CliError> {
    let place = s3::Place::open(bucket, tools, ca).await;
    Ok(Arc::new(place.map_err(CliError::failed)?))
}

#[cfg(not(feature = "sqs"))]
async fn s3_image(_: &parse::Bucket, _: &Tools, _: Option<&Path>) -> Result<Arc<dyn ImageSource>, CliError> {
    Err(CliError::usage("this roadstead was built without AWS"))
}

#[cfg(not(feature = "sqs"))]
async fn s3_target(_: &parse::Bucket, _: &Tools, _: Option<&Path>) -> Result<Arc<dyn ImageSink>, CliError> {
    Err(CliError::usage("this roadstead was built without AWS"))
}
