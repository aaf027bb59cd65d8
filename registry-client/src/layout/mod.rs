//! Images on disk: OCI layouts as directories and as archives, and what `docker save` writes.
//!
//! ```text
//! directory, archive -> docker -> image -> names
//!                       tar
//! write -> names
//! ```

mod archive;
mod directory;
mod docker;
mod image;
mod names;
mod tar;
mod write;

pub use archive::{ArchiveKind, ImageArchive};
pub use directory::{LayoutTarget, layout_names};
pub use image::LayoutImage;
pub use write::{ArchiveTarget, ArchiveWriter};

use serde::Deserialize;

use crate::digest::Digest;
use crate::manifest::{Descriptor, Index, media_type};

/// File that says that a directory is a layout, and of which version.
pub(crate) const LAYOUT_FILE: &str = "oci-layout";
/// What [`LAYOUT_FILE`] holds.
pub(crate) const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// File that lists the images and their names.
pub(crate) const INDEX_FILE: &str = "index.json";
/// Directory of the blobs, each under the hex digits of its digest.
pub(crate) const BLOBS: &str = "blobs/sha256";
/// Annotation by which tools for OCI layouts (skopeo, umoci, crane) find an image.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation by which containerd and docker name an image they load.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Tells whether the content of [`LAYOUT_FILE`] names a version whose files are where we look for them.
pub(crate) fn is_version_1(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    serde_json::from_slice(bytes).is_ok_and(|layout: Layout| layout.image_layout_version.starts_with("1."))
}

/// Makes the list of a layout without images.
pub(crate) fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// Names belong to the entry, not to the image: a descriptor goes out as it came in.
pub(crate) fn without_names(mut entry: Descriptor) -> Descriptor {
    entry.annotations.remove(REF_NAME);
    entry.annotations.remove(CONTAINERD_NAME);
    entry
}

/// Returns the path of a blob within a layout.
fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}
