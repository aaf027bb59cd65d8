//! The command line of a build, as the docker shim looks at it before the build itself reads it.

use clap::Parser;

use super::flags::Args;

/// Reads a command line; `None` for one that the build will refuse.
pub(super) fn read(arguments: &[String]) -> Option<Args> {
    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let line = std::iter::once("build").chain(arguments.iter().map(String::as_str));
    Line::try_parse_from(line).ok().map(|line| line.args)
}

/// The builder that a build with these arguments asks for.
pub(crate) fn builder(arguments: &[String]) -> Option<String> {
    read(arguments)?.builder
}
