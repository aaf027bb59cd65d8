//! What a build works with.

use crate::cache::local::LocalCache;
use crate::cache::mounts::CacheMounts;
use crate::progress::Progress;
use crate::rootfs::overlay::Layers;
use crate::sandbox::Place;
use roadstead_registry_client::{Client, Store};
use std::path::PathBuf;

/// The stores, caches and connections of a build.
#[derive(Debug)]
pub struct Tools {
    /// Blobs and names.
    pub store: Store,
    /// Registries.
    pub client: Client,
    /// Unpacked layers.
    pub layers: Layers,
    /// Remembered steps.
    pub cache: LocalCache,
    /// Directories of `RUN --mount=type=cache`.
    pub mounts: CacheMounts,
    /// Where progress goes.
    pub progress: Progress,
    /// A directory for temporary files, removed by the caller.
    pub scratch: PathBuf,
    /// What commands run in here.
    pub place: Place,
}
