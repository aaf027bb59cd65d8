//! `docker info` and `docker version`.

use std::io;

use clap::Parser;
use roadstead_registry_client::Platform;
use serde_json::{Value, json};

use super::{or_exit, or_fail, parse, template};
use crate::shim::context::Context;
use crate::shim::session::Session;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Show what serves.
#[derive(Debug, Parser)]
struct Show {
    /// A template of Go.
    #[arg(short, long)]
    format: Option<String>,
}

pub(super) async fn short_version(session: &mut Session) -> io::Result<u8> {
    session
        .line(&format!("Docker version {VERSION}, build roadstead"))
        .await?;
    Ok(0)
}

pub(super) async fn info(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let show: Show = or_exit!(parse(session, "info", arguments).await?);
    let store = or_fail!(session, context.store());
    let images = or_fail!(session, store.list()).len();
    let Platform { os, architecture, .. } = Platform::host();
    let root = store.dir().display().to_string();
    let document = json!({
        "Name": "roadstead", "ServerVersion": VERSION, "Images": images, "Containers": 0, "Driver": "oci-layout",
        "OSType": os, "Architecture": architecture, "DockerRootDir": root,
    });
    let text = format!(
        "Client:\n Version:    {VERSION}\n Context:    roadstead\n\nServer:\n Containers: 0\n Images: {images}\n Server Version: \
         {VERSION}\n Storage Driver: oci-layout\n OSType: {os}\n Architecture: {architecture}\n Name: roadstead\n Docker Root \
         Dir: {root}"
    );
    answer(session, &show, &document, &text).await
}

pub(super) async fn version(session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let show: Show = or_exit!(parse(session, "version", arguments).await?);
    let Platform { os, architecture, .. } = Platform::host();
    let one = json!({"Version": VERSION, "Os": os, "Arch": architecture});
    let document = json!({"Client": one, "Server": one});
    let part = |name: &str| {
        format!("{name}: roadstead\n Version:           {VERSION}\n OS/Arch:           {os}/{architecture}")
    };
    let text = format!("{}\n\n{}", part("Client"), part("Server"));
    answer(session, &show, &document, &text).await
}

async fn answer(session: &mut Session, show: &Show, document: &Value, text: &str) -> io::Result<u8> {
    let text = match &show.format {
        None => text.to_owned(),
        Some(format) => match template::render(format, document) {
            Ok(text) => text,
            Err(reason) => return session.fail(&reason).await,
        },
    };
    session.line(&text).await?;
    Ok(0)
}
