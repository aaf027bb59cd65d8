//! The command line: a file per subcommand.

mod build;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::CliError;

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
    Build(build::Args),
    /// Run a buildspec here and now.
    Run(run::Args),
}

/// Reads the command line and runs what it says. Each subcommand starts its own runtime, since some must enter namespaces
/// before any thread exists.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Build(args) => build::main(args),
        Command::Run(args) => run::main(args),
    };
    result.unwrap_or_else(|error| {
        report(&error);
        error.kind.exit_code()
    })
}

#[expect(clippy::print_stderr, reason = "the one place where errors are shown")]
fn report(error: &CliError) {
    eprintln!("{error}");
}

/// The runtime of a subcommand.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(CliError::failed)
}

/// Reads `NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    if !crate::environment::is_shell_identifier(name) {
        return Err(format!("`{name}` is no name for an environment variable"));
    }
    if name.starts_with("CODEBUILD_") {
        return Err(format!("`{name}`: names that begin with `CODEBUILD_` are reserved"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
