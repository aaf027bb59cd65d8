//! Runs the needed stages side by side and assembles the target's image.

use super::bases::{Base, Bases};
use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::graph::{Graph, Origin};
use super::run_options::hostname;
use super::shared::{Built, Request, Results, Shared, StageResult, placed, wait};
use super::step::StageRun;
use super::tools::Tools;
use super::variables::{Globals, Scope, unused_args};
use crate::dockerfile::{Instruction, parse_trigger};
use crate::image::assemble::assemble;
use crate::image::config::ImageState;
use crate::layer::write::{Layer, StepLayer};
use crate::rootfs::diff::DEFAULT_EPOCH;
use crate::rootfs::overlay::ChainId;
use roadstead_registry_client::Platform;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Builds the target of `request`.
///
/// # Errors
/// The first failing step; all others are then stopped, and nothing is named in the store.
pub async fn build(tools: Arc<Tools>, request: Request, cancel: &Cancel) -> Result<Built> {
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let globals = Globals::new(
        &request.dockerfile,
        request.target.as_deref(),
        &request.build_args,
        &platform,
    )?;
    let mut graph = Graph::new(&request.dockerfile, request.target.as_deref(), &globals, &request.named)?;
    for name in unused_args(&request.dockerfile, &request.build_args) {
        tools
            .progress
            .warn(format!("build argument `{name}` was not consumed: no ARG declares it"));
    }
    let epoch = globals.epoch()?.unwrap_or(DEFAULT_EPOCH);
    let created = jiff::Timestamp::from_second(epoch)
        .map_err(|e| BuildError::Other(format!("SOURCE_DATE_EPOCH: {e}")))?
        .to_string();
    let hostname = hostname(request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME")).map_err(BuildError::Other)?;
    let uncached = uncached(&request)?;
    let slots = tokio::sync::Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from).max(2));
    let (bases, cancel) = (Bases::new(cancel), cancel.clone());
    let shared = Arc::new(Shared {
        tools,
        request,
        bases,
        cancel,
        epoch,
        created,
        platform,
        hostname,
        uncached,
        slots,
    });
    let target = run_stages(&shared, &mut graph, &globals).await?;
    finish(&shared, target).await
}

/// Finds the stages of `--no-cache-filter`. One that is not there is an error: the wrong stage would come from the cache.
fn uncached(request: &Request) -> Result<BTreeSet<usize>> {
    let file = &request.dockerfile;
    let find = |name: &String| {
        let stage = file.stage_index(name, file.stages.len());
        stage.ok_or_else(|| {
            BuildError::Other(format!(
                "`--no-cache-filter` names `{name}`, which is no stage of the Dockerfile"
            ))
        })
    };
    request.no_cache_filter.iter().map(find).collect()
}

/// Runs what the target needs, and what a trigger of a base image turns out to need.
async fn run_stages(shared: &Arc<Shared>, graph: &mut Graph, globals: &Globals) -> Result<StageResult> {
    let request = &shared.request;
    let (results, mut senders, mut asked) = Results::new(request.dockerfile.stages.len());
    let results = Arc::new(results);
    let mut running = tokio::task::JoinSet::new();
    let mut new: Vec<usize> = graph.stages.keys().copied().collect();
    let mut failure: Option<BuildError> = None;
    loop {
        for index in std::mem::take(&mut new) {
            let (Some(origin), Some(sender)) = (graph.stages.get(&index).cloned(), senders[index].take()) else {
                continue;
            };
            let (shared, results, globals) = (Arc::clone(shared), Arc::clone(&results), globals.clone());
            let place = Place {
                index,
                in_image: graph.in_image.contains(&index),
                is_replaced: graph.replaced.contains(&index),
            };
            running.spawn(async move {
                let result = stage(&shared, place, &origin, &results, &globals).await?;
                sender.send_replace(Some(result));
                Ok(())
            });
        }
        let ended = tokio::select! {
            Some(index) = asked.recv() => match graph.need(index, &request.dockerfile, globals, &request.named) {
                Ok(needed) => {
                    new = needed;
                    continue;
                }
                Err(error) => Err(error),
            },
            ended = running.join_next() => match ended {
                Some(ended) => ended.unwrap_or_else(|e| Err(BuildError::Other(format!("a stage ended early: {e}")))),
                None => break,
            },
        };
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
    results.get(graph.target).ok_or(BuildError::Canceled)
}

/// Which stage, and what it is for.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    in_image: bool,
    /// Whether a named context stands in its place.
    is_replaced: bool,
}

async fn stage(
    shared: &Arc<Shared>,
    place: Place,
    origin: &Origin,
    results: &Arc<Results>,
    globals: &Globals,
) -> Result<StageResult> {
    let Place { index, in_image, .. } = place;
    let file = &shared.request.dockerfile;
    let mut inherited = None;
    let base = match origin {
        // The files of a directory are copied below, as the first layer.
        Origin::Scratch | Origin::Directory(_) => Base {
            layers: Vec::new(),
            state: ImageState::scratch(shared.platform.clone()),
        },
        Origin::Stored(descriptor) => shared.bases.stored(&shared.tools.store, descriptor, &shared.platform)?,
        Origin::Stage(other) => {
            let parent = wait(shared, results, *other).await?;
            inherited = Some(parent.scope);
            parent.base
        }
        Origin::Image { reference, platform } => {
            let platform = platform.as_ref().unwrap_or(&shared.platform);
            let resolving = shared
                .bases
                .resolve(&shared.tools, reference, platform, shared.request.pull);
            let resolved = resolving.await;
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
    if in_image && matches!(origin, Origin::Image { .. } | Origin::Stored(_)) {
        base.layers.iter().for_each(|layer| shared.announce(layer));
    }
    let mut base = base;
    base.state.cmd_is_own = false;
    let mut scope = Scope::new(globals, &base.state.env);
    if let Some(parent) = &inherited {
        scope.inherit(parent);
    }
    if place.is_replaced {
        let mut run = StageRun::new(shared, results, index, in_image, base, Vec::new(), scope);
        run.begin_with(origin).await?;
        return Ok(run.ended());
    }
    let triggers = triggers(shared, index, results, std::mem::take(&mut base.state.on_build))?;
    let mut run = StageRun::new(shared, results, index, in_image, base, triggers, scope);
    run.begin_with(origin).await?;
    run.run().await
}

/// Reads what the base has for the stages that stand on it. Stages that it names are those of this file.
fn triggers(shared: &Shared, index: usize, results: &Results, texts: Vec<String>) -> Result<Vec<Instruction>> {
    let file = &shared.request.dockerfile;
    let span = file.stages[index].image_span;
    let at = |message| BuildError::At {
        place: Box::new(file.error(span, message)),
    };
    let mut triggers = Vec::with_capacity(texts.len());
    for text in texts {
        let trigger = parse_trigger(&text, span).map_err(at)?;
        for from in trigger.kind.sources() {
            // Which stages are needed was found out before the base was known.
            file.stage_index(from, index)
                .into_iter()
                .for_each(|stage| results.ask(stage));
        }
        triggers.push(trigger);
    }
    Ok(triggers)
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
    vertex.note(format!("exporting manifest {}", image.descriptor.digest));
    vertex.note(format!("exporting config {}", image.config_digest));
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
pub async fn unpacked(tools: &Arc<Tools>, built: &Built, cancel: &Cancel) -> Result<Vec<ChainId>> {
    let layers: Vec<StepLayer> = built.layers.iter().cloned().map(StepLayer::from).collect();
    Bases::new(cancel).unpack(tools, &layers).await
}
