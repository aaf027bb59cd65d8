//! `roadstead image pull`.

use std::process::ExitCode;

use roadstead_registry_client::{Reference, Selection, StoreTarget, copy};

use super::{Place, PlatformFlags, ShowFlags, local_store};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image.
    #[arg(value_name = "NAME", value_parser = Place::in_registry)]
    name: Reference,
    #[command(flatten)]
    platform: PlatformFlags,
    #[command(flatten)]
    show: ShowFlags,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let (client, store) = (args.network.client()?, local_store()?);
    let (source, target) = (client.image(&args.name), StoreTarget::named(&store, &args.name));
    let progress = args.show.renderer();
    let selection = match args.platform.selection() {
        // What refers to an index by its digest needs the index itself.
        Selection::Platform(platform) if args.name.digest().is_some() => Selection::Sparse([platform].into()),
        other => other,
    };
    let pulled = copy(&source, &target, &selection, &*progress).await;
    args.show
        .result(&args.name.name(), &pulled.map_err(CliError::registry)?)?;
    Ok(ExitCode::SUCCESS)
}
