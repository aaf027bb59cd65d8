//! `roadstead image digest`.

use std::process::ExitCode;

use roadstead_registry_client::{Error, Platform, Selection};

use super::inspect::look_up;
use super::{Place, described, print, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image.
    #[arg(value_name = "PLACE", value_parser = Place::registry_by_default)]
    place: Place,
    /// The digest of the image for one platform, not that of the index.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let client = args.network.client()?;
    let found = match (&args.platform, args.place.registry_name()) {
        (None, Some(name)) => {
            let found = client.head_manifest(name).await.map_err(CliError::registry)?;
            let missing = || Error::NotFound {
                reference: name.to_string(),
            };
            found.ok_or_else(|| CliError::registry(missing()))?
        }
        (platform, _) => {
            let source = args.place.source(&client).await?;
            let selection = platform.clone().map_or(Selection::All, Selection::Platform);
            look_up(&*source, &selection).await?.descriptor
        }
    };
    if args.json {
        print_json(&described(&args.place.label(), &found))?;
    } else {
        print(&format!("{}\n", found.digest))?;
    }
    Ok(ExitCode::SUCCESS)
}
