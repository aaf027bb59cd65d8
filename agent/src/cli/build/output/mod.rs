//! `--output`: other forms of the result.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roadstead_builder::beneath::Owner;
use roadstead_builder::image::output as form;
use roadstead_builder::solve::{self, Built, Cancel, Tools};
use roadstead_registry_client::{ArchiveKind, ArchiveWriter, NoProgress, Reference, Selection, StoreImage, copy};

use crate::error::{CliError, FileError};

/// Where a result goes and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// Into the store, and to a registry when `push` is set.
    Image { names: Vec<Reference>, push: bool },
    /// The files into a directory.
    Local(PathBuf),
    /// The files as a tar; `None` is standard output.
    Tar(Option<PathBuf>),
    /// An OCI layout in a tar; with `docker`, one for `docker load`.
    Archive { destination: Option<PathBuf>, docker: bool },
}

impl Output {
    /// Reads docker's short and long forms.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Tar(None));
        }
        if !text.contains('=') {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        let (mut kind, mut destination, mut names, mut push) = (None, None, Vec::new(), false);
        for field in text.split(',') {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| format!("invalid output `{text}`: `{field}` has no value"))?;
            match (key, value) {
                ("type", value) => kind = Some(value),
                ("dest", value) => destination = Some(value),
                ("name", value) => names.push(
                    value
                        .parse()
                        .map_err(|e| format!("invalid name in output `{text}`: {e}"))?,
                ),
                ("push", "true" | "false") => push = value == "true",
                ("oci-mediatypes" | "tar" | "unpack" | "store", "true")
                | ("push-by-digest" | "rewrite-timestamp", "false") => {}
                _ => return Err(format!("cannot honour `{field}` of output `{text}` yet")),
            }
        }
        let file = || destination.filter(|d| *d != "-").map(PathBuf::from);
        match (kind, destination) {
            (Some("local"), Some(destination)) => Ok(Self::Local(PathBuf::from(destination))),
            (Some("local"), None) => Err(format!("output `{text}` needs dest=DIRECTORY")),
            (Some("tar"), _) => Ok(Self::Tar(file())),
            (Some("oci" | "docker"), None) if kind == Some("docker") => Ok(Self::Image { names, push: false }),
            (Some(kind @ ("oci" | "docker")), _) => Ok(Self::Archive {
                destination: file(),
                docker: kind == "docker",
            }),
            (Some("image"), None) => Ok(Self::Image { names, push }),
            (Some("registry"), None) => Ok(Self::Image { names, push: true }),
            _ => Err(format!(
                "cannot honour output `{text}`: expected type=local|tar|oci|docker|image|registry"
            )),
        }
    }

    /// Names that the output gives the image.
    pub(super) fn names(&self) -> Vec<Reference> {
        if let Self::Image { names, .. } = self {
            names.clone()
        } else {
            Vec::new()
        }
    }

    /// Whether the image goes to a registry.
    pub(super) fn is_push(&self) -> bool {
        matches!(self, Self::Image { push: true, .. })
    }
}

/// Writes every output that is no image in the store.
pub(super) async fn write_all(
    tools: &Arc<Tools>,
    built: &Built,
    names: &[Reference],
    outputs: &[Output],
    owner: Owner,
    cancel: &Cancel,
) -> Result<(), CliError> {
    for output in outputs {
        match output {
            Output::Image { .. } => {}
            Output::Archive { destination, docker } => {
                let writing = archive(tools, built, names, destination.as_deref(), *docker);
                tokio::select! {
                    written = writing => written?,
                    () = cancel.canceled() => return Err(CliError::failed("the build was canceled")),
                }
            }
            Output::Local(_) | Output::Tar(_) => {
                let chain = solve::unpacked(tools, built, cancel).await.map_err(CliError::failed)?;
                let rootfs = tools.layers.mount_readonly(&chain).map_err(CliError::failed)?;
                match output {
                    Output::Local(path) => form::local(rootfs.path(), built.epoch, path, inside(owner)),
                    Output::Tar(path) => form::tar(rootfs.path(), built.epoch, open(path.as_deref())?),
                    _ => Ok(()),
                }
                .map_err(CliError::failed)?;
            }
        }
    }
    Ok(())
}

/// The owner as this process's user namespace names it: root when it was mapped to root.
fn inside(owner: Owner) -> Owner {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = text.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    if whole { owner } else { Owner { uid: 0, gid: 0 } }
}

/// Writes the image as an archive; base layers that are not here are fetched.
async fn archive(
    tools: &Arc<Tools>,
    built: &Built,
    names: &[Reference],
    destination: Option<&Path>,
    docker: bool,
) -> Result<(), CliError> {
    let kind = if docker { ArchiveKind::Docker } else { ArchiveKind::Oci };
    let writer = match destination {
        Some(path) => ArchiveWriter::create(path, kind),
        None => ArchiveWriter::to(Box::new(io::stdout()), kind),
    };
    let writer = writer.map_err(CliError::registry)?;
    let source = StoreImage::described(&tools.store, &built.image.descriptor).fetching(&tools.client);
    let target = writer.image_named(names);
    Box::pin(copy(&source, &target, &Selection::All, &NoProgress))
        .await
        .map_err(CliError::registry)?;
    writer.finish().await.map_err(CliError::registry)
}

fn open(destination: Option<&Path>) -> Result<Box<dyn Write + Send>, CliError> {
    match destination {
        None => Ok(Box::new(io::stdout())),
        Some(path) => {
            let file = File::create(path)
                .map_err(FileError::at("create", path))
                .map_err(CliError::failed)?;
            Ok(Box::new(file))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_docker_s_forms() {
        for (text, want) in [
            ("out", Output::Local("out".into())),
            ("-", Output::Tar(None)),
            ("type=local,dest=d", Output::Local("d".into())),
            ("type=tar,dest=x.tar", Output::Tar(Some("x.tar".into()))),
            (
                "type=oci,dest=x.tar",
                Output::Archive {
                    destination: Some("x.tar".into()),
                    docker: false,
                },
            ),
            (
                "type=docker,dest=-",
                Output::Archive {
                    destination: None,
                    docker: true,
                },
            ),
            (
                "type=docker",
                Output::Image {
                    names: vec![],
                    push: false,
                },
            ),
            (
                "type=registry",
                Output::Image {
                    names: vec![],
                    push: true,
                },
            ),
            (
                "type=image,name=a:1,push=true",
                Output::Image {
                    names: vec!["a:1".parse().unwrap()],
                    push: true,
                },
            ),
        ] {
            assert_eq!(Output::parse(text), Ok(want), "{text}");
        }
        for bad in [
            "type=local",
            "type=what",
            "type=image,compression=zstd",
            "type=tar,x",
            "dest=a",
        ] {
            assert!(Output::parse(bad).is_err(), "{bad}");
        }
    }
}
