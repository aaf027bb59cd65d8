//! `roadstead bundle load`.

use std::path::PathBuf;
use std::process::ExitCode;

use roadstead_registry_client::{ArchiveKind, Digest, ImageArchive, ImageSource as _, Selection, StoreTarget, copy};

use super::lock::Lock;
use crate::cli::image::{ProgressKind, described, full, local_store, print_json, renderer};
use crate::cli::print;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The lock file to hold it against [default: FILE.lock, when it is there].
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Print nothing but the result.
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    progress: ProgressKind,
    /// Print what was loaded as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let archive = ImageArchive::open(&args.file, ArchiveKind::Oci)
        .await
        .map_err(CliError::registry)?;
    let names = archive.names();
    let lock = check(&args, &archive, &names).await?;
    let store = local_store()?;
    let progress = renderer(args.progress, args.quiet);
    let mut loaded = Vec::new();
    for name in &names {
        let reference = full(name)?;
        let source = archive.image(Some(name)).await.map_err(CliError::registry)?;
        let target = StoreTarget::named(&store, &reference);
        // What is locked must be there; without a lock, what is there is taken.
        let selection = match lock.as_ref().and_then(|lock| lock.platforms(name)) {
            Some(platforms) => Selection::Sparse(platforms),
            None => Selection::Present,
        };
        let image = copy(&source, &target, &selection, &*progress).await;
        let image = image.map_err(CliError::registry)?;
        if !args.json {
            print(&format!("{name} {}\n", image.digest))?;
        }
        loaded.push(described(name, &image));
    }
    if args.json {
        print_json(&loaded.into())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Holds the archive against its lock file before anything of it is loaded.
async fn check(args: &Args, archive: &ImageArchive, names: &[String]) -> Result<Option<Lock>, CliError> {
    let path = args.lock.clone().unwrap_or_else(|| Lock::path(&args.file));
    let Some(lock) = Lock::read(&path)? else {
        return match &args.lock {
            Some(path) => Err(CliError::usage(format!(
                "lock file `{}` does not exist",
                path.display()
            ))),
            None => Ok(None),
        };
    };
    let mut found: Vec<(String, Digest, u64)> = Vec::new();
    for name in names {
        let image = archive.image(Some(name)).await.map_err(CliError::registry)?;
        let root = image.root().await.map_err(CliError::registry)?;
        found.push((name.clone(), root.digest, root.size));
    }
    let differences = lock.differences(&found);
    if differences.is_empty() {
        return Ok(Some(lock));
    }
    Err(CliError::failed(format!(
        "the bundle is not the one that `{}` describes: {}",
        path.display(),
        differences.join("; ")
    ))
    .hint("nothing was loaded; fetch bundle and lock file again from where they were made"))
}
