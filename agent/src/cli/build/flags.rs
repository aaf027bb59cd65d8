//! docker build's flags. One that cannot be honoured is an error, never a warning.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::cache::{self, Caches};
use super::call::Call;
use super::output::{Defaults, Output};
use super::refused::Refused;
use super::run_flags::RunFlags;
use crate::client::NetworkFlags;

/// Build an image from a Dockerfile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build context: a directory, an archive, a URL of one, a git repository, s3://BUCKET/KEY, or `-` for standard input.
    #[arg(value_name = "PATH|URL|-")]
    pub(super) context: String,
    /// Name of the image, as NAME[:TAG]; may be repeated.
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub(super) tags: Vec<String>,
    /// Dockerfile to use; `-` reads standard input [default: PATH/Dockerfile].
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Set a build-time variable; without value it is taken from the environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(super) build_args: Vec<String>,
    /// Show a secret to RUN --mount=type=secret; may be repeated.
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(super) secrets: Vec<String>,
    #[command(flatten)]
    pub(super) run: RunFlags,
    /// A further context, by the name of a stage or an image: a directory, a git repository, a URL, docker-image://NAME,
    /// oci-layout://DIRECTORY[:TAG|@DIGEST] or scratch; may be repeated.
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(super) build_contexts: Vec<String>,
    /// Stop at this stage.
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Set metadata of the image.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(super) labels: Vec<String>,
    /// Platforms to build for, such as linux/amd64,linux/arm64; may be repeated. Several make an index [default: this machine's].
    #[arg(long = "platform", value_name = "OS/ARCH,...")]
    pub(super) platforms: Vec<String>,
    /// Run every step, whatever is in the cache.
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Run every step of these stages, whatever is in the cache; may be repeated.
    #[arg(long, value_name = "STAGE[,STAGE...]", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Say of each step that runs which of its inputs is another than in the build before.
    #[arg(long)]
    pub(super) explain_cache: bool,
    /// A cache of another machine: a name in a registry, or type=registry|local|s3 with keys, such as mounts=true; may be repeated.
    #[arg(long, value_name = "NAME|type=TYPE[,KEY=VALUE]")]
    cache_from: Vec<String>,
    /// Where what this build finds out is kept for other machines: a name in a registry, or type=registry|local|inline|s3 with
    /// keys, such as mode=max; may be repeated.
    #[arg(long, value_name = "NAME|type=TYPE[,KEY=VALUE]")]
    cache_to: Vec<String>,
    /// Ask the registry for base images even when they lie here.
    #[arg(long)]
    pub(super) pull: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    pub(super) progress: ProgressKind,
    /// Print nothing but the image id.
    #[arg(short = 'q', long)]
    pub(super) quiet: bool,
    /// Write the image id to a file: the config's digest, or the index's.
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Annotate the image; TYPE is manifest, index, manifest-descriptor or index-descriptor; may be repeated.
    #[arg(long = "annotation", value_name = "[TYPE[[PLATFORM]]:]KEY=VALUE")]
    annotations: Vec<String>,
    /// Compression of the layers that are built: gzip, zstd or uncompressed [default: gzip].
    #[arg(long, value_name = "NAME")]
    compression: Option<String>,
    /// Level of the compression: 0 to 9 for gzip, 1 to 22 for zstd [default: 1 for gzip, 3 for zstd].
    #[arg(long, value_name = "N")]
    compression_level: Option<String>,
    /// Push the image under all its names.
    #[arg(long)]
    pub(super) push: bool,
    /// Put the image into the local store (always done when it has a name).
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    load: Option<bool>,
    /// Where the result goes: a directory, `-` (a tar), or type=local|tar|oci|docker|image|registry with dest=PATH and more keys;
    /// may be repeated.
    #[arg(short = 'o', long = "output", value_name = "DEST")]
    outputs: Vec<String>,
    /// Check the Dockerfile and build nothing, as --call=check; the exit status is 1 when something is found.
    #[arg(long = "check")]
    check_only: bool,
    /// Tell about the Dockerfile and build nothing: check, outline or targets.
    #[arg(long, value_name = "METHOD[,format=json]")]
    call: Option<String>,
    #[command(flatten)]
    pub(super) network: NetworkFlags,
    /// Most files of a layer or archive that is unpacked, and of a layer that is written [default: 20000000].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_files: Option<u64>,
    /// Taken for docker's sake: nothing is left behind in any case.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, hide = true)]
    rm: Option<bool>,
    /// Taken for docker's sake.
    #[arg(long, hide = true)]
    force_rm: bool,
    /// `false` only: no provenance is made yet.
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true, hide = true)]
    provenance: Option<String>,
    /// `false` only: no SBOM is made yet.
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true, hide = true)]
    sbom: Option<String>,
    /// Taken for docker's sake: a context is not sent anywhere.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, hide = true)]
    compress: Option<bool>,
    /// Taken for docker's sake: there is one builder, `default`.
    #[arg(long, value_name = "NAME", hide = true)]
    pub(super) builder: Option<String>,
    #[command(flatten)]
    refused: Refused,
    /// The process that runs the job this build is a part of; the build ends with it.
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) runner: Option<i32>,
}

/// Values of `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressKind {
    /// A live tree on a terminal, plain lines elsewhere.
    Auto,
    /// Plain lines.
    Plain,
    /// A live tree; standard error must be a terminal.
    Tty,
    /// Nothing.
    Quiet,
    /// BuildKit's SolveStatus documents, one a line.
    Rawjson,
}

impl Args {
    /// Refuses what cannot be honoured.
    pub(super) fn check(&self) -> Result<(), String> {
        self.refused.check()?;
        self.run.check()?;
        if self.context == "-" && self.file.as_deref() == Some(Path::new("-")) {
            return Err("the context and the Dockerfile cannot both be standard input".to_owned());
        }
        // In a job the builder may have other names; there, the docker shim has looked.
        if let (Some(builder), None) = (self.builder.as_deref().filter(|b| *b != "default"), self.runner) {
            return Err(format!("there is no builder `{builder}`: the one here is `default`"));
        }
        for (name, value) in [("provenance", &self.provenance), ("sbom", &self.sbom)] {
            if let Some(value) = value.as_deref().filter(|v| *v != "false") {
                return Err(format!("cannot honour `--{name}={value}` yet: only `--{name}=false`"));
            }
        }
        if let Some(bad) = self
            .build_args
            .iter()
            .chain(&self.labels)
            .find(|a| a.is_empty() || a.starts_with('='))
        {
            return Err(format!("invalid argument `{bad}`: expected NAME=VALUE"));
        }
        Ok(())
    }

    /// Reads `--call` and `--check`; `None` is an ordinary build.
    pub(super) fn call(&self) -> Result<Option<Call>, String> {
        let call = self.call.as_deref().map_or(Ok(None), Call::parse)?;
        Ok(if self.check_only {
            call.or(Some(Call::CHECK))
        } else {
            call
        })
    }

    /// Reads `--cache-from` and `--cache-to`.
    pub(super) fn caches(&self) -> Result<Caches, String> {
        // As with buildx, nothing is what a variable that is not set gives.
        let given = |texts: &[String]| {
            texts
                .iter()
                .filter(|text| !text.is_empty())
                .cloned()
                .collect::<Vec<_>>()
        };
        let (from, to) = (given(&self.cache_from), given(&self.cache_to));
        Ok(Caches {
            from: from
                .iter()
                .map(|text| cache::Source::parse(text))
                .collect::<Result<_, _>>()?,
            to: to
                .iter()
                .map(|text| cache::Target::parse(text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Reads `--compression`, `--compression-level` and `--annotation`.
    pub(super) fn output_defaults(&self) -> Result<Defaults, String> {
        Defaults::new(
            self.compression.as_ref(),
            self.compression_level.as_ref(),
            &self.annotations,
        )
    }

    /// Reads `--output` and `--push`. As with buildx, `--push` is that of the outputs that are images, where there are some.
    pub(super) fn outputs(&self, defaults: &Defaults) -> Result<Vec<Output>, String> {
        let outputs = self.outputs.iter().map(|text| Output::parse(text, defaults));
        let mut outputs: Vec<Output> = outputs.collect::<Result<_, _>>()?;
        if self.push {
            let images = outputs.iter_mut().map(Output::make_push).filter(|is_image| *is_image);
            if images.count() == 0 {
                outputs.push(Output::plain(defaults.form()?, true));
            }
        }
        Ok(outputs)
    }
}
