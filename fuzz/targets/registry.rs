//! What registries and users send: names, platforms, manifests, indexes, configs. A name prints as something that parses to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_registry_client::{ImageConfig, Index, Manifest, Platform, Reference};

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::parse(&bytes).map(|m| m.to_bytes()).ok(), Some(bytes));
    }
    drop(Index::parse(data));
    if let Ok(config) = ImageConfig::parse(data) {
        drop(config.diff_ids());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
    }
    drop(text.parse::<Platform>());
});
