//! The local store as a source and as a sink.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::pour::store_blob;
use super::{BlobStream, ImageSink, ImageSource};
use crate::client::Client;
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::files::FileSection;
use crate::manifest::{Descriptor, MANIFEST_LIMIT};
use crate::progress::{BlobEvent, Progress};
use crate::push::PushedHow;
use crate::reference::Reference;
use crate::store::Store;

/// An image of the local store.
#[derive(Clone, Debug)]
pub struct StoreImage {
    store: Store,
    root: Root,
    client: Option<Client>,
}

#[derive(Clone, Debug)]
enum Root {
    Name(Reference),
    Descriptor(Descriptor),
}

impl StoreImage {
    /// Means what a name means in the store.
    #[must_use]
    pub fn named(store: &Store, name: &Reference) -> Self {
        Self::new(store, Root::Name(name.clone()))
    }

    /// Means an image or index of the store, whatever its names.
    #[must_use]
    pub fn described(store: &Store, root: &Descriptor) -> Self {
        Self::new(store, Root::Descriptor(root.clone()))
    }

    fn new(store: &Store, root: Root) -> Self {
        Self {
            store: store.clone(),
            root,
            client: None,
        }
    }

    /// Fetches blobs that are not here from the repositories known to have them: base layers that nobody needed to read.
    #[must_use]
    pub fn fetching(mut self, client: &Client) -> Self {
        self.client = Some(client.clone());
        self
    }

    async fn fetch_missing(&self, descriptor: &Descriptor, progress: &dyn Progress) -> Result<()> {
        let mut result = Err(RegistryError::missing_in_store(&descriptor.digest));
        let Some(client) = &self.client else { return result };
        for repository in self.store.sources(&descriptor.digest) {
            result = client.fetch_blob(&repository, descriptor, &self.store, progress).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl ImageSource for StoreImage {
    fn label(&self) -> String {
        match &self.root {
            Root::Name(name) => name.to_string(),
            Root::Descriptor(descriptor) => descriptor.digest.to_string(),
        }
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        Box::pin(async {
            match &self.root {
                Root::Descriptor(descriptor) => Ok(descriptor.clone()),
                Root::Name(name) => self.store.resolve(name)?.ok_or_else(|| RegistryError::NotInStore {
                    reference: name.to_string(),
                }),
            }
        })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async {
            self.store
                .read_blob(&descriptor.digest, MANIFEST_LIMIT)
                .map(Bytes::from)
        })
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        Box::pin(async move {
            if !self.store.has(&descriptor.digest) {
                self.fetch_missing(descriptor, progress).await?;
            }
            let file = self.store.open_blob(&descriptor.digest)?;
            let what = || format!("blob {} in the local store", descriptor.digest);
            let section = FileSection::whole(file, &self.store.blob_path(&descriptor.digest))?;
            section.expect_size(descriptor, what)?;
            Ok(section.stream())
        })
    }

    fn repositories(&self, digest: &Digest) -> Vec<Reference> {
        self.store.sources(digest)
    }
}

/// A place in the local store: blobs by their digest, the image by its name.
#[derive(Clone, Debug)]
pub struct StoreTarget {
    store: Store,
    name: Option<Reference>,
    /// Held from the first blob on: those that are written, and those that are found here, stay until the image has its name.
    writing: Arc<OnceLock<File>>,
}

impl StoreTarget {
    /// Gives the image a name.
    #[must_use]
    pub fn named(store: &Store, name: &Reference) -> Self {
        Self {
            store: store.clone(),
            name: Some(name.clone()),
            writing: Arc::default(),
        }
    }

    /// Keeps the image without a name.
    #[must_use]
    pub fn unnamed(store: &Store) -> Self {
        Self {
            store: store.clone(),
            name: None,
            writing: Arc::default(),
        }
    }

    fn begin(&self) -> Result<()> {
        if self.writing.get().is_none() {
            // Of two at once one keeps its lock, which is enough.
            drop(self.writing.set(self.store.writing()?));
        }
        Ok(())
    }

    /// Tells whether the blob is here, and right.
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        if self.store.blob_size(&descriptor.digest) != Some(descriptor.size) {
            return Ok(false);
        }
        let (store, digest) = (self.store.clone(), descriptor.digest.clone());
        // It may have to be hashed.
        let looking = tokio::task::spawn_blocking(move || store.verified(&digest));
        looking.await.map_err(crate::files::stopped)?
    }

    async fn write(&self, descriptor: &Descriptor, source: &dyn ImageSource, progress: &dyn Progress) -> Result<()> {
        let path = self.store.blob_path(&descriptor.digest);
        match store_blob(source, descriptor, progress, self.store.writer()?, &path).await {
            // A mirror has sent something else; the registry itself may know better.
            Err(RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. })
                if source.distrust(&descriptor.digest) =>
            {
                let reason = "a mirror sent another blob".to_owned();
                progress.blob(&descriptor.digest, BlobEvent::Retrying { reason, from: 0 });
                store_blob(source, descriptor, progress, self.store.writer()?, &path).await
            }
            written => written,
        }
    }
}

impl ImageSink for StoreTarget {
    fn accepts(&self, root: &Descriptor) -> Result<()> {
        match &self.name {
            Some(name) => self.store.check_digest(name, root),
            None => Ok(()),
        }
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<PushedHow>> {
        Box::pin(async move {
            self.begin()?;
            // The nearest place is noted last, so that it comes first.
            for repository in source.repositories(&descriptor.digest).iter().rev() {
                self.store.add_source(&descriptor.digest, repository)?;
            }
            if !self.has(descriptor).await? {
                // Another build on this machine may be fetching it: then its download is this one's, too.
                let claim = self.store.claim(&descriptor.digest).await?;
                if !self.has(descriptor).await? {
                    self.write(descriptor, source, progress).await?;
                    progress.blob(&descriptor.digest, BlobEvent::Done);
                    drop(claim);
                    return Ok(PushedHow::Uploaded);
                }
            }
            progress.blob(&descriptor.digest, BlobEvent::Exists);
            Ok(PushedHow::Existed)
        })
    }

    fn manifest<'a>(&'a self, _descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.begin()?;
            self.store.put(&bytes).map(drop)
        })
    }

    fn name<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.store.put(&bytes)?;
            match &self.name {
                Some(name) => self.store.tag(name, descriptor),
                None => Ok(()),
            }
        })
    }
}
