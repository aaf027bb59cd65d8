//! What is built, from what, and with which arguments: as the flags name them.

use std::collections::BTreeMap;
use std::path::Path;

use roadstead_builder::context::Context;
use roadstead_builder::dockerfile::{Dockerfile, Kind, directives};
use roadstead_builder::progress::Progress;
use roadstead_builder::solve::{Fetcher, NamedContexts};

use super::context::Opened;
use super::{Args, context, dockerfile};
use crate::error::CliError;

/// The time of what is built.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Overrules the file's `# syntax=`.
const SYNTAX: &str = "BUILDKIT_SYNTAX";

/// What is built.
pub(super) struct Source {
    pub(super) dockerfile: Dockerfile,
    pub(super) context: Context,
    /// The time of the context, where it is asked for.
    pub(super) context_time: Option<i64>,
    pub(super) named: NamedContexts,
    /// `--build-arg`s with their values.
    pub(super) build_args: BTreeMap<String, String>,
}

impl Source {
    /// Fetches what lies elsewhere, and reads the Dockerfile and its ignore file.
    pub(super) async fn open(args: &Args, fetcher: &Fetcher<'_>) -> Result<Self, CliError> {
        let build_args = build_args(args);
        let keep_git_dir = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        let keep_git_dir = keep_git_dir.is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        let opened = Box::pin(context::open(&args.context, fetcher, keep_git_dir)).await?;
        let named = Box::pin(context::named(&args.build_contexts, fetcher)).await?;
        Self::read(args, opened, named, build_args, &fetcher.tools.progress)
    }

    /// Reads the Dockerfile and its ignore file where the context is a directory.
    pub(super) fn local(args: &Args, progress: &Progress) -> Result<Self, CliError> {
        let opened = context::directory(Path::new(&args.context))?;
        Self::read(args, opened, NamedContexts::default(), build_args(args), progress)
    }

    fn read(
        args: &Args,
        mut opened: Opened,
        named: NamedContexts,
        build_args: BTreeMap<String, String>,
        progress: &Progress,
    ) -> Result<Self, CliError> {
        let frontend = build_args.get(SYNTAX).map(String::as_str);
        if let Some(frontend) = frontend {
            directives::check_frontend(frontend).map_err(|refused| {
                CliError::usage(format!("cannot honour `{SYNTAX}={frontend}`: {}", refused.why)).hint(refused.hint)
            })?;
        }
        let file = args.file.as_deref();
        let dockerfile = dockerfile::read(file, &mut opened, frontend, progress)?;
        opened.context.ignore = dockerfile::ignore_of(&opened, file)?;
        let context_time = match asks_for_context_time(&dockerfile, &build_args) {
            true => opened.time.seconds()?,
            false => None,
        };
        Ok(Self {
            dockerfile,
            context: opened.context,
            context_time,
            named,
            build_args,
        })
    }
}

/// Whether `SOURCE_DATE_EPOCH` may mean the context's time.
fn asks_for_context_time(dockerfile: &Dockerfile, build_args: &BTreeMap<String, String>) -> bool {
    let declares = |kind: &Kind| matches!(kind, Kind::Arg(args) if args.iter().any(|(name, _)| name == EPOCH));
    match build_args.get(EPOCH) {
        Some(given) => given == "context",
        None => dockerfile
            .global_args
            .iter()
            .any(|instruction| declares(&instruction.kind)),
    }
}

fn build_args(args: &Args) -> BTreeMap<String, String> {
    let mut build_args: BTreeMap<String, String> = BTreeMap::new();
    for text in &args.build_args {
        match text.split_once('=') {
            Some((name, value)) => drop(build_args.insert(name.to_owned(), value.to_owned())),
            // As docker: a bare name takes the value of the environment, or counts as not given.
            None => {
                if let Ok(value) = std::env::var(text) {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    if let Some(epoch) = std::env::var(EPOCH).ok().filter(|epoch| !epoch.is_empty()) {
        build_args.entry(EPOCH.into()).or_insert(epoch);
    }
    build_args
}
