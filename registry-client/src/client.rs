//! The client: one door to all that is done with registries.

use std::path::Path;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::copy::{
    BlobStream, ImageSink as _, RegistryImage, RegistryTarget, Selection, StoreImage, StoreTarget, copy,
};
use crate::credentials::Credential;
use crate::digest::Digest;
use crate::download::{self, Downloaded};
use crate::error::Result;
use crate::manifest::Descriptor;
use crate::object::Object;
use crate::options::ClientOptions;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::pull::{self, Resolved};
use crate::push::{self, PushedHow};
use crate::reference::Reference;
use crate::secret::Secret;
use crate::store::{Growing, Store};
use crate::tags;
use crate::transport::{Payload, Request, Transport};

/// Talks to registries. Cheap to clone; clones share connections and logins.
///
/// Every operation is tried again after errors that pass, and gives its last error when they do not.
///
/// Futures are boxed here: nested as they are, their types would else exceed the compiler's limits in crates above.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client; no connection is made yet.
    ///
    /// # Errors
    /// `CaBundle` when the bundle cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self> {
        let transport = Transport::new(options)?;
        Ok(Self {
            transport: Arc::new(transport),
        })
    }

    /// Checks a user name and a password, as `docker login` does. A registry that asks for no login takes any.
    ///
    /// # Errors
    /// `Unauthorized` when they are wrong.
    pub async fn ping_login(&self, registry: &str, user: &str, secret: &Secret) -> Result<()> {
        let host = registry.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        let login = Credential {
            user: user.to_owned(),
            secret: secret.clone(),
            is_identity_token: false,
            expires_at: None,
        };
        let endpoint = self.transport.registry(host, login)?;
        let operation = "the login";
        let request = Request {
            method: Method::GET,
            url: endpoint.base().clone(),
            operation,
            scopes: Vec::new(),
            headers: HeaderMap::new(),
            payload: Payload::None,
        };
        let answer = Box::pin(self.transport.send(&endpoint, request)).await?;
        if answer.status().is_success() && !answer.is_web_page() {
            return Ok(());
        }
        Err(answer.into_error(&endpoint, operation).await)
    }

    /// Means an image of a registry, to copy it from there.
    #[must_use]
    pub fn image(&self, reference: &Reference) -> RegistryImage {
        RegistryImage::new(&self.transport, reference)
    }

    /// Means a name in a registry, to copy an image there.
    #[must_use]
    pub fn target(&self, reference: &Reference) -> RegistryTarget {
        RegistryTarget::new(&self.transport, reference)
    }

    /// Finds the image of a name for a platform; fetches its manifest and configuration only.
    ///
    /// # Errors
    /// `NotFound` when there is no such name, `NoPlatform` when the image is not made for the platform.
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved> {
        Box::pin(pull::resolve(&self.image(reference), reference, platform)).await
    }

    /// Streams a blob into the store; does nothing when it is there. A broken download goes on where it broke off.
    ///
    /// # Errors
    /// `BlobUnknown`, `DigestMismatch` or `SizeMismatch`; then the store is as before.
    pub async fn fetch_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (source, target) = (self.image(repository), StoreTarget::unnamed(store));
        target.blob(descriptor, &source, progress).await.map(drop)
    }

    /// Fetches the file at a URL of http or https into `path`, which is made anew. `authorization` is the value of the header of
    /// that name, and is sent to the URL's own host only. No login of a registry is used.
    ///
    /// # Errors
    /// `Status` when the server has no such file, `UnsafeLocation` for a redirect that may not be followed, `TooLarge`, `Offline`.
    pub async fn download(&self, url: &str, authorization: Option<&Secret>, path: &Path) -> Result<Downloaded> {
        Box::pin(download::download(&self.transport, url, authorization, path)).await
    }

    /// Tells whether there is an object at a signed address, as Amazon S3 has them.
    ///
    /// # Errors
    /// `Status`, `Connect`, `Offline`; never with the address's query.
    pub async fn object_exists(&self, url: &str) -> Result<bool> {
        Box::pin(Object::new(&self.transport, url)?.exists()).await
    }

    /// Opens the object at a signed address; `None` when there is none.
    ///
    /// # Errors
    /// As for [`Client::object_exists`].
    pub async fn open_object(&self, url: &str) -> Result<Option<BlobStream<'static>>> {
        Box::pin(Object::new(&self.transport, url)?.open()).await
    }

    /// Writes a file to a signed address. S3 takes at most 5 GiB in this way.
    ///
    /// # Errors
    /// As for [`Client::object_exists`], and `Io` when the file cannot be read.
    pub async fn write_object(&self, url: &str, file: &Path) -> Result<()> {
        Box::pin(Object::new(&self.transport, url)?.write(file)).await
    }

    /// Fetches an image with all its layers, and gives it its name in the store.
    ///
    /// # Errors
    /// As for [`Client::resolve`] and [`Client::fetch_blob`].
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Resolved> {
        Box::pin(pull::pull(&self.image(reference), reference, platform, store, progress)).await
    }

    /// Brings a blob into a repository: finds it there, has it mounted, or sends it. A blob that is not in the store is
    /// first fetched from one of its sources.
    ///
    /// # Errors
    /// `RepositoryUnknown`, `Denied`, or `BlobMissing` when it is nowhere to be had.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<PushedHow> {
        let source = StoreImage::described(store, descriptor).fetching(self);
        self.target(repository).blob(descriptor, &source, progress).await
    }

    /// Sends a blob of the store while it is being written, and says what it has become.
    ///
    /// A small blob, and one for a host that takes blobs in parts only, is sent when it has ended; so is one whose upload broke.
    ///
    /// # Errors
    /// As for [`Client::push_blob`]; `Stopped` when the blob was given up.
    pub async fn push_growing(
        &self,
        repository: &Reference,
        media_type: &str,
        growing: Growing,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Descriptor> {
        let target = self.target(repository);
        Box::pin(push::push_growing(&target, media_type, growing, store, progress)).await
    }

    /// Sends an image or index of the store under a name: blobs first, the named manifest last. Returns its digest.
    ///
    /// # Errors
    /// As for [`Client::push_blob`]; then the name in the registry means what it meant before.
    pub async fn push(
        &self,
        store: &Store,
        image: &Descriptor,
        target: &Reference,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let source = StoreImage::described(store, image).fetching(self);
        let target = self.target(target).noting_sources(store);
        let pushed = Box::pin(copy(&source, &target, &Selection::All, progress)).await?;
        Ok(pushed.digest)
    }

    /// Lists the tags of a repository, sorted.
    ///
    /// # Errors
    /// `RepositoryUnknown` when there is no such repository.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>> {
        Box::pin(tags::list(&self.transport, repository)).await
    }

    /// Takes an image of a registry away: its tag when the name has no digest, else the image with all of its tags.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, or `CannotUntag` when the registry knows no way to take a tag alone.
    pub async fn remove(&self, name: &Reference) -> Result<()> {
        #[cfg(feature = "ecr")]
        if let Some(host) = crate::ecr::parse_host(name.registry()) {
            let location = self.transport.endpoint(name)?.location().repository.clone();
            self.transport.check_online(name)?;
            let ca = self.transport.options().ca_bundle.as_deref();
            return Box::pin(crate::ecr::remove(&host, &location, name, ca)).await;
        }
        Box::pin(tags::remove(&self.transport, name)).await
    }

    /// Asks what a name means now; `None` when there is no such name.
    ///
    /// # Errors
    /// Anything but a registry that says the name is not there.
    pub async fn head_manifest(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        Box::pin(pull::head_manifest(
            &self.transport,
            reference,
            &self.transport.budget(),
        ))
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::CredentialStore;
    use crate::manifest::media_type;
    use crate::progress::NoProgress;
    use crate::test_dir::TestDir;

    /// Callers run operations as tasks, which the compiler allows only for futures that may change threads.
    #[test]
    fn operations_can_be_spawned() {
        fn spawnable(_: impl Future + Send) {}
        let dir = TestDir::new("spawn");
        let store = Store::open(dir.path()).unwrap();
        let credentials = CredentialStore::new(Some(dir.path().to_owned()));
        let client = Client::new(ClientOptions {
            credentials,
            ..ClientOptions::default()
        })
        .unwrap();
        let (name, platform) = ("localhost:1/x".parse::<Reference>().unwrap(), Platform::host());
        let descriptor = Descriptor::of(media_type::OCI_LAYER_TAR, b"x");
        spawnable(client.pull(&name, &platform, &store, &NoProgress));
        spawnable(client.push(&store, &descriptor, &name, &NoProgress));
        spawnable(client.push_blob(&name, &descriptor, &store, &NoProgress));
        spawnable(client.head_manifest(&name));
        spawnable(client.ping_login("localhost:1", "u", &Secret::new("p")));
    }
}
