//! What the local store knows of a base image, for checks: nothing is asked of a registry.

use super::bases::{MAX_DOCUMENT, pick_platform};
use super::error::Result;
use crate::dockerfile::check::BaseImage;
use roadstead_registry_client::{ImageConfig, Manifest, Platform, Reference, Store};
use serde_json::Value;

/// Reads the config of an image of the store. One for a single platform is given even when it is not the one asked for.
///
/// # Errors
/// A name that is none, and documents of the store that cannot be read.
pub fn stored_base(store: &Store, name: &str, platform: &Platform) -> Result<Option<BaseImage>> {
    let reference: Reference = name.parse()?;
    let Some(descriptor) = store.resolve(&reference)? else {
        return Ok(None);
    };
    let Some(descriptor) = pick_platform(store, descriptor, platform)? else {
        return Ok(None);
    };
    let manifest = Manifest::parse(&store.read_blob(&descriptor.digest, MAX_DOCUMENT)?)?;
    let config = ImageConfig::parse(&store.read_blob(&manifest.config.digest, MAX_DOCUMENT)?)?;
    let strings = |name: &str| -> Vec<String> {
        let list = config
            .raw()
            .pointer(&format!("/config/{name}"))
            .and_then(Value::as_array);
        let words = list.into_iter().flatten().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    };
    Ok(Some(BaseImage {
        env: strings("Env"),
        has_shell: !strings("Shell").is_empty(),
        triggers: strings("OnBuild"),
        platform: config.platform(),
    }))
}
