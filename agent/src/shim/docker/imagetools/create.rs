//! `docker buildx imagetools create`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use roadstead_proto::record::PushedImage;
use roadstead_registry_client::{
    Client, ComposedIndex, Descriptor, Error, ImageSource, Index, Manifest, NoProgress, Reference, Selection, copy,
    media_type, select, without_login,
};

use super::source::{Source, locate};
use crate::shim::context::Context;
use crate::shim::docker::buildx::chosen_builder;
use crate::shim::docker::{or_exit, or_fail, parse};
use crate::shim::pushed;
use crate::shim::session::Session;

/// Largest descriptor file.
const MAX_FILE: u64 = 1 << 20;

/// Put an image for several platforms together from images and indexes.
#[derive(Debug, Parser)]
struct Create {
    /// Name of the new image; may be repeated.
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// Add to what the first name means now.
    #[arg(long)]
    append: bool,
    /// Print the index and push nothing.
    #[arg(long)]
    dry_run: bool,
    /// A file with a source: a reference, a digest or a descriptor; may be repeated.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Annotate the index: index:KEY=VALUE.
    #[arg(long = "annotation", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Make an index of a single image; `false` copies it.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    prefer_index: Option<bool>,
    #[arg(long, default_value = "auto", value_parser = ["auto", "plain", "quiet"])]
    progress: String,
    #[arg(long)]
    builder: Option<String>,
    /// References, digests or descriptors.
    sources: Vec<String>,
}

/// What is pushed, and what points to it.
struct New {
    source: Box<dyn ImageSource>,
    root: Descriptor,
    bytes: Vec<u8>,
}

pub(super) async fn serve(
    context: &Context,
    session: &mut Session,
    builder: Option<&str>,
    arguments: Vec<String>,
) -> io::Result<u8> {
    let create: Create = or_exit!(parse(session, "buildx imagetools create", arguments).await?);
    or_exit!(chosen_builder(context, session, create.builder.as_deref().or(builder)).await?);
    let (tags, sources) = match read(&create, session) {
        Ok(read) => read,
        Err(reason) => return session.fail(&format!("ERROR: {reason}")).await,
    };
    let places = match locate(&sources, &tags) {
        Ok(places) => places,
        Err(reason) => return session.fail(&format!("ERROR: {reason}")).await,
    };
    let client = or_fail!(session, context.client());
    for (source, place) in sources.iter().zip(&places).filter(|(source, _)| source.is_described()) {
        let (found, _) = or_fail!(session, select(&client.image(place), &Selection::All).await);
        if let Err(reason) = source.check(&found) {
            return session.fail(&reason).await;
        }
    }
    let new = or_fail!(session, put_together(&create, &client, &places).await);
    if create.dry_run {
        session.stdout(&new.bytes).await?;
        session.stdout(b"\n").await?;
        return Ok(0);
    }
    let store = or_fail!(session, context.store());
    for (number, tag) in (1..).zip(&tags) {
        let begun = Instant::now();
        let target = client.target(tag).noting_sources(&store);
        let pushed = copy(&*new.source, &target, &Selection::All, &NoProgress).await;
        let pushed = or_fail!(session, pushed);
        context.note_pushed(or_fail!(session, note(&new, &pushed, tag).await));
        if create.progress != "quiet" {
            let seconds = begun.elapsed().as_secs_f64();
            let text = format!(
                "#{number} [internal] pushing {tag}\n#{number} pushing {} to {tag} done\n#{number} DONE {seconds:.1}s\n",
                pushed.digest
            );
            session.stderr(text.as_bytes()).await?;
        }
    }
    Ok(0)
}

/// Reads names and sources: what the first name means now, then those of files, then those of the line.
fn read(create: &Create, session: &Session) -> Result<(Vec<Reference>, Vec<Source>), String> {
    let tags = create
        .tags
        .iter()
        .map(|text| tag(text))
        .collect::<Result<Vec<_>, _>>()?;
    if create.sources.is_empty() && create.files.is_empty() {
        return Err("no sources specified".to_owned());
    }
    if tags.is_empty() && !create.dry_run {
        return Err("can't push with no tags specified, please set --tag or --dry-run".to_owned());
    }
    let mut texts = Vec::new();
    if create.append {
        let first = tags.first().ok_or("`--append` needs a name to add to: give `--tag`")?;
        texts.push(first.canonical());
    }
    for file in &create.files {
        let path = session.directory().join(file);
        texts.push(read_file(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?);
    }
    texts.extend(create.sources.iter().cloned());
    let sources = texts.iter().map(|text| Source::read(text)).collect::<Result<_, _>>()?;
    Ok((tags, sources))
}

/// Reads a small file; a pipe could hold up the runner.
fn read_file(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::other("it is too large for a descriptor"));
    }
    Ok(text)
}

fn tag(text: &str) -> Result<Reference, String> {
    let wrong = |reason: String| format!("invalid tag `{}`: {reason}", without_login(text).escape_debug());
    let name: Reference = text.parse().map_err(|error: Error| wrong(error.to_string()))?;
    if name.digest().is_some() {
        return Err(wrong("a digest cannot be chosen".to_owned()));
    }
    name.with_tag(name.tag_or_latest())
        .map_err(|error| wrong(error.to_string()))
}

/// One annotation. As with buildx, those of manifests are not served, and no prefix means a manifest.
fn annotation(text: &str) -> Result<(String, String), String> {
    match text.strip_prefix("index:").and_then(|rest| rest.split_once('=')) {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("only the index can be annotated: index:KEY=VALUE".to_owned()),
    }
}

/// Makes the new index; a single index, and a single image if asked, is copied as it is.
async fn put_together(create: &Create, client: &Client, places: &[Reference]) -> Result<New, Error> {
    if let ([only], true) = (places, create.annotations.is_empty()) {
        let source = client.image(only);
        let (root, bytes) = select(&source, &Selection::All).await?;
        if media_type::is_index(&root.media_type) || create.prefer_index == Some(false) {
            let source = Box::new(source);
            return Ok(New { source, root, bytes });
        }
    }
    let parts: Vec<Box<dyn ImageSource>> = places
        .iter()
        .map(|place| -> Box<dyn ImageSource> { Box::new(client.image(place)) })
        .collect();
    let annotations: BTreeMap<String, String> = create.annotations.iter().cloned().collect();
    let index = ComposedIndex::compose(parts, annotations).await?;
    Ok(New {
        root: index.descriptor().clone(),
        bytes: index.bytes().to_vec(),
        source: Box::new(index),
    })
}

/// The note of a push, with the sizes of all images.
async fn note(new: &New, pushed: &Descriptor, tag: &Reference) -> Result<PushedImage, Error> {
    let mut size = 0_u64;
    if media_type::is_index(&new.root.media_type) {
        for child in Index::parse(&new.bytes)?.manifests {
            if !media_type::is_index(&child.media_type) {
                let manifest = Manifest::parse(&new.source.manifest(&child).await?)?;
                size = size.saturating_add(pushed::size_of(&manifest));
            }
        }
    } else {
        size = pushed::size_of(&Manifest::parse(&new.bytes)?);
    }
    Ok(pushed::note_of(pushed, tag, size))
}
