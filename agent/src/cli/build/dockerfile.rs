//! Reading the Dockerfile and its ignore file.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use roadstead_builder::beneath::Dir;
use roadstead_builder::context::ignore::Ignore;
use roadstead_builder::dockerfile::{self, Dockerfile};
use roadstead_builder::progress::Progress;

use super::context::Opened;
use crate::error::CliError;

/// Bytes of the longest Dockerfile and ignore file.
pub(super) const MAX_DOCKERFILE: u64 = 8 << 20;

/// A Dockerfile's text and what the user calls it.
#[derive(Debug)]
pub(super) struct DockerfileText {
    name: String,
    text: String,
}

impl DockerfileText {
    /// Takes bytes that were read up to one more than the longest text has.
    pub(super) fn new(name: &str, bytes: Vec<u8>) -> Result<Self, CliError> {
        Ok(Self {
            name: name.to_owned(),
            text: text(name, bytes)?,
        })
    }
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, CliError> {
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(CliError::usage(format!(
            "`{name}` is larger than {MAX_DOCKERFILE} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        CliError::usage(format!("`{name}` is no UTF-8: line {line} has bytes that are no text"))
    })
}

/// Reads and parses the Dockerfile that `file` names, or the context's own.
pub(super) fn read(
    file: Option<&Path>,
    opened: &mut Opened,
    frontend: Option<&str>,
    progress: &Progress,
) -> Result<Dockerfile, CliError> {
    let source = match (file, opened.dockerfile.take()) {
        (None, Some(text)) => text,
        (Some(path), _) if path == Path::new("-") => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes);
            read.map_err(|error| CliError::usage(format!("cannot read the Dockerfile from standard input: {error}")))?;
            DockerfileText::new("-", bytes)?
        }
        (file, _) => from_file(file, opened)?,
    };
    let vertex = progress.start(format!("[internal] load build definition from {}", source.name));
    let dockerfile = dockerfile::parse_as(&source.name, &source.text, frontend).map_err(|e| {
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

fn from_file(file: Option<&Path>, opened: &Opened) -> Result<DockerfileText, CliError> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => ["Dockerfile", "dockerfile"]
            .map(PathBuf::from)
            .into_iter()
            .find(|name| opened.context.path.join(name).symlink_metadata().is_ok())
            .unwrap_or_else(|| PathBuf::from("Dockerfile")),
    };
    // Given by `-f`, a path is the caller's, but in a context that came from elsewhere.
    let (place, name) = match (opened.is_foreign, file) {
        (true, _) => (None, path.display().to_string()),
        (false, Some(_)) => (Some(path.clone()), path.display().to_string()),
        (false, None) => {
            let path = opened.context.path.join(&path);
            let name = path.display().to_string();
            (Some(path), name)
        }
    };
    let cannot = |error: &dyn std::fmt::Display| {
        CliError::usage(format!("cannot read Dockerfile `{name}`: {error}")).hint("name another with `-f FILE`")
    };
    let bytes = match place {
        Some(path) => read_file(&path).map_err(|error| cannot(&error))?,
        None => read_below(&opened.context.path, &path)
            .map_err(|error| cannot(&crate::error::chain(&error)))?
            .ok_or_else(|| cannot(&"the context has no such file"))?,
    };
    DockerfileText::new(&name, bytes)
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file without leaving the directory, whatever its links say.
fn read_below(directory: &Path, path: &Path) -> Result<Option<Vec<u8>>, roadstead_builder::beneath::FileError> {
    let path = roadstead_builder::beneath::clean(path);
    Dir::open(directory)?.read_small(&path, MAX_DOCKERFILE + 1)
}

/// Reads the ignore file: the Dockerfile's own, else the context's. As with BuildKit, a context that came from elsewhere has none.
pub(super) fn ignore_of(opened: &Opened, file: Option<&Path>) -> Result<Ignore, CliError> {
    if opened.is_foreign {
        return Ok(Ignore::default());
    }
    let context = &opened.context.path;
    let beside = |path: &Path| {
        let mut own = path.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    };
    let candidates = match file.filter(|path| *path != Path::new("-")) {
        Some(path) => vec![beside(path)],
        None => ["Dockerfile", "dockerfile"]
            .map(|name| beside(&context.join(name)))
            .to_vec(),
    };
    let mut candidates = candidates.into_iter().chain([context.join(".dockerignore")]);
    let Some(path) = candidates.find(|path| path.is_file()) else {
        return Ok(Ignore::default());
    };
    let name = path.display().to_string();
    let bytes = read_file(&path).map_err(|error| CliError::usage(format!("cannot read `{name}`: {error}")))?;
    Ignore::parse(&text(&name, bytes)?)
        .map_err(|error| CliError::usage(format!("{name}: {}", crate::error::chain(&error))))
}
