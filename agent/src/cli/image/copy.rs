//! `roadstead image copy`.

use std::process::ExitCode;

use roadstead_registry_client::copy;

use super::repository::RepositoryFlags;
use super::scan::ScanFlags;
use super::{Place, PlatformFlags, ShowFlags, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the image is.
    #[arg(value_name = "SOURCE", value_parser = Place::registry_by_default)]
    source: Place,
    /// Where it goes.
    #[arg(value_name = "DESTINATION", value_parser = Place::registry_by_default)]
    destination: Place,
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
    if let Some(name) = args.destination.registry_name() {
        args.repository.check(name)?;
        args.scan.check(name)?;
    } else if args.repository.is_given() || args.scan.is_given() {
        return Err(CliError::usage(
            "`--create-repository` and `--wait-scan` need a registry as destination",
        ));
    }
    let client = args.network.client()?;
    let source = args.source.source(&client).await?;
    let target = args.destination.target(&client, &args.repository)?;
    let progress = args.show.renderer();
    let copied = copy(&*source, target.sink(), &args.platform.selection(), &*progress).await;
    let copied = copied.map_err(CliError::registry)?;
    target.finish().await?;
    let document = args.show.document(&args.destination.label(), &copied)?;
    match (args.destination.registry_name(), document) {
        (Some(name), document) => args.scan.wait(name, &copied.digest, &args.network, document).await,
        (None, Some(document)) => print_json(&document).map(|()| ExitCode::SUCCESS),
        (None, None) => Ok(ExitCode::SUCCESS),
    }
}
