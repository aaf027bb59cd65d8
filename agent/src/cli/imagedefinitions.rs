//! `roadstead imagedefinitions`: writes the files that deploy stages read.

use std::path::PathBuf;
use std::process::ExitCode;

use roadstead_proto::image_definitions::{
    DEFINITIONS_FILE, DETAIL_FILE, ImageDefinition, ImageDetail, parse_definitions,
};
use roadstead_proto::record::PushedImage;
use roadstead_registry_client::{Platform, Reference, ecr};

use super::runtime;
use crate::client::NetworkFlags;
use crate::error::{CliError, FileError};
use crate::shim;

/// Arguments of `roadstead imagedefinitions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A container of the task definition and its image. The first one also goes into imageDetail.json.
    #[arg(required = true, value_name = "NAME=URI", value_parser = container)]
    containers: Vec<(String, Reference)>,
    /// Put the pushed digest in place of the tag.
    #[arg(long)]
    pin: bool,
    /// Where to write the files.
    #[arg(long, value_name = "DIR", default_value = ".")]
    output_dir: PathBuf,
}

fn container(text: &str) -> Result<(String, Reference), String> {
    let (name, uri) = text
        .split_once('=')
        .filter(|(name, _)| !name.trim().is_empty())
        .ok_or("expected NAME=URI")?;
    let uri = uri.parse::<Reference>().map_err(|error| error.to_string())?;
    Ok((name.to_owned(), uri))
}

pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    // Before any registry is asked.
    checked(&definitions(args, plain))?;
    let pushed = match shim::ask_pushed() {
        Some(pushed) => pushed.map_err(CliError::failed)?,
        None => Vec::new(),
    };
    let images = runtime()?.block_on(async {
        let mut images = Vec::new();
        for (_, reference) in &args.containers {
            images.push(match pushed.iter().find(|image| is(image, reference)) {
                Some(image) => image.clone(),
                None => ask_registry(reference).await?,
            });
        }
        Ok::<_, CliError>(images)
    })?;
    let mut found = images.iter();
    let definitions = checked(&definitions(args, |reference| match found.next() {
        Some(image) if args.pin => pinned(reference, image),
        _ => plain(reference),
    }))?;
    let first = args.containers.first().zip(images.first());
    let ((_, reference), image) = first.ok_or_else(|| CliError::usage("no container was given"))?;
    write(args, DEFINITIONS_FILE, &definitions)?;
    let detail = serde_json::to_vec(&detail(reference, image)).map_err(CliError::failed)?;
    write(args, DETAIL_FILE, &detail)?;
    Ok(ExitCode::SUCCESS)
}

fn definitions(args: &Args, mut uri: impl FnMut(&Reference) -> String) -> Vec<ImageDefinition> {
    let containers = args.containers.iter().map(|(name, reference)| ImageDefinition {
        name: name.clone(),
        image_uri: uri(reference),
    });
    containers.collect()
}

/// The file's text, held against what a run of a job checks it for.
fn checked(definitions: &[ImageDefinition]) -> Result<Vec<u8>, CliError> {
    let bytes = serde_json::to_vec(definitions).map_err(CliError::failed)?;
    match parse_definitions(&bytes) {
        Ok(_) => Ok(bytes),
        Err(reason) => Err(CliError::usage(format!(
            "no deploy stage would take {DEFINITIONS_FILE}: {reason}"
        ))),
    }
}

fn is(image: &PushedImage, reference: &Reference) -> bool {
    image.name == reference.name()
        && match reference.digest() {
            Some(digest) => image.digest == digest.to_string(),
            None => image.tag.as_deref() == Some(reference.tag_or_latest()),
        }
}

/// What the registry knows of an image that this job did not push.
async fn ask_registry(reference: &Reference) -> Result<PushedImage, CliError> {
    let client = NetworkFlags::default().client()?;
    let resolved = client.resolve(reference, &Platform::host()).await;
    let resolved = resolved.map_err(CliError::registry)?;
    let top = resolved.index.as_ref().map_or(&resolved.descriptor, |(index, _)| index);
    Ok(PushedImage {
        name: reference.name(),
        tag: reference.tag().map(str::to_owned),
        digest: top.digest.to_string(),
        media_type: top.media_type.clone(),
        size_in_bytes: shim::size_of(&resolved.manifest),
        pushed_at: jiff::Timestamp::now().to_string(),
    })
}

fn plain(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => format!("{}:{}", reference.name(), reference.tag_or_latest()),
    }
}

fn pinned(reference: &Reference, image: &PushedImage) -> String {
    format!("{}@{}", reference.name(), image.digest)
}

fn detail(reference: &Reference, image: &PushedImage) -> ImageDetail {
    let registry = reference.registry();
    ImageDetail {
        image_size_in_bytes: image.size_in_bytes.to_string(),
        image_digest: image.digest.clone(),
        version: "1.0".to_owned(),
        image_pushed_at: image.pushed_at.clone(),
        registry_id: ecr::parse_host(registry).map_or_else(|| registry.to_owned(), |host| host.account),
        repository_name: reference.repository().to_owned(),
        image_uri: pinned(reference, image),
        image_tags: image.tag.iter().cloned().collect(),
    }
}

fn write(args: &Args, name: &str, bytes: &[u8]) -> Result<(), CliError> {
    let path = args.output_dir.join(name);
    std::fs::write(&path, bytes)
        .map_err(FileError::at("write", &path))
        .map_err(CliError::failed)
}
