//! `docker buildx imagetools`: images in registries, for several platforms under one name.

mod create;
mod inspect;
mod source;

use std::io;

use crate::shim::context::Context;
use crate::shim::session::Session;

/// Serves a call; `builder` is the one named before it.
pub(super) async fn serve(
    context: &Context,
    session: &mut Session,
    builder: Option<&str>,
    arguments: Vec<String>,
) -> io::Result<u8> {
    let rest = arguments.get(1..).unwrap_or_default().to_vec();
    match arguments.first().map(String::as_str) {
        Some("create") => create::serve(context, session, builder, rest).await,
        Some("inspect") => inspect::serve(context, session, builder, rest).await,
        None | Some("help" | "--help" | "-h") => {
            let text = "Usage:  docker buildx imagetools COMMAND\n\nRoadstead serves:\n  create, inspect";
            session.line(text).await.map(|()| 0)
        }
        Some(other) => {
            session
                .fail(&format!("docker buildx imagetools {other} is not served by roadstead"))
                .await
        }
    }
}
