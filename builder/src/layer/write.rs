//! One pass from entries to a stored layer: tar, diff_id, gzip and digest over bounded buffers.

use super::compress::Gzip;
use super::tar::TarWriter;
use roadstead_registry_client::{BlobWriter, Descriptor, Digest, DigestWriter, Store, media_type};
use std::io::{self, BufWriter};

/// Names a layer by both of its digests.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The blob as stored.
    pub descriptor: Descriptor,
}

/// A layer being written. Its digests can be had only by finishing it.
#[derive(Debug)]
pub struct LayerWriter {
    tar: TarWriter<BufWriter<DigestWriter<Gzip<BlobWriter>>>>,
}

impl LayerWriter {
    /// Begins a layer that goes to `store`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn new(store: &Store) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
        let blob = store.writer().map_err(io::Error::other)?;
        let diff = DigestWriter::new(Gzip::new(blob, threads)?);
        Ok(Self {
            tar: TarWriter::new(BufWriter::with_capacity(128 << 10, diff)),
        })
    }

    /// Gives the archive to append entries to.
    pub fn tar(&mut self) -> &mut TarWriter<BufWriter<DigestWriter<Gzip<BlobWriter>>>> {
        &mut self.tar
    }

    /// Ends the archive and commits the blob.
    ///
    /// # Errors
    /// When writing fails; nothing is stored then.
    pub fn finish(self) -> io::Result<Layer> {
        let buffered = self.tar.finish()?;
        let diff = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        let (gzip, diff_id, _) = diff.finish();
        let (digest, size) = gzip.finish()?.commit().map_err(io::Error::other)?;
        let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size);
        Ok(Layer { diff_id, descriptor })
    }
}
