//! An image of a layout as a source, wherever the layout's files are.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::names::{Candidate, choose, names_of};
use super::{INDEX_FILE, LAYOUT_FILE, blob_name, is_version_1, without_names};
use crate::copy::{BlobStream, ImageSource, check};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::files::FileSection;
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT, invalid};
use crate::progress::Progress;

/// The file that says the layout's version holds one line.
const LAYOUT_LIMIT: u64 = 4096;

/// Finds the files of a layout.
pub(super) trait Files: Debug + Send + Sync {
    /// Where the layout is, for messages.
    fn path(&self) -> &Path;

    /// Opens a file of the layout's top directory, if it is there.
    fn document(&self, name: &str) -> Result<Option<FileSection>>;

    /// Opens a blob, if it is there.
    fn blob(&self, digest: &Digest) -> Result<Option<FileSection>>;

    /// Returns a manifest that was made here and is in no file.
    fn made(&self, digest: &Digest) -> Option<Bytes> {
        let _ = digest;
        None
    }
}

/// Reads a document of the top directory.
pub(super) fn read_document(files: &dyn Files, name: &str, limit: u64) -> Result<Option<Bytes>> {
    let Some(section) = files.document(name)? else {
        return Ok(None);
    };
    let bytes = section.read_small(limit)?;
    let reason = || format!("`{name}` is larger than {limit} bytes");
    bytes
        .map(Some)
        .ok_or_else(|| RegistryError::layout(files.path(), reason()))
}

/// Reads the entries of a layout's index after making sure that it is a layout.
pub(super) fn read_entries(files: &dyn Files) -> Result<Vec<Descriptor>> {
    let missing =
        |name: &str| RegistryError::layout(files.path(), format!("it has no `{name}`, so it is no OCI layout"));
    let version = read_document(files, LAYOUT_FILE, LAYOUT_LIMIT)?.ok_or_else(|| missing(LAYOUT_FILE))?;
    if !is_version_1(&version) {
        return Err(RegistryError::layout(files.path(), "it is no OCI layout of version 1"));
    }
    let index = read_document(files, INDEX_FILE, MANIFEST_LIMIT)?.ok_or_else(|| missing(INDEX_FILE))?;
    Ok(Index::parse(&index)?.manifests)
}

/// Finds the image of a name among the entries.
pub(super) fn find(path: &Path, entries: &[Descriptor], name: Option<&str>) -> Result<Descriptor> {
    let candidate = |entry| Candidate {
        names: names_of(entry),
        image: &entry.digest,
    };
    let candidates: Vec<_> = entries.iter().map(candidate).collect();
    let digest = *choose(path, &candidates, name)?;
    let found = entries.iter().find(|entry| entry.digest == *digest).cloned();
    found
        .map(without_names)
        .ok_or_else(|| RegistryError::layout(path, "it holds no image"))
}

/// An image of an OCI layout in a directory, or of an archive.
#[derive(Clone, Debug)]
pub struct LayoutImage {
    files: Arc<dyn Files>,
    label: String,
    root: Descriptor,
}

impl LayoutImage {
    pub(super) fn new(files: Arc<dyn Files>, kind: &str, name: Option<&str>, root: Descriptor) -> Self {
        let name = name.map(|name| format!(":{name}")).unwrap_or_default();
        let label = format!("{kind}:{}{name}", files.path().display());
        Self { files, label, root }
    }

    fn open_blob(&self, descriptor: &Descriptor) -> Result<FileSection> {
        let missing = || RegistryError::BlobMissing {
            digest: descriptor.digest.clone(),
            place: format!("`{}`", self.files.path().display()),
        };
        self.files.blob(&descriptor.digest)?.ok_or_else(missing)
    }

    fn what(&self, descriptor: &Descriptor) -> String {
        format!(
            "`{}` of `{}`",
            blob_name(&descriptor.digest),
            self.files.path().display()
        )
    }

    fn read_manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let bytes = match self.files.made(&descriptor.digest) {
            Some(bytes) => bytes,
            None => self
                .open_blob(descriptor)?
                .read_small(MANIFEST_LIMIT)?
                .ok_or_else(|| invalid("manifest", "it is larger than 4 MiB"))?,
        };
        check(descriptor, self.what(descriptor), &bytes)?;
        Ok(bytes)
    }
}

impl ImageSource for LayoutImage {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        Box::pin(async { Ok(self.root.clone()) })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async { self.read_manifest(descriptor) })
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        _progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        Box::pin(async {
            let section = self.open_blob(descriptor)?;
            section.expect_size(descriptor, || self.what(descriptor))?;
            Ok(section.stream())
        })
    }
}
