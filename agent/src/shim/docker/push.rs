//! `docker push`.

use std::collections::BTreeSet;
use std::io;

use clap::Parser;
use roadstead_registry_client::{BlobEvent, Client, Descriptor, Digest, Error, Progress, Reference, Store};
use tokio::sync::mpsc;

use super::tag::shown;
use super::{or_exit, or_fail, parse};
use crate::shim::context::Context;
use crate::shim::pushed::{self, RepositoryDigests};
use crate::shim::session::Session;

/// Push an image to its registry.
#[derive(Debug, Parser)]
struct Push {
    /// Push all tags of the repository.
    #[arg(short, long)]
    all_tags: bool,
    /// Print the name only.
    #[arg(short, long)]
    quiet: bool,
    /// Taken and without effect, as in docker without a notary.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    disable_content_trust: Option<bool>,
    name: String,
}

/// Turns events into docker's lines, for the layers only.
struct Lines {
    layers: BTreeSet<Digest>,
    lines: mpsc::UnboundedSender<String>,
}

impl Progress for Lines {
    fn blob(&self, digest: &Digest, event: BlobEvent) {
        if !self.layers.contains(digest) {
            return;
        }
        let what = match event {
            BlobEvent::Exists => "Layer already exists".to_owned(),
            BlobEvent::Mounted { from } => format!("Mounted from {}", from.repository()),
            BlobEvent::Done => "Pushed".to_owned(),
            BlobEvent::Retrying { reason, .. } => format!("Retrying: {reason}"),
            BlobEvent::Started { .. } | BlobEvent::Advanced { .. } => return,
        };
        // The receiver lives as long as the push.
        drop(self.lines.send(format!("{}: {what}", &digest.hex()[..12])));
    }
}

pub(super) async fn serve(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let push: Push = or_exit!(parse(session, "push", arguments).await?);
    let name: Reference = or_fail!(session, push.name.parse());
    if name.digest().is_some() {
        return session.fail("cannot push a digest reference").await;
    }
    if push.all_tags && name.tag().is_some() {
        return session.fail("tag can't be used with --all-tags/-a").await;
    }
    let store = or_fail!(session, context.store());
    let images = or_fail!(session, chosen(&store, &name, push.all_tags));
    if name.tag().is_none() && !push.all_tags && !push.quiet {
        session.line("Using default tag: latest").await?;
    }
    if !push.quiet {
        session
            .line(&format!("The push refers to repository [{}]", name.name()))
            .await?;
    }
    if images.is_empty() {
        let name = if push.all_tags {
            name.name()
        } else {
            format!("{}:{}", name.name(), name.tag_or_latest())
        };
        return session
            .fail(&format!("An image does not exist locally with the tag: {name}"))
            .await;
    }
    let client = or_fail!(session, context.client());
    for (target, image) in images {
        or_exit!(push_one(context, session, &client, &store, &target, &image, push.quiet).await?);
    }
    Ok(0)
}

fn chosen(store: &Store, name: &Reference, all: bool) -> Result<Vec<(Reference, Descriptor)>, Error> {
    if all {
        return Ok(store
            .list()?
            .into_iter()
            .filter(|(known, _)| known.name() == name.name() && known.tag().is_some())
            .collect());
    }
    let target = name.with_tag(name.tag_or_latest())?;
    Ok(store
        .resolve(&target)?
        .map(|image| (target, image))
        .into_iter()
        .collect())
}

async fn push_one(
    context: &Context,
    session: &mut Session,
    client: &Client,
    store: &Store,
    target: &Reference,
    image: &Descriptor,
    quiet: bool,
) -> io::Result<Result<(), u8>> {
    let layers = match pushed::layers(store, image) {
        Ok(layers) => layers.into_iter().map(|layer| layer.digest).collect(),
        Err(error) => return session.fail_with(&error).await.map(Err),
    };
    let (sender, mut lines) = mpsc::unbounded_channel();
    let progress = Lines { layers, lines: sender };
    let result = {
        let pushing = client.push(store, image, target, &progress);
        tokio::pin!(pushing);
        loop {
            tokio::select! {
                result = &mut pushing => break result,
                Some(line) = lines.recv() => if !quiet { session.line(&line).await? },
            }
        }
    };
    while let Ok(line) = lines.try_recv() {
        if !quiet {
            session.line(&line).await?;
        }
    }
    let noted = result.and_then(|digest| Ok((digest, pushed::note(store, image, target)?)));
    let (digest, note) = match noted {
        Ok(noted) => noted,
        Err(error) => return session.fail_with(&error).await.map(Err),
    };
    context.note_pushed(note);
    if let Err(error) = RepositoryDigests::of(store).add(&image.digest, target, &digest) {
        tracing::warn!(%error, "cannot remember the digest of a push");
    }
    if quiet {
        session.line(&shown(&target.to_string())).await?;
    } else {
        session
            .line(&format!(
                "{}: digest: {digest} size: {}",
                target.tag_or_latest(),
                image.size
            ))
            .await?;
    }
    Ok(Ok(()))
}
