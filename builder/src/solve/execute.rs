//! Runs the needed stages of all platforms side by side.

use super::bases::{Base, Bases};
use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::graph::{Graph, Origin, stage_platform};
use super::shared::{Built, BuiltPlatform, Request, Results, Shared, StageResult, placed, wait};
use super::step::StageRun;
use super::steps::Steps;
use super::tools::Tools;
use super::variables::{Globals, Scope, unused_args};
use crate::dockerfile::{Instruction, parse_trigger};
use crate::image::config::ImageState;
use crate::rootfs::diff::DEFAULT_EPOCH;
use roadstead_registry_client::Platform;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Makes the image an index even for one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// Builds the target of `request`, for all of its platforms side by side.
///
/// # Errors
/// The first failing step; all others are then stopped.
pub async fn build(tools: Arc<Tools>, request: Request, cancel: &Cancel) -> Result<Built> {
    let platforms = match request.platforms.as_slice() {
        [] => vec![Platform::host()],
        several => several.to_vec(),
    };
    let is_index = is_index(&request.build_args, platforms.len()).map_err(BuildError::Other)?;
    for name in unused_args(&request.dockerfile, &request.build_args) {
        tools
            .progress
            .warn(format!("build argument `{name}` was not consumed: no ARG declares it"));
    }
    let common = Common {
        tools,
        request: Arc::new(request),
        bases: Arc::new(Bases::new(cancel)),
        steps: Arc::default(),
        slots: Arc::new(Semaphore::new(
            std::thread::available_parallelism().map_or(2, usize::from).max(2),
        )),
        cancel: cancel.clone(),
        shows_platform: platforms.len() > 1,
    };
    let mut builds = Vec::new();
    for platform in &platforms {
        builds.push(common.platform(platform)?);
    }
    let first = builds
        .first()
        .map(|build| (build.given_epoch, build.shared.created.clone()));
    let (epoch, created) = first.unwrap_or_default();
    let mut running = tokio::task::JoinSet::new();
    for (at, build) in builds.into_iter().enumerate() {
        running.spawn(async move { (at, build.run().await) });
    }
    let mut platforms = BTreeMap::new();
    let mut failure: Option<BuildError> = None;
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((at, Ok(one))) => drop(platforms.insert(at, one)),
            Ok((_, Err(error))) => {
                // What was only stopped has followed from another failure.
                if failure.as_ref().is_none_or(BuildError::is_canceled) {
                    failure = Some(error);
                }
            }
            Err(error) => return Err(BuildError::Other(format!("a build ended early: {error}"))),
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let platforms = platforms.into_values().collect();
    Ok(Built {
        platforms,
        is_index,
        epoch,
        created,
    })
}

/// Tells whether an image for so many platforms is an index.
///
/// # Errors
/// When `BUILDKIT_MULTI_PLATFORM` is no truth value, or denies several platforms.
pub fn is_index(build_args: &BTreeMap<String, String>, platforms: usize) -> std::result::Result<bool, String> {
    match build_args.get(MULTI_PLATFORM).map(String::as_str) {
        None | Some("") => Ok(platforms > 1),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") if platforms > 1 => Err(format!(
            "`{MULTI_PLATFORM}` is false, and {platforms} platforms are to be built"
        )),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(format!("invalid `{MULTI_PLATFORM}={other}`: it is true or false")),
    }
}

/// What the builds for all platforms share.
struct Common {
    tools: Arc<Tools>,
    request: Arc<Request>,
    bases: Arc<Bases>,
    steps: Arc<Steps>,
    slots: Arc<Semaphore>,
    cancel: Cancel,
    shows_platform: bool,
}

/// The build for one platform, before it runs.
struct PlatformBuild {
    shared: Arc<Shared>,
    graph: Graph,
    globals: Globals,
    given_epoch: Option<i64>,
}

impl Common {
    fn platform(&self, platform: &Platform) -> Result<PlatformBuild> {
        let request = &self.request;
        let mut globals = Globals::new(
            &request.dockerfile,
            request.target.as_deref(),
            &request.build_args,
            platform,
        )?;
        let given_epoch = globals.settle_epoch(&request.dockerfile, request.context_time)?;
        let graph = Graph::new(&request.dockerfile, request.target.as_deref(), &globals, &request.named)?;
        let epoch = given_epoch.unwrap_or(DEFAULT_EPOCH);
        let created = jiff::Timestamp::from_second(epoch)
            .map_err(|e| BuildError::Other(format!("SOURCE_DATE_EPOCH: {e}")))?
            .to_string();
        let shared = Arc::new(Shared {
            tools: Arc::clone(&self.tools),
            request: Arc::clone(request),
            bases: Arc::clone(&self.bases),
            steps: Arc::clone(&self.steps),
            cancel: self.cancel.clone(),
            epoch,
            created,
            platform: platform.clone(),
            shows_platform: self.shows_platform,
            slots: Arc::clone(&self.slots),
        });
        Ok(PlatformBuild {
            shared,
            graph,
            globals,
            given_epoch,
        })
    }
}

impl PlatformBuild {
    async fn run(mut self) -> Result<BuiltPlatform> {
        let target = run_stages(&self.shared, &mut self.graph, &self.globals).await?;
        let mut state = target.base.state;
        state.labels.extend(self.shared.request.labels.clone());
        Ok(BuiltPlatform {
            platform: self.shared.platform.clone(),
            state,
            layers: target.base.layers,
        })
    }
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
        Origin::Scratch | Origin::Directory(_) => {
            let platform = stage_platform(file, index, globals)?.unwrap_or_else(|| shared.platform.clone());
            Base {
                layers: Vec::new(),
                state: ImageState::scratch(platform.clone()),
                platform,
            }
        }
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
    let is_base = matches!(origin, Origin::Image { .. } | Origin::Stored(_));
    if in_image && is_base && !shared.request.force_compression {
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
