//! The command line: a file per subcommand.

mod agent;
mod build;
mod bundle;
mod cache;
mod doctor;
mod image;
mod imagedefinitions;
mod jobs;
mod run;
mod store;
mod submit;

pub(crate) use build::{builder, pushed};

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use roadstead_registry_client::without_login;

use crate::error::CliError;
use crate::queue::QueueError;

/// Self-hosted CI build agent with a daemonless container image builder.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a Dockerfile.
    Build(Box<build::Args>),
    /// Move images between registries, the local store, layouts and archives.
    ///
    /// A PLACE is NAME[:TAG][@DIGEST] (a registry), store:NAME (the local store), oci:DIR[:NAME], oci-archive:FILE[:NAME] or
    /// docker-archive:FILE[:NAME]. `ls`, `tag` and `rm` mean the local store when they are given a bare NAME, as docker's do;
    /// docker://NAME is a registry everywhere.
    Image(Box<image::Args>),
    /// Carry images to a site without a network.
    ///
    /// One archive with all that a Dockerfile needs, and a lock file of digests.
    Bundle(bundle::Args),
    /// Look at the local build cache, make room in it, and check it.
    Cache(cache::Args),
    /// Tell what works on this machine: which sandbox RUN commands get and why, and what would make it better.
    Doctor(doctor::Args),
    /// Check the local store.
    Store(store::Args),
    /// Run a buildspec here and now.
    Run(run::Args),
    /// Take jobs from a queue and run them.
    Agent(agent::Args),
    /// Put a job on a queue.
    Submit(submit::Args),
    /// Look at the jobs of a queue.
    Jobs(jobs::Args),
    /// Write imagedefinitions.json and imageDetail.json for a deploy stage.
    Imagedefinitions(imagedefinitions::Args),
    /// Print a login to ECR; the runner of a job starts this.
    #[command(hide = true)]
    EcrToken(crate::shim::TokenArgs),
    /// Run one job of an agent; agents start this.
    #[command(hide = true)]
    RunJob(crate::job::ProcessArgs),
}

/// Reads the command line and runs what it says. Each subcommand starts its own runtime, since some must enter namespaces
/// before any thread exists.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| without_logins(error).exit());
    let result = match cli.command {
        Command::Build(args) => build::main(*args),
        Command::Image(args) => image::main(*args),
        Command::Bundle(args) => bundle::main(args),
        Command::Cache(args) => cache::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Store(args) => store::main(&args),
        Command::Run(args) => run::main(args),
        Command::Agent(args) => agent::main(&args),
        Command::Submit(args) => submit::main(&args),
        Command::Jobs(args) => jobs::main(&args),
        Command::Imagedefinitions(args) => imagedefinitions::main(&args),
        Command::EcrToken(args) => crate::shim::print_token(&args),
        Command::RunJob(args) => crate::job::process_main(&args),
    };
    result.unwrap_or_else(|error| {
        report(&error);
        error.kind.exit_code()
    })
}

/// Cuts logins from what a message about the command line quotes of it.
pub(crate) fn without_logins(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg] {
        if let Some(ContextValue::String(quoted)) = error.get(kind) {
            let shown = without_login(quoted);
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

#[expect(clippy::print_stderr, reason = "the one place where errors are shown")]
fn report(error: &CliError) {
    eprintln!("{error}");
}

/// The runtime of a subcommand.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Directories are walked recursively, a thousand levels deep at most.
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .map_err(CliError::failed)
}

/// Writes to stdout, which a reader may have closed.
fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| CliError::failed(format!("cannot write to standard output: {error}"))),
    }
}

/// An error of a queue: the caller's when the queue or the job is named wrongly.
fn queue_failed(error: QueueError) -> CliError {
    match error {
        QueueError::Url { .. } => CliError::usage(error),
        _ => CliError::failed(error),
    }
}

/// Reads `NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    crate::environment::check_assignment(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}
