//! `roadstead build`: docker build's command line over the builder.

mod cache;
mod call;
mod checks;
mod context;
mod describe;
mod dockerfile;
mod findings;
mod flags;
mod limit;
mod line;
mod names;
mod output;
mod progress;
mod push;
mod refused;
mod report;
mod run_flags;
mod s3;
mod secrets;
mod source;
mod ssh;

pub(super) use flags::Args;
pub(crate) use line::builder;
pub(crate) use names::pushed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use roadstead_builder::cache::mounts::CacheMounts;
use roadstead_builder::context::stat_cache::StatCache;
use roadstead_builder::image::form::Form;
use roadstead_builder::layer::limits::Limits;
use roadstead_builder::progress::Progress;
use roadstead_builder::rootfs::overlay::{Layers, RootForm};
use roadstead_builder::rootfs::scratch::Scratch;
use roadstead_builder::sandbox::{self, Identity, Kind as SandboxKind, Place};
use roadstead_builder::solve::{self, BuildError, Cancel, Explain, Fetcher, LayerHook, Request, Secret, Tools};
use roadstead_registry_client::{Client, ClientOptions, Store};

use rustix::process::Signal;

use crate::data_directory;
use crate::error::{CliError, Kind};
use crate::interrupt::Interrupt;
use crate::processes;

use checks::Checks;
use limit::Limit;
use names::Destinations;
use output::Exporter;
use push::EarlyPush;
use source::Source;
use ssh::Agents;

/// What must be read before the namespaces are entered: inside, the user is root and home directories look different.
struct Outside {
    data: PathBuf,
    options: ClientOptions,
    limits: Limits,
    cache_limit: Limit,
    secrets: BTreeMap<String, Secret>,
    ssh: BTreeMap<String, ssh::Given>,
    owner: roadstead_builder::beneath::Owner,
}

/// Runs the subcommand. A build enters its namespaces before any thread exists.
pub(super) fn main(args: Args) -> Result<ExitCode, CliError> {
    args.check().map_err(CliError::usage)?;
    if let Some(call) = args.call().map_err(CliError::usage)? {
        return call.answer(&args);
    }
    let outside = Outside::read(&args)?;
    let place = sandbox::enter(args.run.sandbox).map_err(CliError::failed)?;
    // Only here, since the kernel may forget it when a process enters a user namespace.
    if let Some(runner) = args.runner
        && !processes::end_with_parent(runner, Signal::TERM).map_err(CliError::failed)?
    {
        return Err(CliError::failed("the job that started this build is gone"));
    }
    super::runtime()?.block_on(build(args, outside, place))
}

impl Outside {
    fn read(args: &Args) -> Result<Self, CliError> {
        let network = args.network.network()?;
        let defaults = Limits::default();
        Ok(Self {
            data: data_directory::open().map_err(data_directory::failed)?,
            options: network.options().map_err(CliError::usage)?,
            limits: Limits {
                bytes: network.max_layer_size.unwrap_or(defaults.bytes),
                files: args.max_files.unwrap_or(defaults.files),
            },
            cache_limit: Limit::read()?,
            secrets: secrets::read(&args.secrets).map_err(CliError::usage)?,
            ssh: ssh::read(&args.run.ssh).map_err(CliError::usage)?,
            owner: roadstead_builder::beneath::Owner {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            },
        })
    }
}

async fn build(args: Args, outside: Outside, place: Place) -> Result<ExitCode, CliError> {
    let renderer = progress::renderer(args.progress, args.quiet)?;
    let progress = Progress::new(renderer.clone());
    let cancel = Cancel::default();
    let mut interrupt = Interrupt::listen().map_err(CliError::failed)?;
    let signal = interrupt.clone();
    let thrown = cancel.clone();
    let listening = tokio::spawn(async move {
        interrupt.wait().await;
        thrown.cancel();
    });
    if place.identity == Identity::SingleId {
        progress.warn("no subordinate ids here: files can belong to one user only; install `uidmap` and give ranges in /etc/subuid");
    }
    if place.kind == SandboxKind::Chroot && !sandbox::knows_notification() {
        progress.warn(
            "this kernel hands no calls to a supervisor (seccomp user notification): RUN commands see an empty /proc and /sys, \
             and reach the machine's endpoints of credentials",
        );
    }
    let result = build_and_export(&args, &outside, place, progress, &cancel).await;
    listening.abort();
    renderer.finish();
    match (result, signal.signal()) {
        (Err(_), Some(number)) => Err(CliError::failed("the build was canceled").of_kind(Kind::Signal(number))),
        (result, _) => result.map(|()| ExitCode::SUCCESS),
    }
}

async fn build_and_export(
    args: &Args,
    outside: &Outside,
    place: Place,
    progress: Progress,
    cancel: &Cancel,
) -> Result<(), CliError> {
    let destinations = Destinations::read(args)?;
    let scratch = Scratch::new(&outside.data.join("tmp")).map_err(CliError::failed)?;
    let store = Store::open(&outside.data.join("store")).map_err(CliError::failed)?;
    let tools = Arc::new(Tools {
        client: Client::new(outside.options.clone()).map_err(CliError::registry)?,
        layers: Layers::open(&outside.data.join("layers"), &scratch.path())
            .map_err(CliError::failed)?
            .with_limits(outside.limits)
            .with_progress(&progress)
            .in_form(RootForm::of(place.kind)),
        cache: super::cache::local_cache(&outside.data, &store)?.with_scratch(&scratch.path()),
        mounts: CacheMounts::open(&outside.data.join("cache-mounts")).map_err(CliError::failed)?,
        progress,
        scratch: scratch.path(),
        store,
        place,
    });
    let fetcher = Fetcher {
        tools: &tools,
        secrets: &outside.secrets,
        ca_bundle: outside.options.ca_bundle.as_deref(),
        cancel,
    };
    let source = Source::open(args, &fetcher).await?;
    let checks = Checks::of_build(args, &source, &tools.store)?;
    let result = match checks.error() {
        Some(error) => Err(error),
        None => solve_and_export(args, outside, source, destinations, &tools, cancel).await,
    };
    // Last, where they are seen.
    checks.warn(&tools.progress);
    outside.cache_limit.keep(&outside.data, &tools);
    result
}

async fn solve_and_export(
    args: &Args,
    outside: &Outside,
    mut source: Source,
    destinations: Destinations,
    tools: &Arc<Tools>,
    cancel: &Cancel,
) -> Result<(), CliError> {
    destinations.check(args, &source.build_args)?;
    let ca = outside.options.ca_bundle.as_deref();
    let caches = args.caches().map_err(CliError::usage)?;
    if !source.context.path.starts_with(&tools.scratch) {
        let stats = StatCache::open(&outside.data.join("contexts"), &source.context.path);
        source.context.stats = Some(stats);
    }
    // Ended when the build is, whatever comes of it.
    let agents = Agents::start(&outside.ssh, &tools.scratch).map_err(CliError::failed)?;
    let early = EarlyPush::new(tools, destinations.early_push());
    let cache_from = Arc::new(caches.import(tools, ca, cancel).await?);
    let mut request = request(args, outside, source, &agents, &destinations.form, early.layer_hook())?;
    request.on_blob = early.blob_hook();
    request.pack_all = caches.carries_all();
    request.inline_cache = caches.is_inline();
    request.cache_from = Arc::clone(&cache_from);
    request.explain = explain(args, outside, &request);
    let built = solve::build(Arc::clone(tools), request, cancel).await.map_err(failed)?;
    early.finish().await;
    let exporter = Exporter {
        tools,
        built: &built,
        owner: outside.owner,
        cancel,
    };
    let image = exporter.export_all(&destinations).await?;
    caches.export(tools, ca, &built, &cache_from, cancel).await?;
    report::write(args, &destinations, &image)
}

fn request(
    args: &Args,
    outside: &Outside,
    source: Source,
    agents: &Agents,
    form: &Form,
    on_layer: Option<LayerHook>,
) -> Result<Request, CliError> {
    let labels = args.labels.iter().map(|l| {
        l.split_once('=')
            .map_or((l.clone(), String::new()), |(k, v)| (k.into(), v.into()))
    });
    Ok(Request {
        dockerfile: source.dockerfile,
        context: source.context,
        context_time: source.context_time,
        named: source.named,
        target: args.target.clone(),
        build_args: source.build_args,
        labels: labels.collect(),
        platforms: checks::platforms(args)?,
        compression: form.compression,
        force_compression: form.force_compression,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        run: args.run.options(),
        pull: args.pull,
        secrets: outside.secrets.clone(),
        ssh: agents.by_id(),
        ca_bundle: outside.options.ca_bundle.clone(),
        on_layer,
        on_blob: None,
        explain: Explain::default(),
        pack_all: false,
        inline_cache: false,
        cache_from: Arc::default(),
    })
}

/// What is known of the build before: of the same context, Dockerfile, target and platforms.
fn explain(args: &Args, outside: &Outside, request: &Request) -> Explain {
    let path = std::fs::canonicalize(&request.context.path).unwrap_or_default();
    let file = args.file.as_ref().map(|file| file.display().to_string());
    let build = format!("{path:?} {file:?} {:?} {:?}", request.target, request.platforms);
    Explain::open(&outside.data.join("inputs"), &build, args.explain_cache)
}

fn failed(error: BuildError) -> CliError {
    let hint = error.hint();
    let kind = if matches!(error, BuildError::NoTarget(..)) {
        Kind::Usage
    } else {
        Kind::Failed
    };
    let excerpt = match &error {
        BuildError::Step { excerpt, .. } => Some(excerpt.clone()),
        _ => None,
    };
    let mut error = CliError::failed(error).of_kind(kind);
    if let Some(excerpt) = excerpt {
        error = error.below_excerpt(excerpt);
    }
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
