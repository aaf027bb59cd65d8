//! What `docker buildx` says of builders.
//!
//! There is one, `default`. Jobs make and choose builders before they build, so that is answered; what a builder of another kind would
//! do differently is refused.

use std::io;

use clap::Parser;
use roadstead_registry_client::Platform;
use serde_json::{Value, json};

use super::{VERSION, chosen_builder};
use crate::shim::builders::DEFAULT;
use crate::shim::context::Context;
use crate::shim::docker::{or_exit, parse, template};
use crate::shim::session::Session;

/// What stands where docker names the kind of a builder.
const DRIVER: &str = "roadstead";

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

pub(super) async fn create(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
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

pub(super) async fn choose(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
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

pub(super) async fn remove(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
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

pub(super) async fn list(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
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

pub(super) async fn inspect(
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
