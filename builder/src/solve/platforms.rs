//! A build of one platform or of several: what they share, and what each has for itself.

use super::bases::Bases;
use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::execute::run_stages;
use super::graph::Graph;
use super::lost::Lost;
use super::run_options::hostname;
use super::shared::{Built, BuiltPlatform, Request, Shared};
use super::steps::Steps;
use super::tools::Tools;
use super::used::Used;
use super::variables::{Globals, unused_args};
use crate::rootfs::diff::DEFAULT_EPOCH;
use roadstead_registry_client::Platform;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Commands that run at once. They bring their own memory and processes, so that there must be some bound.
const COMMANDS_A_CORE: usize = 8;
const LEAST_COMMANDS: usize = 20;
/// Beginnings of a build: each but the last finds layers that are lost, those of a whole stage at once.
const MOST_ATTEMPTS: usize = 64;
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
    let attempts = Attempts {
        tools,
        request: Arc::new(request),
        platforms,
        lost: Arc::default(),
    };
    let built = attempts.build(is_index, cancel).await;
    attempts.save();
    built
}

/// A build, with what was learnt by beginning it.
struct Attempts {
    tools: Arc<Tools>,
    request: Arc<Request>,
    platforms: Vec<Platform>,
    lost: Arc<Lost>,
}

impl Attempts {
    /// Keeps what later builds want to know of this one. Without it they are slower, and can tell less.
    fn save(&self) {
        let stats = self.request.context.stats.iter().map(|stats| stats.save());
        let saved: std::io::Result<()> = stats.chain([self.request.explain.save()]).collect();
        if let Err(error) = saved {
            let message = format!("what the next build would want to know of this one cannot be kept: {error}");
            self.tools.progress.warn(message);
        }
    }

    async fn build(&self, is_index: bool, cancel: &Cancel) -> Result<Built> {
        for _ in 0..MOST_ATTEMPTS {
            match self.once(is_index, cancel).await {
                Err(BuildError::Lost(_)) if !cancel.is_canceled() => {
                    let notice = "the files of a cached step are needed and not here: it runs again";
                    self.tools.progress.start(notice).done();
                }
                ended => return ended,
            }
        }
        self.once(is_index, cancel).await
    }

    /// Builds as long as all files that are needed can be had. [`BuildError::Lost`] tells of some that were not known to be lost.
    async fn once(&self, is_index: bool, cancel: &Cancel) -> Result<Built> {
        // A step that fails stops the others of its attempt.
        let (cancel, _following) = cancel.child();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let common = Common {
            tools: Arc::clone(&self.tools),
            request: Arc::clone(&self.request),
            bases: Arc::new(Bases::new(&cancel, &self.lost, &self.request.cache_from)),
            steps: Arc::default(),
            used: Arc::default(),
            slots: Arc::new(Semaphore::new(cores.max(2))),
            commands: Arc::new(Semaphore::new((cores * COMMANDS_A_CORE).max(LEAST_COMMANDS))),
            cancel,
            shows_platform: self.platforms.len() > 1,
        };
        let mut builds = Vec::new();
        for platform in &self.platforms {
            builds.push(common.platform(platform)?);
        }
        let epoch = builds.first().and_then(|build| build.given_epoch);
        Ok(Built {
            platforms: run_all(builds).await?,
            is_index,
            epoch,
            inline_cache: common.request.inline_cache,
            used: common.used,
        })
    }
}

/// Runs the builds side by side; gives what they gave in their order, or the failure that stopped the others.
async fn run_all(builds: Vec<PlatformBuild>) -> Result<Vec<BuiltPlatform>> {
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
    match failure {
        Some(failure) => Err(failure),
        None => Ok(platforms.into_values().collect()),
    }
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

/// What the builds for all platforms share.
struct Common {
    tools: Arc<Tools>,
    request: Arc<Request>,
    bases: Arc<Bases>,
    steps: Arc<Steps>,
    used: Arc<Used>,
    slots: Arc<Semaphore>,
    commands: Arc<Semaphore>,
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
        let hostname = hostname(request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME")).map_err(BuildError::Other)?;
        let shared = Arc::new(Shared {
            hostname,
            uncached: uncached(request)?,
            tools: Arc::clone(&self.tools),
            request: Arc::clone(request),
            bases: Arc::clone(&self.bases),
            steps: Arc::clone(&self.steps),
            used: Arc::clone(&self.used),
            cancel: self.cancel.clone(),
            epoch,
            created,
            platform: platform.clone(),
            shows_platform: self.shows_platform,
            slots: Arc::clone(&self.slots),
            commands: Arc::clone(&self.commands),
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
            created: self.shared.created.clone(),
            state,
            layers: target.base.layers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_platforms_or_the_argument_make_an_index() {
        let with = |value: Option<&str>, platforms| {
            let args = value.map(|value| (MULTI_PLATFORM.to_owned(), value.to_owned()));
            is_index(&args.into_iter().collect(), platforms)
        };
        assert_eq!(with(None, 1), Ok(false));
        assert_eq!(with(None, 2), Ok(true));
        assert_eq!(with(Some("1"), 1), Ok(true));
        assert_eq!(with(Some("false"), 1), Ok(false));
        assert!(with(Some("0"), 2).is_err() && with(Some("maybe"), 1).is_err());
    }
}
