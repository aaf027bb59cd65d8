//! Where a build goes: its outputs, the names of the image, and the form that comes first.

use std::collections::BTreeMap;

use roadstead_builder::image::form::Form;
use roadstead_builder::solve;
use roadstead_registry_client::{Platform, Reference, without_login};

use super::flags::Args;
use super::output::{ImageOutput, Output};
use super::{checks, line};
use crate::error::CliError;

/// All outputs of a build.
#[derive(Debug)]
pub(super) struct Destinations {
    /// At least one is an image: what has a name is in the local store, whatever else is made.
    pub(super) outputs: Vec<Output>,
    /// All names of the image, each once.
    pub(super) names: Vec<Reference>,
    /// The form in which layers are made; outputs of another form convert them.
    pub(super) form: Form,
    /// Whether an image was asked for, rather than files only.
    pub(super) has_image: bool,
}

impl Destinations {
    /// Reads `--output`, `--push`, `--tag` and what goes with them. Each output gets its own names, then the tags.
    pub(super) fn read(args: &Args) -> Result<Self, CliError> {
        let tags = args.tags.iter().map(|t| parse_tag(t)).collect::<Result<Vec<_>, _>>()?;
        let defaults = args.output_defaults().map_err(CliError::usage)?;
        let mut outputs = args.outputs(&defaults).map_err(CliError::usage)?;
        let form = outputs.iter().find_map(Output::form).cloned();
        let form = form.map_or_else(|| defaults.form().map_err(CliError::usage), Ok)?;
        let asked_for = outputs.is_empty() || !tags.is_empty() || outputs.iter().any(|output| output.form().is_some());
        if !asked_for
            && (!defaults.annotations.0.is_empty() || defaults.compression.is_some() || defaults.level.is_some())
        {
            return Err(CliError::usage(
                "`--annotation` and `--compression` say how an image is written, and no output is one",
            ));
        }
        for output in &mut outputs {
            add_names(output, &tags);
        }
        if !outputs.iter().any(|output| matches!(output, Output::Image(_))) {
            let mut image = Output::plain(form.clone(), false);
            let archives: Vec<Reference> = outputs.iter().flat_map(Output::names).cloned().collect();
            add_names(&mut image, &archives);
            add_names(&mut image, &tags);
            outputs.push(image);
        }
        let mut names: Vec<Reference> = Vec::new();
        for name in outputs.iter().flat_map(Output::names) {
            let name = tagged(name)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Self {
            outputs,
            names,
            form,
            has_image: asked_for,
        })
    }

    /// Refuses what cannot be written, before anything is built.
    pub(super) fn check(&self, args: &Args, build_args: &BTreeMap<String, String>) -> Result<(), CliError> {
        let mut platforms = checks::platforms(args)?;
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        let is_index = solve::is_index(build_args, platforms.len()).map_err(CliError::usage)?;
        for output in &self.outputs {
            output
                .check(&platforms, is_index, &args.context)
                .map_err(CliError::usage)?;
        }
        if self.images().any(|image| image.push && image.names.is_empty()) {
            return Err(CliError::usage("nothing to push to: `--push` needs a name")
                .hint("name the image with `-t registry/repository:tag`"));
        }
        let images: Vec<&ImageOutput> = self.images().collect();
        for (at, one) in images.iter().enumerate() {
            let others = images.iter().skip(at + 1).filter(|other| other.form != one.form);
            if let Some(name) = others
                .flat_map(|other| &other.names)
                .find(|name| one.names.contains(name))
            {
                return Err(CliError::usage(format!(
                    "two outputs give the name `{name}` to different images: give each output its own `name=`"
                )));
            }
        }
        Ok(())
    }

    /// The outputs that are images.
    pub(super) fn images(&self) -> impl Iterator<Item = &ImageOutput> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Image(image) => Some(image),
            _ => None,
        })
    }

    /// Where finished layers can go while the build goes on.
    pub(super) fn early_push(&self) -> Option<&Reference> {
        self.images()
            .find(|image| image.push && image.form == self.form)
            .and_then(|image| image.names.first())
    }
}

fn add_names(output: &mut Output, more: &[Reference]) {
    let (Output::Image(ImageOutput { names, .. }) | Output::Archive { names, .. }) = output else {
        return;
    };
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
}

/// The names that a build with these arguments pushes when it succeeds.
pub(crate) fn pushed(arguments: &[String]) -> Vec<Reference> {
    // What cannot be read has not been built either.
    let Some(Ok(destinations)) = line::read(arguments).map(|args| Destinations::read(&args)) else {
        return Vec::new();
    };
    let mut pushed: Vec<Reference> = Vec::new();
    for name in destinations
        .images()
        .filter(|image| image.push && !image.by_digest)
        .flat_map(|image| &image.names)
    {
        pushed.extend(tagged(name).ok().filter(|name| !pushed.contains(name)));
    }
    pushed
}

/// Gives a name the tag that it means.
pub(super) fn tagged(name: &Reference) -> Result<Reference, CliError> {
    name.with_tag(name.tag_or_latest()).map_err(CliError::usage)
}

fn parse_tag(text: &str) -> Result<Reference, CliError> {
    let name: Reference = text
        .parse()
        .map_err(|e| CliError::usage(format!("invalid tag `{}`: {e}", without_login(text))))?;
    if name.digest().is_some() {
        return Err(CliError::usage(format!(
            "invalid tag `{text}`: a digest cannot be chosen"
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Destinations, String> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Destinations::read(&line::read(&arguments).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn pushes_in_all_their_forms() {
        for (line, expected) in [
            ("--push -t r.io/a:1 --tag r.io/b .", &["r.io/a:1", "r.io/b:latest"][..]),
            ("--push -qt r.io/a:1 .", &["r.io/a:1"]),
            (
                "-tr.io/a:1 --tag=r.io/a:2 -o type=registry .",
                &["r.io/a:1", "r.io/a:2"],
            ),
            ("--output=type=image,push=true,name=r.io/c:3 .", &["r.io/c:3"]),
            ("--push -o type=image,compression=zstd -t r.io/a:1 .", &["r.io/a:1"]),
            ("--push -o type=local,dest=x -t r.io/a:1 .", &["r.io/a:1"]),
            ("-t r.io/a:1 . --push --target x", &["r.io/a:1"]),
            ("-t r.io/a:1 .", &[]),
            ("-t r.io/a:1 -o type=image,push=false .", &[]),
            ("-o type=registry,name=r.io/a,push-by-digest=true .", &[]),
            ("--build-arg --push -t r.io/a:1 .", &[]),
        ] {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let found: Vec<String> = pushed(&arguments).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_first_image_s_form_is_made_first() {
        use roadstead_builder::layer::compression::Compression;
        let form = |line: &str| read(line).unwrap().form.compression;
        assert_eq!(form("--compression zstd ."), Compression::Zstd(3));
        assert_eq!(
            form("-o type=local,dest=x -o type=oci,dest=y,compression=uncompressed ."),
            Compression::Uncompressed
        );
        assert!(
            read("--compression zstd -o type=tar,dest=x .")
                .unwrap_err()
                .contains("no output is one")
        );
        assert!(read("--annotation a=b -o type=tar,dest=x -t x .").unwrap().has_image);
        assert!(!read("-o type=tar,dest=x .").unwrap().has_image);
    }

    #[test]
    fn one_name_is_one_image() {
        let check = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let args = line::read(&arguments).unwrap();
            let read = Destinations::read(&args).unwrap();
            read.check(&args, &BTreeMap::new()).map_err(|e| e.to_string())
        };
        check("-o type=image,compression=zstd,name=a -o type=image,name=b .").unwrap();
        let error = check("-o type=image,compression=zstd -o type=image -t a .").unwrap_err();
        assert!(error.contains("different images"), "{error}");
    }
}
