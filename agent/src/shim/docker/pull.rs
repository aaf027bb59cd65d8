//! `docker pull`.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use roadstead_registry_client::{BlobEvent, Descriptor, Digest, Platform, Progress, Reference, media_type};
use tokio::sync::mpsc;

use super::{or_exit, or_fail, parse};
use crate::shim::context::Context;
use crate::shim::pushed::RepositoryDigests;
use crate::shim::session::Session;

/// Pull an image from its registry.
#[derive(Debug, Parser)]
struct Pull {
    /// Print the name only.
    #[arg(short, long)]
    quiet: bool,
    /// The platform to pull, such as linux/arm64.
    #[arg(long)]
    platform: Option<String>,
    name: String,
}

/// Turns events into docker's lines, for the layers only.
struct Lines {
    lines: mpsc::UnboundedSender<String>,
    layers: Mutex<BTreeSet<Digest>>,
    told: Mutex<BTreeSet<Digest>>,
}

impl Progress for Lines {
    fn plan(&self, blobs: &[Descriptor]) {
        let layers = blobs.iter().filter(|blob| !media_type::is_config(&blob.media_type));
        let mut known = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(layers.map(|layer| layer.digest.clone()));
    }

    fn blob(&self, digest: &Digest, event: BlobEvent) {
        if !self
            .layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest)
        {
            return;
        }
        let (what, once) = match event {
            BlobEvent::Exists => ("Already exists".to_owned(), true),
            BlobEvent::Done => ("Pull complete".to_owned(), true),
            BlobEvent::Retrying { reason, .. } => (format!("Retrying: {reason}"), false),
            BlobEvent::Mounted { .. } | BlobEvent::Started { .. } | BlobEvent::Advanced { .. } => return,
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !once || told.insert(digest.clone()) {
            // The receiver lives as long as the pull.
            drop(self.lines.send(format!("{}: {what}", &digest.hex()[..12])));
        }
    }
}

pub(super) async fn serve(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let pull: Pull = or_exit!(parse(session, "pull", arguments).await?);
    let name: Reference = or_fail!(session, pull.name.parse());
    let platform = match &pull.platform {
        Some(platform) => or_fail!(session, platform.parse()),
        None => Platform::host(),
    };
    let wanted = match name.digest() {
        Some(_) => name.clone(),
        None => or_fail!(session, name.with_tag(name.tag_or_latest())),
    };
    let (store, client) = (or_fail!(session, context.store()), or_fail!(session, context.client()));
    let before = or_fail!(session, store.resolve(&wanted));
    if !pull.quiet {
        if name.tag().is_none() && name.digest().is_none() {
            session.line("Using default tag: latest").await?;
        }
        let what = wanted
            .digest()
            .map_or_else(|| wanted.tag_or_latest().to_owned(), ToString::to_string);
        session
            .line(&format!("{what}: Pulling from {}", wanted.repository()))
            .await?;
    }
    let (sender, mut lines) = mpsc::unbounded_channel();
    let progress = Lines {
        lines: sender,
        layers: Mutex::default(),
        told: Mutex::default(),
    };
    let result = {
        let pulling = client.pull(&wanted, &platform, &store, &progress);
        tokio::pin!(pulling);
        loop {
            tokio::select! {
                result = &mut pulling => break result,
                Some(line) = lines.recv() => if !pull.quiet { session.line(&line).await? },
            }
        }
    };
    let resolved = or_fail!(session, result);
    while let (Ok(line), false) = (lines.try_recv(), pull.quiet) {
        session.line(&line).await?;
    }
    let digest = resolved
        .index
        .as_ref()
        .map_or(&resolved.descriptor.digest, |(index, _)| &index.digest);
    let after = or_fail!(session, store.resolve(&wanted));
    let image = after
        .as_ref()
        .map_or(&resolved.descriptor.digest, |after| &after.digest);
    if let Err(error) = RepositoryDigests::of(&store).add(image, &wanted, digest) {
        tracing::warn!(%error, "cannot remember the digest of a pull");
    }
    if !pull.quiet {
        session.line(&format!("Digest: {digest}")).await?;
        let same = before.as_ref().map(|before| &before.digest) == Some(image);
        let what = if same {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        session
            .line(&format!("Status: {what} {}", super::tag::shown(&wanted.to_string())))
            .await?;
    }
    session.line(&wanted.to_string()).await?;
    Ok(0)
}
