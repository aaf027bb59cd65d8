//! Which local image a caller means: a name, or the beginning of an id.

use roadstead_registry_client::{
    CONFIG_LIMIT, Descriptor, Error, ImageConfig, Index, MANIFEST_LIMIT, Manifest, Platform, Reference, Store,
    media_type,
};

/// A local image.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// The manifest of this machine's platform.
    pub(super) manifest: Manifest,
    pub(super) config: ImageConfig,
}

impl Image {
    /// Reads an image; of an index, the manifest of this machine's platform, or else the first that is here.
    pub(super) fn read(store: &Store, descriptor: &Descriptor) -> Result<Self, Error> {
        let bytes = store.read_blob(&descriptor.digest, MANIFEST_LIMIT)?;
        let manifest = if media_type::is_index(&descriptor.media_type) {
            let host = Platform::host();
            let mut children = Index::parse(&bytes)?.manifests;
            children.retain(|child| store.has(&child.digest) && !media_type::is_index(&child.media_type));
            children.sort_by_key(|child| !child.platform.as_ref().is_some_and(|platform| platform.matches(&host)));
            let child = children
                .first()
                .ok_or_else(|| Error::missing_in_store(&descriptor.digest))?;
            Manifest::parse(&store.read_blob(&child.digest, MANIFEST_LIMIT)?)?
        } else {
            Manifest::parse(&bytes)?
        };
        let config = ImageConfig::parse(&store.read_blob(&manifest.config.digest, CONFIG_LIMIT)?)?;
        Ok(Self { manifest, config })
    }

    /// The image's id as docker counts it: the digest of its configuration.
    pub(super) fn id(&self) -> String {
        self.manifest.config.digest.to_string()
    }
}

/// Finds what `text` means: the image's descriptor, and the names it was found by when it is an id.
pub(super) fn find(store: &Store, text: &str) -> Result<Option<(Descriptor, Vec<Reference>)>, Error> {
    if let Ok(reference) = text.parse::<Reference>()
        && let Some(descriptor) = by_name(store, &reference)?
    {
        return Ok(Some((descriptor, vec![reference])));
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    if prefix.len() < 4 || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut found: Option<(Descriptor, Vec<Reference>)> = None;
    for (name, descriptor) in store.list()? {
        let Ok(image) = Image::read(store, &descriptor) else {
            continue;
        };
        if image.manifest.config.digest.hex().starts_with(prefix) || descriptor.digest.hex().starts_with(prefix) {
            match &mut found {
                Some((first, names)) if first.digest == descriptor.digest => names.push(name),
                Some(_) => {}
                None => found = Some((descriptor, vec![name])),
            }
        }
    }
    Ok(found)
}

fn by_name(store: &Store, reference: &Reference) -> Result<Option<Descriptor>, Error> {
    if let Some(found) = store.resolve(reference)? {
        return Ok(Some(found));
    }
    // `name@digest` also means an image that is here under a tag of that name.
    let Some(digest) = reference.digest() else {
        return Ok(None);
    };
    let found = store
        .list()?
        .into_iter()
        .find(|(name, image)| name.name() == reference.name() && image.digest == *digest);
    Ok(found.map(|(_, descriptor)| descriptor))
}
