//! `roadstead bundle create`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use roadstead_builder::dockerfile;
use roadstead_builder::solve::needed_images;
use roadstead_registry_client::{ArchiveKind, ArchiveWriter, Platform, Reference, Selection, copy};

use super::lock::{Lock, LockedImage};
use crate::cli::image::{Place, ProgressKind, print_json, renderer};
use crate::cli::print;
use crate::client::NetworkFlags;
use crate::error::{CliError, FileError};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive to write; its lock file is FILE.lock.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Images: of registries, or store:NAME.
    #[arg(value_name = "IMAGE", value_parser = Place::registry_by_default)]
    images: Vec<Place>,
    /// A Dockerfile whose images to take along: what FROM and COPY --from name; may be repeated.
    #[arg(long = "for", value_name = "DOCKERFILE")]
    dockerfiles: Vec<PathBuf>,
    /// The stage of the Dockerfile that will be built.
    #[arg(long, value_name = "STAGE", requires = "dockerfiles")]
    target: Option<String>,
    /// Set a build-time variable that the Dockerfile's names use.
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = crate::cli::assignment, requires = "dockerfiles")]
    build_args: Vec<(String, String)>,
    /// Platforms to take along, separated by commas [default: this machine's].
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Print nothing but the result.
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    progress: ProgressKind,
    /// Print the lock file's content.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

/// An image to take along.
struct Wanted {
    place: Place,
    name: Reference,
    platforms: BTreeSet<Platform>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let wanted = wanted(&args)?;
    let client = args.network.client()?;
    let writer = ArchiveWriter::create(&args.file, ArchiveKind::Oci).map_err(CliError::registry)?;
    let progress = renderer(args.progress, args.quiet);
    let mut locked = Vec::new();
    for image in &wanted {
        let source = image.place.source(&client).await?;
        let name = image.name.canonical();
        let selection = Selection::Sparse(image.platforms.clone());
        let copied = copy(&*source, &writer.image(Some(&name)), &selection, &*progress).await;
        let copied = copied.map_err(CliError::registry)?;
        let platforms: Vec<Platform> = image.platforms.iter().cloned().collect();
        if !args.json {
            print(&format!("{name} {}\n", copied.digest))?;
        }
        locked.push(LockedImage::new(name, &copied, &platforms));
    }
    let lock = Lock::new(locked);
    lock.write(&Lock::path(&args.file))?;
    writer.finish().await.map_err(CliError::registry)?;
    if args.json {
        print_json(&serde_json::to_value(&lock).map_err(CliError::failed)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists what is asked for, each name once with all of its platforms.
fn wanted(args: &Args) -> Result<Vec<Wanted>, CliError> {
    let platforms: BTreeSet<Platform> = match args.platform.is_empty() {
        true => [Platform::host()].into(),
        false => args.platform.iter().cloned().collect(),
    };
    let mut list: Vec<Wanted> = Vec::new();
    let mut add = |place: Place, name: Reference, platforms: BTreeSet<Platform>| match list
        .iter_mut()
        .find(|known| known.name.canonical() == name.canonical())
    {
        Some(known) => known.platforms.extend(platforms),
        None => list.push(Wanted { place, name, platforms }),
    };
    for place in &args.images {
        let (Place::Registry(name) | Place::Store(name)) = place else {
            let text = format!(
                "cannot bundle `{}`: give the image of a registry, or store:NAME",
                place.label()
            );
            return Err(CliError::usage(text));
        };
        add(place.clone(), name.clone(), platforms.clone());
    }
    for path in &args.dockerfiles {
        for platform in &platforms {
            for image in needed(args, path, platform)? {
                let name = image.reference;
                let own = image.platform.unwrap_or_else(|| platform.clone());
                add(Place::Registry(name.clone()), name, [own].into());
            }
        }
    }
    if list.is_empty() {
        let text = match args.dockerfiles.is_empty() {
            true => "no image was named",
            false => "the Dockerfile needs no image",
        };
        return Err(CliError::usage(text).hint("name images, or a Dockerfile by `--for`"));
    }
    Ok(list)
}

fn needed(
    args: &Args,
    path: &Path,
    platform: &Platform,
) -> Result<Vec<roadstead_builder::solve::NeededImage>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::usage(FileError::at("read", path)(error)))?;
    let file = dockerfile::parse(&path.to_string_lossy(), &text).map_err(CliError::usage)?;
    let build_args: BTreeMap<String, String> = args.build_args.iter().cloned().collect();
    needed_images(&file, args.target.as_deref(), &build_args, platform).map_err(CliError::usage)
}
