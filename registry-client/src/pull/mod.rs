//! Getting images: manifests by tag or digest, the platform's image out of an index, and its blobs.

mod blob;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, HeaderMap, HeaderValue};

pub(crate) use blob::open_blob;

use crate::copy::{RegistryImage, Selection, StoreTarget, copy, read_small};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::image_config::{CONFIG_LIMIT, ImageConfig};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, detect_media_type, media_type};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::retry::{Budget, retry};
use crate::transport::{Answer, Endpoint, Payload, Request, Transport};

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const CONTENT_DIGEST: &str = "docker-content-digest";
/// An index may list indexes; nobody nests them deeper.
const NESTING_LIMIT: usize = 3;

/// The image found for a name and a platform.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The name asked for.
    pub reference: Reference,
    /// The index the image was chosen from, and its bytes.
    pub index: Option<(Descriptor, Vec<u8>)>,
    /// Points to the image's manifest.
    pub descriptor: Descriptor,
    /// The image's manifest.
    pub manifest: Manifest,
    /// Its bytes as received.
    pub manifest_bytes: Vec<u8>,
    /// The image's configuration.
    pub config: ImageConfig,
    /// Its bytes as received.
    pub config_bytes: Vec<u8>,
}

/// Finds the image of a name for a platform.
pub(crate) async fn resolve(image: &RegistryImage, reference: &Reference, platform: &Platform) -> Result<Resolved> {
    let label = reference.to_string();
    let (mut descriptor, mut bytes) = root(image).await?;
    let mut index = None;
    for _ in 0..NESTING_LIMIT {
        if !media_type::is_index(&descriptor.media_type) {
            break;
        }
        let chosen = choose(&Index::parse(&bytes)?, &label, platform)?;
        let child = manifest(image, &chosen).await?;
        index.get_or_insert((descriptor, bytes.to_vec()));
        let kind = detect_media_type(&child, Some(&chosen.media_type))?;
        descriptor = Descriptor::new(&kind, chosen.digest, chosen.size);
        descriptor.platform = chosen.platform;
        bytes = child;
    }
    let manifest = Manifest::parse(&bytes)?;
    let config_bytes = read_small(image, &manifest.config, CONFIG_LIMIT).await?;
    let config = ImageConfig::parse(&config_bytes)?;
    if index.is_none() {
        check_platform(&label, platform, &config)?;
    }
    Ok(Resolved {
        reference: reference.clone(),
        index,
        descriptor,
        manifest,
        manifest_bytes: bytes.to_vec(),
        config,
        config_bytes,
    })
}

/// Gets an image with all its blobs, and gives it its name in the store.
pub(crate) async fn pull(
    image: &RegistryImage,
    reference: &Reference,
    platform: &Platform,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Resolved> {
    let resolved = resolve(image, reference, platform).await?;
    let fixed = image.fixed(&resolved.descriptor.digest);
    store.put(&resolved.config_bytes)?;
    copy(&fixed, &StoreTarget::unnamed(store), &Selection::All, progress).await?;
    if let Some((_, bytes)) = &resolved.index {
        store.put(bytes)?;
    }
    store.tag(reference, &resolved.descriptor)?;
    Ok(resolved)
}

/// Asks what a name means now, without fetching it; `None` when there is no such name.
pub(crate) async fn head_manifest(
    transport: &Transport,
    reference: &Reference,
    budget: &Budget,
) -> Result<Option<Descriptor>> {
    let endpoint = transport.endpoint(reference)?;
    let wanted = wanted(reference);
    let operation = format!("the look-up of `{reference}`");
    let answer = retry(
        budget,
        |_| (),
        || async {
            let answer = request_manifest(transport, &endpoint, Method::HEAD, &wanted, &operation).await?;
            match answer.status().as_u16() {
                200 | 404 => Ok(answer),
                _ => Err(answer.into_error(&endpoint, &operation).await),
            }
        },
    )
    .await?;
    if answer.status() == 404 {
        return Ok(None);
    }
    let digest = answer
        .header(CONTENT_DIGEST)
        .and_then(|text| text.parse::<Digest>().ok());
    let size = answer.header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let kind = answer.content_type();
    match (digest, size) {
        (Some(digest), Some(size)) if reference.digest().is_none_or(|wanted| *wanted == digest) => {
            Ok(Some(Descriptor::new(&kind, digest, size)))
        }
        // A registry that leaves the headers out must send the manifest itself.
        _ => {
            let (descriptor, _) = get_manifest(transport, &endpoint, reference, &wanted, budget).await?;
            Ok(Some(descriptor))
        }
    }
}

/// Names a manifest in a URL.
fn wanted(reference: &Reference) -> String {
    reference
        .digest()
        .map_or_else(|| reference.tag_or_latest().to_owned(), Digest::to_string)
}

/// Gets what the name means, and its bytes.
pub(crate) async fn root(image: &RegistryImage) -> Result<(Descriptor, Bytes)> {
    get_from_places(image, &wanted(&image.reference)).await
}

/// Gets a manifest by its digest.
pub(crate) async fn manifest(image: &RegistryImage, descriptor: &Descriptor) -> Result<Bytes> {
    let (found, bytes) = get_from_places(image, &descriptor.digest.to_string()).await?;
    if found.size == descriptor.size {
        return Ok(bytes);
    }
    Err(RegistryError::SizeMismatch {
        what: format!("manifest {} of `{}`", descriptor.digest, image.reference),
        expected: descriptor.size,
        actual: found.size,
    })
}

/// Asks the mirrors in order, then the place itself.
async fn get_from_places(image: &RegistryImage, wanted: &str) -> Result<(Descriptor, Bytes)> {
    if let Some(known) = wanted.parse().ok().and_then(|digest| image.known(&digest)) {
        return Ok(known);
    }
    let found = ask_places(image, wanted).await?;
    image.note(&found.0, &found.1);
    Ok(found)
}

async fn ask_places(image: &RegistryImage, wanted: &str) -> Result<(Descriptor, Bytes)> {
    let mut places = image.transport.places(&image.reference)?;
    let last = places.pop().ok_or(RegistryError::Stopped {
        operation: "finding the registry",
    })?;
    for mirror in &places {
        // Beside a mirror there is another place: that one is asked rather than this one again.
        match get_manifest(&image.transport, mirror, &image.reference, wanted, &Budget::none()).await {
            Ok(found) => return Ok(found),
            Err(error) => tell_mirror(mirror, &error),
        }
    }
    get_manifest(&image.transport, &last, &image.reference, wanted, &image.budget).await
}

/// A mirror that fails is no failure, but somebody must be able to find out why it is slow.
fn tell_mirror(mirror: &Endpoint, error: &RegistryError) {
    tracing::debug!(%error, "mirror {} passed over", mirror.name().name());
}

/// Gets a manifest or an index, and checks it against the digest it was asked by.
async fn get_manifest(
    transport: &Transport,
    endpoint: &Endpoint,
    reference: &Reference,
    wanted: &str,
    budget: &Budget,
) -> Result<(Descriptor, Bytes)> {
    let operation = format!("the pull of `{reference}`");
    let (bytes, declared, stated) = retry(
        budget,
        |_| (),
        || async {
            let answer = request_manifest(transport, endpoint, Method::GET, wanted, &operation).await?;
            if answer.status() != 200 || answer.is_web_page() {
                return Err(match answer.into_error(endpoint, &operation).await {
                    RegistryError::Status { status: 404, .. } => RegistryError::NotFound {
                        reference: reference.to_string(),
                    },
                    other => other,
                });
            }
            let declared = answer.content_type();
            let stated = answer
                .header(CONTENT_DIGEST)
                .and_then(|text| text.parse::<Digest>().ok());
            let what = format!("the manifest of `{reference}`");
            Ok((answer.bytes(endpoint, &what, MANIFEST_LIMIT).await?, declared, stated))
        },
    )
    .await?;
    let digest = Digest::of(&bytes);
    // Asked by tag, the registry's own word is what the bytes are checked against.
    if let Some(expected) = wanted.parse::<Digest>().ok().or(stated)
        && expected != digest
    {
        let what = format!("the manifest of `{reference}` sent by {}", endpoint.label());
        return Err(RegistryError::DigestMismatch {
            what,
            expected,
            actual: digest,
        });
    }
    let kind = detect_media_type(&bytes, Some(&declared))?;
    Ok((Descriptor::new(&kind, digest, bytes.len() as u64), bytes.into()))
}

async fn request_manifest(
    transport: &Transport,
    endpoint: &Endpoint,
    method: Method,
    wanted: &str,
    operation: &str,
) -> Result<Answer> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    let request = Request {
        method,
        url: endpoint.url(&format!("manifests/{wanted}"))?,
        operation,
        scopes: vec![endpoint.scope("pull")],
        headers,
        payload: Payload::None,
    };
    transport.send(endpoint, request).await
}

/// Takes the first image of an index that fits. Attestations, which name no real platform, are passed over.
pub(crate) fn choose(index: &Index, label: &str, wanted: &Platform) -> Result<Descriptor> {
    let is_image =
        |entry: &&Descriptor| media_type::is_manifest(&entry.media_type) || media_type::is_index(&entry.media_type);
    let images: Vec<&Descriptor> = index.manifests.iter().filter(is_image).collect();
    let fits = |entry: &&&Descriptor| entry.platform.as_ref().is_some_and(|platform| wanted.matches(platform));
    if let Some(found) = images.iter().find(fits) {
        return Ok((*found).clone());
    }
    // An index with one image of no named platform means that image.
    if let [only] = images.as_slice()
        && only.platform.is_none()
    {
        return Ok((*only).clone());
    }
    let have = images
        .iter()
        .filter_map(|entry| entry.platform.clone())
        .filter(|platform| platform.os != "unknown")
        .collect();
    Err(RegistryError::NoPlatform {
        reference: label.to_owned(),
        wanted: Box::new(wanted.clone()),
        have,
    })
}

/// An image without an index is what it is; running it elsewhere fails much later and less clearly.
pub(crate) fn check_platform(label: &str, wanted: &Platform, config: &ImageConfig) -> Result<()> {
    let platform = config.platform();
    if platform.os.is_empty() || platform.architecture.is_empty() || wanted.matches(&platform) {
        return Ok(());
    }
    Err(RegistryError::NoPlatform {
        reference: label.to_owned(),
        wanted: Box::new(wanted.clone()),
        have: vec![platform],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn entry(platform: Option<&str>, content: &str) -> Descriptor {
        let platform = platform.map(|text| text.parse().unwrap());
        Descriptor {
            platform,
            ..Descriptor::of(media_type::OCI_MANIFEST, content.as_bytes())
        }
    }

    fn index(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_first_image_for_the_platform_is_chosen() {
        let reference = "docker.io/library/node";
        let (amd, arm, attestation) = (
            entry(Some("linux/amd64"), "a"),
            entry(Some("linux/arm64/v8"), "b"),
            entry(Some("unknown/unknown"), "c"),
        );
        let all = index(vec![attestation.clone(), amd.clone(), arm.clone()]);
        assert_eq!(choose(&all, reference, &"linux/arm64".parse().unwrap()).unwrap(), arm);
        assert_eq!(choose(&all, reference, &"linux/amd64".parse().unwrap()).unwrap(), amd);
        let error = choose(&all, reference, &"linux/s390x".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image `docker.io/library/node` is not made for linux/s390x, only for linux/amd64, linux/arm64"
        );
        let bare = entry(None, "x");
        assert_eq!(
            choose(&index(vec![bare.clone()]), reference, &"linux/amd64".parse().unwrap()).unwrap(),
            bare
        );
        choose(&index(vec![]), reference, &"linux/amd64".parse().unwrap()).unwrap_err();
    }
}
