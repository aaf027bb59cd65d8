//! Archives of images as sources: OCI layouts in a tar, and what `docker save` writes.

use std::path::Path;
use std::sync::Arc;

use super::blob_name;
use super::docker::{self, Saved};
use super::image::{Files, LayoutImage, find, read_entries};
use super::names::{Candidate, choose, fullest};
use super::tar::TarIndex;
use crate::digest::Digest;
use crate::error::Result;
use crate::files::{FileSection, stopped};
use crate::manifest::Descriptor;

/// What an archive is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI layout in a tar.
    Oci,
    /// What `docker save` writes and `docker load` reads: today an OCI layout with a list of docker's own, formerly that
    /// list alone.
    Docker,
}

impl ArchiveKind {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Oci => "oci-archive",
            Self::Docker => "docker-archive",
        }
    }
}

impl Files for TarIndex {
    fn path(&self) -> &Path {
        self.path()
    }

    fn document(&self, name: &str) -> Result<Option<FileSection>> {
        self.section(name)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<FileSection>> {
        self.section(&blob_name(digest))
    }
}

/// An archive of images, opened for reading.
#[derive(Clone, Debug)]
pub struct ImageArchive {
    kind: ArchiveKind,
    files: Arc<TarIndex>,
    images: Images,
}

#[derive(Clone, Debug)]
enum Images {
    Layout(Vec<Descriptor>),
    Saved(Vec<Saved>),
}

impl ImageArchive {
    /// Opens an archive, and finds its members without unpacking anything. One compressed by gzip is decompressed into a
    /// temporary file that has no name; so is one that comes through a pipe.
    ///
    /// # Errors
    /// `Layout` when it is no tar, is damaged, compressed otherwise, or holds no images of this kind; `InvalidDocument`;
    /// `Io`.
    ///
    /// # Source
    /// Image Layout Specification of OCI, version 1; Docker Image Specification 1.2.
    pub async fn open(path: &Path, kind: ArchiveKind) -> Result<Self> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&path, kind));
        opened.await.map_err(stopped)?
    }

    fn open_now(path: &Path, kind: ArchiveKind) -> Result<Self> {
        let files = Arc::new(TarIndex::open(path)?);
        let is_layout = kind == ArchiveKind::Oci || files.section(super::INDEX_FILE)?.is_some();
        let images = if is_layout {
            Images::Layout(read_entries(&*files)?)
        } else {
            Images::Saved(docker::read_saved(&files)?)
        };
        Ok(Self { kind, files, images })
    }

    /// Lists the names of its images, sorted. An image without a name is not among them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let list = match &self.images {
            Images::Layout(entries) => return fullest(entries),
            Images::Saved(list) => list,
        };
        let tags = list.iter().filter_map(|saved| saved.repo_tags.as_ref()).flatten();
        let mut names: Vec<String> = tags.cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Opens the image of a name, or the only one. An image that docker saved in its old form has no manifest: one is
    /// made, always the same, and its layers are read for it.
    ///
    /// # Errors
    /// `Layout` when there is no such image, several may be meant, or a file of it is missing; `DigestMismatch` when a
    /// layer is not the one its configuration lists.
    pub async fn image(&self, name: Option<&str>) -> Result<LayoutImage> {
        let path = self.files.path();
        let list = match &self.images {
            Images::Layout(entries) => {
                let root = find(path, entries, name)?;
                return Ok(self.opened(Arc::clone(&self.files) as _, name, root));
            }
            Images::Saved(list) => list,
        };
        let candidates: Vec<Candidate<'_, &Saved>> = list
            .iter()
            .map(|saved| Candidate {
                names: saved.repo_tags.iter().flatten().map(String::as_str).collect(),
                image: saved,
            })
            .collect();
        let saved = (*choose(path, &candidates, name)?).clone();
        let archive = Arc::clone(&self.files);
        let described = tokio::task::spawn_blocking(move || docker::describe(&archive, &saved));
        let (files, root) = described.await.map_err(stopped)??;
        Ok(self.opened(Arc::new(files), name, root))
    }

    fn opened(&self, files: Arc<dyn Files>, name: Option<&str>, root: Descriptor) -> LayoutImage {
        LayoutImage::new(files, self.kind.prefix(), name, root)
    }
}

#[cfg(test)]
mod tests;
