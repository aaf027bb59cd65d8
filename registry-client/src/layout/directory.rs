//! An OCI image layout in a directory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::image::{Files, LayoutImage, find, read_document, read_entries};
use super::names::{self, Entry};
use super::{BLOBS, INDEX_FILE, LAYOUT, LAYOUT_FILE, empty_index};
use crate::copy::pour::store_blob;
use crate::copy::{ImageSink, ImageSource};
use crate::digest::{Digest, DigestWriter};
use crate::error::{RegistryError, Result};
use crate::files::{FileSection, stopped};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT};
use crate::progress::{BlobEvent, Progress};
use crate::push::PushedHow;
use crate::reference::Reference;
use crate::store::BlobWriter;
use crate::store::claim::claim;
use crate::store::writer::{TEMPORARY_PREFIX, replace, sweep};

/// Held while `index.json` is changed, and gone afterwards.
const LOCK_FILE: &str = ".roadstead-lock";

/// A layout's directories, opened one after the other, so that no symbolic link in it leads elsewhere.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    root: OwnedFd,
    /// `None` where there is none: then there are no blobs.
    blobs: Option<OwnedFd>,
}

impl Directory {
    fn open(path: &Path) -> Result<Self> {
        let root = openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| RegistryError::io("open", path, error.into()))?;
        let mut blobs = Some(
            root.try_clone()
                .map_err(|error| RegistryError::io("open", path, error))?,
        );
        for part in BLOBS.split('/') {
            blobs = match blobs {
                Some(parent) => open_at(&parent, part, OFlags::DIRECTORY, path)?,
                None => None,
            };
        }
        Ok(Self {
            path: path.to_owned(),
            root,
            blobs,
        })
    }

    fn section(&self, directory: &OwnedFd, name: &str) -> Result<Option<FileSection>> {
        // Opening a pipe or a terminal does not wait for its other end.
        let Some(file) = open_at(directory, name, OFlags::NONBLOCK | OFlags::NOCTTY, &self.path)? else {
            return Ok(None);
        };
        let file = File::from(file);
        let meta = file
            .metadata()
            .map_err(|error| RegistryError::io("read", &self.path, error))?;
        if !meta.is_file() {
            let reason = format!("`{name}` in it is not a regular file");
            return Err(RegistryError::layout(&self.path, reason));
        }
        FileSection::whole(file, &self.path.join(name)).map(Some)
    }
}

impl Files for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn document(&self, name: &str) -> Result<Option<FileSection>> {
        self.section(&self.root, name)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<FileSection>> {
        match &self.blobs {
            Some(blobs) => self.section(blobs, digest.hex()),
            None => Ok(None),
        }
    }
}

fn open_at(directory: &impl AsFd, name: &str, flags: OFlags, layout: &Path) -> Result<Option<OwnedFd>> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            let reason = format!("`{name}` in it is a symbolic link, or not what it should be");
            Err(RegistryError::layout(layout, reason))
        }
        Err(error) => Err(RegistryError::io("open", &layout.join(name), io::Error::from(error))),
    }
}

impl LayoutImage {
    /// Opens an image of an OCI layout in a directory. The name is one of its `index.json` (annotations
    /// `org.opencontainers.image.ref.name` and `io.containerd.image.name`), a full name or a tag; without one, the only
    /// image is meant. Symbolic links in the directory are not followed, and what is no regular file is not read.
    ///
    /// # Errors
    /// `Layout` when it is no layout, or holds no such image, or several that may be meant; `InvalidDocument` when
    /// `index.json` is not JSON of its shape; `Io`.
    ///
    /// # Source
    /// Image Layout Specification of OCI, version 1.
    pub fn open(directory: &Path, name: Option<&str>) -> Result<Self> {
        let files = Directory::open(directory)?;
        let root = find(directory, &read_entries(&files)?, name)?;
        Ok(Self::new(Arc::new(files), "oci", name, root))
    }
}

/// Lists the names in an OCI layout in a directory, sorted. An image without a name is not among them.
///
/// # Errors
/// As for [`LayoutImage::open`].
pub fn layout_names(directory: &Path) -> Result<Vec<String>> {
    Ok(names::fullest(&read_entries(&Directory::open(directory)?)?))
}

/// A place in an OCI layout in a directory: blobs by their digest, the image by its name.
#[derive(Clone, Debug)]
pub struct LayoutTarget {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl LayoutTarget {
    /// Makes the directory where there is none; it is a layout once an image has a name in it. The name is kept as it is typed, in the annotation
    /// `org.opencontainers.image.ref.name`, so that skopeo and umoci find it under the same text. Other images stay; one
    /// of the same name loses it.
    ///
    /// # Errors
    /// `Layout` when the directory holds something that is no layout; `Io`.
    pub fn create(directory: &Path, name: Option<&str>) -> Result<Self> {
        Self::with_entries(directory, vec![Entry::Typed(name.map(str::to_owned))])
    }

    /// As [`LayoutTarget::create`], under several full names, written as `docker buildx build` writes them: containerd's annotation
    /// has the name, OCI's the tag.
    ///
    /// # Errors
    /// As [`LayoutTarget::create`].
    pub fn create_named(directory: &Path, names: &[Reference]) -> Result<Self> {
        Self::with_entries(directory, Entry::full(names))
    }

    fn with_entries(directory: &Path, entries: Vec<Entry>) -> Result<Self> {
        let blobs = directory.join(BLOBS);
        let made = |path: &Path| fs::create_dir_all(path).map_err(|error| RegistryError::io("create", path, error));
        made(directory)?;
        let files = Directory::open(directory)?;
        if files.document(LAYOUT_FILE)?.is_some() {
            read_entries(&files)?;
        } else if has_others(directory)? {
            let reason = "it is a directory of other files, and no OCI layout";
            return Err(RegistryError::layout(directory, reason));
        }
        made(&blobs)?;
        sweep(&blobs, TEMPORARY_PREFIX);
        Ok(Self {
            path: directory.to_owned(),
            entries,
        })
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(BLOBS).join(digest.hex())
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        fs::symlink_metadata(self.blob_path(&descriptor.digest))
            .is_ok_and(|meta| meta.is_file() && meta.len() == descriptor.size)
    }

    /// Tells whether a blob is there. Others write layouts, too: its content is read.
    async fn has_whole(&self, descriptor: &Descriptor) -> Result<bool> {
        if !self.has(descriptor) {
            return Ok(false);
        }
        let path = self.blob_path(&descriptor.digest);
        let hashing = tokio::task::spawn_blocking(move || {
            let failed = |error| RegistryError::io("read", &path, error);
            let mut hash = DigestWriter::new(io::sink());
            let mut file = File::open(&path).map_err(failed)?;
            io::copy(&mut file, &mut hash).map_err(failed)?;
            Ok(hash.finish().1)
        });
        Ok(hashing.await.map_err(stopped)?? == descriptor.digest)
    }

    fn writer(&self) -> Result<BlobWriter> {
        let blobs = self.path.join(BLOBS);
        BlobWriter::create(&blobs, &blobs)
    }

    fn put(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        if self.has(descriptor) {
            return Ok(());
        }
        let mut writer = self.writer()?;
        io::Write::write_all(&mut writer, bytes)
            .map_err(|error| RegistryError::io("write", &self.blob_path(&descriptor.digest), error))?;
        writer.commit_expecting(&descriptor.digest, Some(descriptor.size))
    }

    async fn enter(&self, descriptor: &Descriptor) -> Result<()> {
        let lock = claim(&self.path.join(LOCK_FILE)).await?;
        let files = Directory::open(&self.path)?;
        let mut index = match read_document(&files, INDEX_FILE, MANIFEST_LIMIT)? {
            Some(bytes) => Index::parse(&bytes)?,
            None => empty_index(),
        };
        for entry in &self.entries {
            names::put(&mut index.manifests, entry.of(descriptor));
        }
        let blobs = self.path.join(BLOBS);
        let mut result = replace(&blobs, &self.path.join(INDEX_FILE), &index.to_bytes());
        if result.is_ok() && files.document(LAYOUT_FILE)?.is_none() {
            result = replace(&blobs, &self.path.join(LAYOUT_FILE), LAYOUT.as_bytes());
        }
        drop(lock);
        result
    }
}

/// Tells whether a directory holds anything besides what an unfinished copy has left.
fn has_others(directory: &Path) -> Result<bool> {
    let failed = |error| RegistryError::io("read", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != "blobs" && !name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl ImageSink for LayoutTarget {
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<PushedHow>> {
        Box::pin(async move {
            if self.has_whole(descriptor).await? {
                progress.blob(&descriptor.digest, BlobEvent::Exists);
                return Ok(PushedHow::Existed);
            }
            let path = self.blob_path(&descriptor.digest);
            store_blob(source, descriptor, progress, self.writer()?, &path).await?;
            progress.blob(&descriptor.digest, BlobEvent::Done);
            Ok(PushedHow::Uploaded)
        })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.put(descriptor, &bytes) })
    }

    fn name<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.put(descriptor, &bytes)?;
            self.enter(descriptor).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{Selection, StoreImage, copy};
    use crate::layout::REF_NAME;
    use crate::progress::NoProgress;
    use crate::store::Store;
    use crate::test_dir::TestDir;
    use crate::test_image::{self, LIES, Lying};
    use std::os::unix::fs::symlink;

    fn files_of(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = [dir.to_owned(), dir.join("blobs"), dir.join(BLOBS)]
            .iter()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn images_keep_their_names_beside_each_other() {
        let dir = TestDir::new("layout");
        let (store, out) = (Store::open(&dir.path().join("store")).unwrap(), dir.path().join("out"));
        let (one, two) = (test_image::put(&store, "one"), test_image::put(&store, "two"));
        for (image, name) in [(&one, "v1"), (&two, "quay.io/a/b:v2"), (&two, "v1"), (&one, "v1")] {
            let target = LayoutTarget::create(&out, Some(name)).unwrap();
            let source = StoreImage::described(&store, image);
            assert_eq!(
                copy(&source, &target, &Selection::All, &NoProgress).await.unwrap(),
                *image
            );
        }
        for (name, want) in [("v1", &one), ("quay.io/a/b:v2", &two), ("v2", &two)] {
            let image = LayoutImage::open(&out, Some(name)).unwrap();
            assert_eq!(image.root().await.unwrap(), *want, "{name}");
        }
        LayoutImage::open(&out, None).unwrap_err();
        let index = Index::parse(&fs::read(out.join(INDEX_FILE)).unwrap()).unwrap();
        let names: Vec<_> = index
            .manifests
            .iter()
            .map(|entry| &entry.annotations[REF_NAME])
            .collect();
        assert_eq!(names, ["quay.io/a/b:v2", "v1"]);
        let blobs = files_of(&out).into_iter().filter(|name| name.len() == 64).count();
        assert_eq!((blobs, files_of(&out).len()), (6, 6 + 4), "{:?}", files_of(&out));
    }

    #[tokio::test]
    async fn a_lying_source_leaves_nothing() {
        let dir = TestDir::new("layout-lie");
        let store = Store::open(&dir.path().join("store")).unwrap();
        let image = test_image::put(&store, "one");
        for lie in LIES {
            let out = dir.path().join("out");
            let source = Lying::new(StoreImage::described(&store, &image), lie);
            let target = LayoutTarget::create(&out, None).unwrap();
            copy(&source, &target, &Selection::All, &NoProgress).await.unwrap_err();
            // The thread of the blob that was given up beside the wrong one ends a moment later.
            while files_of(&out) != ["blobs", "sha256"] {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            fs::remove_dir_all(&out).unwrap();
        }
    }

    #[tokio::test]
    async fn hostile_directories_are_refused_and_nothing_hangs() {
        let dir = TestDir::new("layout-hostile");
        let store = Store::open(&dir.path().join("store")).unwrap();
        let image = test_image::put(&store, "one");
        let source = StoreImage::described(&store, &image);
        let outside = dir.path().join("outside");
        fs::write(&outside, "secret").unwrap();
        let pipe = |path: &Path| {
            let made = rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
            made.unwrap();
        };
        let blob = format!("{BLOBS}/{}", image.digest.hex());
        type Harm<'a> = &'a dyn Fn(&Path);
        let cases: [(&str, Harm<'_>, &str); 11] = [
            ("oci-layout", &|_| (), "it has no `oci-layout`"),
            ("oci-layout", &|path| fs::write(path, "{}").unwrap(), "version 1"),
            (
                "oci-layout",
                &|path| fs::write(path, vec![b' '; 5000]).unwrap(),
                "larger than 4096 bytes",
            ),
            (
                "oci-layout",
                &|path| symlink("/dev/zero", path).unwrap(),
                "symbolic link",
            ),
            ("index.json", &|path| fs::write(path, "[").unwrap(), "image index"),
            (
                "index.json",
                &|path| fs::create_dir(path).unwrap(),
                "not a regular file",
            ),
            ("index.json", &pipe, "not a regular file"),
            (
                "index.json",
                &|path| File::create(path).unwrap().set_len(1 << 40).unwrap(),
                "larger than",
            ),
            (&blob, &|path| symlink(&outside, path).unwrap(), "symbolic link"),
            (&blob, &pipe, "not a regular file"),
            (&blob, &|path| fs::write(path, "x").unwrap(), "has 1 bytes"),
        ];
        for (number, (name, harm, want)) in cases.into_iter().enumerate() {
            let out = dir.path().join(number.to_string());
            let target = LayoutTarget::create(&out, None).unwrap();
            copy(&source, &target, &Selection::All, &NoProgress).await.unwrap();
            fs::remove_file(out.join(name)).unwrap();
            harm(&out.join(name));
            let store = Store::open(&dir.path().join("empty")).unwrap();
            let sink = crate::copy::StoreTarget::unnamed(&store);
            let read = match LayoutImage::open(&out, None) {
                Ok(image) => copy(&image, &sink, &Selection::All, &NoProgress).await.map(drop),
                Err(error) => Err(error),
            };
            let message = read.unwrap_err().to_string();
            assert!(message.contains(want), "{name}: {message}");
        }
    }

    #[test]
    fn directories_that_are_links_or_hold_other_files_are_not_written() {
        let dir = TestDir::new("layout-others");
        let (linked, other) = (dir.path().join("linked"), dir.path().join("other"));
        fs::create_dir(&linked).unwrap();
        symlink(dir.path(), linked.join("blobs")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "").unwrap();
        for path in [&linked, &other] {
            let error = LayoutTarget::create(path, None).unwrap_err();
            assert!(matches!(error, RegistryError::Layout { .. }), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
