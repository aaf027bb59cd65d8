//! A layer's blob compressed anew: one pass over bounded buffers, checked against its diff_id.

use super::compress::Compressor;
use super::compression::Compression;
use super::extract;
use super::write::{Layer, StepLayer, commit, threads};
use roadstead_registry_client::{DigestWriter, Store};
use std::io;

/// Reads the blob of `layer` and stores its archive in another compression.
///
/// # Errors
/// When the blob is not there, is damaged, or holds another archive than its diff_id says.
pub fn recompress(store: &Store, layer: &Layer, compression: Compression) -> io::Result<StepLayer> {
    let blob = store.open_blob(&layer.descriptor.digest).map_err(io::Error::other)?;
    let mut archive = extract::decompress(blob)?;
    let compressor = Compressor::new(store.writer().map_err(io::Error::other)?, compression, threads())?;
    let mut diff = DigestWriter::new(compressor);
    io::copy(&mut archive, &mut diff)?;
    let made = commit(diff, compression)?;
    if made.diff_id != layer.diff_id {
        return Err(io::Error::other(format!(
            "layer {} unpacks to {}, but the image config says {}",
            layer.descriptor.digest, made.diff_id, layer.diff_id
        )));
    }
    Ok(made)
}
