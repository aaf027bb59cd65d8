//! What the steps of one build share, and how they wait for each other.

use super::bases::{Base, Bases};
use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::explain::Explain;
use super::named::NamedContexts;
use super::run_options::RunOptions;
use super::secret::Secret;
use super::steps::Steps;
use super::tools::Tools;
use super::used::Used;
use super::variables::Scope;
use crate::cache::imported::Imported;
use crate::context::Context;
use crate::dockerfile::{Dockerfile, Instruction};
use crate::image::config::ImageState;
use crate::layer::compression::Compression;
use crate::layer::write::{Layer, StepLayer};
use crate::ssh::Agent;
use roadstead_registry_client::{Growing, Platform};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Says what to build.
#[derive(Debug)]
pub struct Request {
    /// The parsed Dockerfile.
    pub dockerfile: Dockerfile,
    /// The build context.
    pub context: Context,
    /// `--build-context`.
    pub named: NamedContexts,
    /// `--target`; the last stage when absent.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, beating the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// `--platform`, each once; this machine's when there is none.
    pub platforms: Vec<Platform>,
    /// The time of a context that has one, such as that of a commit: what `SOURCE_DATE_EPOCH=context` means.
    pub context_time: Option<i64>,
    /// How the layers that are built are compressed.
    pub compression: Compression,
    /// Whether the image's base layers will be compressed anew: then they are not worth telling of.
    pub force_compression: bool,
    /// Run every step, whatever is remembered.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages, by name or number, of which every step is run.
    pub no_cache_filter: Vec<String>,
    /// Settings of all RUN commands.
    pub run: RunOptions,
    /// Ask the registry even for images that lie in the local store.
    pub pull: bool,
    /// A CA bundle shown to RUN commands; never part of the image or of a cache key.
    pub ca_bundle: Option<PathBuf>,
    /// `--secret`, by id; never part of the image, of a cache key or of a message.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`, by id; never part of a cache key.
    pub ssh: BTreeMap<String, Agent>,
    /// Caches of other machines.
    pub cache_from: Arc<Imported>,
    /// What the steps of the build before depended on.
    pub explain: Explain,
    /// Whether layers that no image holds get blobs, too, for a cache that is carried elsewhere.
    pub pack_all: bool,
    /// Whether the image's config holds a cache.
    pub inline_cache: bool,
    /// Called for each layer of the target as soon as it is known, base layers included.
    pub on_layer: Option<LayerHook>,
    /// Called for each layer's blob that the image will hold, while it is being written.
    pub on_blob: Option<BlobHook>,
}

/// A function called with a finished layer.
#[derive(Clone)]
pub struct LayerHook(pub Arc<dyn Fn(&Layer) + Send + Sync>);

impl std::fmt::Debug for LayerHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LayerHook")
    }
}

/// A function called with a blob that is being written.
#[derive(Clone)]
pub struct BlobHook(pub Arc<dyn Fn(Growing) + Send + Sync>);

impl std::fmt::Debug for BlobHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobHook")
    }
}

/// What a build gave, before it has the form of an image.
#[derive(Debug, Clone)]
pub struct Built {
    /// One result a platform, in the order they were asked for.
    pub platforms: Vec<BuiltPlatform>,
    /// Whether the image is an index: for several platforms, or since `BUILDKIT_MULTI_PLATFORM` says so.
    pub is_index: bool,
    /// `SOURCE_DATE_EPOCH`, if it was given.
    pub epoch: Option<i64>,
    /// Whether the image says which step gave which of its layers.
    pub inline_cache: bool,
    /// The steps it consists of, for a cache that is carried elsewhere.
    pub used: Arc<Used>,
}

/// What a build gave for one platform.
#[derive(Debug, Clone)]
pub struct BuiltPlatform {
    /// The platform as it was asked for.
    pub platform: Platform,
    /// When it was made, as documents write it: the epoch, given or not.
    pub(crate) created: String,
    pub(crate) state: ImageState,
    /// Its layers, base first, all with blobs.
    pub(crate) layers: Vec<StepLayer>,
}

/// What all steps of a build for one platform share. The builds for other platforms share everything but the platform.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tools: Arc<Tools>,
    pub(super) request: Arc<Request>,
    pub(super) bases: Arc<Bases>,
    pub(super) steps: Arc<Steps>,
    pub(super) used: Arc<Used>,
    pub(super) cancel: Cancel,
    pub(super) epoch: i64,
    /// `epoch` as the config writes it.
    pub(super) created: String,
    pub(super) platform: Platform,
    /// Host name inside a RUN.
    pub(super) hostname: String,
    /// Stages of which every step is run.
    pub(super) uncached: BTreeSet<usize>,
    /// Whether steps show their platform, since there are several.
    pub(super) shows_platform: bool,
    /// Copies, and commands' results being packed, at once.
    pub(super) slots: Arc<tokio::sync::Semaphore>,
    /// Commands at once.
    pub(super) commands: Arc<tokio::sync::Semaphore>,
}

/// What a stage gave, for the stages that stand on it or copy from it.
#[derive(Debug, Clone)]
pub(super) struct StageResult {
    pub(super) base: Base,
    pub(super) scope: Scope,
}

/// How stages wait for each other, one for each stage of the file.
#[derive(Debug)]
pub(super) struct Results {
    /// `None` until done. A dropped sender means that the stage failed.
    receivers: Vec<watch::Receiver<Option<StageResult>>>,
    /// Takes the numbers of stages that turn out to be needed.
    ask: mpsc::UnboundedSender<usize>,
}

/// Ends of the channels in [`Results`], by stage.
pub(super) type Senders = Vec<Option<watch::Sender<Option<StageResult>>>>;

impl Results {
    /// Makes a place for each of `count` stages; gives also the other ends.
    pub(super) fn new(count: usize) -> (Self, Senders, mpsc::UnboundedReceiver<usize>) {
        let (senders, receivers) = (0..count)
            .map(|_| watch::channel(None))
            .map(|(s, r)| (Some(s), r))
            .unzip();
        let (ask, asked) = mpsc::unbounded_channel();
        (Self { receivers, ask }, senders, asked)
    }

    /// Has a stage built that nothing needed so far.
    pub(super) fn ask(&self, index: usize) {
        // Nobody listens any more when the build has ended: then nobody waits either.
        let _gone = self.ask.send(index);
    }

    /// Gives what a stage gave, when it is done.
    pub(super) fn get(&self, index: usize) -> Option<StageResult> {
        self.receivers.get(index).and_then(|receiver| receiver.borrow().clone())
    }
}

impl Shared {
    /// Waits for a slot, on a thread that may wait.
    pub(super) fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let waiting = self.slots.acquire();
        let slot = tokio::runtime::Handle::current().block_on(waiting);
        slot.map_err(|_| BuildError::Canceled)
    }

    /// Tells the caller of a layer that the image will hold.
    pub(super) fn announce(&self, layer: &StepLayer) {
        if let (Some(hook), Some(layer)) = (&self.request.on_layer, layer.packed()) {
            (hook.0)(&layer);
        }
    }
}

/// Waits for another stage.
pub(super) async fn wait(shared: &Shared, results: &Results, index: usize) -> Result<StageResult> {
    let Some(receiver) = results.receivers.get(index) else {
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
    if has_place(&error) {
        return error;
    }
    let message = what.map_or_else(String::new, |what| format!("{what}: ")) + &with_causes(&error);
    let mut place = shared.request.dockerfile.error(span, message);
    place.hint = error.hint();
    BuildError::At { place: Box::new(place) }
}

/// Makes an error that of a failed step: one message with all causes, and the instruction among the lines around it.
pub(super) fn of_step(shared: &Shared, instruction: &Instruction, error: BuildError) -> BuildError {
    if has_place(&error) {
        return error;
    }
    BuildError::Step {
        message: with_causes(&error),
        excerpt: shared.request.dockerfile.excerpt(instruction),
        hint: error.hint(),
    }
}

/// Tells whether an error needs no place: it has one, or nobody's instruction is to blame.
fn has_place(error: &BuildError) -> bool {
    error.is_canceled() || error.is_lost() || matches!(error, BuildError::At { .. } | BuildError::Step { .. })
}

fn with_causes(error: &BuildError) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        // Transparent errors repeat their cause.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = next.source();
    }
    message
}
