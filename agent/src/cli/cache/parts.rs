//! The parts of the data directory that builds share.

use std::path::Path;

use roadstead_builder::cache::local::LocalCache;
use roadstead_builder::rootfs::overlay::Layers;
use roadstead_builder::rootfs::scratch::Scratch;
use roadstead_registry_client::Store;

use crate::error::CliError;

/// All of them, opened.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) layers: Layers,
    pub(super) cache: LocalCache,
    /// Where what is removed goes first; it keeps what builds need that may still run.
    _scratch: Scratch,
}

impl Parts {
    pub(super) fn open(data: &Path) -> Result<Self, CliError> {
        let scratch = Scratch::new(&data.join("tmp")).map_err(CliError::failed)?;
        let store = Store::open(&data.join("store")).map_err(CliError::registry)?;
        Ok(Self {
            layers: Layers::open(&data.join("layers"), &scratch.path()).map_err(CliError::failed)?,
            cache: LocalCache::open(&data.join("cache"), &store).map_err(CliError::failed)?,
            store,
            _scratch: scratch,
        })
    }
}
