//! The build context and the named ones: directories, archives, git repositories, URLs, images.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use roadstead_builder::context::Context;
use roadstead_builder::context::ignore::Ignore;
use roadstead_builder::context::remote::{GitRef, Remote, archive};
use roadstead_builder::solve::{Fetcher, Named, NamedContexts};
use roadstead_registry_client::{
    ImageSource as _, LayoutImage, NoProgress, Selection, StoreTarget, copy, without_login,
};

use super::dockerfile::{DockerfileText, MAX_DOCKERFILE, ignore_of};
use crate::error::{CliError, FileError};

/// A context, with the Dockerfile that came in its place.
pub(super) struct Opened {
    pub(super) context: Context,
    /// The text that standard input or a URL had in place of an archive.
    pub(super) dockerfile: Option<DockerfileText>,
    /// Whether somebody else may have made its links: files of it are then read without leaving it.
    pub(super) is_foreign: bool,
    /// Where its time is to be found.
    pub(super) time: ContextTime,
}

/// The time of a context: what `SOURCE_DATE_EPOCH=context` means.
pub(super) enum ContextTime {
    /// A directory of this machine has none that would be the same elsewhere.
    None,
    /// That of a commit, or what a server says of a file.
    Known(i64),
    /// That of the newest entry of this archive.
    Archive(PathBuf),
}

impl ContextTime {
    /// Finds it out.
    pub(super) fn seconds(&self) -> Result<Option<i64>, CliError> {
        match self {
            Self::None => Ok(None),
            Self::Known(seconds) => Ok(Some(*seconds)),
            Self::Archive(path) => archive::newest(path)
                .map_err(FileError::at("read", path))
                .map_err(CliError::failed),
        }
    }

    /// That of a file that came from a server: a file without one has the time 0.
    fn of_download(file: &Path) -> Self {
        let modified = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
        let seconds = modified
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_secs()).ok());
        match seconds {
            Some(seconds) if seconds > 0 => Self::Known(seconds),
            _ => Self::Archive(file.to_owned()),
        }
    }
}

/// Opens what the command line names as the context: PATH, URL, an archive, or `-`.
pub(super) async fn open(name: &str, fetcher: &Fetcher<'_>, keep_git_dir: bool) -> Result<Opened, CliError> {
    if name == "-" {
        return standard_input(fetcher);
    }
    if let Some(url) = name.strip_prefix("s3://") {
        let file = super::s3::fetch(url, fetcher).await?;
        return unpacked(name, &file, fetcher);
    }
    match remote(name)? {
        Some(Remote::Git(git)) => repository(*git, fetcher, keep_git_dir).await,
        Some(Remote::Http(url)) => {
            let vertex = fetcher.tools.progress.start(format!("load context {}", shown(&url)));
            let file = fetcher.file(&url, None).await.map_err(super::failed)?;
            vertex.done();
            let mut opened = unpacked(&shown(&url), &file, fetcher)?;
            if opened.dockerfile.is_none() {
                opened.time = ContextTime::of_download(&file);
            }
            Ok(opened)
        }
        None if Path::new(name).is_file() => unpacked(name, Path::new(name), fetcher),
        None => directory(Path::new(name)),
    }
}

fn remote(name: &str) -> Result<Option<Remote>, CliError> {
    // Docker has always taken this one without a scheme.
    let name = match name.strip_prefix("github.com/") {
        Some(_) if !Path::new(name).exists() => &format!("https://{}", with_suffix(name)),
        _ => name,
    };
    Remote::parse(name).map_err(CliError::usage)
}

/// Gives `github.com/owner/name#ref` the `.git` by which a repository is known.
fn with_suffix(name: &str) -> String {
    let (path, rest) = name.split_at(name.find(['#', '?']).unwrap_or(name.len()));
    let path = path.trim_end_matches('/');
    match path.ends_with(".git") {
        true => format!("{path}{rest}"),
        false => format!("{path}.git{rest}"),
    }
}

/// Opens a directory as a context.
pub(super) fn directory(path: &Path) -> Result<Opened, CliError> {
    if !path.is_dir() {
        let error = CliError::usage(format!("the build context `{}` is no directory", path.display()));
        return Err(
            error.hint("a context is a directory, an archive, a URL, a git repository, s3://BUCKET/KEY, or `-`")
        );
    }
    Ok(Opened {
        context: Context {
            path: path.to_owned(),
            ignore: Ignore::default(),
            keeps_owners: false,
            stats: None,
        },
        dockerfile: None,
        is_foreign: false,
        time: ContextTime::None,
    })
}

async fn repository(mut git: GitRef, fetcher: &Fetcher<'_>, keep_git_dir: bool) -> Result<Opened, CliError> {
    git.keep_git_dir = git.keep_git_dir.or(Some(keep_git_dir));
    let vertex = fetcher
        .tools
        .progress
        .start(format!("load git source {}", shown(&git.remote)));
    let commit = fetcher.commit(&git).await.map_err(super::failed)?;
    let (directory, time) = fetcher.checkout(&git, &commit).await.map_err(super::failed)?;
    vertex.note(format!("commit {}", commit.hash));
    vertex.done();
    let path = match &git.subdir {
        Some(subdir) => below(&directory, subdir)?,
        None => directory,
    };
    Ok(Opened {
        context: Context {
            path,
            ignore: Ignore::default(),
            keeps_owners: false,
            stats: None,
        },
        dockerfile: None,
        is_foreign: true,
        time: ContextTime::Known(time),
    })
}

/// Finds a directory of a repository, whose links may lead anywhere.
fn below(directory: &Path, subdir: &str) -> Result<PathBuf, CliError> {
    use roadstead_builder::beneath::Dir;
    let missing = || CliError::usage(format!("the repository has no directory `{subdir}`"));
    let root = Dir::open(directory).map_err(CliError::failed)?;
    let real = root.canonical(&roadstead_builder::beneath::clean(Path::new(subdir)));
    let real = real.map_err(|_| missing())?;
    match root.find_dir(&real) {
        Ok(_) => Ok(directory.join(real)),
        Err(_) => Err(missing()),
    }
}

fn standard_input(fetcher: &Fetcher<'_>) -> Result<Opened, CliError> {
    let path = fetcher.scratch().map_err(super::failed)?.join("stdin");
    let failed = |error| CliError::failed(FileError::at("write", &path)(error));
    let mut file = std::fs::File::create(&path).map_err(failed)?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).map_err(failed)?;
    unpacked("standard input", &path, fetcher)
}

/// Unpacks an archive. What is no archive is a Dockerfile, whose context is empty.
fn unpacked(name: &str, file: &Path, fetcher: &Fetcher<'_>) -> Result<Opened, CliError> {
    let path = fetcher.scratch().map_err(super::failed)?;
    let is_archive = archive::unpack(file, &path, fetcher.tools.layers.limits()).map_err(CliError::failed)?;
    let (dockerfile, time) = match is_archive {
        true => (None, ContextTime::Archive(file.to_owned())),
        false => (Some(text_of(name, file)?), ContextTime::None),
    };
    Ok(Opened {
        context: Context {
            path,
            ignore: Ignore::default(),
            keeps_owners: true,
            stats: None,
        },
        dockerfile,
        is_foreign: true,
        time,
    })
}

fn text_of(name: &str, file: &Path) -> Result<DockerfileText, CliError> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file)
        .map_err(FileError::at("open", file))
        .map_err(CliError::failed)?;
    let read = opened.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes);
    read.map_err(FileError::at("read", file)).map_err(CliError::failed)?;
    DockerfileText::new(name, bytes)
}

/// Reads `--build-context NAME=VALUE`.
pub(super) async fn named(flags: &[String], fetcher: &Fetcher<'_>) -> Result<NamedContexts, CliError> {
    let mut contexts = NamedContexts::default();
    for flag in flags {
        let (name, value) = flag
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or_else(|| {
                let shown = without_login(flag);
                CliError::usage(format!("invalid build context `{shown}`: expected NAME=VALUE"))
            })?;
        contexts.insert(name, named_one(value, fetcher).await?);
    }
    Ok(contexts)
}

async fn named_one(value: &str, fetcher: &Fetcher<'_>) -> Result<Named, CliError> {
    if value == "scratch" || value == "docker-image://scratch" {
        return Ok(Named::Scratch);
    }
    if let Some(image) = value.strip_prefix("docker-image://") {
        return image.parse().map(Named::Image).map_err(CliError::usage);
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return stored(layout, fetcher).await;
    }
    if value.starts_with("target:") || value == "-" {
        return Err(CliError::usage(format!(
            "cannot honour the build context `{value}`: `target:` belongs to bake, and `-` to the main context"
        )));
    }
    if let Some(Remote::Http(url)) = remote(value)? {
        return one_file(&url, fetcher).await;
    }
    let mut opened = open(value, fetcher, false).await?;
    if opened.dockerfile.is_some() {
        return Err(CliError::usage(format!(
            "the build context `{}` is no archive",
            shown(value)
        )));
    }
    opened.context.ignore = ignore_of(&opened, None)?;
    Ok(Named::Directory(opened.context))
}

/// A URL as a named context is one file of the name `context`, as BuildKit has it: it is not unpacked.
async fn one_file(url: &str, fetcher: &Fetcher<'_>) -> Result<Named, CliError> {
    let fetched = fetcher.file(url, None).await.map_err(super::failed)?;
    let path = fetcher.scratch().map_err(super::failed)?;
    let file = path.join("context");
    std::fs::rename(&fetched, &file)
        .map_err(FileError::at("rename", &fetched))
        .map_err(CliError::failed)?;
    Ok(Named::Directory(Context {
        path,
        ignore: Ignore::default(),
        keeps_owners: false,
        stats: None,
    }))
}

/// Brings an image of a layout, `DIRECTORY[:TAG|@DIGEST]`, into the store.
async fn stored(layout: &str, fetcher: &Fetcher<'_>) -> Result<Named, CliError> {
    let (directory, name) = split_layout(layout);
    let image = LayoutImage::open(Path::new(directory), name.as_deref()).map_err(CliError::registry)?;
    let root = image.root().await.map_err(CliError::registry)?;
    let target = StoreTarget::unnamed(&fetcher.tools.store);
    let copying = copy(&image, &target, &Selection::All, &NoProgress);
    Box::pin(copying).await.map_err(CliError::registry)?;
    Ok(Named::Stored(root))
}

fn split_layout(layout: &str) -> (&str, Option<String>) {
    if let Some((directory, digest)) = layout.split_once('@') {
        return (directory, Some(format!("@{digest}")));
    }
    match layout.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag.to_owned())),
        _ => (layout, None),
    }
}

/// An address as a message may show it.
fn shown(url: &str) -> String {
    let (shown, _) = roadstead_builder::context::remote::git::without_credentials(url);
    shown.split(['?', '#']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!(split_layout("a/b:1"), ("a/b", Some("1".to_owned())));
        assert_eq!(split_layout("a:x/b"), ("a:x/b", None));
        assert_eq!(split_layout("a@sha256:0"), ("a", Some("@sha256:0".to_owned())));
        assert_eq!(with_suffix("github.com/a/b#main:x"), "github.com/a/b.git#main:x");
        assert_eq!(with_suffix("github.com/a/b.git"), "github.com/a/b.git");
        assert_eq!(shown("https://u:p@h/a.git?token=x#y"), "https://h/a.git");
    }
}
