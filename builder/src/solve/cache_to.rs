//! What a build has found out, as a document that other machines build upon.

use super::carried_mounts;
use super::error::Result;
use super::packing::repack;
use super::shared::Built;
use super::tools::Tools;
use super::used::UsedStep;
use crate::cache::document::CacheDocument;
use crate::cache::imported::Imported;
use crate::layer::compression::Compression;
use crate::layer::write::{Layer, StepLayer};
use roadstead_registry_client::Digest;
use std::collections::BTreeMap;

/// Whose layers a cache carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the image. Of all other steps it is known what they gave, which is enough as long as nobody needs their files.
    Min,
    /// Those of every step.
    Max,
}

/// How a cache is written.
#[derive(Debug, Clone, Copy)]
pub struct CacheTo<'a> {
    /// Whose layers.
    pub mode: CacheMode,
    /// Another compression than that of the image's layers.
    pub compression: Option<Compression>,
    /// Whether what cache mounts hold is carried, too.
    pub mounts: bool,
    /// The caches that the build was given: mounts of steps that did not run are carried on.
    pub from: &'a Imported,
}

/// Writes down what the build of `built` has found out. Layers lie in the store, or in a registry that the store knows.
///
/// # Errors
/// When a layer cannot be compressed, or a cache mount cannot be read.
pub async fn cache_document(tools: &Tools, built: &Built, to: &CacheTo<'_>) -> Result<CacheDocument> {
    let mut steps = BTreeMap::new();
    for (key, step) in built.used.steps() {
        steps.insert(key, layer(tools, step, to)?);
    }
    let mounts = match to.mounts {
        true => mounts(tools, built, to).await?,
        false => BTreeMap::new(),
    };
    Ok(CacheDocument::new(steps, mounts))
}

/// The same for a cache within the image itself: blobs are the image's own.
pub(super) fn inline_document(built: &Built, layers: &[Layer]) -> CacheDocument {
    let blob = |layer: StepLayer| {
        let own = layers.iter().find(|own| own.diff_id == layer.diff_id);
        StepLayer {
            descriptor: own.map(|own| own.descriptor.clone()),
            compressor: layer.compressor.filter(|_| own.is_some()),
            ..layer
        }
    };
    // Whether a copy was looked up by its files, too, depends on what was known before: the image must not.
    let steps = built.used.steps().into_iter().filter(|(_, step)| step.is_first);
    CacheDocument::new(
        steps.map(|(key, step)| (key, step.layer.map(blob))).collect(),
        BTreeMap::new(),
    )
}

fn layer(tools: &Tools, step: UsedStep, to: &CacheTo<'_>) -> Result<Option<StepLayer>> {
    let Some(layer) = step.layer else { return Ok(None) };
    let is_carried = step.in_image || to.mode == CacheMode::Max;
    let blob = layer.descriptor.as_ref().filter(|_| is_carried);
    let Some(blob) = blob else {
        return Ok(Some(StepLayer {
            descriptor: None,
            compressor: None,
            ..layer
        }));
    };
    match to.compression {
        // What lies elsewhere is carried as it is.
        Some(compression) if tools.store.has(&blob.digest) => repack(tools, &layer, compression).map(Some),
        _ => Ok(Some(layer)),
    }
}

async fn mounts(tools: &Tools, built: &Built, to: &CacheTo<'_>) -> Result<BTreeMap<Digest, StepLayer>> {
    let used = built.used.mounts();
    let mut mounts = BTreeMap::new();
    for (key, layer) in to.from.mounts() {
        let blob = layer.descriptor.as_ref();
        let Some(blob) = blob.filter(|_| !used.contains(key) && !mounts.contains_key(key)) else {
            continue;
        };
        match to.from.obtain(blob, &tools.store).await {
            Ok(()) => drop(mounts.insert(key.clone(), layer.clone())),
            Err(error) => tools.progress.warn(format!("a cache mount is not carried on: {error}")),
        }
    }
    for key in used {
        match carried_mounts::save(tools, &key)? {
            Some(layer) => drop(mounts.insert(key, layer)),
            None => tools
                .progress
                .warn("a cache mount is in use by another build: it is not saved this time"),
        }
    }
    Ok(mounts)
}
