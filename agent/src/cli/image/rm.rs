//! `roadstead image rm`.

use std::process::ExitCode;

use roadstead_registry_client::Error;

use super::{Place, local_store, print, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names of the local store, or docker://NAME. A registry's NAME@DIGEST goes with all of its tags.
    #[arg(value_name = "PLACE", required = true, value_parser = Place::store_by_default)]
    places: Vec<Place>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut removed = Vec::new();
    for place in &args.places {
        match place {
            Place::Store(name) => {
                if !local_store()?.untag(name).map_err(CliError::registry)? {
                    let reference = name.to_string();
                    return Err(CliError::registry(Error::NotInStore { reference }));
                }
            }
            Place::Registry(name) => {
                let client = args.network.client()?;
                client.remove(name).await.map_err(CliError::registry)?;
            }
            other => {
                let text = format!(
                    "cannot remove `{}`: it is neither in the local store nor in a registry",
                    other.label()
                );
                return Err(CliError::usage(text).hint("remove the file or the directory itself"));
            }
        }
        if !args.json {
            print(&format!("Untagged: {}\n", place.label()))?;
        }
        removed.push(place.label());
    }
    if args.json {
        print_json(&removed.into())?;
    }
    Ok(ExitCode::SUCCESS)
}
