//! Runs the stages that a target needs side by side.

use super::bases::Base;
use super::error::{BuildError, Result};
use super::graph::{Graph, Origin, stage_platform};
use super::shared::{Results, Shared, StageResult, placed, wait};
use super::step::StageRun;
use super::variables::{Globals, Scope};
use crate::dockerfile::{Instruction, parse_trigger};
use crate::image::config::ImageState;
use std::sync::Arc;

/// Runs what the target needs, and what a trigger of a base image turns out to need.
pub(super) async fn run_stages(shared: &Arc<Shared>, graph: &mut Graph, globals: &Globals) -> Result<StageResult> {
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
                // As with BuildKit, the config of an image from nothing has the platform that is built for.
                state: ImageState::scratch(shared.platform.clone()),
                platform,
            }
        }
        Origin::Stored(descriptor) => {
            let tools = &shared.tools;
            shared.bases.stored(tools, descriptor, &shared.platform).await?
        }
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
