//! `roadstead image tag`.

use std::process::ExitCode;

use roadstead_registry_client::{Error, NoProgress, Reference, Selection, copy};

use super::{Place, described, local_store, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image: NAME of the local store, or docker://NAME.
    #[arg(value_name = "SOURCE", value_parser = Place::store_by_default)]
    source: Place,
    /// Further names; for docker:// a bare TAG is one of the same repository.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut tagged = Vec::new();
    match &args.source {
        Place::Store(source) => {
            let store = local_store()?;
            let missing = || Error::NotInStore {
                reference: source.to_string(),
            };
            let image = store.resolve(source).map_err(CliError::registry)?;
            let image = image.ok_or_else(|| CliError::registry(missing()))?;
            for name in &args.names {
                let name: Reference = name.parse().map_err(CliError::usage)?;
                store.tag(&name, &image).map_err(CliError::registry)?;
                tagged.push(described(&name.canonical(), &image));
            }
        }
        Place::Registry(source) => {
            let client = args.network.client()?;
            for name in &args.names {
                let name = remote(source, name)?;
                let copied = copy(
                    &client.image(source),
                    &client.target(&name),
                    &Selection::All,
                    &NoProgress,
                )
                .await;
                tagged.push(described(&name.canonical(), &copied.map_err(CliError::registry)?));
            }
        }
        _ => {
            return Err(
                CliError::usage("only images of the local store and of registries have further names")
                    .hint("copy it: `roadstead image copy`"),
            );
        }
    }
    if args.json {
        print_json(&tagged.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bare tag means the same repository.
fn remote(source: &Reference, text: &str) -> Result<Reference, CliError> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    if name.contains(['/', ':']) {
        return name.parse().map_err(CliError::usage);
    }
    source.without_tag().with_tag(name).map_err(CliError::usage)
}
