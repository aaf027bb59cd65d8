//! `roadstead image push`.

use std::process::ExitCode;

use roadstead_registry_client::{Reference, StoreImage, copy};

use super::repository::RepositoryFlags;
use super::scan::ScanFlags;
use super::{Place, PlatformFlags, ShowFlags, local_store};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image in the local store.
    #[arg(value_name = "NAME", value_parser = Place::in_store)]
    name: Reference,
    /// The name to push it under [default: its own].
    #[arg(value_name = "TARGET", value_parser = Place::in_registry)]
    target: Option<Reference>,
    #[command(flatten)]
    platform: PlatformFlags,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    scan: ScanFlags,
    #[command(flatten)]
    show: ShowFlags,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let name = args.target.as_ref().unwrap_or(&args.name);
    args.repository.check(name)?;
    args.scan.check(name)?;
    let (client, store) = (args.network.client()?, local_store()?);
    let source = StoreImage::named(&store, &args.name).fetching(&client);
    let target = client.target(name).noting_sources(&store);
    let target = args.repository.apply(target);
    let progress = args.show.renderer();
    let pushed = copy(&source, &target, &args.platform.selection_or_all(), &*progress).await;
    let pushed = pushed.map_err(CliError::registry)?;
    let document = args.show.document(&name.name(), &pushed)?;
    args.scan.wait(name, &pushed.digest, &args.network, document).await
}
