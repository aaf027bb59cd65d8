//! The Dockerfile and its ignore file, as the flags name them, and the arguments they are read with.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use roadstead_builder::context::ignore::Ignore;
use roadstead_builder::dockerfile::{self, Dockerfile, directives};
use roadstead_builder::progress::Progress;

use super::Args;
use crate::error::CliError;

/// Overrules the file's `# syntax=`.
const SYNTAX: &str = "BUILDKIT_SYNTAX";

/// What is built.
pub(super) struct Source {
    pub(super) dockerfile: Dockerfile,
    pub(super) ignore: Ignore,
    /// `--build-arg`s with their values.
    pub(super) build_args: BTreeMap<String, String>,
}

impl Source {
    /// Reads and parses the Dockerfile and its ignore file.
    pub(super) fn read(args: &Args, progress: &Progress) -> Result<Self, CliError> {
        if !args.context.is_dir() {
            return Err(CliError::usage(format!(
                "the build context `{}` is no directory",
                args.context.display()
            )));
        }
        let build_args = build_args(args);
        let path = dockerfile_path(args);
        let dockerfile = read_dockerfile(&path, build_args.get(SYNTAX).map(String::as_str), progress)?;
        Ok(Self {
            dockerfile,
            ignore: read_ignore(args, &path)?,
            build_args,
        })
    }
}

fn build_args(args: &Args) -> BTreeMap<String, String> {
    let mut build_args: BTreeMap<String, String> = BTreeMap::new();
    for text in &args.build_args {
        match text.split_once('=') {
            Some((name, value)) => drop(build_args.insert(name.to_owned(), value.to_owned())),
            // As docker: a bare name takes the value of the environment, or counts as not given.
            None => {
                if let Ok(value) = std::env::var(text) {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        build_args.entry("SOURCE_DATE_EPOCH".into()).or_insert(epoch);
    }
    build_args
}

fn dockerfile_path(args: &Args) -> PathBuf {
    match &args.file {
        Some(path) => path.clone(),
        None => ["Dockerfile", "dockerfile"]
            .map(|n| args.context.join(n))
            .into_iter()
            .find(|p| p.exists())
            .unwrap_or_else(|| args.context.join("Dockerfile")),
    }
}

fn read_dockerfile(path: &Path, frontend: Option<&str>, progress: &Progress) -> Result<Dockerfile, CliError> {
    if let Some(frontend) = frontend {
        directives::check_frontend(frontend).map_err(|refused| {
            CliError::usage(format!("cannot honour `{SYNTAX}={frontend}`: {}", refused.why)).hint(refused.hint)
        })?;
    }
    let vertex = progress.start(format!("[internal] load build definition from {}", path.display()));
    let text = read_text(path).map_err(|e| {
        vertex.failed(e.to_string());
        CliError::usage(format!("cannot read Dockerfile `{}`: {e}", path.display())).hint("name another with `-f FILE`")
    })?;
    let dockerfile = dockerfile::parse_as(&path.to_string_lossy(), &text, frontend).map_err(|e| {
        vertex.failed(e.message.clone());
        let hint = e.hint.clone();
        let error = CliError::failed(e);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    vertex.done();
    Ok(dockerfile)
}

fn read_ignore(args: &Args, dockerfile: &Path) -> Result<Ignore, CliError> {
    let mut own = dockerfile.to_owned().into_os_string();
    own.push(".dockerignore");
    let candidates = [PathBuf::from(own), args.context.join(".dockerignore")];
    let Some(path) = candidates.iter().find(|p| p.is_file()) else {
        return Ok(Ignore::default());
    };
    let text = read_text(path).map_err(|e| CliError::usage(format!("cannot read `{}`: {e}", path.display())))?;
    Ignore::parse(&text).map_err(|e| CliError::usage(format!("{}: {}", path.display(), crate::error::chain(&e))))
}

/// Reads a small text file, or standard input for `-`.
fn read_text(path: &Path) -> std::io::Result<String> {
    const MAX: u64 = 8 << 20;
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(MAX).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}
