//! Layers and configs to manifests, and manifests to an index, in the store.

use super::config::ImageState;
use super::form::{Form, Place};
use crate::cache::document::CacheDocument;
use crate::layer::write::Layer;
use roadstead_registry_client::{Descriptor, Digest, Index, Manifest, Platform, Result, Store, media_type};

/// An image that lies in the store, save for base layers that were not needed here.
#[derive(Debug, Clone)]
pub struct Image {
    /// Points to the manifest, or to the index.
    pub descriptor: Descriptor,
    /// Digest of the config; an index has none.
    pub config_digest: Option<Digest>,
}

impl Image {
    /// What docker calls the image's id: the digest of the config, or of an index.
    #[must_use]
    pub fn id(&self) -> &Digest {
        self.config_digest.as_ref().unwrap_or(&self.descriptor.digest)
    }
}

/// Writes config and manifest of the image for `platform`; the config holds `inline_cache`, if that is given.
///
/// # Errors
/// `InvalidDocument` when a layer has no media type of docker's and shall have one; when the store cannot be written.
pub fn manifest(
    store: &Store,
    state: &ImageState,
    platform: &Platform,
    layers: &[Layer],
    created: &str,
    inline_cache: Option<&CacheDocument>,
    form: &Form,
) -> Result<Image> {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id.clone()).collect();
    let config = state.to_bytes(created, &diff_ids, inline_cache);
    let config_digest = store.put(&config)?;
    let (manifest_type, config_type) = match form.docker_types {
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
    };
    let layers = layers.iter().map(|l| layer(&l.descriptor, form.docker_types));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        artifact_type: None,
        config: Descriptor::of(config_type, &config),
        layers: layers.collect::<Result<_>>()?,
        annotations: form.annotations.of(Place::Manifest, platform),
        subject: None,
    };
    let bytes = manifest.to_bytes();
    store.put(&bytes)?;
    let mut descriptor = Descriptor::of(manifest_type, &bytes);
    descriptor.platform = Some(state.platform.clone());
    descriptor.annotations = form.annotations.of(Place::ManifestDescriptor, platform);
    Ok(Image {
        descriptor,
        config_digest: Some(config_digest),
    })
}

/// Writes an index over images, each with the platform it was asked for.
///
/// # Errors
/// When the store cannot be written.
pub fn index(store: &Store, images: Vec<(Platform, Image)>, form: &Form) -> Result<Image> {
    let kind = match form.docker_types {
        false => media_type::OCI_INDEX,
        true => media_type::DOCKER_LIST,
    };
    let entry = |(platform, image): (Platform, Image)| Descriptor {
        platform: Some(platform),
        ..image.descriptor
    };
    let index = Index {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        artifact_type: None,
        manifests: images.into_iter().map(entry).collect(),
        subject: None,
        annotations: form.annotations.of_index(Place::Index),
    };
    let bytes = index.to_bytes();
    store.put(&bytes)?;
    let mut descriptor = Descriptor::of(kind, &bytes);
    descriptor.annotations = form.annotations.of_index(Place::IndexDescriptor);
    Ok(Image {
        descriptor,
        config_digest: None,
    })
}

/// A layer under the other family's name: the bytes are the same.
fn layer(layer: &Descriptor, docker: bool) -> Result<Descriptor> {
    use media_type::{DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, OCI_LAYER_GZIP, OCI_LAYER_TAR};
    let name = match (layer.media_type.as_str(), docker) {
        (DOCKER_LAYER_GZIP | OCI_LAYER_GZIP, false) => OCI_LAYER_GZIP,
        (DOCKER_LAYER_GZIP | OCI_LAYER_GZIP, true) => DOCKER_LAYER_GZIP,
        (DOCKER_LAYER_TAR | OCI_LAYER_TAR, false) => OCI_LAYER_TAR,
        (DOCKER_LAYER_TAR | OCI_LAYER_TAR, true) => DOCKER_LAYER_TAR,
        (other, false) => other,
        (other, true) => {
            return Err(roadstead_registry_client::Error::InvalidDocument {
                what: "image manifest",
                reason: format!(
                    "docker has no media type for a layer of type `{other}`: add `force-compression=true`, or leave out `oci-mediatypes=false`"
                ),
            });
        }
    };
    // Annotations of the base's manifest are the base's.
    Ok(Descriptor::new(name, layer.digest.clone(), layer.size))
}
