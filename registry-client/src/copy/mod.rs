//! Copying images from place to place: registries, stores, layouts and archives are sources and sinks of one algorithm.
//!
//! Blobs go first, children before their index, and the name last: whatever fails before leaves the name as it was.

mod composed;
mod plan;
pub(crate) mod pour;
mod registry;
mod store;

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};

pub use composed::ComposedIndex;
pub use registry::{RegistryImage, RegistryTarget};
pub use store::{StoreImage, StoreTarget};

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::platform::Platform;
use crate::progress::{NoProgress, Progress};
use crate::push::PushedHow;
use crate::reference::Reference;
use plan::Plan;

/// Blobs looked at side by side.
const BLOBS_AT_ONCE: usize = 16;

/// Content of a blob, in pieces of at most some hundred KiB.
pub type BlobStream<'a> = BoxStream<'a, Result<Bytes>>;

/// An image that can be read: one name at one place.
///
/// # Guarantees
/// Documents come checked against their digest. Blobs need not be: a sink that is the last to see them checks them.
/// A blob may be opened several times, and several at once.
pub trait ImageSource: Send + Sync {
    /// Names the image in messages.
    fn label(&self) -> String;

    /// Says what the name means: an index, or a manifest.
    ///
    /// # Errors
    /// `NotFound` when there is no such name.
    fn root(&self) -> BoxFuture<'_, Result<Descriptor>>;

    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// `DigestMismatch`, `SizeMismatch`, `InvalidDocument` above 4 MiB, or an error of the place.
    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>>;

    /// Opens a blob at its beginning. A source that must wait and try again says so to `progress`.
    ///
    /// # Errors
    /// `BlobMissing`, `BlobUnknown` or `Layout` when it is not there.
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>>;

    /// Tells whether a blob can be had, without moving it where that can be.
    ///
    /// # Errors
    /// When the place cannot be asked.
    fn has_blob<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(self.blob(descriptor, &NoProgress).await.is_ok()) })
    }

    /// Learns that a blob it sent was another one. Returns whether it can be had elsewhere: then it may be opened again.
    fn distrust(&self, digest: &Digest) -> bool {
        let _ = digest;
        false
    }

    /// Lists repositories known to have a blob, the likeliest first: a registry may mount it from there.
    fn repositories(&self, digest: &Digest) -> Vec<Reference> {
        let _ = digest;
        Vec::new()
    }
}

/// A place an image can be written to, under one name.
///
/// # Guarantees
/// [`ImageSink::name`] is called last, once everything else has arrived. Until then nobody sees the image.
pub trait ImageSink: Send + Sync {
    /// Looks at the image before anything moves, and refuses what can never be written.
    ///
    /// # Errors
    /// What is wrong with it.
    fn accepts(&self, root: &Descriptor) -> Result<()> {
        let _ = root;
        Ok(())
    }

    /// Whether blobs must come one after the other, in the order of the manifests.
    fn one_at_a_time(&self) -> bool {
        false
    }

    /// Takes a blob, from `source` unless it can be had in a cheaper way. Several come at once; the sink bounds how many
    /// move.
    ///
    /// # Errors
    /// `DigestMismatch` or `SizeMismatch` when the source sent something else, or an error of the place.
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<PushedHow>>;

    /// Takes a manifest or index below the named one.
    ///
    /// # Errors
    /// An error of the place.
    fn manifest<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Takes the manifest or index that the name shall mean from now on.
    ///
    /// # Errors
    /// An error of the place.
    fn name<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>>;
}

/// Says which images of an index are meant. An image without an index is always meant, save that it is made for another
/// platform than the one asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The index with all images in it, attestations too.
    All,
    /// The image for one platform; the index is left behind.
    Platform(Platform),
    /// The index as it is, with the images of these platforms only. What refers to the index by its digest goes on
    /// working; its other images are missing.
    Sparse(BTreeSet<Platform>),
    /// The index as it is, with those of its images that the source has; at least one.
    Present,
}

/// Copies an image. Returns what the name at the sink now means.
///
/// # Errors
/// `NotFound`, `NoPlatform`, or whatever source and sink meet; then the name at the sink means what it meant before.
pub async fn copy(
    source: &dyn ImageSource,
    sink: &dyn ImageSink,
    selection: &Selection,
    progress: &dyn Progress,
) -> Result<Descriptor> {
    let plan = Plan::read(source, selection).await?;
    sink.accepts(&plan.root.descriptor)?;
    progress.plan(&plan.blobs);
    if sink.one_at_a_time() {
        for blob in &plan.blobs {
            sink.blob(blob, source, progress).await?;
        }
    } else {
        let blobs = plan.blobs.iter().map(|blob| sink.blob(blob, source, progress));
        let blobs: Vec<BoxFuture<'_, Result<PushedHow>>> = blobs.collect();
        // Each holds files open; how many move is for the sink to say.
        let mut running = futures_util::stream::iter(blobs).buffer_unordered(BLOBS_AT_ONCE);
        while running.try_next().await?.is_some() {}
    }
    for document in &plan.children {
        sink.manifest(&document.descriptor, document.bytes.clone()).await?;
    }
    sink.name(&plan.root.descriptor, plan.root.bytes.clone()).await?;
    Ok(plan.root.descriptor)
}

/// Finds the manifest or index that a selection means. Returns its descriptor and its bytes.
///
/// # Errors
/// `NotFound`, `NoPlatform`, or an error of the source.
pub async fn select(source: &dyn ImageSource, selection: &Selection) -> Result<(Descriptor, Vec<u8>)> {
    let found = plan::select(source, selection).await?;
    Ok((found.descriptor, found.bytes.to_vec()))
}

/// Reads a small blob, and checks it.
///
/// # Errors
/// `BlobTooLarge` above `limit` bytes, `SizeMismatch`, `DigestMismatch`, or an error of the source.
pub async fn read_small(source: &dyn ImageSource, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    if descriptor.size > limit {
        return Err(RegistryError::BlobTooLarge {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            limit,
        });
    }
    let mut content = source.blob(descriptor, &NoProgress).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = content.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > descriptor.size {
            break;
        }
    }
    let what = format!("blob {} of {}", descriptor.digest, source.label());
    check(descriptor, what, &bytes)?;
    Ok(bytes)
}

/// Compares bytes with their descriptor.
pub(crate) fn check(descriptor: &Descriptor, what: String, bytes: &[u8]) -> Result<()> {
    check_digest(descriptor, what, &Digest::of(bytes), bytes.len() as u64)
}

/// Compares what was read with its descriptor.
pub(crate) fn check_digest(descriptor: &Descriptor, what: String, digest: &Digest, size: u64) -> Result<()> {
    if size != descriptor.size {
        return Err(RegistryError::SizeMismatch {
            what,
            expected: descriptor.size,
            actual: size,
        });
    }
    if *digest == descriptor.digest {
        return Ok(());
    }
    Err(RegistryError::DigestMismatch {
        what,
        expected: descriptor.digest.clone(),
        actual: digest.clone(),
    })
}
