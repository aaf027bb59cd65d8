//! `roadstead image ls`.

use std::process::ExitCode;

use roadstead_registry_client::{Descriptor, MANIFEST_LIMIT, Manifest, Reference, Store, media_type};
use serde_json::{Value, json};

use super::{Place, described, human, local_store, print, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A repository of the local store, docker://REPOSITORY, a layout or an archive [default: the whole store].
    #[arg(value_name = "PLACE", value_parser = Place::store_by_default)]
    place: Option<Place>,
    /// Print names only.
    #[arg(short, long)]
    quiet: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    match &args.place {
        Some(Place::Registry(repository)) => {
            let tags = args
                .network
                .client()?
                .tags(repository)
                .await
                .map_err(CliError::registry)?;
            if args.json {
                print_json(&json!({ "name": repository.name(), "tags": tags }))?;
            } else {
                print(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())?;
            }
        }
        Some(Place::Store(name)) => list_store(&args, Some(name))?,
        Some(other) => {
            let names = other.names().await?;
            if args.json {
                print_json(&json!(names))?;
            } else {
                print(
                    &names
                        .iter()
                        .map(|name| format!("{}\n", name.escape_debug()))
                        .collect::<String>(),
                )?;
            }
        }
        None => list_store(&args, None)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list_store(args: &Args, repository: Option<&Reference>) -> Result<(), CliError> {
    let store = local_store()?;
    let mut images = store.list().map_err(CliError::registry)?;
    if let Some(wanted) = repository {
        images
            .retain(|(name, _)| name.name() == wanted.name() && (wanted.tag().is_none() || name.tag() == wanted.tag()));
    }
    if args.json {
        return print_json(
            &images
                .iter()
                .map(|(name, image)| document(&store, name, image))
                .collect(),
        );
    }
    if args.quiet {
        return print(
            &images
                .iter()
                .map(|(name, _)| format!("{}\n", name.familiar()))
                .collect::<String>(),
        );
    }
    let width = images
        .iter()
        .map(|(name, _)| name.familiar().len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut table = format!("{:<width$}  {:<12}  {:>9}\n", "NAME", "DIGEST", "SIZE");
    for (name, image) in &images {
        let size = size(&store, image).map_or_else(|| "-".to_owned(), human);
        let digest = &image.digest.hex()[..12];
        table.push_str(&format!("{:<width$}  {digest:<12}  {size:>9}\n", name.familiar()));
    }
    print(&table)
}

fn document(store: &Store, name: &Reference, image: &Descriptor) -> Value {
    let mut document = described(&name.to_string(), image);
    document["imageSize"] = json!(size(store, image));
    document
}

/// The bytes of configuration and layers; `None` for an index, whose images may lie here in part.
fn size(store: &Store, image: &Descriptor) -> Option<u64> {
    if media_type::is_index(&image.media_type) {
        return None;
    }
    let manifest = Manifest::parse(&store.read_blob(&image.digest, MANIFEST_LIMIT).ok()?).ok()?;
    Some(
        manifest
            .layers
            .iter()
            .chain([&manifest.config])
            .fold(0_u64, |sum, blob| sum.saturating_add(blob.size)),
    )
}
