//! `roadstead image`: images between registries, the local store, layouts and archives.

mod copy;
mod digest;
mod explain;
mod index;
mod inspect;
mod load;
mod ls;
mod place;
mod progress;
mod pull;
mod push;
mod repository;
mod rm;
mod save;
mod scan;
mod tag;

pub(super) use load::full;
pub(super) use place::{Place, local_store};
pub(super) use progress::{ProgressKind, human, renderer};

use std::process::ExitCode;
use std::time::Duration;

use roadstead_registry_client::{Descriptor, Platform, Selection};
use serde_json::{Value, json};

use super::{print, runtime};
use crate::error::{CliError, Kind};
use crate::interrupt::Interrupt;

/// Arguments of `roadstead image`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch an image from a registry into the local store.
    Pull(pull::Args),
    /// Send an image of the local store to a registry.
    Push(push::Args),
    /// Copy an image from one place to another.
    #[command(visible_alias = "cp")]
    Copy(copy::Args),
    /// Show what an image is.
    Inspect(inspect::Args),
    /// Print the digest of an image.
    Digest(digest::Args),
    /// List images of the local store, names of a layout or an archive, or tags of a repository.
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Give an image another name.
    Tag(tag::Args),
    /// Take names away.
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Make and show images for several platforms.
    Index(index::Args),
    /// Write images of the local store to an archive.
    Save(save::Args),
    /// Read an archive into the local store.
    Load(load::Args),
    /// Say how a name resolves: registries.toml, mirrors, logins.
    Explain(explain::Args),
}

pub(super) fn main(args: Args) -> Result<ExitCode, CliError> {
    run_interruptibly(run(args.command))
}

/// Runs `work` until its end or a signal. A file that is being read or decompressed does not hold up the end.
pub(super) fn run_interruptibly(
    work: impl Future<Output = Result<ExitCode, CliError>> + Send + 'static,
) -> Result<ExitCode, CliError> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let work = tokio::spawn(work);
        unless_interrupted(async { work.await.map_err(CliError::failed)? }).await
    });
    runtime.shutdown_timeout(GRACE);
    result
}

/// Time that threads have to end, and to take away what they have begun.
const GRACE: Duration = Duration::from_secs(1);

/// Does `work` unless a signal comes first. What was written so far is under no name, and is swept away later.
async fn unless_interrupted(work: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    let mut interrupt = Interrupt::listen().map_err(CliError::failed)?;
    let signal = interrupt.clone();
    tokio::select! {
        result = work => result,
        () = interrupt.wait() => {
            Err(CliError::failed("it was canceled").of_kind(Kind::Signal(signal.signal().unwrap_or(15))))
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Pull(args) => pull::run(args).await,
        Command::Push(args) => push::run(args).await,
        Command::Copy(args) => copy::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Digest(args) => digest::run(args).await,
        Command::Ls(args) => ls::run(args).await,
        Command::Tag(args) => tag::run(args).await,
        Command::Rm(args) => rm::run(args).await,
        Command::Index(args) => index::run(args).await,
        Command::Save(args) => save::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Explain(args) => explain::run(&args),
    }
}

/// Which images of an index are meant.
#[derive(Debug, Clone, Default, clap::Args)]
struct PlatformFlags {
    /// The index with the images for all platforms.
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// The image for one platform, such as linux/arm64 [default: this machine's].
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

impl PlatformFlags {
    fn selection(&self) -> Selection {
        match &self.platform {
            _ if self.all => Selection::All,
            Some(platform) => Selection::Platform(platform.clone()),
            None => Selection::Platform(Platform::host()),
        }
    }

    /// For what lies in one piece somewhere: all of it, unless one platform is asked for.
    fn selection_or_all(&self) -> Selection {
        match &self.platform {
            Some(platform) => Selection::Platform(platform.clone()),
            None => Selection::All,
        }
    }
}

/// What is shown of a transfer.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
struct ShowFlags {
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

impl ShowFlags {
    fn renderer(self) -> Box<dyn roadstead_registry_client::Progress> {
        renderer(self.progress, self.quiet)
    }

    /// Gives what a name means now as JSON, or prints it as a line.
    fn document(self, name: &str, image: &Descriptor) -> Result<Option<Value>, CliError> {
        if self.json {
            return Ok(Some(described(name, image)));
        }
        self.result(name, image).map(|()| None)
    }

    /// Prints what a name means now.
    fn result(self, name: &str, image: &Descriptor) -> Result<(), CliError> {
        if self.json {
            return print_json(&described(name, image));
        }
        print(&format!("{name}@{}\n", image.digest))
    }
}

pub(super) fn described(name: &str, image: &Descriptor) -> Value {
    json!({ "name": name, "digest": image.digest, "mediaType": image.media_type, "size": image.size })
}

pub(super) fn print_json(value: &Value) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value).map_err(CliError::failed)?;
    text.push('\n');
    print(&text)
}
