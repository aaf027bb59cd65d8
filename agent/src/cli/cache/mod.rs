//! `roadstead cache`: what builds have left behind for those to come.

mod check;
mod parts;

use std::process::ExitCode;

use roadstead_builder::sandbox;

use crate::environment;
use crate::error::CliError;
use parts::Parts;

/// Arguments of `roadstead cache`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// See whether everything in the cache is what was put there.
    Check(check::Args),
}

pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    // As an ordinary user, only from within have the files of layers the owners that builds see, and can be removed.
    let data = environment::data_directory();
    sandbox::enter().map_err(CliError::failed)?;
    match &args.command {
        Command::Check(args) => check::run(args, &data),
    }
}
