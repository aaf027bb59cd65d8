//! `roadstead submit`: puts a job on a queue.

use std::process::ExitCode;

use roadstead_proto::job::{
    Environment, EnvironmentVariable, Job, JobId, Source, SourceKind, VariableKind, is_project_name,
};

use super::{assignment, print, queue_failed, runtime};
use crate::config::Config;
use crate::error::{CliError, FileError};
use crate::queue;
use crate::source::git;

/// Arguments of `roadstead submit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A directory on the agent's machine, or a git URL.
    #[arg(long, value_name = "DIR|URL")]
    source: String,
    /// The queue: `sqlite:FILE` or `sqs://HOST/ACCOUNT/NAME`.
    #[arg(long, value_name = "URL", default_value_t = queue::default_url())]
    queue: String,
    /// The buildspec's path below the source.
    #[arg(long, value_name = "FILE")]
    buildspec: Option<String>,
    /// A variable for the commands. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    env: Vec<(String, String)>,
    /// The git revision to build.
    #[arg(long, value_name = "REVISION")]
    source_version: Option<String>,
    /// Commits of history to fetch.
    #[arg(long, value_name = "COMMITS")]
    git_clone_depth: Option<u32>,
    /// The project's name, the first half of the build's id.
    #[arg(long, default_value = "roadstead")]
    project: String,
    /// Minutes the job may run.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=2_160))]
    timeout: Option<u32>,
}

/// Submits the job and prints its id.
pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    let config = Config::load()?;
    let job = job(args)?;
    runtime()?.block_on(async {
        let queue = queue::open(&args.queue, None, config.ca_bundle.as_deref())
            .await
            .map_err(queue_failed)?;
        queue.submit(&job).await.map_err(queue_failed)
    })?;
    print(&format!("{}\n", job.id))?;
    Ok(ExitCode::SUCCESS)
}

fn job(args: &Args) -> Result<Job, CliError> {
    if !is_project_name(&args.project) {
        return Err(CliError::usage(format!(
            "`{}` is no name for a project",
            args.project.escape_debug()
        )));
    }
    let (kind, location) = if git::is_url(&args.source) {
        git::check_url(&args.source).map_err(CliError::usage)?;
        (SourceKind::Git, args.source.clone())
    } else {
        let path = std::path::Path::new(&args.source);
        let real = path
            .canonicalize()
            .map_err(FileError::at("open the source directory", path));
        let real = real.map_err(CliError::usage)?;
        let text = real.to_str().filter(|_| real.is_dir());
        let text = text.ok_or_else(|| CliError::usage(format!("the source `{}` is no directory", args.source)))?;
        (SourceKind::Directory, text.to_owned())
    };
    let variables = args.env.iter().map(|(name, value)| EnvironmentVariable {
        name: name.clone(),
        value: value.clone(),
        kind: VariableKind::Plaintext,
    });
    let id = JobId::new(&uuid::Uuid::new_v4().to_string());
    Ok(Job {
        id: id.ok_or_else(|| CliError::failed("a new UUID is no job id"))?,
        project_name: args.project.clone(),
        source: Source {
            kind,
            location,
            git_clone_depth: args.git_clone_depth,
            buildspec: None,
            rest: Default::default(),
        },
        source_version: args.source_version.clone(),
        environment: Environment {
            environment_variables: variables.collect(),
            rest: Default::default(),
        },
        buildspec_override: args.buildspec.clone(),
        timeout_in_minutes: args.timeout,
        initiator: Some("roadstead-submit".to_owned()),
        rest: Default::default(),
    })
}
