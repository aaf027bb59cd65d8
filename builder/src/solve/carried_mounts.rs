//! What cache mounts hold, carried between machines as layers.

use super::error::{BuildError, Result};
use super::shared::Shared;
use super::tools::Tools;
use crate::beneath::Dir;
use crate::cache::mounts::{CacheMount, SavedMount};
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

/// Fills a new mount with what was fetched for it. Gives what that was, if there was something.
pub(super) fn fill<'a>(shared: &'a Shared, key: &Digest, path: &Path) -> Result<Option<&'a StepLayer>> {
    let Some(layer) = shared.request.cache_from.mount(key) else {
        return Ok(None);
    };
    let Some(blob) = layer
        .descriptor
        .as_ref()
        .filter(|blob| shared.tools.store.has(&blob.digest))
    else {
        return Ok(None);
    };
    let archive = extract::decompress(shared.tools.store.open_blob(&blob.digest)?).map_err(BuildError::Layer)?;
    let mut archive = DigestReader::new(archive);
    let options = extract::Options {
        layer: false,
        owner: None,
        lowers: &[],
        limits: shared.tools.layers.limits(),
    };
    let failed = |e: String| BuildError::Other(format!("cannot unpack the cache mount {}: {e}", blob.digest));
    extract::extract(&mut archive, &Dir::open(path)?, &options).map_err(|e| failed(e.to_string()))?;
    let found = archive.finish().map_err(|e| failed(e.to_string()))?;
    match found == layer.diff_id {
        true => Ok(Some(layer)),
        false => Err(failed("it holds something else than its cache says".to_owned())),
    }
}

/// Notes that a mount was filled with `layer`: as long as nobody changes it, it needs not be saved again.
pub(super) fn note_filled(mount: &CacheMount, layer: &StepLayer) -> Result<()> {
    let (state, layer) = (mount.state()?, layer.clone());
    Ok(mount.note_saved(&SavedMount { layer, state })?)
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
