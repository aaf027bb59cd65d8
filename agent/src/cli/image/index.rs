//! `roadstead image index`: images for several platforms under one name.

use std::collections::BTreeMap;
use std::process::ExitCode;

use roadstead_registry_client::{ComposedIndex, Selection, copy};

use super::repository::RepositoryFlags;
use super::{Place, ShowFlags, inspect};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put an index together from images and indexes, and copy what it lists beside it.
    Create(Create),
    /// Show the images of an index.
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Where the index goes.
    #[arg(value_name = "DESTINATION", value_parser = Place::registry_by_default)]
    destination: Place,
    /// Images and indexes to list, in this order.
    #[arg(value_name = "SOURCE", required = true, value_parser = Place::registry_by_default)]
    sources: Vec<Place>,
    /// Annotate the index.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Print the index and copy nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    show: ShowFlags,
    #[command(flatten)]
    network: NetworkFlags,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// The index.
    #[arg(value_name = "PLACE", value_parser = Place::registry_by_default)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Create(args) => create(args).await,
        Command::Inspect(args) => inspect::index(&args.place, args.json, &args.network).await,
    }
}

async fn create(args: Create) -> Result<ExitCode, CliError> {
    if let Some(name) = args.destination.registry_name() {
        args.repository.check(name)?;
    } else if args.repository.is_given() {
        return Err(CliError::usage("`--create-repository` needs a registry as destination"));
    }
    let client = args.network.client()?;
    let mut parts = Vec::new();
    for source in &args.sources {
        parts.push(source.source(&client).await?);
    }
    let annotations: BTreeMap<String, String> = args.annotations.into_iter().collect();
    let index = ComposedIndex::compose(parts, annotations)
        .await
        .map_err(CliError::registry)?;
    if args.dry_run {
        let document = serde_json::from_slice(index.bytes()).map_err(CliError::failed)?;
        super::print_json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = args.destination.target(&client, &args.repository)?;
    let progress = args.show.renderer();
    let written = copy(&index, target.sink(), &Selection::All, &*progress).await;
    let written = written.map_err(CliError::registry)?;
    target.finish().await?;
    args.show.result(&args.destination.label(), &written)?;
    Ok(ExitCode::SUCCESS)
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
