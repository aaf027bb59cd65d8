//! Where an image is, as it is written on the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use roadstead_registry_client::{
    ArchiveKind, ArchiveWriter, Client, ImageArchive, ImageSink, ImageSource, LayoutImage, LayoutTarget, Reference,
    Store, StoreImage, StoreTarget, layout_names,
};

use super::repository::RepositoryFlags;
use crate::data_directory;
use crate::error::CliError;

/// A place that can hold an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Place {
    /// A registry.
    Registry(Reference),
    /// The local store.
    Store(Reference),
    /// An OCI layout in a directory.
    Layout { directory: PathBuf, name: Option<String> },
    /// An OCI layout in a tar.
    OciArchive { file: PathBuf, name: Option<String> },
    /// What `docker save` writes and `docker load` reads.
    DockerArchive { file: PathBuf, name: Option<String> },
}

/// A sink, and what must be done once it has all.
pub(in crate::cli) struct Target {
    sink: Box<dyn ImageSink>,
    archive: Option<ArchiveWriter>,
}

impl Target {
    pub(in crate::cli) fn sink(&self) -> &dyn ImageSink {
        &*self.sink
    }

    pub(in crate::cli) async fn finish(self) -> Result<(), CliError> {
        match self.archive {
            Some(archive) => archive.finish().await.map_err(CliError::registry),
            None => Ok(()),
        }
    }
}

impl Place {
    /// Reads a place; a bare name is in a registry.
    pub(in crate::cli) fn registry_by_default(text: &str) -> Result<Self, String> {
        match Self::with_prefix(text)? {
            Some(place) => Ok(place),
            None => reference(text).map(Self::Registry),
        }
    }

    /// Reads a place; a bare name is in the local store, as for docker.
    pub(in crate::cli) fn store_by_default(text: &str) -> Result<Self, String> {
        match Self::with_prefix(text)? {
            Some(place) => Ok(place),
            None => reference(text).map(Self::Store),
        }
    }

    /// Reads the name of an image in a registry.
    pub(in crate::cli) fn in_registry(text: &str) -> Result<Reference, String> {
        match Self::registry_by_default(text)? {
            Self::Registry(name) => Ok(name),
            _ => Err(format!(
                "`{text}` is no image of a registry; `roadstead image copy` takes every place"
            )),
        }
    }

    /// Reads the name of an image in the local store.
    pub(in crate::cli) fn in_store(text: &str) -> Result<Reference, String> {
        match Self::store_by_default(text)? {
            Self::Store(name) => Ok(name),
            _ => Err(format!(
                "`{text}` is not in the local store; `roadstead image copy` takes every place"
            )),
        }
    }

    fn with_prefix(text: &str) -> Result<Option<Self>, String> {
        let file = |rest: &str| -> Result<(PathBuf, Option<String>), String> {
            let (path, name) = split_name(rest);
            match path {
                "" => Err(format!("`{text}` names no file")),
                path => Ok((PathBuf::from(path), name.map(str::to_owned))),
            }
        };
        if let Some(rest) = text.strip_prefix("docker://") {
            return reference(rest).map(Self::Registry).map(Some);
        }
        if let Some(rest) = text.strip_prefix("store:") {
            return reference(rest).map(Self::Store).map(Some);
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            return file(rest).map(|(directory, name)| Some(Self::Layout { directory, name }));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return file(rest).map(|(file, name)| Some(Self::OciArchive { file, name }));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            return file(rest).map(|(file, name)| Some(Self::DockerArchive { file, name }));
        }
        Ok(None)
    }

    /// The name in a registry, if that is where it is.
    pub(in crate::cli) fn registry_name(&self) -> Option<&Reference> {
        match self {
            Self::Registry(name) => Some(name),
            _ => None,
        }
    }

    /// The place as messages and results name it.
    pub(in crate::cli) fn label(&self) -> String {
        let with = |prefix: &str, path: &PathBuf, name: &Option<String>| {
            let name = name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
            format!("{prefix}:{}{name}", path.display())
        };
        match self {
            Self::Registry(name) | Self::Store(name) => name.canonical(),
            Self::Layout { directory, name } => with("oci", directory, name),
            Self::OciArchive { file, name } => with("oci-archive", file, name),
            Self::DockerArchive { file, name } => with("docker-archive", file, name),
        }
    }

    /// Opens the place to read from.
    pub(in crate::cli) async fn source(&self, client: &Client) -> Result<Box<dyn ImageSource>, CliError> {
        Ok(match self {
            Self::Registry(name) => Box::new(client.image(name)),
            Self::Store(name) => Box::new(StoreImage::named(&local_store()?, name).fetching(client)),
            Self::Layout { directory, name } => {
                Box::new(LayoutImage::open(directory, name.as_deref()).map_err(CliError::registry)?)
            }
            Self::OciArchive { name, .. } | Self::DockerArchive { name, .. } => {
                let archive = self.archive().await?;
                Box::new(archive.image(name.as_deref()).await.map_err(CliError::registry)?)
            }
        })
    }

    /// Opens the place to write to.
    pub(in crate::cli) fn target(&self, client: &Client, repository: &RepositoryFlags) -> Result<Target, CliError> {
        let sink: Box<dyn ImageSink> = match self {
            Self::Registry(name) => {
                let target = client.target(name);
                // A copy between registries needs no store; where there is one, it learns.
                let target = match local_store() {
                    Ok(store) => target.noting_sources(&store),
                    Err(_) => target,
                };
                Box::new(repository.apply(target))
            }
            Self::Store(name) => Box::new(StoreTarget::named(&local_store()?, name)),
            Self::Layout { directory, name } => {
                Box::new(LayoutTarget::create(directory, name.as_deref()).map_err(CliError::registry)?)
            }
            Self::OciArchive { file, name } => return archive_target(file, ArchiveKind::Oci, name.as_deref()),
            Self::DockerArchive { file, name } => return archive_target(file, ArchiveKind::Docker, name.as_deref()),
        };
        Ok(Target { sink, archive: None })
    }

    async fn archive(&self) -> Result<ImageArchive, CliError> {
        let opened = match self {
            Self::OciArchive { file, .. } => ImageArchive::open(file, ArchiveKind::Oci).await,
            Self::DockerArchive { file, .. } => ImageArchive::open(file, ArchiveKind::Docker).await,
            _ => return Err(CliError::usage(format!("`{}` is no archive", self.label()))),
        };
        opened.map_err(CliError::registry)
    }

    /// Lists the names in a layout or an archive.
    pub(in crate::cli) async fn names(&self) -> Result<Vec<String>, CliError> {
        match self {
            Self::Layout { directory, .. } => layout_names(directory).map_err(CliError::registry),
            _ => Ok(self.archive().await?.names()),
        }
    }
}

fn archive_target(file: &Path, kind: ArchiveKind, name: Option<&str>) -> Result<Target, CliError> {
    let archive = ArchiveWriter::create(file, kind).map_err(CliError::registry)?;
    Ok(Target {
        sink: Box::new(archive.image(name)),
        archive: Some(archive),
    })
}

/// The local store, as `roadstead build` uses it.
pub(in crate::cli) fn local_store() -> Result<Store, CliError> {
    data_directory::store().map_err(data_directory::failed)
}

fn reference(text: &str) -> Result<Reference, String> {
    Reference::from_str(text).map_err(|error| error.to_string())
}

/// Cuts the name off a path, as skopeo does: at the first colon. A name may hold more of them.
fn split_name(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((path, name)) if !name.is_empty() => (path, Some(name)),
        Some((path, _)) => (path, None),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let (name, path) = (|text: &str| text.parse::<Reference>().unwrap(), PathBuf::from);
        for (text, place) in [
            ("r.example/app:1", Place::Registry(name("r.example/app:1"))),
            ("docker://node", Place::Registry(name("node"))),
            ("store:node", Place::Store(name("node"))),
            (
                "oci:dir/x",
                Place::Layout {
                    directory: path("dir/x"),
                    name: None,
                },
            ),
            (
                "oci-archive:/a.tar:r.example/app:1",
                Place::OciArchive {
                    file: path("/a.tar"),
                    name: Some("r.example/app:1".to_owned()),
                },
            ),
            (
                "docker-archive:a.tar:",
                Place::DockerArchive {
                    file: path("a.tar"),
                    name: None,
                },
            ),
        ] {
            assert_eq!(Place::registry_by_default(text), Ok(place), "{text}");
        }
        assert_eq!(Place::store_by_default("node"), Ok(Place::Store(name("node"))));
        for bad in ["", "oci:", "store:", "UPPER", "http://x/y"] {
            assert!(Place::registry_by_default(bad).is_err(), "{bad}");
        }
    }
}
