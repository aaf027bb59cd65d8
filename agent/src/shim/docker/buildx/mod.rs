//! `docker buildx`: its own options, and the way to what serves its commands.

mod builders;

use std::io;

use super::{build, imagetools, or_exit};
use crate::environment;
use crate::shim::context::Context;
use crate::shim::session::Session;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A call, without buildx's own options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    builder: Option<String>,
    words: Vec<String>,
}

impl Call {
    /// Reads what stands behind `docker buildx`; an error names an option that is not served.
    pub(super) fn read(arguments: &[String]) -> Result<Self, String> {
        let mut builder = None;
        let mut rest = arguments.iter();
        let mut words = Vec::new();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "-D" | "--debug" => {}
                "--builder" => builder = Some(rest.next().cloned().ok_or("--builder without a name")?),
                option if option.starts_with("--builder=") => {
                    builder = option.split_once('=').map(|(_, name)| name.to_owned());
                }
                "-h" | "--help" => words.push("help".to_owned()),
                option if option.starts_with('-') => {
                    return Err(option.split('=').next().unwrap_or(option).to_owned());
                }
                _ => {
                    words.push(argument.clone());
                    words.extend(rest.cloned());
                    break;
                }
            }
        }
        Ok(Self { builder, words })
    }

    /// The arguments of a build, if it is one.
    pub(super) fn of_build(&self) -> Option<(Option<&str>, Vec<String>)> {
        let (first, rest) = self.words.split_first()?;
        matches!(first.as_str(), "build" | "b").then(|| (self.builder.as_deref(), rest.to_vec()))
    }
}

/// Serves what is no build.
pub(super) async fn serve(context: &Context, session: &mut Session, call: Call) -> io::Result<u8> {
    let Some((first, rest)) = call.words.split_first() else {
        return help(session).await;
    };
    let builder = call.builder.as_deref();
    if builder.is_some() {
        or_exit!(chosen_builder(context, session, builder).await?);
    }
    let rest = rest.to_vec();
    match first.as_str() {
        "help" => help(session).await,
        "imagetools" => imagetools::serve(context, session, builder, rest).await,
        "version" => session
            .line(&format!("roadstead/buildx v{VERSION} roadstead"))
            .await
            .map(|()| 0),
        "create" => builders::create(context, session, rest).await,
        "use" => builders::choose(context, session, rest).await,
        "rm" => builders::remove(context, session, rest).await,
        "ls" => builders::list(context, session, rest).await,
        "inspect" => builders::inspect(context, session, builder, rest).await,
        "bake" => {
            session
                .fail(
                    "docker buildx bake is not served by roadstead: build each target by itself, with \
                     `docker build -f DOCKERFILE -t NAME CONTEXT`",
                )
                .await
        }
        other => {
            session
                .fail(&format!("docker buildx {other} is not served by roadstead"))
                .await
        }
    }
}

async fn help(session: &mut Session) -> io::Result<u8> {
    let text = "Usage:  docker buildx COMMAND\n\nThis is roadstead under docker's name. It serves:\n  build, imagetools create, \
                imagetools inspect, create, inspect, ls, rm, use, version";
    session.line(text).await?;
    Ok(0)
}

/// Gives the builder to use: the one a flag names, or the variable that buildx reads, or the one in use. One that there is not is
/// refused.
pub(super) async fn chosen_builder(
    context: &Context,
    session: &mut Session,
    flag: Option<&str>,
) -> io::Result<Result<String, u8>> {
    let variable = session.request.environment.get(environment::BUILDX_BUILDER);
    let name = flag.or(variable.map(String::as_str)).filter(|name| !name.is_empty());
    let name = name.map_or_else(|| context.builders().used(), str::to_owned);
    if context.builders().knows(&name) {
        return Ok(Ok(name));
    }
    let text = format!("ERROR: no builder \"{}\" found", name.escape_debug());
    session.fail(&text).await.map(Err)
}

/// Serves a build.
pub(super) async fn build(
    context: &Context,
    session: &mut Session,
    builder: Option<&str>,
    arguments: Vec<String>,
) -> io::Result<u8> {
    let named = crate::cli::builder(&arguments);
    or_exit!(chosen_builder(context, session, named.as_deref().or(builder)).await?);
    build::serve(context, session, arguments).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildxs_own_options_come_first() {
        let read = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Call::read(&words)
        };
        let call = |builder: Option<&str>, words: &[&str]| {
            Ok(Call {
                builder: builder.map(str::to_owned),
                words: words.iter().map(|word| (*word).to_owned()).collect(),
            })
        };
        for (line, want) in [
            ("build --builder x .", call(None, &["build", "--builder", "x", "."])),
            (
                "--builder a -D build -t x .",
                call(Some("a"), &["build", "-t", "x", "."]),
            ),
            ("--builder=a ls", call(Some("a"), &["ls"])),
            ("--help", call(None, &["help"])),
            ("", call(None, &[])),
            ("--what=1 ls", Err("--what".to_owned())),
            ("--builder", Err("--builder without a name".to_owned())),
        ] {
            assert_eq!(read(line), want, "{line}");
        }
        assert_eq!(read("b .").unwrap().of_build(), Some((None, vec![".".to_owned()])));
        assert_eq!(read("bake").unwrap().of_build(), None);
    }
}
