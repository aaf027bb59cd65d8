//! `docker buildx`: what it says of builders, and the way to `build` and `imagetools`.
//!
//! There is one builder, `default`. Jobs make and choose builders before they build, so that is answered; what a builder of another
//! kind would do differently is refused.

use std::io;

use clap::Parser;
use roadstead_registry_client::Platform;
use serde_json::{Value, json};

use super::{build, imagetools, or_exit, parse, template};
use crate::environment;
use crate::shim::builders::DEFAULT;
use crate::shim::context::Context;
use crate::shim::session::Session;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What stands where docker names the kind of a builder.
const DRIVER: &str = "roadstead";

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
        "create" => create(context, session, rest).await,
        "use" => choose(context, session, rest).await,
        "rm" => remove(context, session, rest).await,
        "ls" => list(context, session, rest).await,
        "inspect" => inspect(context, session, builder, rest).await,
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

/// Give the builder another name.
#[derive(Debug, Parser)]
struct Create {
    /// The name [default: `default`, which it has].
    #[arg(long, value_parser = builder_name)]
    name: Option<String>,
    /// Use it from now on.
    #[arg(long = "use")]
    in_use: bool,
    /// Taken for docker's sake: there is nothing to start.
    #[arg(long)]
    bootstrap: bool,
    /// Kind of the builder; nothing differs.
    #[arg(long, value_parser = ["docker", "docker-container"])]
    driver: Option<String>,
    /// Only `network=host` and `default-load=true`, which hold in any case.
    #[arg(long, value_delimiter = ',', value_parser = ["network=host", "default-load=true"])]
    driver_opt: Vec<String>,
    /// Only this machine's.
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
}

async fn create(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let create: Create = or_exit!(parse(session, "buildx create", arguments).await?);
    if let Some(other) = create.platform.iter().find(|platform| **platform != Platform::host()) {
        let text = format!(
            "ERROR: cannot build for {other} here: this machine is {}",
            Platform::host()
        );
        return session.fail(&text).await;
    }
    let name = create.name.as_deref().unwrap_or(DEFAULT);
    if let Some(name) = &create.name
        && !context.builders().add(name)
    {
        return session.fail(&format!("ERROR: existing instance for \"{name}\"")).await;
    }
    if create.in_use {
        context.builders().take_into_use(name);
    }
    session
        .stderr(format!("roadstead has one builder, `{DEFAULT}`: no other was made\n").as_bytes())
        .await?;
    session.line(name).await?;
    Ok(0)
}

/// Use a builder from now on.
#[derive(Debug, Parser)]
struct Use {
    /// Taken for docker's sake: there is no other choice.
    #[arg(long)]
    global: bool,
    /// Taken for docker's sake.
    #[arg(long = "default")]
    as_default: bool,
    name: String,
}

async fn choose(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let chosen: Use = or_exit!(parse(session, "buildx use", arguments).await?);
    or_exit!(chosen_builder(context, session, Some(&chosen.name)).await?);
    context.builders().take_into_use(&chosen.name);
    Ok(0)
}

/// Take names of the builder away.
#[derive(Debug, Parser)]
struct Remove {
    /// Taken for docker's sake: nothing asks.
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    names: Vec<String>,
}

async fn remove(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let remove: Remove = or_exit!(parse(session, "buildx rm", arguments).await?);
    for name in &remove.names {
        if name == DEFAULT {
            return session.fail(&format!("ERROR: `{DEFAULT}` cannot be removed")).await;
        }
        or_exit!(chosen_builder(context, session, Some(name)).await?);
        context.builders().remove(name);
        session.line(&format!("{name} removed")).await?;
    }
    Ok(0)
}

/// Show the builder's names.
#[derive(Debug, Parser)]
struct List {
    /// A template of Go, or `json`.
    #[arg(long, default_value = "table")]
    format: String,
    /// Taken for docker's sake: nothing is cut.
    #[arg(long)]
    no_trunc: bool,
}

async fn list(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let list: List = or_exit!(parse(session, "buildx ls", arguments).await?);
    let (used, platform) = (context.builders().used(), Platform::host());
    if list.format == "table" {
        session.line("NAME       DRIVER      STATUS    PLATFORMS").await?;
    }
    for name in context.builders().all() {
        let text = if list.format == "table" {
            let mark = if name == used { "*" } else { "" };
            format!("{:<10} {DRIVER:<11} running   {platform}", format!("{name}{mark}"))
        } else {
            match template::render(&list.format, &document(&name, name == used)) {
                Ok(text) => text,
                Err(reason) => return session.fail(&reason).await,
            }
        };
        session.line(&text).await?;
    }
    Ok(0)
}

/// Show the builder.
#[derive(Debug, Parser)]
struct Inspect {
    /// Taken for docker's sake: there is nothing to start.
    #[arg(long)]
    bootstrap: bool,
    #[arg(long)]
    builder: Option<String>,
    name: Option<String>,
}

async fn inspect(
    context: &Context,
    session: &mut Session,
    builder: Option<&str>,
    arguments: Vec<String>,
) -> io::Result<u8> {
    let inspect: Inspect = or_exit!(parse(session, "buildx inspect", arguments).await?);
    let flag = inspect.name.as_deref().or(inspect.builder.as_deref()).or(builder);
    let name = or_exit!(chosen_builder(context, session, flag).await?);
    let platform = Platform::host();
    let text = format!(
        "Name:   {name}\nDriver: {DRIVER}\n\nNodes:\nName:      {name}\nEndpoint:  {DEFAULT}\nStatus:    running\nRoadstead version: \
         {VERSION}\nPlatforms: {platform}"
    );
    session.line(&text).await?;
    Ok(0)
}

fn document(name: &str, used: bool) -> Value {
    let platform = Platform::host().to_string();
    json!({
        "Name": name, "Driver": DRIVER, "Current": used,
        "Nodes": [{"Name": name, "Endpoint": DEFAULT, "Status": "running", "Platforms": [platform]}],
    })
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

fn builder_name(text: &str) -> Result<String, String> {
    let letter = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if letter && rest && text.len() <= 128 {
        Ok(text.to_owned())
    } else {
        Err("a builder's name begins with a letter and holds letters, digits, `.`, `-` and `_`".to_owned())
    }
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
