//! `roadstead image pull`.

use std::process::ExitCode;

use roadstead_registry_client::{Reference, StoreTarget, copy};

use super::{PlatformFlags, ShowFlags, local_store};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image.
    #[arg(value_name = "NAME")]
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
    let pulled = copy(&source, &target, &args.platform.selection(), &*progress).await;
    args.show
        .result(&args.name.name(), &pulled.map_err(CliError::registry)?)?;
    Ok(ExitCode::SUCCESS)
}
