//! Sending a blob while it is being written: when it ends, most of it has arrived.
//!
//! Neither digest nor size is known before its end, so whether the registry has the blob already can be asked only then. All of it lies
//! in the store: an upload that breaks costs nothing but time.

use futures_util::stream::try_unfold;

use super::feed::Report;
use super::strategy::Strategies;
use super::{has_blob, one_patch, push_blob, session};
use crate::copy::{BlobStream, RegistryTarget, StoreImage};
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{NoProgress, Progress};
use crate::store::{Growing, Store};
use crate::transport::retry::retry;
use crate::transport::{Direction, Endpoint};

/// Bytes from which on a blob is sent before it ends: smaller ones are sent in no time, and may be there already.
const WORTH_IT: u64 = 4 << 20;
const OPERATION: &str = "the upload of a blob that is being made";

/// Sends a blob as it grows, or when it has ended where that is better.
pub(crate) async fn push_growing(
    target: &RegistryTarget,
    media_type: &str,
    mut growing: Growing,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Descriptor> {
    let endpoint = target.endpoint()?;
    let is_small = target.transport.wants_small_requests(&endpoint);
    let (_, ended) = growing.beyond(WORTH_IT).await?;
    let streams = ended.is_none() && Strategies::of(&endpoint).choose(0, is_small).streams();
    let sent = match streams {
        true => send(target, &endpoint, &mut growing).await.map_err(Some),
        false => Err(None),
    };
    let (digest, size) = growing.published().await?;
    let descriptor = Descriptor::new(media_type, digest, size);
    if let Err(error) = sent {
        tracing::debug!(?error, "a growing blob is sent now that it has ended");
        let source = StoreImage::described(store, &descriptor);
        push_blob(target, &descriptor, &source, progress).await?;
    }
    Ok(descriptor)
}

async fn send(target: &RegistryTarget, endpoint: &Endpoint, growing: &mut Growing) -> Result<()> {
    let transport = &target.transport;
    let _slot = transport.slot(endpoint, Direction::Upload).await?;
    let open = || async { session::open_for(transport, endpoint, OPERATION).await };
    let mut upload = match retry(&target.budget, |_| (), open).await {
        Err(error) if target.create_after(&error).await? => open().await?,
        other => other?,
    };
    let report = Report {
        progress: &NoProgress,
        digest: None,
    };
    let content = content(target, endpoint, growing);
    let sent = one_patch::patch(transport, endpoint, &mut upload, OPERATION, content, None, report).await;
    // An upload that broke is forgotten by the registry, some day.
    sent?;
    let digest = growing.digest().ok_or(GIVEN_UP)?;
    session::commit(transport, endpoint, &upload, &digest).await
}

/// Gives the blob as it grows. As soon as it has ended, and much is still to be sent, the registry is asked whether it has it already:
/// that ends the content.
fn content<'a>(target: &'a RegistryTarget, endpoint: &'a Endpoint, growing: &'a mut Growing) -> BlobStream<'a> {
    let next = move |(growing, asked): (&'a mut Growing, bool)| async move {
        let at = growing.position();
        let (size, digest) = growing.beyond(at).await?;
        let is_worth_asking = !asked && size - at > WORTH_IT;
        if let Some(digest) = digest.clone().filter(|_| is_worth_asking) {
            let blob = Descriptor::new("", digest, size);
            if has_blob(&target.transport, endpoint, &blob, session::scopes(endpoint)).await? {
                return Err(IS_THERE);
            }
        }
        let piece = growing.next().await?;
        Ok(piece.map(|piece| (piece, (growing, asked || digest.is_some()))))
    };
    Box::pin(try_unfold((growing, false), next))
}

const GIVEN_UP: RegistryError = RegistryError::Stopped {
    operation: "writing a blob",
};
const IS_THERE: RegistryError = RegistryError::Stopped {
    operation: "sending a blob that is there",
};
