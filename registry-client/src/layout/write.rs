//! Writing archives of images: an OCI layout in a tar, with docker's list where docker is to load it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Mutex;

use super::archive::ArchiveKind;
use super::docker::MANIFEST_FILE;
use super::names::{self, Entry};
use super::{INDEX_FILE, LAYOUT, LAYOUT_FILE, blob_name, empty_index};
use crate::copy::pour::pour;
use crate::copy::{ImageSink, ImageSource, check_digest};
use crate::digest::{Digest, DigestWriter};
use crate::error::{RegistryError, Result};
use crate::files::stopped;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::progress::{BlobEvent, Progress};
use crate::push::PushedHow;
use crate::reference::Reference;
use crate::store::writer::{TEMPORARY_PREFIX, Temporary, create_temporary, sweep};

const BUFFER_SIZE: usize = 256 * 1024;
const BLOCK: usize = 512;

type Out = Box<dyn Write + Send>;

/// An archive that is being written. Equal images in equal order make equal bytes.
#[derive(Clone)]
pub struct ArchiveWriter {
    kind: ArchiveKind,
    /// For messages.
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    /// `None` while a blob is written, and for good when that failed.
    out: Option<Out>,
    /// The file that becomes the archive when it is complete.
    file: Option<(Temporary, File)>,
    written: HashSet<Digest>,
    entries: Vec<Descriptor>,
    saved: Vec<Saved>,
}

/// An entry of docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl std::fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ArchiveWriter").field(&self.path).finish()
    }
}

impl ArchiveWriter {
    /// Begins an archive as a file, which appears under its name when it is complete. A device or a pipe of that name is
    /// written to as it is, and so is what a link of that name leads to: `/dev/stdout` is one, and stays it.
    ///
    /// # Errors
    /// `Io` when no file can be made beside it.
    pub fn create(path: &Path, kind: ArchiveKind) -> Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) && path.exists() {
            let failed = |error| RegistryError::io("write", path, error);
            let out = File::options().write(true).truncate(true).open(path).map_err(failed)?;
            return Self::start(Box::new(out), None, path, kind).map_err(failed);
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        sweep(directory, TEMPORARY_PREFIX);
        let (temporary, file) = create_temporary(directory)?;
        let failed = |error| RegistryError::io("write", path, error);
        let out = Box::new(file.try_clone().map_err(failed)?);
        let writer = Self::start(out, Some((temporary, file)), path, kind);
        writer.map_err(failed)
    }

    /// Begins an archive that goes to `out` as it is made, such as standard output.
    ///
    /// # Errors
    /// `Io` when nothing can be written.
    pub fn to(out: Box<dyn Write + Send>, kind: ArchiveKind) -> Result<Self> {
        let path = Path::new("-");
        Self::start(out, None, path, kind).map_err(|error| RegistryError::io("write", path, error))
    }

    fn start(out: Out, file: Option<(Temporary, File)>, path: &Path, kind: ArchiveKind) -> io::Result<Self> {
        let mut out: Out = Box::new(BufWriter::with_capacity(BUFFER_SIZE, out));
        for directory in ["blobs/", "blobs/sha256/"] {
            out.write_all(header(directory, 0, true)?.as_bytes())?;
        }
        Ok(Self {
            kind,
            path: path.to_owned(),
            state: Arc::new(Mutex::new(State {
                out: Some(out),
                file,
                written: HashSet::new(),
                entries: Vec::new(),
                saved: Vec::new(),
            })),
        })
    }

    /// Means an image of the archive under a name as it is typed, or under none.
    #[must_use]
    pub fn image(&self, name: Option<&str>) -> ArchiveTarget {
        ArchiveTarget {
            writer: self.clone(),
            entries: vec![Entry::Typed(name.map(str::to_owned))],
        }
    }

    /// Means an image of the archive under several full names, written as `docker buildx build` writes them: containerd's
    /// annotation has the name, OCI's the tag.
    #[must_use]
    pub fn image_named(&self, names: &[Reference]) -> ArchiveTarget {
        ArchiveTarget {
            writer: self.clone(),
            entries: Entry::full(names),
        }
    }

    /// Completes the archive.
    ///
    /// # Errors
    /// `Io`, or `Layout` when a blob before could not be written; then there is no archive.
    pub async fn finish(self) -> Result<()> {
        let mut state = self.state.lock_owned().await;
        let (kind, path) = (self.kind, self.path);
        let finishing = tokio::task::spawn_blocking(move || state.finish(kind, &path));
        finishing.await.map_err(stopped)?
    }

    fn failed(&self, error: io::Error) -> RegistryError {
        RegistryError::io("write", &self.path, error)
    }
}

impl State {
    fn finish(&mut self, kind: ArchiveKind, path: &Path) -> Result<()> {
        let failed = |error| RegistryError::io("write", path, error);
        let mut out = self.take(path)?;
        let mut index = empty_index();
        index.manifests = std::mem::take(&mut self.entries);
        write_member(&mut out, INDEX_FILE, &index.to_bytes()).map_err(failed)?;
        if kind == ArchiveKind::Docker {
            let list = serde_json::to_vec(&self.saved).expect("strings always serialise");
            write_member(&mut out, MANIFEST_FILE, &list).map_err(failed)?;
        }
        write_member(&mut out, LAYOUT_FILE, LAYOUT.as_bytes()).map_err(failed)?;
        out.write_all(&[0; 2 * BLOCK])
            .and_then(|()| out.flush())
            .map_err(failed)?;
        if let Some((temporary, file)) = self.file.take() {
            file.sync_data()
                .and_then(|()| fs::rename(&temporary.path, path))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Takes what is written to; whoever ends well gives it back.
    fn take(&mut self, path: &Path) -> Result<Out> {
        let broken = || RegistryError::layout(path, "a part of it could not be written");
        self.out.take().ok_or_else(broken)
    }

    /// Writes a manifest or an index unless it is there.
    fn put(&mut self, descriptor: &Descriptor, bytes: &[u8], path: &Path) -> Result<()> {
        if !self.written.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        let mut out = self.take(path)?;
        write_member(&mut out, &blob_name(&descriptor.digest), bytes)
            .map_err(|error| RegistryError::io("write", path, error))?;
        self.out = Some(out);
        Ok(())
    }
}

/// A name in an archive that is being written.
#[derive(Clone, Debug)]
pub struct ArchiveTarget {
    writer: ArchiveWriter,
    entries: Vec<Entry>,
}

impl ImageSink for ArchiveTarget {
    fn accepts(&self, root: &Descriptor) -> Result<()> {
        if self.writer.kind == ArchiveKind::Docker && media_type::is_index(&root.media_type) {
            return Err(RegistryError::OnePlatform {
                place: "a docker-archive",
            });
        }
        Ok(())
    }

    fn one_at_a_time(&self) -> bool {
        true
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<PushedHow>> {
        Box::pin(async move {
            let (writer, path) = (&self.writer, &self.writer.path);
            let mut state = writer.state.lock().await;
            if !state.written.insert(descriptor.digest.clone()) {
                progress.blob(&descriptor.digest, BlobEvent::Exists);
                return Ok(PushedHow::Existed);
            }
            let mut out = state.take(path)?;
            let member = header(&blob_name(&descriptor.digest), descriptor.size, false);
            member
                .and_then(|header| out.write_all(header.as_bytes()))
                .map_err(|error| writer.failed(error))?;
            let content = pour(source, descriptor, progress, DigestWriter::new(out), path).await?;
            let (mut out, digest, size) = content.finish();
            let what = format!("blob {} of {}", descriptor.digest, source.label());
            check_digest(descriptor, what, &digest, size)?;
            pad(&mut out, size).map_err(|error| writer.failed(error))?;
            state.out = Some(out);
            progress.blob(&descriptor.digest, BlobEvent::Done);
            Ok(PushedHow::Uploaded)
        })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut state = self.writer.state.lock().await;
            state.put(descriptor, &bytes, &self.writer.path)
        })
    }

    fn name<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut state = self.writer.state.lock().await;
            state.put(descriptor, &bytes, &self.writer.path)?;
            for entry in &self.entries {
                names::put(&mut state.entries, entry.of(descriptor));
            }
            if self.writer.kind == ArchiveKind::Docker {
                let manifest = Manifest::parse(&bytes)?;
                state.saved.push(Saved {
                    config: blob_name(&manifest.config.digest),
                    repo_tags: self.entries.iter().filter_map(Entry::repo_tag).collect(),
                    layers: manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
                });
            }
            Ok(())
        })
    }
}

/// Makes a header that depends on nothing but name and size.
fn header(name: &str, size: u64, is_directory: bool) -> io::Result<::tar::Header> {
    let mut header = ::tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(if is_directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(if is_directory {
        ::tar::EntryType::Directory
    } else {
        ::tar::EntryType::Regular
    });
    header.set_cksum();
    Ok(header)
}

fn write_member(out: &mut Out, name: &str, bytes: &[u8]) -> io::Result<()> {
    let size = bytes.len() as u64;
    out.write_all(header(name, size, false)?.as_bytes())?;
    out.write_all(bytes)?;
    pad(out, size)
}

/// Fills the last block of a member.
fn pad(out: &mut Out, size: u64) -> io::Result<()> {
    let used = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    let rest = if used == 0 { 0 } else { BLOCK - used };
    out.write_all(&[0; BLOCK][..rest])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{Selection, StoreImage, StoreTarget, copy};
    use crate::layout::ImageArchive;
    use crate::progress::NoProgress;
    use crate::store::Store;
    use crate::test_dir::TestDir;
    use crate::test_image::{self, LIES, Lying};

    async fn write(path: &Path, kind: ArchiveKind, store: &Store, images: &[(&str, &Descriptor)]) -> Result<()> {
        let writer = ArchiveWriter::create(path, kind)?;
        for (name, image) in images {
            let source = StoreImage::described(store, image);
            copy(&source, &writer.image(Some(name)), &Selection::All, &NoProgress).await?;
        }
        writer.finish().await
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_equal_images_make_equal_bytes() {
        let dir = TestDir::new("archive-write");
        let store = Store::open(&dir.path().join("store")).unwrap();
        let (one, two) = (test_image::put(&store, "one"), test_image::put(&store, "two"));
        let names = [("r.example/app:1", &one), ("v2", &two), ("again", &one)];
        for kind in [ArchiveKind::Oci, ArchiveKind::Docker] {
            let paths = ["a.tar", "b.tar"].map(|name| dir.path().join(name));
            for path in &paths {
                write(path, kind, &store, &names).await.unwrap();
            }
            assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
            let archive = ImageArchive::open(&paths[0], kind).await.unwrap();
            assert_eq!(archive.names(), ["again", "r.example/app:1", "v2"]);
            let there = Store::open(&dir.path().join(format!("there-{kind:?}"))).unwrap();
            for (name, image) in names {
                let source = archive.image(Some(name)).await.unwrap();
                let target = StoreTarget::named(&there, &"x".parse().unwrap());
                let copied = copy(&source, &target, &Selection::All, &NoProgress).await.unwrap();
                assert_eq!(copied.digest, image.digest);
            }
            assert_eq!(there.check(false).unwrap().findings, []);
        }
    }

    #[tokio::test]
    async fn a_source_that_lies_leaves_no_archive() {
        let dir = TestDir::new("archive-lies");
        let store = Store::open(&dir.path().join("store")).unwrap();
        let image = test_image::put(&store, "one");
        for lie in LIES {
            let path = dir.path().join("a.tar");
            let writer = ArchiveWriter::create(&path, ArchiveKind::Oci).unwrap();
            let source = Lying::new(StoreImage::described(&store, &image), lie);
            let copied = copy(&source, &writer.image(None), &Selection::All, &NoProgress).await;
            copied.unwrap_err();
            writer.finish().await.unwrap_err();
            let left: Vec<_> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["store"], "{lie:?}");
        }
    }

    #[tokio::test]
    async fn a_device_stays_one() {
        let dir = TestDir::new("archive-device");
        let store = Store::open(&dir.path().join("store")).unwrap();
        let image = test_image::put(&store, "one");
        let link = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        write(&link, ArchiveKind::Oci, &store, &[("x", &image)]).await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // As `/dev/stdout` is when it was redirected to a file.
        let (file, link) = (dir.path().join("file"), dir.path().join("stdout"));
        fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, ArchiveKind::Oci, &store, &[("x", &image)]).await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            ImageArchive::open(&file, ArchiveKind::Oci).await.unwrap().names(),
            ["x"]
        );
        write(dir.path(), ArchiveKind::Oci, &store, &[("x", &image)])
            .await
            .unwrap_err();
    }

    #[tokio::test]
    async fn docker_takes_no_index() {
        let dir = TestDir::new("archive-index");
        let writer = ArchiveWriter::create(&dir.path().join("a.tar"), ArchiveKind::Docker).unwrap();
        let index = Descriptor::of(media_type::OCI_INDEX, b"{}");
        let refused = writer.image(None).accepts(&index).unwrap_err();
        assert!(refused.hint().unwrap().contains("--platform"), "{refused}");
    }
}
