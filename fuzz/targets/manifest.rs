//! What registries send of an image: written again, a document means what it meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_registry_client::{ImageConfig, Index, Manifest, Platform};

/// Longer words are shown shortened, and do not parse to themselves.
const SHOWN: usize = 200;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::parse(&bytes).ok().as_ref(), Some(&manifest));
        assert_eq!(manifest.schema_version, 2);
    }
    if let Ok(index) = Index::parse(data) {
        assert_eq!(Index::parse(&index.to_bytes()).ok().as_ref(), Some(&index));
        let platforms = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
        for platform in platforms {
            assert!(platform.matches(platform));
        }
    }
    if let Ok(config) = ImageConfig::parse(data) {
        let again = ImageConfig::parse(&config.to_bytes()).expect("it is written as it was read");
        // Numbers with a fraction may be rounded once; from then on the bytes stay.
        assert_eq!(again.platform(), config.platform());
        assert_eq!(again.diff_ids().ok(), config.diff_ids().ok());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(platform) = text.parse::<Platform>() {
        assert!(platform.matches(&platform));
        if text.len() <= SHOWN {
            assert_eq!(platform.to_string().parse::<Platform>().ok(), Some(platform));
        }
    }
});
