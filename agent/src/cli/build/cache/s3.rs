//! A cache in Amazon S3: blobs by their digests, and manifests by names.
//!
//! ```text
//! PREFIX blobs/ sha256:…       layers and documents, never changed
//! PREFIX manifests/ NAME       the newest manifest of a name
//! ```

use std::path::Path;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use roadstead_builder::solve::Tools;
use roadstead_registry_client::{
    BlobStream, Client, Descriptor, Digest, Error, ImageSink, ImageSource, MANIFEST_LIMIT, Progress, PushedHow, Result,
    Store, media_type,
};

use super::parse::Bucket;
use crate::aws::AwsError;
use crate::aws::s3::{Settings, Signer};

/// The largest object that one request may write.
const LARGEST: u64 = 5 << 30;

impl Bucket {
    pub(super) fn label(&self) -> String {
        let name = self.names.first().map_or("", String::as_str);
        format!("s3://{}/{}{name}", self.bucket, self.manifests)
    }
}

/// A bucket that can be read and written.
#[derive(Debug)]
pub(super) struct Place {
    bucket: Bucket,
    signer: Signer,
    client: Client,
    store: Store,
}

impl Place {
    pub(super) async fn open(bucket: &Bucket, tools: &Tools, ca: Option<&Path>) -> std::result::Result<Self, AwsError> {
        let settings = Settings {
            region: bucket.region.clone(),
            endpoint: bucket.endpoint.clone(),
            keys: bucket.keys.clone(),
        };
        Ok(Self {
            bucket: bucket.clone(),
            signer: Signer::new(&settings, ca).await?,
            client: tools.client.clone(),
            store: tools.store.clone(),
        })
    }

    fn address(&self, method: &str, key: &str) -> Result<String> {
        let signed = self.signer.sign(method, &self.bucket.bucket, key);
        signed.map_err(|error| invalid(error.to_string()))
    }

    fn blob_key(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.bucket.blobs)
    }

    async fn read_manifest(&self) -> Result<Bytes> {
        let name = self.bucket.names.first().map_or("", String::as_str);
        let url = self.address("GET", &format!("{}{name}", self.bucket.manifests))?;
        let content = self.client.open_object(&url).await?;
        let mut content = content.ok_or_else(|| invalid(format!("{} is not there", self.bucket.label())))?;
        let mut bytes = Vec::new();
        while let Some(piece) = content.try_next().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > MANIFEST_LIMIT {
                return Err(invalid(format!("{} is larger than 4 MiB", self.bucket.label())));
            }
        }
        Ok(bytes.into())
    }

    /// Writes an object of the store.
    async fn write(&self, key: &str, digest: &Digest) -> Result<()> {
        let url = self.address("PUT", key)?;
        self.client.write_object(&url, &self.store.blob_path(digest)).await
    }
}

impl ImageSource for Place {
    fn label(&self) -> String {
        self.bucket.label()
    }

    fn root(&self) -> BoxFuture<'_, Result<Descriptor>> {
        Box::pin(async {
            let bytes = self.read_manifest().await?;
            Ok(Descriptor::of(media_type::OCI_MANIFEST, &bytes))
        })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async {
            let bytes = self.read_manifest().await?;
            match Digest::of(&bytes) == descriptor.digest {
                true => Ok(bytes),
                false => Err(invalid(format!("{} was changed meanwhile", self.bucket.label()))),
            }
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor, _: &'a dyn Progress) -> BoxFuture<'a, Result<BlobStream<'a>>> {
        Box::pin(async {
            let url = self.address("GET", &self.blob_key(&descriptor.digest))?;
            let content = self.client.open_object(&url).await?;
            let content = content.ok_or_else(|| Error::BlobMissing {
                digest: descriptor.digest.clone(),
                place: self.bucket.label(),
            })?;
            Ok(content.boxed())
        })
    }
}

impl ImageSink for Place {
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        source: &'a dyn ImageSource,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<PushedHow>> {
        Box::pin(async move {
            let key = self.blob_key(&descriptor.digest);
            if self.client.object_exists(&self.address("HEAD", &key)?).await? {
                return Ok(PushedHow::Existed);
            }
            if descriptor.size > LARGEST {
                return Err(invalid(format!(
                    "{} has {} bytes: one request writes at most {LARGEST} to S3",
                    descriptor.digest, descriptor.size
                )));
            }
            if !self.store.has(&descriptor.digest) {
                // The source fetches what it has elsewhere only.
                drop(source.blob(descriptor, progress).await?);
            }
            self.write(&key, &descriptor.digest).await?;
            Ok(PushedHow::Uploaded)
        })
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor, _: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { self.write(&self.blob_key(&descriptor.digest), &descriptor.digest).await })
    }

    fn name<'a>(&'a self, descriptor: &'a Descriptor, _: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            for name in &self.bucket.names {
                let key = format!("{}{name}", self.bucket.manifests);
                self.write(&key, &descriptor.digest).await?;
            }
            Ok(())
        })
    }
}

fn invalid(reason: String) -> Error {
    Error::InvalidDocument { what: "cache", reason }
}
