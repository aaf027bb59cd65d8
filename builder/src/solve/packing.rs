//! From changed files to a layer, and to the blob that an image wants of it.
//!
//! A layer is what its diff_id says; blobs of it differ in their compression. A step's record names the blob that was made first, and a
//! record of its own, by diff_id and compressor, each other one: no choice of compression runs a step again.

use super::error::{BuildError, Result};
use super::shared::Shared;
use super::tools::Tools;
use crate::beneath::Dir;
use crate::cache::key::KeyBuilder;
use crate::cache::local::Record;
use crate::layer::compression::Compression;
use crate::layer::recompress::recompress;
use crate::layer::write::{LayerWriter, StepLayer};
use crate::rootfs::aside::Aside;
use crate::rootfs::diff;
use crate::rootfs::overlay::{ChainId, RootForm, Rootfs};
use roadstead_registry_client::Digest;
use std::path::PathBuf;

/// What a layer's changes are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// The stage itself: it lies unpacked, or is one more change of a tree.
    Unpacked,
    /// A cache, which wants its blob.
    Cached,
    /// An image, which may be pushed while it is made.
    InImage,
}

/// Begins a layer that gets a blob.
fn writer(shared: &Shared, packing: Packing) -> Result<LayerWriter> {
    let blob = shared.tools.store.writer()?;
    if let (Packing::InImage, Some(hook)) = (packing, &shared.request.on_blob) {
        (hook.0)(blob.follow()?);
    }
    LayerWriter::new(blob, shared.request.compression).map_err(BuildError::Layer)
}

/// Writes the changes of `rootfs` as a layer upon `parent`, and keeps them unpacked when they were made upon it (`unpacked_on`).
///
/// A layer that lies unpacked gets a blob only when somebody will hold it.
pub(super) fn keep(
    shared: &Shared,
    mut rootfs: Rootfs,
    parent: &[ChainId],
    unpacked_on: Option<&[ChainId]>,
    aside: &Aside,
    packing: Packing,
) -> Result<Record> {
    if shared.tools.layers.form() == RootForm::Directories {
        return keep_tree(shared, rootfs, parent, unpacked_on, aside, packing);
    }
    rootfs.unmount();
    let stays_unpacked = unpacked_on.is_some() && aside.leave_out.is_empty();
    let writer = if stays_unpacked && packing == Packing::Unpacked {
        LayerWriter::diff_id_only()
    } else {
        writer(shared, packing)?
    };
    let changes = rootfs.changes()?;
    let lowers = unpacked_on.unwrap_or_default();
    let Some(layer) = write_layer(shared, &changes, lowers, &aside.leave_out, writer)? else {
        return Ok(Record::own(None));
    };
    drop(changes);
    if stays_unpacked {
        let id = ChainId::of(parent.last(), &layer.diff_id);
        shared.tools.layers.adopt(rootfs, &id)?;
    }
    Ok(Record::own(Some(layer)))
}

/// Does the same for a tree. All its layers get blobs, since it is changed by the next step: who wants it as it is now makes it of these.
fn keep_tree(
    shared: &Shared,
    mut rootfs: Rootfs,
    parent: &[ChainId],
    unpacked_on: Option<&[ChainId]>,
    aside: &Aside,
    packing: Packing,
) -> Result<Record> {
    let layers = &shared.tools.layers;
    let mut writer = match packing {
        Packing::Unpacked => {
            LayerWriter::new(shared.tools.store.writer()?, Compression::Uncompressed).map_err(BuildError::Layer)?
        }
        Packing::Cached | Packing::InImage => writer(shared, packing)?,
    };
    let options = diff::Options {
        epoch: Some(shared.epoch),
        limits: layers.limits(),
        ..diff::Options::default()
    };
    let count = rootfs.write_changes(writer.tar(), &options, aside)?;
    let layer = match count {
        0 => None,
        _ => Some(writer.finish().map_err(BuildError::Layer)?),
    };
    let id = match &layer {
        Some(layer) => Some(ChainId::of(parent.last(), &layer.diff_id)),
        None => parent.last().cloned(),
    };
    if let (Some(id), Some(layer)) = (&id, layer.as_ref().and_then(StepLayer::packed)) {
        layers.know(id, &shared.tools.store, &layer);
    }
    if let (Some(id), Some(_)) = (&id, unpacked_on)
        && !aside.is_left_in(&Dir::open(rootfs.path())?)
    {
        layers.adopt(rootfs, id)?;
    }
    Ok(Record::own(layer))
}

/// Writes what lies in `changes`, made upon `chain`; `None` when that is nothing.
fn write_layer(
    shared: &Shared,
    changes: &Dir,
    chain: &[ChainId],
    leave_out: &[PathBuf],
    mut writer: LayerWriter,
) -> Result<Option<StepLayer>> {
    let options = diff::Options {
        epoch: Some(shared.epoch),
        leave_out,
        whiteouts: true,
        lowers: &shared.tools.layers.lowers(chain)?,
        limits: shared.tools.layers.limits(),
        ..diff::Options::default()
    };
    let count = diff::write(changes, writer.tar(), &options)?;
    if count == 0 {
        return Ok(None);
    }
    writer.finish().map(Some).map_err(BuildError::Layer)
}

/// Makes the blob of a layer that lies unpacked upon `chain`. One that no longer is what its record says counts as not found.
pub(super) fn pack(
    shared: &Shared,
    chain: &[ChainId],
    diff_id: &Digest,
    packing: Packing,
) -> Result<Option<StepLayer>> {
    let id = ChainId::of(chain.last(), diff_id);
    let unpacked = shared.tools.layers.lowers(std::slice::from_ref(&id))?;
    let Some(changes) = unpacked.first() else {
        return Ok(None);
    };
    let writer = writer(shared, packing)?;
    Ok(write_layer(shared, changes, chain, &[], writer)?.filter(|layer| layer.diff_id == *diff_id))
}

/// Tells whether a layer's blob is one that `compression` makes.
pub(super) fn is_packed_as(layer: &StepLayer, compression: Compression) -> bool {
    layer.descriptor.is_some() && layer.compressor.as_deref() == Some(compression.to_string().as_str())
}

/// Gives a layer that has a blob one in another compression: made before, or made now out of the one it has.
pub(super) fn repack(tools: &Tools, layer: &StepLayer, compression: Compression) -> Result<StepLayer> {
    let mut key = KeyBuilder::new("blob");
    key.add("diff_id", layer.diff_id.to_string())
        .add("compressor", compression.to_string());
    let key = key.finish();
    if let Some(Record { layer: Some(known), .. }) = tools.cache.find(&key)
        && known.diff_id == layer.diff_id
        && is_packed_as(&known, compression)
    {
        return Ok(known);
    }
    let unpacked = || BuildError::Other(format!("the layer {} has no blob", layer.diff_id));
    let packed = layer.packed().ok_or_else(unpacked)?;
    let made = recompress(&tools.store, &packed, compression);
    if made.is_err() {
        // Its file may have changed without a trace: the next build hashes it first.
        tools.store.distrust(&packed.descriptor.digest);
    }
    let record = Record::own(Some(made.map_err(BuildError::Layer)?));
    remember(tools, &key, &record)?;
    record.layer.ok_or_else(unpacked)
}

/// Writes a record, if it is one of this machine's own: what a cache of others says counts for builds that were given it, and no other.
pub(super) fn remember(tools: &Tools, key: &Digest, record: &Record) -> Result<()> {
    if record.is_foreign {
        return Ok(());
    }
    let failed = |e| BuildError::Other(format!("cannot write the cache: {e}"));
    tools.cache.put(key, record).map_err(failed)
}
