//! A job's own process, which an agent starts.
//!
//! It ends with its agent: the kernel tells it of the agent's death, and it then kills all it has started before it goes.
//! Otherwise a job redelivered after its lease would run beside the remains of the first attempt.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use roadstead_proto::job::{Job, SourceKind, is_project_name};
use roadstead_proto::record::Record;
use rustix::process::Signal;

use super::{BuildspecSource, Finished, Request, fault, run};
use crate::client::Network;
use crate::config::Config;
use crate::environment;
use crate::error::{CliError, FileError, chain};
use crate::interrupt::Interrupt;
use crate::logs::{Log, Secrets};
use crate::processes;
use crate::scratch;
use crate::source::{self, git};

/// Arguments of a job's process.
#[derive(Debug, clap::Args)]
pub(crate) struct ProcessArgs {
    /// The job document.
    #[arg(long)]
    document: PathBuf,
    /// Where to put the source.
    #[arg(long)]
    source: PathBuf,
    /// Where to copy artifacts.
    #[arg(long)]
    artifacts: PathBuf,
    /// Where to write the record.
    #[arg(long)]
    record: PathBuf,
    /// The job's number on its queue.
    #[arg(long)]
    number: u64,
    /// The agent's process.
    #[arg(long)]
    parent: i32,
}

/// Runs the job; the record tells how it ended, so the status only says whether there is one.
pub(crate) fn main(args: &ProcessArgs) -> Result<ExitCode, CliError> {
    if !processes::end_with_parent(args.parent, Signal::QUIT).map_err(CliError::failed)? {
        return Err(CliError::failed("the agent that started this job is gone"));
    }
    let config = Config::load()?;
    let text = std::fs::read(&args.document)
        .map_err(FileError::at("read", &args.document))
        .map_err(CliError::failed)?;
    let job: Job = serde_json::from_slice(&text).map_err(CliError::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(CliError::failed)?;
    let record = runtime.block_on(attempt(args, &job, config));
    // A copy of a large source may still run; nothing waits for it.
    runtime.shutdown_background();
    if !processes::is_parent(args.parent) {
        remove_remains(args);
        return Err(CliError::failed("the agent that started this job is gone"));
    }
    let bytes = serde_json::to_vec(&record?).map_err(CliError::failed)?;
    std::fs::write(&args.record, bytes)
        .map_err(FileError::at("write", &args.record))
        .map_err(CliError::failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes the job's directory, which its agent can remove no more.
fn remove_remains(args: &ProcessArgs) {
    let Some(directory) = args.document.parent() else {
        return;
    };
    if let Err(error) = scratch::remove(directory) {
        tracing::warn!(path = %directory.display(), %error, "cannot remove the directory of a lost job");
    }
}

async fn attempt(args: &ProcessArgs, job: &Job, config: Config) -> Result<Record, CliError> {
    let mut interrupt = Interrupt::listen().map_err(CliError::failed)?;
    interrupt.expire_after(std::time::Duration::from_secs(60 * u64::from(job.timeout_minutes())));
    let secrets = Secrets::default();
    let log = Log::new(secrets.clone(), Box::new(std::io::stdout()));
    if let Some(secret) = git::without_credentials(&job.source.location).1 {
        secrets.add(secret);
    }
    if let Err(message) = check(job) {
        log.line(&message);
        return Ok(fault(job, &message));
    }
    let fetched = tokio::select! {
        fetched = source::fetch(job, &args.source) => fetched,
        () = interrupt.wait() => return Err(CliError::failed("the job was stopped before it began")),
    };
    if let Err(error) = fetched {
        let message = chain(&error);
        log.line(&format!("Phase complete: DOWNLOAD_SOURCE State: FAULT\n{message}"));
        return Ok(fault(job, &message));
    }
    let request = request(args, job, config).map_err(CliError::failed)?;
    if is_outside(&request) {
        let message = "the buildspec lies outside the source";
        log.line(message);
        return Ok(fault(job, message));
    }
    let finished = run(&request, &log, &secrets, &mut interrupt)
        .await
        .map_err(CliError::failed)?;
    Ok(report(finished, &log))
}

/// Refuses a job that cannot be run as asked. Its document may have been written by anything, not by `submit` alone.
fn check(job: &Job) -> Result<(), String> {
    let refused = job.refused();
    if !refused.is_empty() {
        return Err(format!(
            "the job asks for what this agent does not do: {}",
            refused.join(", ")
        ));
    }
    if !is_project_name(&job.project_name) {
        let shown: String = job.project_name.chars().take(80).flat_map(char::escape_debug).collect();
        return Err(format!("`{shown}` is no name for a project"));
    }
    for variable in &job.environment.environment_variables {
        environment::check_assignment(&variable.name, &variable.value)?;
    }
    Ok(())
}

/// Whether the buildspec is a file that the source does not hold: an error would show others a part of it.
fn is_outside(request: &Request) -> bool {
    match &request.buildspec {
        BuildspecSource::Inline(_) => false,
        BuildspecSource::File(path) => {
            let real = request.source.join(path).canonicalize();
            real.is_ok_and(|real| !real.starts_with(&request.source))
        }
    }
}

/// A mistake in the buildspec belongs into the job's log, since nobody sees this process's own output.
fn report(finished: Finished, log: &Log) -> Record {
    if let Some(diagnostic) = finished.diagnostic {
        log.raw(format!("error: {diagnostic}\n").as_bytes());
        log.end_output();
    }
    finished.record
}

fn request(args: &ProcessArgs, job: &Job, config: Config) -> Result<Request, FileError> {
    let source = args
        .source
        .canonicalize()
        .map_err(FileError::at("open", &args.source))?;
    let git = job.source.kind != SourceKind::Directory;
    let variables = &job.environment.environment_variables;
    Ok(Request {
        source,
        buildspec: buildspec(job.buildspec()),
        environment: variables
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .collect(),
        artifacts: args.artifacts.clone(),
        project: job.project_name.clone(),
        build: job.id.to_string(),
        number: args.number,
        initiator: job.initiator.clone().unwrap_or_else(|| "roadstead-agent".to_owned()),
        source_version: job.source_version.clone(),
        repository: git.then(|| git::without_credentials(&job.source.location).0),
        network: Network::of(&config),
        scratch: args.document.parent().map(Path::to_owned),
    })
}

/// A buildspec of several lines is the text itself, as CodeBuild takes it.
fn buildspec(given: Option<&str>) -> BuildspecSource {
    match given {
        Some(text) if text.contains('\n') => BuildspecSource::Inline(text.to_owned()),
        Some(path) if !path.is_empty() => BuildspecSource::File(Path::new(path).to_owned()),
        _ => BuildspecSource::File("buildspec.yml".into()),
    }
}
