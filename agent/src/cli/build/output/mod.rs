//! `--output`: where a result goes and in which form.

mod annotation;
mod fields;
mod parse;
mod write;

use std::path::{Path, PathBuf};

use roadstead_builder::image::form::{Annotations, Form};
use roadstead_builder::layer::compression::Compression;
use roadstead_registry_client::{Platform, Reference};

pub(super) use fields::Fields;
pub(super) use write::Exporter;

/// Where a result goes and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// Into the store, and to a registry.
    Image(ImageOutput),
    /// An OCI layout as a tar or a directory; with `docker`, a tar for `docker load`.
    Archive {
        destination: Option<PathBuf>,
        docker: bool,
        tar: bool,
        names: Vec<Reference>,
        form: Form,
    },
    /// The files into a directory. `delete` removes what else is there.
    Local {
        destination: PathBuf,
        split: Option<bool>,
        delete: bool,
    },
    /// The files as a tar; `None` is standard output.
    Tar {
        destination: Option<PathBuf>,
        split: Option<bool>,
    },
}

/// An image in the store and in registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageOutput {
    pub(super) names: Vec<Reference>,
    pub(super) form: Form,
    pub(super) push: bool,
    /// Pushed without a tag.
    pub(super) by_digest: bool,
    /// Named with its digest, too.
    pub(super) canonical: bool,
    /// Named in the local store.
    pub(super) store: bool,
    pub(super) unpack: bool,
}

/// What the command line says of all outputs.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub(super) compression: Option<String>,
    pub(super) level: Option<String>,
    pub(super) annotations: Annotations,
}

impl Defaults {
    /// Reads `--compression`, `--compression-level` and `--annotation`.
    pub(super) fn new(
        compression: Option<&String>,
        level: Option<&String>,
        annotations: &[String],
    ) -> Result<Self, String> {
        let annotations = annotations.iter().map(|text| annotation::flag(text));
        let annotations: Vec<_> = annotations.collect::<Result<_, _>>()?;
        Ok(Self {
            compression: compression.cloned(),
            level: level.cloned(),
            annotations: Annotations(annotations.into_iter().flatten().collect()),
        })
    }

    /// The form of an image that no output says more of.
    pub(super) fn form(&self) -> Result<Form, String> {
        Ok(Form {
            compression: Compression::parse(self.compression.as_deref(), self.level.as_deref())?,
            annotations: self.annotations.clone(),
            ..Form::default()
        })
    }
}

impl Output {
    /// The image of `--push` and of a build without outputs.
    pub(super) fn plain(form: Form, push: bool) -> Self {
        Self::Image(ImageOutput {
            names: Vec::new(),
            form,
            push,
            by_digest: false,
            canonical: false,
            store: true,
            unpack: false,
        })
    }

    /// Names that the output gives the image.
    pub(super) fn names(&self) -> &[Reference] {
        match self {
            Self::Image(ImageOutput { names, .. }) | Self::Archive { names, .. } => names,
            Self::Local { .. } | Self::Tar { .. } => &[],
        }
    }

    /// The form of the image, if it is one.
    pub(super) fn form(&self) -> Option<&Form> {
        match self {
            Self::Image(ImageOutput { form, .. }) | Self::Archive { form, .. } => Some(form),
            Self::Local { .. } | Self::Tar { .. } => None,
        }
    }

    /// Sends an image to a registry, too. Tells whether it is one.
    pub(super) fn make_push(&mut self) -> bool {
        let Self::Image(image) = self else { return false };
        image.push = true;
        true
    }

    /// Checks what depends on what is built, before anything is.
    pub(super) fn check(&self, platforms: &[Platform], is_index: bool, context: &str) -> Result<(), String> {
        match self {
            // docker's own words.
            Self::Archive { docker: true, .. } if is_index => {
                return Err("docker exporter does not currently support exporting manifest lists: build one platform at a time, or use type=oci".to_owned());
            }
            Self::Local {
                destination,
                delete: true,
                ..
            } => check_deletion(destination, context)?,
            Self::Image(image) => image.check_names()?,
            _ => {}
        }
        self.form().map_or(Ok(()), |form| form.check(platforms, is_index))
    }
}

impl ImageOutput {
    fn check_names(&self) -> Result<(), String> {
        let tagged = self.names.iter().find(|name| name.tag().is_some());
        match tagged.filter(|_| self.push && self.by_digest) {
            Some(name) => Err(format!(
                "can't push tagged ref {name} by digest: name the repository only"
            )),
            None => Ok(()),
        }
    }
}

/// Refuses to empty a directory that holds where the user is, or what is built.
fn check_deletion(destination: &Path, context: &str) -> Result<(), String> {
    // One that does not exist yet holds nothing.
    let Ok(real) = destination.canonicalize() else {
        return Ok(());
    };
    let holds = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&real));
    if holds(Path::new(".")) || (Path::new(context).is_dir() && holds(Path::new(context))) {
        return Err(format!(
            "cannot honour `mode=delete` for `{}`: it holds the working directory or the build context",
            destination.display()
        ));
    }
    Ok(())
}
