//! What was built, written as an image in a form.

use super::bases::Bases;
use super::cache_to::inline_document;
use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::packing::{is_packed_as, repack};
use super::shared::{Built, BuiltPlatform};
use super::tools::Tools;
use crate::image::assemble::{self, Image};
use crate::image::form::Form;
use crate::layer::write::{Layer, StepLayer};
use crate::rootfs::overlay::ChainId;
use std::sync::Arc;

/// Writes the manifest of what was built, or the manifests and their index, into the store.
///
/// # Errors
/// When a layer cannot be fetched or compressed, or the form has no place for something.
pub async fn export(tools: &Arc<Tools>, built: &Built, form: &Form, cancel: &Cancel) -> Result<Image> {
    let vertex = tools.progress.start("exporting to image");
    let exported = write(tools, built, form, cancel).await;
    match &exported {
        Ok((image, notes)) => {
            notes.iter().for_each(|note| vertex.note(note.clone()));
            if built.is_index {
                vertex.note(format!("exporting manifest list {}", image.descriptor.digest));
            }
            vertex.done();
        }
        Err(error) if error.is_canceled() => {}
        Err(error) => vertex.failed(error.to_string()),
    }
    exported.map(|(image, _)| image)
}

async fn write(tools: &Arc<Tools>, built: &Built, form: &Form, cancel: &Cancel) -> Result<(Image, Vec<String>)> {
    let (mut images, mut notes) = (Vec::new(), Vec::new());
    for one in &built.platforms {
        let layers = layers(tools, one, form, cancel).await?;
        let cache = built.inline_cache.then(|| inline_document(built, &layers));
        let image = assemble::manifest(
            &tools.store,
            &one.state,
            &one.platform,
            &layers,
            &one.created,
            cache.as_ref(),
            form,
        )?;
        notes.push(format!("exporting manifest {}", image.descriptor.digest));
        if let Some(config) = &image.config_digest {
            notes.push(format!("exporting config {config}"));
        }
        images.push((one.platform.clone(), image));
    }
    if built.is_index {
        return Ok((assemble::index(&tools.store, images, form)?, notes));
    }
    let nothing = || BuildError::Other("nothing was built".into());
    let (_, image) = images.pop().ok_or_else(nothing)?;
    Ok((image, notes))
}

/// Gives the layers with the blobs that the form wants.
async fn layers(tools: &Arc<Tools>, one: &BuiltPlatform, form: &Form, cancel: &Cancel) -> Result<Vec<Layer>> {
    let mut layers = Vec::with_capacity(one.layers.len());
    for layer in &one.layers {
        let blob = layer
            .packed()
            .ok_or_else(|| BuildError::Other("a layer of the image was not packed".into()))?;
        if !wants_another(layer, &blob, form) {
            layers.push(blob);
            continue;
        }
        Bases::new(cancel, &Arc::default(), &Arc::default())
            .fetch(tools, std::slice::from_ref(&blob))
            .await?;
        let (tools, layer, compression) = (Arc::clone(tools), layer.clone(), form.compression);
        let repacking = tokio::task::spawn_blocking(move || repack(&tools, &layer, compression));
        let repacked = repacking
            .await
            .map_err(|e| BuildError::Other(format!("compressing a layer ended early: {e}")))??;
        layers.extend(repacked.packed());
    }
    Ok(layers)
}

fn wants_another(layer: &StepLayer, blob: &Layer, form: &Form) -> bool {
    match layer.compressor {
        Some(_) => !is_packed_as(layer, form.compression),
        // A base image's: at whatever level somebody has compressed it, that is good enough.
        None => form.force_compression && !form.compression.is_of(&blob.descriptor.media_type),
    }
}

/// Brings all layers of what was built here and unpacked, for outputs that need files.
///
/// # Errors
/// When a base layer cannot be fetched or unpacked.
pub async fn unpacked(tools: &Arc<Tools>, one: &BuiltPlatform, cancel: &Cancel) -> Result<Vec<ChainId>> {
    Bases::new(cancel, &Arc::default(), &Arc::default())
        .unpack(tools, &one.layers)
        .await
}
