//! Other forms of a built image: its files in a directory or a tar, an OCI layout, a docker archive.

use crate::beneath::{Dir, FileError, Owner};
use crate::layer::extract;
use crate::layer::tar::{EntryHeader, TarWriter};
use crate::rootfs::diff::{self, DiffError};
use roadstead_registry_client::{Descriptor, Digest, Manifest, Reference, Store};
use rustix::fs::FileType;
use serde_json::json;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Tells why an output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The archive could not be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    /// A file could not be read or made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The files could not be read.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// The destination directory could not be filled.
    #[error(transparent)]
    Extract(#[from] extract::ExtractError),
    /// A blob is missing.
    #[error(transparent)]
    Store(#[from] roadstead_registry_client::Error),
}

type Result<T> = std::result::Result<T, OutputError>;

/// Writes a root file system as a tar.
///
/// # Errors
/// When reading or writing fails.
pub fn tar(rootfs: &Path, epoch: i64, out: impl Write) -> Result<()> {
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(256 << 10, out));
    let options = diff::Options {
        epoch: Some(epoch),
        leave_out: &[],
        whiteouts: false,
        lowers: &[],
    };
    diff::write(&Dir::open(rootfs)?, &mut tar, &options)?;
    tar.finish()
        .map_err(OutputError::Write)?
        .flush()
        .map_err(OutputError::Write)
}

/// Copies a root file system into a directory; `owner` is given to everything (docker's client owns what it receives).
///
/// # Errors
/// When reading or writing fails.
pub fn local(rootfs: &Path, epoch: i64, destination: &Path, owner: Owner) -> Result<()> {
    std::fs::create_dir_all(destination).map_err(|e| FileError::new("create directory", destination, e))?;
    let root = Dir::open(destination)?;
    let (read, write) = io::pipe().map_err(OutputError::Write)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || tar(rootfs, epoch, write));
        let options = extract::Options {
            layer: false,
            owner: Some(owner),
            lowers: &[],
        };
        let extracted = extract::extract(read, &root, &options);
        let written = writing
            .join()
            .unwrap_or_else(|_| Err(OutputError::Write(io::Error::other("the writing thread ended early"))));
        // When unpacking failed the writer only saw a closed pipe.
        extracted?;
        written
    })
}

/// Writes an image as a tar of an OCI layout; with `docker`, one that `docker load` takes too.
///
/// # Errors
/// When a blob is missing or writing fails.
pub fn archive(store: &Store, image: &Descriptor, names: &[Reference], docker: bool, out: impl Write) -> Result<()> {
    let manifest_bytes = store.read_blob(&image.digest, roadstead_registry_client::MANIFEST_LIMIT)?;
    let manifest = Manifest::parse(&manifest_bytes)?;
    let mut archive = Archive {
        tar: TarWriter::new(io::BufWriter::with_capacity(256 << 10, out)),
    };
    archive.directory("blobs")?;
    archive.directory("blobs/sha256")?;
    let mut blobs: Vec<&Digest> = manifest
        .layers
        .iter()
        .map(|l| &l.digest)
        .chain([&manifest.config.digest, &image.digest])
        .collect();
    blobs.sort_unstable();
    blobs.dedup();
    for digest in blobs {
        let size = store.blob_size(digest).unwrap_or(0);
        archive.file(&blob_path(digest), size, &mut store.open_blob(digest)?)?;
    }
    let index = index(image, names);
    archive.bytes("index.json", &index)?;
    if docker {
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        let layers: Vec<PathBuf> = manifest.layers.iter().map(|l| blob_path(&l.digest)).collect();
        let document = json!([{ "Config": blob_path(&manifest.config.digest), "RepoTags": names, "Layers": layers }]);
        archive.bytes("manifest.json", document.to_string().as_bytes())?;
    }
    archive.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive
        .tar
        .finish()
        .map_err(OutputError::Write)?
        .flush()
        .map_err(OutputError::Write)
}

fn blob_path(digest: &Digest) -> PathBuf {
    PathBuf::from(format!("blobs/{}/{}", digest.algorithm(), digest.hex()))
}

fn index(image: &Descriptor, names: &[Reference]) -> Vec<u8> {
    let one = |name: Option<&Reference>| {
        let mut descriptor = image.clone();
        if let Some(name) = name {
            descriptor
                .annotations
                .insert("io.containerd.image.name".into(), name.canonical());
            descriptor.annotations.insert(
                "org.opencontainers.image.ref.name".into(),
                name.tag_or_latest().to_owned(),
            );
        }
        descriptor
    };
    let manifests: Vec<Descriptor> = if names.is_empty() {
        vec![one(None)]
    } else {
        names.iter().map(|n| one(Some(n))).collect()
    };
    let document = json!({ "schemaVersion": 2, "mediaType": roadstead_registry_client::media_type::OCI_INDEX, "manifests": manifests });
    document.to_string().into_bytes()
}

struct Archive<W: Write> {
    tar: TarWriter<W>,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, path: &Path, file_type: FileType, size: u64, content: &mut dyn Read) -> Result<()> {
        let header = EntryHeader {
            path,
            file_type,
            mode: if file_type == FileType::Directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            size,
            mtime: 0,
            device: 0,
            target: None,
            hard_link: None,
            xattrs: &[],
        };
        self.tar.append(&header, content).map_err(OutputError::Write)
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        self.append(Path::new(path), FileType::Directory, 0, &mut io::empty())
    }

    fn file(&mut self, path: &Path, size: u64, content: &mut dyn Read) -> Result<()> {
        self.append(path, FileType::RegularFile, size, content)
    }

    fn bytes(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.file(Path::new(path), content.len() as u64, &mut &content[..])
    }
}
