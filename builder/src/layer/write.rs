//! One pass from entries to a stored layer: tar, diff_id, compression and digest over bounded buffers.

use super::compress::Compressor;
use super::compression::Compression;
use super::tar::TarWriter;
use roadstead_registry_client::{BlobWriter, Descriptor, Digest, DigestWriter};
use std::io::{self, BufWriter, Write};

/// Names a layer by both of its digests.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The blob as stored.
    pub descriptor: Descriptor,
}

/// Names a layer of a stage. One that no image will hold is never compressed: it lies unpacked, and its blob is made when it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StepLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The blob, if there is one.
    pub descriptor: Option<Descriptor>,
    /// What compressed the blob, for one that was made here.
    #[serde(default)]
    pub compressor: Option<String>,
}

impl From<Layer> for StepLayer {
    fn from(layer: Layer) -> Self {
        Self {
            diff_id: layer.diff_id,
            descriptor: Some(layer.descriptor),
            compressor: None,
        }
    }
}

impl StepLayer {
    /// The layer with its blob, if it has one.
    #[must_use]
    pub fn packed(&self) -> Option<Layer> {
        Some(Layer {
            diff_id: self.diff_id.clone(),
            descriptor: self.descriptor.clone()?,
        })
    }
}

/// A layer being written. Its digests can be had only by finishing it.
#[derive(Debug)]
pub struct LayerWriter {
    tar: TarWriter<BufWriter<Output>>,
    compression: Compression,
}

/// Where a layer's tar goes.
#[derive(Debug)]
pub enum Output {
    /// Compressed into the store.
    Blob(Box<DigestWriter<Compressor<BlobWriter>>>),
    /// Nowhere: only its diff_id is wanted.
    DiffId(DigestWriter<io::Sink>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Blob(out) => out.write(bytes),
            Self::DiffId(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LayerWriter {
    /// Begins a layer that goes into `blob`.
    ///
    /// # Errors
    /// When the blob cannot be written.
    pub fn new(blob: BlobWriter, compression: Compression) -> io::Result<Self> {
        let compressor = Compressor::new(blob, compression, threads())?;
        Ok(Self::to(
            Output::Blob(Box::new(DigestWriter::new(compressor))),
            compression,
        ))
    }

    /// Begins a layer of which only the diff_id is wanted.
    #[must_use]
    pub fn diff_id_only() -> Self {
        Self::to(Output::DiffId(DigestWriter::new(io::sink())), Compression::Uncompressed)
    }

    fn to(output: Output, compression: Compression) -> Self {
        Self {
            tar: TarWriter::new(BufWriter::with_capacity(128 << 10, output)),
            compression,
        }
    }

    /// Gives the archive to append entries to.
    pub fn tar(&mut self) -> &mut TarWriter<BufWriter<Output>> {
        &mut self.tar
    }

    /// Ends the archive and commits the blob, if there is to be one.
    ///
    /// # Errors
    /// When writing fails; nothing is stored then.
    pub fn finish(self) -> io::Result<StepLayer> {
        let buffered = self.tar.finish()?;
        match buffered.into_inner().map_err(io::IntoInnerError::into_error)? {
            Output::DiffId(digest) => Ok(StepLayer {
                diff_id: digest.finish().1,
                descriptor: None,
                compressor: None,
            }),
            Output::Blob(diff) => commit(*diff, self.compression),
        }
    }
}

/// Threads that compress one layer.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(8)
}

/// Ends a blob, and describes it.
pub(super) fn commit(diff: DigestWriter<Compressor<BlobWriter>>, compression: Compression) -> io::Result<StepLayer> {
    let (compressor, diff_id, _) = diff.finish();
    let (digest, size) = compressor.finish()?.commit().map_err(io::Error::other)?;
    Ok(StepLayer {
        diff_id,
        descriptor: Some(Descriptor::new(compression.media_type(), digest, size)),
        compressor: Some(compression.to_string()),
    })
}
