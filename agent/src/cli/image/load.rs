//! `roadstead image load`.

use std::io::{self, IsTerminal as _};
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
    /// The name for the only image of the archive, whatever it is called there.
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
    if args.input.is_none() && io::stdin().is_terminal() {
        return Err(CliError::usage("no archive: standard input is a terminal").hint("use `-i FILE`, or redirect"));
    }
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
    if let Some(name) = &args.name {
        return match <[String; 1]>::try_from(typed) {
            Ok([typed]) => Ok(vec![(Some(typed), name.clone())]),
            Err(typed) => Err(CliError::usage(format!(
                "the archive holds several images, and `--name` is for one: {}",
                typed.join(", ").escape_debug()
            ))),
        };
    }
    typed
        .into_iter()
        .map(|typed| full(&typed).map(|name| (Some(typed), name)))
        .collect()
}

/// A mere tag is no name of an image: it would become a repository.
pub(in crate::cli) fn full(typed: &str) -> Result<Reference, CliError> {
    if !typed.contains(['/', ':', '@']) {
        let shown = typed.escape_debug();
        return Err(
            CliError::usage(format!("`{shown}` in the archive is a tag, not a name of an image"))
                .hint("load it under a name: `roadstead image load --name NAME`"),
        );
    }
    typed.parse().map_err(CliError::failed)
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
