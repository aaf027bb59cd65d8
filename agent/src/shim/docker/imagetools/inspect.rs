//! `docker buildx imagetools inspect`.

use std::io;

use clap::Parser;
use roadstead_registry_client::{
    CONFIG_LIMIT, Descriptor, Error, ImageSource, Index, Manifest, Platform, Reference, Selection, media_type,
    read_small, select,
};
use serde_json::{Map, Value, json};

use crate::shim::context::Context;
use crate::shim::docker::buildx::chosen_builder;
use crate::shim::docker::{or_exit, or_fail, parse, template};
use crate::shim::session::Session;

/// Show an image of a registry.
#[derive(Debug, Parser)]
struct Inspect {
    /// A template of Go.
    #[arg(long, conflicts_with = "raw")]
    format: Option<String>,
    /// Print the manifest or index as it is, byte for byte.
    #[arg(long)]
    raw: bool,
    #[arg(long)]
    builder: Option<String>,
    name: String,
}

pub(super) async fn serve(
    context: &Context,
    session: &mut Session,
    builder: Option<&str>,
    arguments: Vec<String>,
) -> io::Result<u8> {
    let inspect: Inspect = or_exit!(parse(session, "buildx imagetools inspect", arguments).await?);
    or_exit!(chosen_builder(context, session, inspect.builder.as_deref().or(builder)).await?);
    let name: Reference = or_fail!(session, inspect.name.parse());
    let client = or_fail!(session, context.client());
    let source = client.image(&name);
    let (root, bytes) = or_fail!(session, select(&source, &Selection::All).await);
    if inspect.raw {
        // No line feed, so that the digest stays the bytes'.
        return session.stdout(&bytes).await.map(|()| 0);
    }
    let text = match inspect.format.as_deref() {
        None | Some("{{.Manifest}}") => or_fail!(session, described(&name, &root, &bytes)),
        Some(format) => {
            let mut document = json!({"Name": inspect.name, "Manifest": or_fail!(session, manifest(&root, &bytes))});
            if wants_image(format) {
                document["Image"] = or_fail!(session, image(&source, &root, &bytes).await);
            }
            match template::render(format, &document) {
                Ok(text) => text,
                Err(reason) => return session.fail(&format!("ERROR: {reason}")).await,
            }
        }
    };
    session.line(&text).await?;
    Ok(0)
}

/// Whether a template speaks of the configuration, or of all there is: it lies in blobs of its own.
fn wants_image(format: &str) -> bool {
    let mut words = format.split(|c: char| c.is_whitespace() || matches!(c, '{' | '}'));
    format == "json" || format.contains("Image") || words.any(|word| word == ".")
}

/// What is shown without a format, as buildx lays it out.
fn described(name: &Reference, root: &Descriptor, bytes: &[u8]) -> Result<String, Error> {
    let kind = root.media_type.escape_debug();
    let shown = name.canonical();
    let mut text = format!("Name:      {shown}\nMediaType: {kind}\nDigest:    {}", root.digest);
    if !media_type::is_index(&root.media_type) {
        return Ok(text);
    }
    text.push_str("\n\nManifests:");
    for (number, entry) in Index::parse(bytes)?.manifests.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        let base = shown.split('@').next().unwrap_or(&shown);
        let (digest, kind) = (&entry.digest, entry.media_type.escape_debug());
        text.push_str(&format!("\n  Name:      {base}@{digest}\n  MediaType: {kind}"));
        if let Some(platform) = &entry.platform {
            text.push_str(&format!("\n  Platform:  {}", platform.to_string().escape_debug()));
        }
        if !entry.annotations.is_empty() {
            text.push_str("\n  Annotations:");
        }
        for (key, value) in &entry.annotations {
            text.push_str(&format!("\n    {}: {}", key.escape_debug(), value.escape_debug()));
        }
    }
    Ok(text)
}

/// What a template calls `.Manifest`.
fn manifest(root: &Descriptor, bytes: &[u8]) -> Result<Value, Error> {
    let mut document = json!({"mediaType": root.media_type, "digest": root.digest, "size": root.size});
    if media_type::is_index(&root.media_type) {
        let index = Index::parse(bytes)?;
        document["schemaVersion"] = json!(2);
        document["manifests"] = json!(index.manifests);
        if !index.annotations.is_empty() {
            document["annotations"] = json!(index.annotations);
        }
    }
    Ok(document)
}

/// What a template calls `.Image`: the configuration, or those of all platforms by platform.
async fn image(source: &dyn ImageSource, root: &Descriptor, bytes: &[u8]) -> Result<Value, Error> {
    if !media_type::is_index(&root.media_type) {
        return config(source, bytes).await;
    }
    let mut all = Map::new();
    for entry in Index::parse(bytes)?.manifests {
        // Attestations lie beside the images, for no platform.
        let Some(platform) = entry.platform.as_ref().filter(|platform| !is_unknown(platform)) else {
            continue;
        };
        let platform = platform.to_string();
        let manifest = source.manifest(&entry).await?;
        all.insert(platform, config(source, &manifest).await?);
    }
    // As buildx: one platform is no choice.
    if all.len() == 1
        && let Some(only) = all.values().next()
    {
        return Ok(only.clone());
    }
    Ok(Value::Object(all))
}

fn is_unknown(platform: &Platform) -> bool {
    platform.os == "unknown" || platform.architecture == "unknown"
}

async fn config(source: &dyn ImageSource, manifest: &[u8]) -> Result<Value, Error> {
    let config = Manifest::parse(manifest)?.config;
    let bytes = read_small(source, &config, CONFIG_LIMIT).await?;
    serde_json::from_slice(&bytes).map_err(|error| Error::InvalidDocument {
        what: "image configuration",
        reason: error.to_string(),
    })
}
