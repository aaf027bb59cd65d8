//! The names an image gets, and those it is pushed under.

use roadstead_registry_client::Reference;

use super::flags::Args;
use super::line;
use super::output::Output;
use crate::error::CliError;

/// The outputs asked for, and all names of the image: those of outputs first, then the tags, each once.
pub(super) fn destinations(args: &Args) -> Result<(Vec<Output>, Vec<Reference>), CliError> {
    let tags = args.tags.iter().map(|t| parse_name(t)).collect::<Result<Vec<_>, _>>()?;
    let outputs = args.outputs(&tags).map_err(CliError::usage)?;
    let mut names: Vec<Reference> = Vec::new();
    for name in outputs.iter().flat_map(Output::names).chain(tags) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok((outputs, names))
}

/// The names that a build with these arguments pushes when it succeeds.
pub(crate) fn pushed(arguments: &[String]) -> Vec<Reference> {
    match line::read(arguments).map(|args| destinations(&args)) {
        Some(Ok((outputs, names))) if outputs.iter().any(Output::is_push) => names,
        // What cannot be read has not been built either.
        _ => Vec::new(),
    }
}

fn parse_name(text: &str) -> Result<Reference, CliError> {
    let name: Reference = text
        .parse()
        .map_err(|e| CliError::usage(format!("invalid tag `{text}`: {e}")))?;
    if name.digest().is_some() {
        return Err(CliError::usage(format!(
            "invalid tag `{text}`: a digest cannot be chosen"
        )));
    }
    name.with_tag(name.tag_or_latest()).map_err(CliError::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("-t r.io/a:1 . --push --target x", &["r.io/a:1"]),
            ("-t r.io/a:1 .", &[]),
            ("-t r.io/a:1 -o type=image,push=false .", &[]),
            ("--build-arg --push -t r.io/a:1 .", &[]),
        ] {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let found: Vec<String> = pushed(&arguments).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{line}");
        }
    }
}
