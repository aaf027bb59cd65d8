//! `docker tag` and `docker rmi`.

use std::io;

use clap::Parser;
use roadstead_registry_client::Reference;

use super::{or_exit, or_fail, parse, select};
use crate::shim::context::Context;
use crate::shim::session::Session;

/// Give an image another name.
#[derive(Debug, Parser)]
struct Tag {
    source: String,
    target: String,
}

/// Remove names of images.
#[derive(Debug, Parser)]
struct Remove {
    /// Remove all names of an id, and pass over what is not there.
    #[arg(short, long)]
    force: bool,
    /// Taken and without effect: there are no untagged parents.
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) async fn tag(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let tag: Tag = or_exit!(parse(session, "tag", arguments).await?);
    let store = or_fail!(session, context.store());
    let target: Reference = or_fail!(session, tag.target.parse());
    if target.digest().is_some() {
        return session
            .fail("Error: refusing to create a tag with a digest reference")
            .await;
    }
    match or_fail!(session, select::find(&store, &tag.source)) {
        Some((descriptor, _)) => {
            or_fail!(session, store.tag(&target, &descriptor));
            Ok(0)
        }
        None => {
            session
                .fail(&format!(
                    "Error response from daemon: No such image: {}",
                    shown(&tag.source)
                ))
                .await
        }
    }
}

/// A name as docker prints it in messages: with its tag.
pub(super) fn shown(text: &str) -> String {
    text.parse::<Reference>().map_or_else(
        |_| text.to_owned(),
        |reference| match reference.digest() {
            Some(_) => reference.familiar(),
            None => format!("{}:{}", reference.without_tag().familiar(), reference.tag_or_latest()),
        },
    )
}

pub(super) async fn remove(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let remove: Remove = or_exit!(parse(session, "rmi", arguments).await?);
    let store = or_fail!(session, context.store());
    let mut status = 0;
    for image in &remove.images {
        let Some((descriptor, names)) = or_fail!(session, select::find(&store, image)) else {
            let failed = session
                .fail(&format!("Error response from daemon: No such image: {}", shown(image)))
                .await?;
            status = if remove.force { status } else { failed };
            continue;
        };
        let by_id = !image.parse::<Reference>().is_ok_and(|reference| names == [reference]);
        if by_id && names.len() > 1 && !remove.force {
            let text = format!(
                "Error response from daemon: conflict: unable to delete {} (must be forced) - image is referenced in \
                 multiple repositories",
                &descriptor.digest.hex()[..12]
            );
            status = session.fail(&text).await?;
            continue;
        }
        for name in names {
            if or_fail!(session, store.untag(&name)) {
                session.line(&format!("Untagged: {}", shown(&name.to_string()))).await?;
            }
        }
    }
    Ok(status)
}
