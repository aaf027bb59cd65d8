//! `roadstead image save`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use roadstead_registry_client::{
    ArchiveKind, ArchiveWriter, Reference, Selection, StoreImage, copy, media_type, select,
};

use super::{Place, PlatformFlags, ProgressKind, described, local_store, print_json, renderer};
use crate::client::NetworkFlags;
use crate::error::CliError;

/// Values of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What docker load reads; it reads an OCI layout, too, since the archive is both.
    Docker,
    /// An OCI layout in a tar.
    Oci,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Images of the local store.
    #[arg(value_name = "NAME", required = true, value_parser = Place::in_store)]
    names: Vec<Reference>,
    /// Write to a file; without it, to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form of the archive.
    #[arg(long, value_enum, default_value = "docker", value_name = "FORM")]
    format: Format,
    #[command(flatten)]
    platform: PlatformFlags,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    progress: ProgressKind,
    /// Print what was saved as JSON; needs `-o`.
    #[arg(long, requires = "output")]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(CliError::usage("cowardly refusing to save to a terminal").hint("use `-o FILE`, or redirect"));
    }
    let (client, store) = (args.network.client()?, local_store()?);
    let kind = match args.format {
        Format::Docker => ArchiveKind::Docker,
        Format::Oci => ArchiveKind::Oci,
    };
    let writer = match &args.output {
        Some(path) => ArchiveWriter::create(path, kind),
        None => ArchiveWriter::to(Box::new(io::stdout()), kind),
    };
    let writer = writer.map_err(CliError::registry)?;
    let progress = renderer(args.progress, args.quiet);
    let mut saved = Vec::new();
    for name in &args.names {
        let source = StoreImage::named(&store, name).fetching(&client);
        let selection = selection(&args, &source).await?;
        let target = writer.image_named(std::slice::from_ref(name));
        let image = copy(&source, &target, &selection, &*progress).await;
        saved.push(described(&name.canonical(), &image.map_err(CliError::registry)?));
    }
    writer.finish().await.map_err(CliError::registry)?;
    if args.json {
        print_json(&saved.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the store holds of an image, save that docker takes no index: of one, the image for this machine is meant.
async fn selection(args: &Args, source: &StoreImage) -> Result<Selection, CliError> {
    let wanted = args.platform.selection_or_all();
    if wanted != Selection::All {
        return Ok(wanted);
    }
    let (root, _) = select(source, &wanted).await.map_err(CliError::registry)?;
    Ok(match args.format {
        Format::Docker if media_type::is_index(&root.media_type) => args.platform.selection(),
        _ => Selection::Present,
    })
}
