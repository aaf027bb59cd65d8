//! Runs the needed stages side by side and assembles the target's image.

use super::bases::{Base, Bases};
use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::graph::{Graph, Origin};
use super::step::StageRun;
use super::variables::{Globals, Scope, unused_args};
use crate::cache::local::LocalCache;
use crate::context::ignore::Ignore;
use crate::dockerfile::Dockerfile;
use crate::image::assemble::{Image, assemble};
use crate::image::config::ImageState;
use crate::layer::write::{Layer, StepLayer};
use crate::progress::Progress;
use crate::rootfs::diff::DEFAULT_EPOCH;
use crate::rootfs::overlay::{ChainId, Layers};
use roadstead_registry_client::{Client, Platform, Store};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Says what to build.
#[derive(Debug)]
pub struct Request {
    /// The parsed Dockerfile.
    pub dockerfile: Dockerfile,
    /// The context directory.
    pub context: PathBuf,
    /// Its `.dockerignore`.
    pub ignore: Ignore,
    /// `--target`; the last stage when absent.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, beating the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// `--platform`; this machine's when absent.
    pub platform: Option<Platform>,
    /// Run every step, whatever is remembered.
    pub no_cache: bool,
    /// Ask the registry even for images that lie in the local store.
    pub pull: bool,
    /// A CA bundle shown to RUN commands; never part of the image or of a cache key.
    pub ca_bundle: Option<PathBuf>,
    /// Called for each layer of the target as soon as it is known, base layers included.
    pub on_layer: Option<LayerHook>,
}

/// A function called with a finished layer.
#[derive(Clone)]
pub struct LayerHook(pub Arc<dyn Fn(&Layer) + Send + Sync>);

impl std::fmt::Debug for LayerHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LayerHook")
    }
}

/// What a build works with.
#[derive(Debug)]
pub struct Tools {
    /// Blobs and names.
    pub store: Store,
    /// Registries.
    pub client: Client,
    /// Unpacked layers.
    pub layers: Layers,
    /// Remembered steps.
    pub cache: LocalCache,
    /// Where progress goes.
    pub progress: Progress,
    /// A directory for temporary files, removed by the caller.
    pub scratch: PathBuf,
}

/// What a build gave.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image in the store.
    pub image: Image,
    /// Its layers, base first.
    pub layers: Vec<Layer>,
    /// Time of everything in it that has no older one, in seconds since 1970.
    pub epoch: i64,
}

/// What all steps of one build share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tools: Arc<Tools>,
    pub(super) request: Request,
    pub(super) bases: Bases,
    pub(super) cancel: Cancel,
    pub(super) epoch: i64,
    /// `epoch` as the config writes it.
    pub(super) created: String,
    pub(super) platform: Platform,
    /// Commands and copies at work at once.
    pub(super) slots: tokio::sync::Semaphore,
}

/// What a stage gave, for the stages that stand on it or copy from it.
#[derive(Debug, Clone)]
pub(super) struct StageResult {
    pub(super) base: Base,
    pub(super) scope: Scope,
}

/// How stages wait for each other: `None` until done. A dropped sender means that the stage failed.
pub(super) type Results = BTreeMap<usize, watch::Receiver<Option<StageResult>>>;

/// Builds the target of `request`.
///
/// # Errors
/// The first failing step; all others are then stopped, and nothing is named in the store.
pub async fn build(tools: Arc<Tools>, request: Request, cancel: &Cancel) -> Result<Built> {
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let globals = Globals::new(&request.dockerfile, &request.build_args, &platform)?;
    let graph = Graph::new(&request.dockerfile, request.target.as_deref(), &globals)?;
    for name in unused_args(&request.dockerfile, &request.build_args) {
        tools
            .progress
            .warn(format!("build argument `{name}` was not consumed: no ARG declares it"));
    }
    let epoch = globals.epoch()?.unwrap_or(DEFAULT_EPOCH);
    let created = jiff::Timestamp::from_second(epoch)
        .map_err(|e| BuildError::Other(format!("SOURCE_DATE_EPOCH: {e}")))?
        .to_string();
    let slots = tokio::sync::Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from).max(2));
    let (bases, cancel) = (Bases::default(), cancel.clone());
    let shared = Arc::new(Shared {
        tools,
        request,
        bases,
        cancel,
        epoch,
        created,
        platform,
        slots,
    });
    let target = run_stages(&shared, &graph, &globals).await?;
    finish(&shared, target).await
}

async fn run_stages(shared: &Arc<Shared>, graph: &Graph, globals: &Globals) -> Result<StageResult> {
    let mut senders = BTreeMap::new();
    let mut results = Results::new();
    for index in graph.stages.keys() {
        let (sender, receiver) = watch::channel(None);
        senders.insert(*index, sender);
        results.insert(*index, receiver);
    }
    let results = Arc::new(results);
    let mut running = tokio::task::JoinSet::new();
    for (index, sender) in senders {
        let Some(origin) = graph.stages.get(&index).cloned() else {
            continue;
        };
        let (shared, results, globals) = (Arc::clone(shared), Arc::clone(&results), globals.clone());
        let in_image = graph.in_image.contains(&index);
        running.spawn(async move {
            let result = stage(&shared, index, in_image, &origin, &results, &globals).await?;
            sender.send_replace(Some(result));
            Ok(())
        });
    }
    let mut failure: Option<BuildError> = None;
    while let Some(ended) = running.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(BuildError::Other(format!("a stage ended early: {e}"))));
        let Err(error) = ended else { continue };
        // The first real failure is the cause; the rest only followed.
        if failure
            .as_ref()
            .is_none_or(|first| first.is_canceled() && !shared.cancel.is_canceled())
        {
            failure = Some(error);
        }
        shared.cancel.cancel();
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let target = results.get(&graph.target).and_then(|r| r.borrow().clone());
    target.ok_or(BuildError::Canceled)
}

async fn stage(
    shared: &Arc<Shared>,
    index: usize,
    in_image: bool,
    origin: &Origin,
    results: &Arc<Results>,
    globals: &Globals,
) -> Result<StageResult> {
    let file = &shared.request.dockerfile;
    let name = file.stages[index].name.clone().unwrap_or_else(|| index.to_string());
    let mut scope = Scope::new(globals, &name);
    let base = match origin {
        Origin::Scratch => Base {
            layers: Vec::new(),
            state: ImageState::scratch(shared.platform.clone()),
        },
        Origin::Stage(other) => {
            let parent = wait(shared, results, *other).await?;
            scope.inherit(&parent.scope);
            parent.base
        }
        Origin::Image { reference, platform } => {
            let platform = platform.as_ref().unwrap_or(&shared.platform);
            let resolving = shared
                .bases
                .resolve(&shared.tools, reference, platform, shared.request.pull);
            let resolved = tokio::select! {
                resolved = resolving => resolved,
                () = shared.cancel.canceled() => Err(BuildError::Canceled),
            };
            let span = file.stages[index].image_span;
            resolved.map_err(|e| {
                placed(
                    shared,
                    span,
                    Some(format!("cannot use base image `{}`", reference.familiar())),
                    e,
                )
            })?
        }
    };
    if let Some(trigger) = base.state.on_build.first() {
        let message = format!("cannot honour the base image's `ONBUILD {trigger}` yet");
        return Err(BuildError::At {
            place: Box::new(file.error(file.stages[index].image_span, message)),
        });
    }
    if in_image && matches!(origin, Origin::Image { .. }) {
        base.layers.iter().for_each(|layer| shared.announce(layer));
    }
    let mut base = base;
    base.state.cmd_is_own = false;
    StageRun::new(shared, results, index, in_image, base, scope).run().await
}

impl Shared {
    /// Tells the caller of a layer that the image will hold.
    pub(super) fn announce(&self, layer: &StepLayer) {
        if let (Some(hook), Some(layer)) = (&self.request.on_layer, layer.packed()) {
            (hook.0)(&layer);
        }
    }
}

/// Waits for another stage.
pub(super) async fn wait(shared: &Shared, results: &Results, index: usize) -> Result<StageResult> {
    let Some(receiver) = results.get(&index) else {
        return Err(BuildError::Other(format!("stage {index} was not planned")));
    };
    let mut receiver = receiver.clone();
    tokio::select! {
        done = receiver.wait_for(Option::is_some) => done.ok().and_then(|r| r.clone()).ok_or(BuildError::Canceled),
        () = shared.cancel.canceled() => Err(BuildError::Canceled),
    }
}

/// Puts an error at a place of the Dockerfile: one message with all causes, then the line and a caret.
pub(super) fn placed(
    shared: &Shared,
    span: crate::dockerfile::Span,
    what: Option<String>,
    error: BuildError,
) -> BuildError {
    if error.is_canceled() || matches!(error, BuildError::At { .. }) {
        return error;
    }
    let hint = error.hint();
    let mut message = what.map_or_else(String::new, |what| format!("{what}: ")) + &error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        let text = next.to_string();
        // Transparent errors repeat their cause.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = next.source();
    }
    let mut place = shared.request.dockerfile.error(span, message);
    place.hint = hint;
    BuildError::At { place: Box::new(place) }
}

async fn finish(shared: &Arc<Shared>, target: StageResult) -> Result<Built> {
    let Base { layers, mut state } = target.base;
    state.labels.extend(shared.request.labels.clone());
    let unpacked = || BuildError::Other("a layer of the image was not packed".into());
    let layers: Vec<Layer> = layers
        .iter()
        .map(|layer| layer.packed().ok_or_else(unpacked))
        .collect::<Result<_>>()?;
    let vertex = shared.tools.progress.start("exporting to image");
    let image = assemble(&shared.tools.store, &state, &layers, &shared.created)?;
    vertex.log(format!("exporting manifest {}", image.descriptor.digest));
    vertex.log(format!("exporting config {}", image.config_digest));
    vertex.done();
    Ok(Built {
        image,
        layers,
        epoch: shared.epoch,
    })
}

/// Brings all layers of a built image here and unpacked, for outputs that need files.
///
/// # Errors
/// When a base layer cannot be fetched or unpacked.
pub async fn unpacked(tools: &Arc<Tools>, built: &Built) -> Result<Vec<ChainId>> {
    let layers: Vec<StepLayer> = built.layers.iter().cloned().map(StepLayer::from).collect();
    Bases::default().unpack(tools, &layers).await
}
