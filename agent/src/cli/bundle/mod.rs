//! `roadstead bundle`: images for a site without a network.

mod create;
mod load;
mod lock;

use std::process::ExitCode;

use super::image::run_interruptibly;
use crate::error::CliError;

/// Arguments of `roadstead bundle`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write images into an archive, and their digests beside it.
    Create(create::Args),
    /// Put the images of an archive into the local store.
    Load(load::Args),
}

pub(super) fn main(args: Args) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create(args) => run_interruptibly(create::run(args)),
        Command::Load(args) => run_interruptibly(load::run(args)),
    }
}
