//! `roadstead run`: a buildspec, here and now.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use roadstead_proto::record::Status;

use super::{assignment, runtime};
use crate::client::Network;
use crate::config::Config;
use crate::error::{CliError, FileError, Kind};
use crate::interrupt::Interrupt;
use crate::job::{self, BuildspecSource, Finished, Request};
use crate::logs::{Log, Secrets};

const EXIT_STATUS: &str = "Exit status: 0 when all phases succeeded, 1 when the build failed, 2 for a bad buildspec or bad \
    arguments, 128 + the signal's number when a signal ended it: 130 for SIGINT, 143 for SIGTERM. A command has ten seconds after \
    SIGTERM; a second signal ends it at once.";

/// Arguments of `roadstead run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// The source directory, where the first command starts.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// The buildspec; a relative path is below DIR.
    #[arg(long, value_name = "FILE", default_value = "buildspec.yml")]
    buildspec: PathBuf,
    /// A variable for the commands; goes before the buildspec's own. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    env: Vec<(String, String)>,
    /// Where artifacts are copied to.
    #[arg(long, value_name = "DIR", default_value = "artifacts")]
    artifacts: PathBuf,
    /// Write the build's record to FILE as JSON: phases, exported variables, pushed images.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

pub(super) fn main(args: Args) -> Result<ExitCode, CliError> {
    let source = source_directory(&args.directory)?;
    let artifacts = std::path::absolute(&args.artifacts)
        .map_err(FileError::at("resolve", &args.artifacts))
        .map_err(CliError::usage)?;
    let request = Request {
        source,
        buildspec: BuildspecSource::File(args.buildspec),
        environment: args.env,
        artifacts: resolve_parent(&artifacts),
        project: "roadstead".to_owned(),
        build: uuid::Uuid::new_v4().to_string(),
        number: 1,
        initiator: "roadstead-run".to_owned(),
        source_version: None,
        repository: None,
        network: Network::of(&Config::load()?),
        scratch: None,
    };
    let secrets = Secrets::default();
    let log = Log::new(secrets.clone(), Box::new(std::io::stdout()));
    let record = args.record;
    let finished = runtime()?.block_on(async {
        let mut interrupt = Interrupt::listen().map_err(CliError::failed)?;
        let finished = job::run(&request, &log, &secrets, &mut interrupt)
            .await
            .map_err(CliError::failed)?;
        if let Some(path) = &record {
            let bytes = serde_json::to_vec_pretty(&finished.record).map_err(CliError::failed)?;
            std::fs::write(path, bytes)
                .map_err(FileError::at("write", path))
                .map_err(CliError::failed)?;
        }
        match interrupt.signal() {
            Some(signal) => Err(stopped(signal)),
            None => Ok(finished),
        }
    })?;
    if let Some(error) = log.take_error() {
        return Err(CliError::failed(format!("the log could not be written: {error}")));
    }
    verdict(finished)
}

/// The directory without links, so that what is inside it can be told by its path.
fn source_directory(directory: &Path) -> Result<PathBuf, CliError> {
    let real = directory
        .canonicalize()
        .map_err(FileError::at("open the source directory", directory));
    let real = real.map_err(CliError::usage)?;
    if real.is_dir() {
        Ok(real)
    } else {
        Err(CliError::usage(format!(
            "the source `{}` is not a directory",
            directory.display()
        )))
    }
}

/// Resolves links above the last component, so that an artifact directory below the source is known as such.
fn resolve_parent(path: &Path) -> PathBuf {
    match (
        path.parent().and_then(|parent| parent.canonicalize().ok()),
        path.file_name(),
    ) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

fn stopped(signal: u8) -> CliError {
    let mut error = CliError::failed("the build was stopped");
    error.kind = Kind::Signal(signal);
    error
}

/// The exit status: 0 when all phases succeeded, 1 when the build failed, 2 for a bad buildspec.
fn verdict(finished: Finished) -> Result<ExitCode, CliError> {
    if let Some(diagnostic) = finished.diagnostic {
        return Err(CliError::usage(diagnostic));
    }
    if finished.record.build_status == Status::Succeeded {
        return Ok(ExitCode::SUCCESS);
    }
    let failed = finished
        .record
        .phases
        .iter()
        .find(|phase| phase.phase_status != Status::Succeeded);
    let text = failed.map_or_else(
        || "the build failed".to_owned(),
        |phase| {
            let reason = phase
                .contexts
                .first()
                .map(|context| context.message.clone())
                .unwrap_or_default();
            format!("the build failed in {}: {reason}", phase.phase_type)
        },
    );
    Err(CliError::failed(text))
}
