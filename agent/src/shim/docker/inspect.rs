//! `docker inspect` of images.

use std::io;

use clap::Parser;
use roadstead_registry_client::{Error, Store};
use serde_json::{Value, json};

use super::select::{self, Image};
use super::{or_exit, or_fail, parse, template};
use crate::error::chain;
use crate::shim::context::Context;
use crate::shim::pushed::{self, RepositoryDigests};
use crate::shim::session::Session;

/// Show what is known of images.
#[derive(Debug, Parser)]
struct Inspect {
    /// A template of Go.
    #[arg(short, long)]
    format: Option<String>,
    /// Only `image` exists here.
    #[arg(long = "type", default_value = "image", value_parser = ["image"])]
    kind: String,
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) async fn serve(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let inspect: Inspect = or_exit!(parse(session, "inspect", arguments).await?);
    let store = or_fail!(session, context.store());
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &inspect.images {
        match or_fail!(session, document(&store, name)) {
            Some(document) => found.push(document),
            None => missing.push(name),
        }
    }
    let mut status = 0;
    match &inspect.format {
        None => {
            let text = serde_json::to_string_pretty(&found).map_err(io::Error::other)?;
            session.line(&text).await?;
        }
        Some(format) => {
            for document in &found {
                match template::render(format, document) {
                    Ok(text) => session.line(&text).await?,
                    Err(reason) => status = session.fail(&reason).await?,
                }
            }
        }
    }
    for name in missing {
        status = session.fail(&format!("Error: No such object: {name}")).await?;
    }
    Ok(status)
}

fn document(store: &Store, name: &str) -> Result<Option<Value>, Error> {
    let Some((descriptor, _)) = select::find(store, name)? else {
        return Ok(None);
    };
    let image = Image::read(store, &descriptor)?;
    let mut tags = Vec::new();
    for (known, other) in store.list()? {
        if other.digest == descriptor.digest && known.tag().is_some() {
            tags.push(super::tag::shown(&known.to_string()));
        }
    }
    let digests = RepositoryDigests::of(store)
        .find(&descriptor.digest)
        .unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "cannot read the digests of images");
            Vec::new()
        });
    let raw = image.config.raw();
    let field = |name: &str| raw.get(name).cloned().unwrap_or_else(|| json!(""));
    let layers: Vec<String> = image.config.diff_ids()?.iter().map(ToString::to_string).collect();
    let mut document = json!({
        "Id": image.id(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": "",
        "Created": field("created"),
        "Author": field("author"),
        "Config": raw.get("config").cloned().unwrap_or_else(|| json!({})),
        "Architecture": field("architecture"),
        "Os": field("os"),
        "Size": pushed::size_of(&image.manifest),
        "RootFS": {"Type": "layers", "Layers": layers},
        "Descriptor": {
            "mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size,
        },
    });
    if let (Some(variant), Some(fields)) = (raw.get("variant"), document.as_object_mut()) {
        fields.insert("Variant".to_owned(), variant.clone());
    }
    Ok(Some(document))
}
