//! Base images: resolved once a build, their layers fetched and unpacked only when a step needs files.

use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::lost::Lost;
use super::step::end;
use super::tools::Tools;
use super::turns::turn;
use crate::cache::imported::Imported;
use crate::cache::key::KeyBuilder;
use crate::image::config::ImageState;
use crate::layer::write::{Layer, StepLayer};
use crate::rootfs::overlay::{ChainId, OverlayError, RootForm};
use roadstead_registry_client::{
    Descriptor, Digest, Error as RegistryError, ImageConfig, Index, Manifest, NoProgress, Platform, Reference, Store,
    media_type,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Largest manifest or config read from the store.
pub(super) const MAX_DOCUMENT: u64 = 16 << 20;

/// What a stage stands on after some instructions: its layers and its config.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) layers: Vec<StepLayer>,
    pub(super) state: ImageState,
    /// The platform it was asked for.
    pub(super) platform: Platform,
}

type Slot = Arc<tokio::sync::Mutex<Option<Base>>>;

/// Resolves images, each once. Waits for no registry when the build is stopped.
#[derive(Debug)]
pub(super) struct Bases {
    cancel: Cancel,
    /// Layers that must be made again.
    pub(super) lost: Arc<Lost>,
    /// Where cached layers may be had.
    imported: Arc<Imported>,
    slots: Mutex<HashMap<String, Slot>>,
    /// One lock a chain id, so that stages that share layers unpack each once.
    unpacking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Bases {
    pub(super) fn new(cancel: &Cancel, lost: &Arc<Lost>, imported: &Arc<Imported>) -> Self {
        Self {
            cancel: cancel.clone(),
            lost: Arc::clone(lost),
            imported: Arc::clone(imported),
            slots: Mutex::default(),
            unpacking: Mutex::default(),
        }
    }

    /// Does `work` unless the build is stopped first.
    async fn unless_canceled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.cancel.canceled() => Err(BuildError::Canceled),
        }
    }

    /// Finds the image in the local store, or asks its registry.
    pub(super) async fn resolve(
        &self,
        tools: &Tools,
        reference: &Reference,
        platform: &Platform,
        pull: bool,
    ) -> Result<Base> {
        let key = format!("{} {platform}", reference.canonical());
        let slot = Arc::clone(
            self.slots
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        );
        let mut slot = slot.lock().await;
        if let Some(base) = slot.as_ref() {
            return Ok(base.clone());
        }
        let vertex = tools
            .progress
            .start(format!("[internal] load metadata for {}", reference.canonical()));
        let resolving = async { looked_at(tools, resolve(tools, reference, platform, pull).await?).await };
        let result = self.unless_canceled(resolving).await;
        end(&vertex, &result);
        let base = result?;
        *slot = Some(base.clone());
        Ok(base)
    }

    /// Reads an image that lies in the store without a name.
    pub(super) async fn stored(&self, tools: &Tools, descriptor: &Descriptor, platform: &Platform) -> Result<Base> {
        let base = read_stored(
            &tools.store,
            descriptor.clone(),
            platform,
            &descriptor.digest.to_string(),
        )?;
        let other = || BuildError::Other(format!("the image {} is not made for {platform}", descriptor.digest));
        looked_at(tools, base.ok_or_else(other)?).await
    }

    /// Brings the blobs of `layers` into the store.
    pub(super) async fn fetch(&self, tools: &Arc<Tools>, layers: &[Layer]) -> Result<()> {
        self.unless_canceled(fetch(tools, &self.imported, layers)).await
    }

    /// Sees to it that every layer of the stack lies unpacked.
    pub(super) async fn unpack(&self, tools: &Arc<Tools>, layers: &[StepLayer]) -> Result<Vec<ChainId>> {
        let chain = ChainId::stack(layers.iter().map(|l| &l.diff_id));
        if missing(tools, &chain).await?.is_empty() {
            return Ok(chain);
        }
        let name = format!("{:?}", chain.last());
        let lock = Arc::clone(
            self.unpacking
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(name)
                .or_default(),
        );
        let _held = lock.lock().await;
        let wanted = self.wanted(layers, &missing(tools, &chain).await?)?;
        let blobs: Vec<Layer> = wanted.iter().map(|(_, layer)| layer.clone()).collect();
        if let Err(error) = self.fetch(tools, &blobs).await {
            return Err(self.or_lost(tools, layers, error));
        }
        for (at, layer) in wanted {
            if tools.layers.form() == RootForm::Directories {
                // Made when its files are wanted.
                tools.layers.unpack(&tools.store, &chain[..=at], &layer)?;
                continue;
            }
            let waiting = || {
                let digest = &layer.descriptor.digest;
                tools
                    .progress
                    .warn(format!("waiting for another build that unpacks {digest}"));
            };
            let turn = turn(tools, &unpacking(&chain[at]), &self.cancel, waiting).await?;
            let (diff_id, blob) = (layer.diff_id.clone(), layer.descriptor.digest.clone());
            let (shared, chain) = (Arc::clone(tools), chain[..=at].to_vec());
            let unpacking = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                // Another build may have been first.
                if shared.layers.has(&chain[at]) {
                    return Ok(());
                }
                let vertex = shared.progress.start(format!("extracting {}", layer.descriptor.digest));
                let result = shared.layers.unpack(&shared.store, &chain, &layer);
                match &result {
                    Ok(()) => vertex.done(),
                    Err(e) => vertex.failed(e.to_string()),
                }
                result
            });
            let unpacked = unpacking
                .await
                .map_err(|e| BuildError::Other(format!("unpacking a layer ended early: {e}")))?;
            if let Err(error) = unpacked {
                return Err(self.or_untrue(tools, &diff_id, &blob, error.into()));
            }
        }
        Ok(chain)
    }
}

impl Bases {
    /// The blobs of the layers at `missing`. One without blob is known by its digest only.
    fn wanted(&self, layers: &[StepLayer], missing: &[usize]) -> Result<Vec<(usize, Layer)>> {
        let missing = || missing.iter().filter_map(|at| Some((*at, layers.get(*at)?)));
        let gone: Vec<&Digest> = missing()
            .filter(|(_, layer)| layer.descriptor.is_none())
            .map(|(_, layer)| &layer.diff_id)
            .collect();
        if let Some(first) = gone.first() {
            self.lost.add(gone.iter().copied());
            return Err(BuildError::Lost((*first).clone()));
        }
        Ok(missing()
            .filter_map(|(at, layer)| Some((at, layer.packed()?)))
            .collect())
    }

    /// Does the same for a layer that was unpacked only when a step wanted its files.
    pub(super) fn or_unusable(&self, tools: &Tools, error: BuildError) -> BuildError {
        let (diff_id, blob) = match &error {
            BuildError::Overlay(OverlayError::Extract { diff_id, digest, .. }) => (diff_id.clone(), digest.clone()),
            BuildError::Overlay(OverlayError::DiffId { expected, digest, .. }) => (expected.clone(), digest.clone()),
            _ => return error,
        };
        self.or_untrue(tools, &diff_id, &blob, error)
    }

    /// Makes a layer that is not what a cache has said one that its step can make again.
    fn or_untrue(&self, tools: &Tools, diff_id: &Digest, blob: &Digest, error: BuildError) -> BuildError {
        if !self.imported.speaks_of(blob) || !self.lost.add([diff_id]) {
            return error;
        }
        let message = format!("a cached layer is of no use, its step runs: {error}");
        tools.progress.warn(message);
        BuildError::Lost(diff_id.clone())
    }

    /// Makes a failed download one of layers that steps can make again, where it is that of a cached layer.
    fn or_lost(&self, tools: &Tools, layers: &[StepLayer], error: BuildError) -> BuildError {
        if error.is_canceled() {
            return error;
        }
        let is_gone = |layer: &&StepLayer| {
            let blob = layer.descriptor.as_ref().filter(|_| layer.compressor.is_some());
            blob.is_some_and(|blob| !tools.store.has(&blob.digest))
        };
        let gone: Vec<&Digest> = layers.iter().filter(is_gone).map(|layer| &layer.diff_id).collect();
        match gone.first() {
            Some(first) if self.lost.add(gone.iter().copied()) => BuildError::Lost((*first).clone()),
            _ => error,
        }
    }
}

/// The key by which builds keep from unpacking a layer twice.
fn unpacking(id: &ChainId) -> Digest {
    let mut key = KeyBuilder::new("unpack");
    key.add("chain id", format!("{id:?}"));
    key.finish()
}

/// Tells which layers of `chain` do not lie unpacked. Their files are looked at side by side.
async fn missing(tools: &Arc<Tools>, chain: &[ChainId]) -> Result<Vec<usize>> {
    let look = |id: &ChainId| {
        let (tools, id) = (Arc::clone(tools), id.clone());
        tokio::task::spawn_blocking(move || tools.layers.has(&id))
    };
    let looks: Vec<_> = chain.iter().map(look).collect();
    let mut missing = Vec::new();
    for (at, look) in looks.into_iter().enumerate() {
        let there = look.await;
        if !there.map_err(|e| BuildError::Other(format!("looking at a layer ended early: {e}")))? {
            missing.push(at);
        }
    }
    Ok(missing)
}

/// Tells whether a blob is in the store and right. A wrong one is gone then.
async fn verified(tools: &Tools, digest: &Digest) -> Result<bool> {
    let (store, digest) = (tools.store.clone(), digest.clone());
    let looking = tokio::task::spawn_blocking(move || store.verified(&digest)).await;
    Ok(looking.map_err(|e| BuildError::Other(format!("looking at a blob ended early: {e}")))??)
}

/// Brings the blobs of `layers` into the store, several at a time.
async fn fetch(tools: &Arc<Tools>, imported: &Arc<Imported>, layers: &[Layer]) -> Result<()> {
    let mut fetching = tokio::task::JoinSet::new();
    for layer in layers {
        if verified(tools, &layer.descriptor.digest).await? {
            continue;
        }
        let sources = tools.store.sources(&layer.descriptor.digest);
        let (tools, imported, descriptor) = (Arc::clone(tools), Arc::clone(imported), layer.descriptor.clone());
        fetching.spawn(async move {
            let vertex = tools
                .progress
                .start(format!("pulling {} ({} bytes)", descriptor.digest, descriptor.size));
            let fetched = fetch_from(&tools, &imported, &sources, &descriptor).await;
            match &fetched {
                Ok(()) => vertex.done(),
                Err(error) => vertex.failed(error.to_string()),
            }
            Ok::<_, BuildError>(fetched?)
        });
    }
    while let Some(result) = fetching.join_next().await {
        result.map_err(|e| BuildError::Other(format!("a download ended early: {e}")))??;
    }
    Ok(())
}

/// Tries the registries that are known to have a blob, then the caches that speak of it.
async fn fetch_from(
    tools: &Tools,
    imported: &Imported,
    sources: &[Reference],
    blob: &Descriptor,
) -> std::result::Result<(), RegistryError> {
    let mut last = None;
    for source in sources {
        // Boxed: the client's futures nest deeper than the compiler wants to lay out in one piece.
        match Box::pin(tools.client.fetch_blob(source, blob, &tools.store, &NoProgress)).await {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    let from_cache = imported.fetch(blob, &tools.store).await;
    // Why a registry did not give it says more than that no cache knows it.
    from_cache.map_err(|error| last.unwrap_or(error))
}

async fn resolve(tools: &Tools, reference: &Reference, platform: &Platform, pull: bool) -> Result<Base> {
    if !pull && let Some(base) = resolve_local(tools, reference, platform)? {
        return Ok(base);
    }
    let resolved = Box::pin(tools.client.resolve(reference, platform)).await?;
    // The repository is where the layers can be fetched or mounted from later.
    for layer in &resolved.manifest.layers {
        tools
            .store
            .add_source(&layer.digest, &resolved.reference.without_tag())?;
    }
    base(&resolved.manifest, &resolved.config, platform, &reference.to_string())
}

/// Removes those blobs of the base that are here and wrong: the image would have them. They are fetched when they are needed.
async fn looked_at(tools: &Tools, base: Base) -> Result<Base> {
    for descriptor in base.layers.iter().filter_map(|layer| layer.descriptor.as_ref()) {
        verified(tools, &descriptor.digest).await?;
    }
    Ok(base)
}

/// Finds the image in the store. One whose documents are damaged or lost is asked for at its registry.
fn resolve_local(tools: &Tools, reference: &Reference, platform: &Platform) -> Result<Option<Base>> {
    let Some(descriptor) = tools.store.resolve(reference)? else {
        return Ok(None);
    };
    match read_stored(&tools.store, descriptor, platform, &reference.to_string()) {
        Err(BuildError::Registry(
            error @ (RegistryError::DigestMismatch { .. } | RegistryError::BlobMissing { .. }),
        )) => {
            let message = format!("{reference} in the local store is damaged, its registry is asked: {error}");
            tools.progress.warn(message);
            Ok(None)
        }
        found => found,
    }
}

/// Reads an image of the store; `None` when there is none for the platform.
fn read_stored(store: &Store, descriptor: Descriptor, platform: &Platform, name: &str) -> Result<Option<Base>> {
    let Some(descriptor) = pick_platform(store, descriptor, platform)? else {
        return Ok(None);
    };
    let manifest = Manifest::parse(&store.read_blob(&descriptor.digest, MAX_DOCUMENT)?)?;
    let config = ImageConfig::parse(&store.read_blob(&manifest.config.digest, MAX_DOCUMENT)?)?;
    if !platform.matches(&config.platform()) {
        return Ok(None);
    }
    base(&manifest, &config, platform, name).map(Some)
}

pub(super) fn pick_platform(store: &Store, descriptor: Descriptor, platform: &Platform) -> Result<Option<Descriptor>> {
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(Some(descriptor));
    }
    let index = Index::parse(&store.read_blob(&descriptor.digest, MAX_DOCUMENT)?)?;
    Ok(index
        .manifests
        .into_iter()
        .find(|m| m.platform.as_ref().is_some_and(|p| platform.matches(p)) && store.has(&m.digest)))
}

fn base(manifest: &Manifest, config: &ImageConfig, platform: &Platform, reference: &str) -> Result<Base> {
    let diff_ids = config.diff_ids()?;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(BuildError::Other(format!(
            "image {reference} is malformed: {layers} layers in its manifest, {ids} in its config"
        )));
    }
    if let Some(foreign) = manifest
        .layers
        .iter()
        .find(|l| media_type::is_foreign_layer(&l.media_type))
    {
        return Err(BuildError::Other(format!(
            "image {reference} has a foreign layer ({}), which cannot be built on",
            foreign.digest
        )));
    }
    let layers = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(d, diff_id)| StepLayer {
            diff_id,
            descriptor: Some(d.clone()),
            compressor: None,
        })
        .collect();
    Ok(Base {
        layers,
        state: ImageState::from_base(config),
        platform: platform.clone(),
    })
}
