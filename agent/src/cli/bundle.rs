//! `roadstead bundle`.

use std::process::ExitCode;

use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn main(_args: Args) -> Result<ExitCode, CliError> {
    Err(CliError::failed("not yet"))
}
