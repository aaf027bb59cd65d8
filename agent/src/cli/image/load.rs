//! `roadstead image load`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use roadstead_registry_client::{
    ArchiveKind, Descriptor, ImageArchive, LayoutImage, Reference, Selection, Store, StoreTarget, copy,
};

use super::{ProgressKind, described, local_store, print, print_json, renderer};
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read from a file; without it, from standard input.
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The name for an image that has none in the archive.
    #[arg(long, value_name = "NAME")]
    name: Option<Reference>,
    /// Print nothing but the result.
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    progress: ProgressKind,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let path = args.input.as_deref().unwrap_or(Path::new("/dev/stdin"));
    let archive = ImageArchive::open(path, ArchiveKind::Docker)
        .await
        .map_err(CliError::registry)?;
    let store = local_store()?;
    let mut loaded = Vec::new();
    for (typed, name) in names(&archive, &args)? {
        let source = archive.image(typed.as_deref()).await.map_err(CliError::registry)?;
        let image = load(&args, &store, &source, &name).await?;
        if !args.json {
            print(&format!("Loaded image: {}\n", shown(&name)))?;
        }
        loaded.push(described(&name.canonical(), &image));
    }
    if args.json {
        print_json(&loaded.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pairs the names in the archive with those in the store.
fn names(archive: &ImageArchive, args: &Args) -> Result<Vec<(Option<String>, Reference)>, CliError> {
    let typed = archive.names();
    if typed.is_empty() {
        let name = args.name.clone().ok_or_else(|| {
            CliError::usage("the image in the archive has no name").hint("give it one by `--name NAME`")
        })?;
        return Ok(vec![(None, name)]);
    }
    let full = |typed: String| {
        // A mere tag is no name of an image.
        let given = args.name.clone().filter(|_| !typed.contains(['/', ':']));
        let name = match given {
            Some(name) => name,
            None => typed.parse().map_err(CliError::failed)?,
        };
        Ok((Some(typed), name))
    };
    typed.into_iter().map(full).collect()
}

async fn load(args: &Args, store: &Store, source: &LayoutImage, name: &Reference) -> Result<Descriptor, CliError> {
    let progress = renderer(args.progress, args.quiet);
    let target = StoreTarget::named(store, name);
    copy(source, &target, &Selection::Present, &*progress)
        .await
        .map_err(CliError::registry)
}

fn shown(name: &Reference) -> String {
    let tagged = name.with_tag(name.tag_or_latest());
    tagged.map_or_else(|_| name.familiar(), |name| name.familiar())
}
