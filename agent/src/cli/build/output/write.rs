//! Writing what was built, in all forms that were asked for.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use roadstead_builder::beneath::Owner;
use roadstead_builder::image::assemble::Image;
use roadstead_builder::image::form::Form;
use roadstead_builder::image::output::{self as files, Root};
use roadstead_builder::rootfs::overlay::Rootfs;
use roadstead_builder::solve::{self, Built, Cancel, Tools};
use roadstead_registry_client::{
    ArchiveKind, ArchiveWriter, LayoutTarget, NoProgress, Reference, Selection, StoreImage, copy,
};

use super::super::names::{Destinations, tagged};
use super::super::push::push;
use super::{ImageOutput, Output};
use crate::error::{CliError, FileError};

/// Writes the outputs of one build.
pub(in super::super) struct Exporter<'a> {
    pub(in super::super) tools: &'a Arc<Tools>,
    pub(in super::super) built: &'a Built,
    /// Gets the files of directories.
    pub(in super::super) owner: Owner,
    pub(in super::super) cancel: &'a Cancel,
}

impl Exporter<'_> {
    /// Writes everything; the names of the local store come last. Gives the image in its first form.
    pub(in super::super) async fn export_all(&self, destinations: &Destinations) -> Result<Image, CliError> {
        let mut images: Vec<(&Form, Image)> = Vec::new();
        let forms = std::iter::once(&destinations.form).chain(destinations.outputs.iter().filter_map(Output::form));
        for form in forms {
            if !images.iter().any(|(known, _)| *known == form) {
                let exporting = solve::export(self.tools, self.built, form, self.cancel);
                images.push((form, exporting.await.map_err(super::super::failed)?));
            }
        }
        let first = images.first().map(|(_, image)| image.clone());
        let first = first.ok_or_else(|| CliError::failed("no image was written"))?;
        let image_of = |form: &Form| {
            let found = images.iter().find(|(known, _)| *known == form);
            found.map_or(&first, |(_, image)| image)
        };
        for image in destinations.images().filter(|image| image.push) {
            self.push(image, image_of(&image.form)).await?;
        }
        for output in &destinations.outputs {
            let image = output.form().map_or(&first, image_of);
            tokio::select! {
                written = self.write(output, image) => written?,
                () = self.cancel.canceled() => return Err(CliError::failed("the build was canceled")),
            }
        }
        for image in destinations.images() {
            self.name(image, image_of(&image.form)).await?;
        }
        Ok(first)
    }

    async fn push(&self, output: &ImageOutput, image: &Image) -> Result<(), CliError> {
        for name in &output.names {
            let name = match output.by_digest {
                true => name.without_tag().with_digest(image.descriptor.digest.clone()),
                false => tagged(name)?,
            };
            push(self.tools, image, &name, self.cancel).await?;
        }
        Ok(())
    }

    /// Names the image in the store, and unpacks it if that was asked for.
    async fn name(&self, output: &ImageOutput, image: &Image) -> Result<(), CliError> {
        if output.unpack {
            for one in &self.built.platforms {
                let unpacking = solve::unpacked(self.tools, one, self.cancel);
                unpacking.await.map_err(super::super::failed)?;
            }
        }
        if !output.store || output.names.is_empty() {
            return Ok(());
        }
        let vertex = self.tools.progress.start("naming image");
        for name in &output.names {
            let mut names = vec![tagged(name)?];
            if output.canonical {
                names.push(name.without_tag().with_digest(image.descriptor.digest.clone()));
            }
            for name in names {
                self.tools
                    .store
                    .tag(&name, &image.descriptor)
                    .map_err(CliError::failed)?;
                vertex.note(format!("naming to {}", name.canonical()));
            }
        }
        vertex.done();
        Ok(())
    }

    /// Writes an output that is no image of the store.
    async fn write(&self, output: &Output, image: &Image) -> Result<(), CliError> {
        match output {
            Output::Image(_) => Ok(()),
            Output::Archive {
                destination,
                docker,
                tar,
                names,
                ..
            } => match (tar, destination) {
                (false, Some(directory)) => self.layout(image, names, directory).await,
                (_, file) => self.archive(image, names, file.as_deref(), *docker).await,
            },
            Output::Local {
                destination,
                split,
                delete,
            } => {
                let mounted = self.mount().await?;
                let roots = self.roots(&mounted, *split);
                files::local(&roots, self.built.epoch, destination, inside(self.owner)).map_err(CliError::failed)?;
                if *delete {
                    files::keep_only(&roots, destination).map_err(CliError::failed)?;
                }
                Ok(())
            }
            Output::Tar { destination, split } => {
                let mounted = self.mount().await?;
                let out = open(destination.as_deref())?;
                files::tar(&self.roots(&mounted, *split), self.built.epoch, out).map_err(CliError::failed)
            }
        }
    }

    /// Writes the image as an archive; base layers that are not here are fetched.
    async fn archive(
        &self,
        image: &Image,
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
        let target = writer.image_named(names);
        Box::pin(copy(&self.source(image), &target, &Selection::All, &NoProgress))
            .await
            .map_err(CliError::registry)?;
        writer.finish().await.map_err(CliError::registry)
    }

    /// Writes the image into an OCI layout; other images of it stay.
    async fn layout(&self, image: &Image, names: &[Reference], directory: &Path) -> Result<(), CliError> {
        let target = LayoutTarget::create_named(directory, names).map_err(CliError::registry)?;
        let copied = Box::pin(copy(&self.source(image), &target, &Selection::All, &NoProgress)).await;
        copied.map(drop).map_err(CliError::registry)
    }

    fn source(&self, image: &Image) -> StoreImage {
        StoreImage::described(&self.tools.store, &image.descriptor).fetching(&self.tools.client)
    }

    /// Mounts the files of every platform.
    async fn mount(&self) -> Result<Vec<Rootfs>, CliError> {
        let mut mounted = Vec::with_capacity(self.built.platforms.len());
        for one in &self.built.platforms {
            let unpacking = solve::unpacked(self.tools, one, self.cancel);
            let chain = unpacking.await.map_err(super::super::failed)?;
            let rootfs = self.tools.layers.mount_readonly(&chain);
            mounted.push(rootfs.map_err(|error| super::super::failed(error.into()))?);
        }
        Ok(mounted)
    }

    /// Says where each platform's files go: as with BuildKit, an index has a directory for each.
    fn roots<'b>(&self, mounted: &'b [Rootfs], split: Option<bool>) -> Vec<Root<'b>> {
        let split = split.unwrap_or(self.built.is_index);
        let platforms = self.built.platforms.iter().map(|one| one.platform.to_string());
        mounted
            .iter()
            .zip(platforms)
            .map(|(rootfs, name)| Root {
                path: rootfs.path(),
                below: if split {
                    name.replace('/', "_").into()
                } else {
                    "".into()
                },
                name,
            })
            .collect()
    }
}

/// The owner as this process's user namespace names it: root when it was mapped to root.
fn inside(owner: Owner) -> Owner {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = text.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    if whole { owner } else { Owner { uid: 0, gid: 0 } }
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
