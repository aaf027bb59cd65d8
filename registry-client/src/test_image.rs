//! A small image for tests, and a source that says other things than it promised.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;

use crate::copy::{BlobStream, ImageSource};
use crate::digest::Digest;
use crate::error::Result;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::progress::Progress;
use crate::store::Store;

/// Puts an image of one layer into a store.
pub(crate) fn put(store: &Store, content: &str) -> Descriptor {
    let put = |kind, bytes: &[u8]| Descriptor::new(kind, store.put(bytes).unwrap(), bytes.len() as u64);
    let layer = content.repeat(100_000);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer.as_bytes())]}
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: put(media_type::OCI_CONFIG, config.to_string().as_bytes()),
        layers: vec![put(media_type::OCI_LAYER_TAR, layer.as_bytes())],
        subject: None,
        annotations: Default::default(),
    };
    put(media_type::OCI_MANIFEST, &manifest.to_bytes())
}

/// What a source sends in the place of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    Other,
    Short,
    Long,
    Endless,
    Nothing,
}

pub(crate) const LIES: [Lie; 5] = [Lie::Other, Lie::Short, Lie::Long, Lie::Endless, Lie::Nothing];

/// Lies about blobs, and tells the truth about manifests.
#[derive(Debug)]
pub(crate) struct Lying<S> {
    inner: S,
    lie: Lie,
}

impl<S> Lying<S> {
    pub(crate) fn new(inner: S, lie: Lie) -> Self {
        Self { inner, lie }
    }
}

impl<S: ImageSource> ImageSource for Lying<S> {
    fn label(&self) -> String {
        self.inner.label()
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        self.inner.root()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.manifest(descriptor)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        _progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        let size = usize::try_from(descriptor.size).unwrap();
        let pieces: BlobStream<'a> = match self.lie {
            Lie::Endless => Box::pin(stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 4096])))),
            Lie::Other => one(size),
            Lie::Short => one(size - 1),
            Lie::Long => one(size + 1),
            Lie::Nothing => one(0),
        };
        Box::pin(async { Ok(pieces) })
    }
}

fn one(size: usize) -> BlobStream<'static> {
    Box::pin(stream::iter([Ok(Bytes::from(vec![b'x'; size]))]))
}
