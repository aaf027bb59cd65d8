//! `roadstead image load`.

use std::process::ExitCode;

use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args) -> Result<ExitCode, CliError> {
    Err(CliError::failed("not yet"))
}
