//! `roadstead cache`: what builds have left behind for those to come.

mod check;
mod du;
mod prune;

use std::path::Path;
use std::process::ExitCode;

use roadstead_builder::cache::local::LocalCache;
use roadstead_builder::cache::mounts::CacheMounts;
use roadstead_builder::housekeeping::House;
use roadstead_builder::rootfs::overlay::Layers;
use roadstead_builder::rootfs::scratch::Scratch;
use roadstead_builder::sandbox;
use roadstead_registry_client::Store;

use crate::data_directory;
use crate::error::{CliError, FileError};

/// Arguments of `roadstead cache`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is in the cache, and how much it takes.
    Du(du::Args),
    /// Remove what no running build and no image needs.
    Prune(prune::Args),
    /// See whether everything in the cache is what was put there.
    Check(check::Args),
}

pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    // As an ordinary user, only from within have the files of layers the owners that builds see, and can be removed.
    let data = data_directory::open().map_err(data_directory::failed)?;
    sandbox::enter(sandbox::Choice::Auto).map_err(CliError::failed)?;
    if let Command::Check(args) = &args.command {
        return check::run(args, &data);
    }
    let (house, _scratch) = open(&data)?;
    match &args.command {
        Command::Du(args) => du::run(args, &house),
        Command::Prune(args) => prune::run(args, &house),
        Command::Check(args) => check::run(args, &data),
    }
}

/// Opens the records of steps.
pub(super) fn local_cache(data: &Path, store: &Store) -> Result<LocalCache, CliError> {
    let path = data.join("cache");
    LocalCache::open(&path, store).map_err(|error| CliError::failed(FileError::at("use", &path)(error)))
}

/// Opens the parts of the data directory. What is removed goes below the scratch directory's parent first, and stays as long as builds
/// run that may have it in use.
fn open(data: &Path) -> Result<(House, Scratch), CliError> {
    let scratches = data.join("tmp");
    let scratch = Scratch::new(&scratches).map_err(CliError::failed)?;
    let store = Store::open(&data.join("store")).map_err(CliError::registry)?;
    let house = House {
        layers: Layers::open(&data.join("layers"), &scratch.path()).map_err(CliError::failed)?,
        cache: local_cache(data, &store)?,
        mounts: CacheMounts::open(&data.join("cache-mounts")).map_err(CliError::failed)?,
        scratches,
        store,
    };
    Ok((house, scratch))
}
