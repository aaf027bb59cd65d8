//! What `docker save` writes without an OCI layout: configurations and layers that `manifest.json` lists.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::image::Files;
use super::tar::{TarIndex, compression, normalise};
use crate::digest::{Digest, DigestWriter, shorten};
use crate::error::{RegistryError, Result};
use crate::files::FileSection;
use crate::image_config::{CONFIG_LIMIT, ImageConfig};
use crate::manifest::{Descriptor, MANIFEST_LIMIT, Manifest, media_type};

/// File in which docker lists what it has saved.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
const PIECE_SIZE: u64 = 256 * 1024;

/// One image of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Option<Vec<String>>,
}

/// Reads docker's list.
pub(super) fn read_saved(archive: &TarIndex) -> Result<Vec<Saved>> {
    let refuse = |reason: String| RegistryError::layout(archive.path(), reason);
    let section = archive
        .section(MANIFEST_FILE)?
        .ok_or_else(|| refuse(format!("it has no `{MANIFEST_FILE}`, so `docker save` has not made it")))?;
    let bytes = section
        .read_small(MANIFEST_LIMIT)?
        .ok_or_else(|| refuse(format!("`{MANIFEST_FILE}` is larger than 4 MiB")))?;
    serde_json::from_slice(&bytes).map_err(|error| refuse(format!("`{MANIFEST_FILE}` cannot be read: {error}")))
}

/// Files of one saved image by their digests, with the manifest that was made of them.
#[derive(Debug)]
pub(super) struct SavedFiles {
    archive: Arc<TarIndex>,
    blobs: HashMap<Digest, FileSection>,
    manifest: (Digest, Bytes),
}

impl Files for SavedFiles {
    fn path(&self) -> &Path {
        self.archive.path()
    }

    fn document(&self, name: &str) -> Result<Option<FileSection>> {
        self.archive.section(name)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<FileSection>> {
        Ok(self.blobs.get(digest).cloned())
    }

    fn made(&self, digest: &Digest) -> Option<Bytes> {
        (self.manifest.0 == *digest).then(|| self.manifest.1.clone())
    }
}

/// Makes a manifest for a saved image: its layers are read once for their digests, its configuration stays as it is.
pub(super) fn describe(archive: &Arc<TarIndex>, saved: &Saved) -> Result<(SavedFiles, Descriptor)> {
    let mut blobs = HashMap::new();
    let config_section = member(archive, &saved.config)?;
    let config_bytes = config_section
        .read_small(CONFIG_LIMIT)?
        .ok_or_else(|| RegistryError::layout(archive.path(), "an image configuration is larger than 8 MiB"))?;
    let diff_ids = ImageConfig::parse(&config_bytes)?.diff_ids()?;
    let config = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
    blobs.insert(config.digest.clone(), config_section);
    let names = saved.layers.as_deref().unwrap_or_default();
    if names.len() != diff_ids.len() {
        let (have, want) = (names.len(), diff_ids.len());
        let reason = format!("an image has {have} layers, and its configuration lists {want}");
        return Err(RegistryError::layout(archive.path(), reason));
    }
    let mut known: HashMap<u64, Descriptor> = HashMap::new();
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(&diff_ids) {
        let section = member(archive, name)?;
        let layer = match known.get(&section.start()) {
            Some(layer) => layer.clone(),
            None => describe_layer(&section)?,
        };
        if layer.media_type == media_type::OCI_LAYER_TAR && layer.digest != *diff_id {
            return Err(RegistryError::DigestMismatch {
                what: format!("layer `{}` of `{}`", shorten(name), archive.path().display()),
                expected: diff_id.clone(),
                actual: layer.digest,
            });
        }
        known.insert(section.start(), layer.clone());
        blobs.insert(layer.digest.clone(), section);
        layers.push(layer);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = manifest.to_bytes();
    let root = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    let files = SavedFiles {
        archive: Arc::clone(archive),
        blobs,
        manifest: (root.digest.clone(), bytes.into()),
    };
    Ok((files, root))
}

fn member(archive: &TarIndex, name: &str) -> Result<FileSection> {
    let missing = || {
        let reason = format!("`{MANIFEST_FILE}` names `{}`, which is not there", shorten(name));
        RegistryError::layout(archive.path(), reason)
    };
    let name = normalise("", name.as_bytes()).ok_or_else(missing)?;
    archive.section(&name)?.ok_or_else(missing)
}

fn describe_layer(section: &FileSection) -> Result<Descriptor> {
    let mut hash = DigestWriter::new(std::io::sink());
    let mut kind = media_type::OCI_LAYER_TAR;
    while hash.written() < section.length() {
        let length = PIECE_SIZE.min(section.length() - hash.written());
        let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
        section.read_at(hash.written(), &mut piece)?;
        if hash.written() == 0 {
            kind = match compression(&piece) {
                Some("gzip") => media_type::OCI_LAYER_GZIP,
                Some("zstd") => media_type::OCI_LAYER_ZSTD,
                _ => kind,
            };
        }
        let hashed = hash.write_all(&piece);
        hashed.map_err(|error| RegistryError::io("hash", Path::new("memory"), error))?;
    }
    let (_, digest, size) = hash.finish();
    Ok(Descriptor::new(kind, digest, size))
}
