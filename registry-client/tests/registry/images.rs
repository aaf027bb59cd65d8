//! Small images to send and get, and clients to do it with.

use std::sync::Mutex;

use roadstead_registry_client::{
    BlobEvent, Client, ClientOptions, CredentialStore, Descriptor, Digest, Index, Manifest, Progress, RegistriesConfig,
    Store, media_type,
};

use crate::servers::TestDir;

/// A store, a place for logins, and a client.
pub(crate) struct Setup {
    pub(crate) store: Store,
    pub(crate) client: Client,
    dir: TestDir,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::with_registries("")
    }

    pub(crate) fn with_registries(toml: &str) -> Self {
        Self::make(toml, |_| ())
    }

    pub(crate) fn with_options(change: impl FnOnce(&mut ClientOptions)) -> Self {
        Self::make("", change)
    }

    pub(crate) fn make(toml: &str, change: impl FnOnce(&mut ClientOptions)) -> Self {
        let dir = TestDir::new();
        let origin = dir.path().join("registries.toml");
        let mut options = ClientOptions {
            registries: RegistriesConfig::from_toml(toml, &origin).unwrap(),
            credentials: CredentialStore::new(Some(dir.path().join("docker"))),
            ..ClientOptions::default()
        };
        change(&mut options);
        Self {
            store: Store::open(&dir.path().join("store")).unwrap(),
            client: Client::new(options).unwrap(),
            dir,
        }
    }

    pub(crate) fn log_in(&self, registry: &str, user: &str, password: &str) {
        let secret = roadstead_registry_client::Secret::new(password);
        roadstead_registry_client::login(&self.dir.path().join("docker"), registry, user, &secret).unwrap();
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Makes an image of these layers for a platform.
    pub(crate) fn image(&self, platform: &str, layers: &[Vec<u8>]) -> Descriptor {
        let (os, architecture) = platform.split_once('/').unwrap();
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": os, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: self.put(media_type::OCI_CONFIG, &serde_json::to_vec(&config).unwrap()),
            layers: layers
                .iter()
                .map(|layer| self.put(media_type::OCI_LAYER_TAR, layer))
                .collect(),
            subject: None,
            annotations: Default::default(),
        };
        let mut descriptor = self.put(media_type::OCI_MANIFEST, &manifest.to_bytes());
        descriptor.platform = Some(platform.parse().unwrap());
        descriptor
    }

    /// Makes an index of images.
    pub(crate) fn index(&self, manifests: Vec<Descriptor>) -> Descriptor {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: Default::default(),
        };
        self.put(media_type::OCI_INDEX, &index.to_bytes())
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, self.store.put(bytes).unwrap(), bytes.len() as u64)
    }

    /// Counts files that are being written, or were left behind.
    pub(crate) fn unfinished_files(&self) -> usize {
        std::fs::read_dir(self.store.dir().join("ingest")).unwrap().count()
    }
}

/// Makes bytes that no compression and no zero-copy shortcut makes small.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Remembers all events.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<(Digest, BlobEvent)>>);

impl Events {
    pub(crate) fn of(&self, digest: &Digest) -> Vec<BlobEvent> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter(|(other, _)| other == digest)
            .map(|(_, event)| event.clone())
            .collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&BlobEvent) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, event)| wanted(event)).count()
    }

    /// Adds up what has advanced.
    pub(crate) fn advanced(&self, digest: &Digest) -> u64 {
        self.of(digest)
            .iter()
            .map(|event| {
                if let BlobEvent::Advanced { bytes } = event {
                    *bytes
                } else {
                    0
                }
            })
            .sum()
    }
}

impl Progress for Events {
    fn blob(&self, digest: &Digest, event: BlobEvent) {
        self.0.lock().unwrap().push((digest.clone(), event));
    }
}
