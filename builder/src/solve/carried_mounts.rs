//! What cache mounts hold, carried between machines as layers.

use super::error::{BuildError, Result};
use super::shared::Shared;
use super::tools::Tools;
use crate::beneath::Dir;
use crate::cache::mounts::{SavedMount, state_of};
use crate::layer::compression::Compression;
use crate::layer::digest_reader::DigestReader;
use crate::layer::extract;
use crate::layer::write::{LayerWriter, StepLayer};
use crate::rootfs::diff;
use roadstead_registry_client::Digest;
use std::path::Path;

/// Caches change often and are read once a build: fast at both ends counts more than the last percent.
const COMPRESSION: &str = "zstd";

/// Brings what a cache of another machine has for the mount `key`, unless it lies here. Without it the mount begins as it would anyway.
pub(super) async fn fetch(shared: &Shared, key: &Digest) {
    let (tools, imported) = (&shared.tools, &shared.request.cache_from);
    let Some(layer) = imported.mount(key).filter(|_| !tools.mounts.has(key)) else {
        return;
    };
    let Some(blob) = &layer.descriptor else { return };
    if let Err(error) = imported.fetch(blob, &tools.store).await {
        tools
            .progress
            .warn(format!("a cache mount cannot be had, it begins anew: {error}"));
    }
}

/// Fills a new mount with what was fetched for it. Gives what that was, if there was something; what is damaged, or not what its cache has
/// said, leaves nothing behind.
pub(super) fn fill<'a>(shared: &'a Shared, key: &Digest, path: &Path) -> Result<Option<&'a StepLayer>> {
    let Some(layer) = shared.request.cache_from.mount(key) else {
        return Ok(None);
    };
    let blob = layer.descriptor.as_ref().map(|blob| &blob.digest);
    let Some(blob) = blob.filter(|digest| shared.tools.store.has(digest)) else {
        return Ok(None);
    };
    let Err(why) = unpack(shared, blob, &layer.diff_id, path) else {
        return Ok(Some(layer));
    };
    let message = format!("a cache mount is of no use, it begins anew: {why}");
    shared.tools.progress.warn(message);
    let directory = Dir::open(path)?;
    for name in directory.names()? {
        directory.remove_all(&name)?;
    }
    Ok(None)
}

/// The error is a sentence for a warning.
fn unpack(shared: &Shared, blob: &Digest, diff_id: &Digest, path: &Path) -> std::result::Result<(), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let archive = shared.tools.store.open_blob(blob).map_err(|e| said(&e))?;
    let mut archive = DigestReader::new(extract::decompress(archive).map_err(|e| said(&e))?);
    let options = extract::Options {
        form: extract::Form::Archive,
        owner: None,
        lowers: &[],
        limits: shared.tools.layers.limits(),
    };
    let directory = Dir::open(path).map_err(|e| said(&e))?;
    extract::extract(&mut archive, &directory, &options).map_err(|e| said(&e))?;
    match archive.finish().map_err(|e| said(&e))? == *diff_id {
        true => Ok(()),
        false => Err("it is another one than its cache says".to_owned()),
    }
}

/// What is to be noted of a mount that was filled with `layer`: as long as nobody changes it, it needs not be saved again.
pub(super) fn filled(layer: &StepLayer, path: &Path) -> Result<SavedMount> {
    let (state, layer) = (state_of(path)?, layer.clone());
    Ok(SavedMount { layer, state })
}

/// Packs what the mount `key` holds now, or gives what was saved of it when nothing has changed. `None` when somebody uses it.
pub(super) fn save(tools: &Tools, key: &Digest) -> Result<Option<StepLayer>> {
    let Some(mount) = tools.mounts.take_idle(key)? else {
        return Ok(None);
    };
    let state = mount.state()?;
    if let Some(saved) = mount.saved().filter(|saved| saved.state == state)
        && let Some(blob) = &saved.layer.descriptor
        && (tools.store.has(&blob.digest) || !tools.store.sources(&blob.digest).is_empty())
    {
        return Ok(Some(saved.layer));
    }
    let layer = pack(tools, mount.path())?;
    let saved = SavedMount {
        layer: layer.clone(),
        state,
    };
    mount.note_saved(&saved)?;
    Ok(Some(layer))
}

fn pack(tools: &Tools, path: &Path) -> Result<StepLayer> {
    let compression = Compression::parse(Some(COMPRESSION), None).map_err(BuildError::Other)?;
    let mut writer = LayerWriter::new(tools.store.writer()?, compression).map_err(BuildError::Layer)?;
    let options = diff::Options {
        read_only: true,
        limits: tools.layers.limits(),
        ..diff::Options::default()
    };
    diff::write(&Dir::open(path)?, writer.tar(), &options)?;
    writer.finish().map_err(BuildError::Layer)
}
