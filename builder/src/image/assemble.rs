//! Layers and config to a manifest in the store.

use super::config::ImageState;
use crate::layer::write::Layer;
use roadstead_registry_client::{Descriptor, Digest, Manifest, Result, Store, media_type};
use std::collections::BTreeMap;

/// An image that lies in the store, save for base layers that were not needed here.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// Digest of the config: docker's image id.
    pub config_digest: Digest,
}

/// Writes config and manifest.
///
/// Media types are OCI's; a base layer with docker's type is the same bytes under the OCI name.
///
/// # Errors
/// When the store cannot be written.
pub fn assemble(store: &Store, state: &ImageState, layers: &[Layer], created: &str) -> Result<Image> {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id.clone()).collect();
    let config = state.to_bytes(created, &diff_ids);
    let config_digest = store.put(&config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, &config),
        layers: layers.iter().map(|l| oci_layer(&l.descriptor)).collect(),
        annotations: BTreeMap::new(),
        subject: None,
    };
    let bytes = manifest.to_bytes();
    store.put(&bytes)?;
    let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    descriptor.platform = Some(state.platform.clone());
    Ok(Image {
        descriptor,
        config_digest,
    })
}

fn oci_layer(layer: &Descriptor) -> Descriptor {
    let name = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_TAR => media_type::OCI_LAYER_TAR,
        other => other,
    };
    // Annotations of the base's manifest are the base's.
    Descriptor::new(name, layer.digest.clone(), layer.size)
}
