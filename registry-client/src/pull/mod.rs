//! Getting images: manifests by tag or digest, the platform's image out of an index, and its blobs.

mod blob;

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, HeaderMap, HeaderValue};

pub(crate) use blob::{fetch_blob, read_blob};

use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::image_config::{CONFIG_LIMIT, ImageConfig};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, detect_media_type, media_type};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;
use crate::transport::retry::retry;
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
pub(crate) async fn resolve(transport: &Transport, reference: &Reference, platform: &Platform) -> Result<Resolved> {
    let endpoint = transport.endpoint(reference)?;
    let wanted = reference
        .digest()
        .map_or_else(|| reference.tag_or_latest().to_owned(), Digest::to_string);
    let (mut descriptor, mut bytes) = get_manifest(transport, &endpoint, reference, &wanted).await?;
    let mut index = None;
    for _ in 0..NESTING_LIMIT {
        if !media_type::is_index(&descriptor.media_type) {
            break;
        }
        let chosen = choose(&Index::parse(&bytes)?, reference, platform)?;
        let child = get_manifest(transport, &endpoint, reference, &chosen.digest.to_string()).await?;
        if child.0.size != chosen.size {
            let what = format!("manifest {} of `{reference}`", chosen.digest);
            return Err(RegistryError::SizeMismatch {
                what,
                expected: chosen.size,
                actual: child.0.size,
            });
        }
        index.get_or_insert((descriptor, bytes));
        (descriptor, bytes) = child;
        descriptor.platform = chosen.platform;
    }
    let manifest = Manifest::parse(&bytes)?;
    let config_bytes = read_blob(transport, &endpoint, &manifest.config, CONFIG_LIMIT).await?;
    let config = ImageConfig::parse(&config_bytes)?;
    if index.is_none() {
        check_platform(reference, platform, &config)?;
    }
    let reference = reference.clone();
    Ok(Resolved {
        reference,
        index,
        descriptor,
        manifest,
        manifest_bytes: bytes,
        config,
        config_bytes,
    })
}

/// Gets an image with all its blobs, and gives it its name in the store.
pub(crate) async fn pull(
    transport: &Transport,
    reference: &Reference,
    platform: &Platform,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Resolved> {
    let resolved = resolve(transport, reference, platform).await?;
    let mut layers = Vec::new();
    // The number at once is bounded by the slots of the host.
    let mut running: FuturesUnordered<BoxFuture<'_, Result<()>>> = FuturesUnordered::new();
    for layer in &resolved.manifest.layers {
        if !media_type::is_foreign_layer(&layer.media_type) && !layers.contains(&layer) {
            running.push(Box::pin(fetch_blob(transport, reference, layer, store, progress)));
            layers.push(layer);
        }
    }
    while running.try_next().await?.is_some() {}
    drop(running);
    if let Some((_, bytes)) = &resolved.index {
        store.put(bytes)?;
    }
    store.put(&resolved.config_bytes)?;
    store.put(&resolved.manifest_bytes)?;
    for layer in layers.into_iter().chain([&resolved.manifest.config]) {
        store.add_source(&layer.digest, reference)?;
    }
    store.tag(reference, &resolved.descriptor)?;
    Ok(resolved)
}

/// Asks what a name means now, without fetching it; `None` when there is no such name.
pub(crate) async fn head_manifest(transport: &Transport, reference: &Reference) -> Result<Option<Descriptor>> {
    let endpoint = transport.endpoint(reference)?;
    let wanted = reference
        .digest()
        .map_or_else(|| reference.tag_or_latest().to_owned(), Digest::to_string);
    let operation = format!("the look-up of `{reference}`");
    let answer = retry(
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
        _ => Ok(Some(get_manifest(transport, &endpoint, reference, &wanted).await?.0)),
    }
}

/// Gets a manifest or an index, and checks it against the digest it was asked by.
async fn get_manifest(
    transport: &Transport,
    endpoint: &Endpoint,
    reference: &Reference,
    wanted: &str,
) -> Result<(Descriptor, Vec<u8>)> {
    let operation = format!("the pull of `{reference}`");
    let (bytes, declared, stated) = retry(
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
    Ok((Descriptor::new(&kind, digest, bytes.len() as u64), bytes))
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
fn choose(index: &Index, reference: &Reference, wanted: &Platform) -> Result<Descriptor> {
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
        reference: reference.to_string(),
        wanted: Box::new(wanted.clone()),
        have,
    })
}

/// An image without an index is what it is; running it elsewhere fails much later and less clearly.
fn check_platform(reference: &Reference, wanted: &Platform, config: &ImageConfig) -> Result<()> {
    let platform = config.platform();
    if platform.os.is_empty() || platform.architecture.is_empty() || wanted.matches(&platform) {
        return Ok(());
    }
    Err(RegistryError::NoPlatform {
        reference: reference.to_string(),
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
        let reference: Reference = "node".parse().unwrap();
        let (amd, arm, attestation) = (
            entry(Some("linux/amd64"), "a"),
            entry(Some("linux/arm64/v8"), "b"),
            entry(Some("unknown/unknown"), "c"),
        );
        let all = index(vec![attestation.clone(), amd.clone(), arm.clone()]);
        assert_eq!(choose(&all, &reference, &"linux/arm64".parse().unwrap()).unwrap(), arm);
        assert_eq!(choose(&all, &reference, &"linux/amd64".parse().unwrap()).unwrap(), amd);
        let error = choose(&all, &reference, &"linux/s390x".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image `docker.io/library/node` is not made for linux/s390x, only for linux/amd64, linux/arm64"
        );
        let bare = entry(None, "x");
        assert_eq!(
            choose(&index(vec![bare.clone()]), &reference, &"linux/amd64".parse().unwrap()).unwrap(),
            bare
        );
        choose(&index(vec![]), &reference, &"linux/amd64".parse().unwrap()).unwrap_err();
    }
}
