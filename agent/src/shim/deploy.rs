//! The check of an `imagedefinitions.json` before a deploy stage finds out.

use std::fs;
use std::path::Path;

use roadstead_proto::image_definitions::{DEFINITIONS_FILE, MAX_DEFINITIONS_BYTES, parse_definitions};
use roadstead_proto::record::{PushedImage, Record};
use roadstead_registry_client::Reference;

use super::context::Context;
use crate::error::chain;

/// Checks the file if it is among the artifacts: its shape, its size, and that each image was pushed or exists.
pub(super) async fn check(context: &Context, artifacts: &Path, record: &Record) -> Result<(), String> {
    for path in record
        .artifacts
        .iter()
        .filter(|path| path.rsplit('/').next() == Some(DEFINITIONS_FILE))
    {
        check_file(context, &artifacts.join(path), record)
            .await
            .map_err(|reason| format!("{path}: {reason}"))?;
    }
    Ok(())
}

async fn check_file(context: &Context, path: &Path, record: &Record) -> Result<(), String> {
    let size = fs::metadata(path)
        .map_err(|error| format!("cannot read it: {error}"))?
        .len();
    if size > MAX_DEFINITIONS_BYTES as u64 {
        return Err(format!(
            "it has {size} bytes; the deploy action takes at most {MAX_DEFINITIONS_BYTES}"
        ));
    }
    let bytes = fs::read(path).map_err(|error| format!("cannot read it: {error}"))?;
    for definition in parse_definitions(&bytes)? {
        let uri = &definition.image_uri;
        let reference: Reference = uri
            .parse()
            .map_err(|error| format!("container `{}`: {error}", definition.name))?;
        if record.pushed_images.iter().any(|image| is(image, &reference)) {
            continue;
        }
        let client = context.client().map_err(|error| chain(&error))?;
        match client.head_manifest(&reference).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                return Err(format!(
                    "image `{uri}` was not pushed by this build, and its registry has none of that name"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "image `{uri}` was not pushed by this build, and asking its registry failed: {}",
                    chain(&error)
                ));
            }
        }
    }
    Ok(())
}

/// Whether a reference names an image that was pushed.
fn is(image: &PushedImage, reference: &Reference) -> bool {
    image.name == reference.name()
        && match reference.digest() {
            Some(digest) => image.digest == digest.to_string(),
            None => image.tag.as_deref() == Some(reference.tag_or_latest()),
        }
}
