//! Sending content while it is made: neither its digest nor its size is known until its end.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::feed::Report;
use super::session::{self, Upload};
use super::spool::{Kept, Pieces, Spool};
use super::{one_patch, push_blob};
use crate::copy::{BlobStream, RegistryTarget};
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::progress::{BlobEvent, NoProgress, Progress};
use crate::transport::retry::retry;
use crate::transport::{Direction, Endpoint};

/// Sends content as it comes. When the upload breaks, the rest is kept only, and then all is sent as any other blob.
pub(crate) async fn push_stream(
    target: &RegistryTarget,
    media_type: &str,
    content: BlobStream<'_>,
    mut spool: Spool,
    progress: &dyn Progress,
) -> Result<Descriptor> {
    let endpoint = target.endpoint()?;
    let slot = target.transport.slot(&endpoint, Direction::Upload).await?;
    // Asked again after its end, a stream may do anything.
    let mut content: BlobStream<'_> = Box::pin(content.fuse());
    let mut tee = Tee {
        content: &mut content,
        spool: &mut spool,
        pending: None,
        failed: false,
    };
    let sent = send(target, &endpoint, &mut tee).await;
    match &sent {
        Err(error) if tee.failed || !error.is_transient() => return Err(sent.err().unwrap_or(STOPPED)),
        _ => {}
    }
    // What did not go out is still to be kept, and hashed.
    while tee.next().await?.is_some() {}
    let (descriptor, kept) = spool.finish(media_type).await?;
    let ended = match sent {
        Ok(upload) => session::commit(&target.transport, &endpoint, &upload, &descriptor.digest).await,
        Err(error) => Err(error),
    };
    drop(slot);
    let Err(error) = ended else {
        progress.blob(&descriptor.digest, BlobEvent::Started { total: descriptor.size });
        let bytes = descriptor.size;
        progress.blob(&descriptor.digest, BlobEvent::Advanced { bytes });
        progress.blob(&descriptor.digest, BlobEvent::Done);
        return Ok(descriptor);
    };
    if !error.is_transient() {
        return Err(error);
    }
    tracing::debug!(%error, "the upload of a stream broke off; its content is sent again");
    let reason = error.to_string();
    progress.blob(&descriptor.digest, BlobEvent::Retrying { reason, from: 0 });
    match kept {
        Kept::Store(image) => push_blob(target, &descriptor, &*image, progress).await?,
        Kept::Memory(pieces) => push_blob(target, &descriptor, &Pieces(pieces), progress).await?,
        Kept::Nothing { limit } => {
            return Err(RegistryError::SpoolExceeded {
                operation: format!("the upload of blob {}", descriptor.digest),
                limit,
                source: Box::new(error),
            });
        }
    };
    Ok(descriptor)
}

const STOPPED: RegistryError = RegistryError::Stopped {
    operation: "sending a stream",
};

async fn send(target: &RegistryTarget, endpoint: &Endpoint, tee: &mut Tee<'_, '_>) -> Result<Upload> {
    let operation = "the upload of a blob that is being made";
    let open = || async { session::open_for(&target.transport, endpoint, operation).await };
    let mut upload = match retry(&target.budget, |_| (), open).await {
        Err(error) if target.create_after(&error).await? => open().await?,
        other => other?,
    };
    let report = Report {
        progress: &NoProgress,
        digest: None,
    };
    one_patch::patch(
        &target.transport,
        endpoint,
        &mut upload,
        operation,
        tee.stream(),
        None,
        report,
    )
    .await?;
    Ok(upload)
}

/// Keeps all that passes.
struct Tee<'a, 'c> {
    content: &'a mut BlobStream<'c>,
    spool: &'a mut Spool,
    /// Taken from the content and not kept yet: a request that ends early drops what it is waiting for.
    pending: Option<Bytes>,
    /// Whether the content itself, or keeping it, has failed.
    failed: bool,
}

impl Tee<'_, '_> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let result = self.take().await;
        self.failed |= result.is_err();
        result
    }

    async fn take(&mut self) -> Result<Option<Bytes>> {
        if self.pending.is_none() {
            self.pending = self.content.try_next().await?;
        }
        if let Some(piece) = &self.pending {
            self.spool.keep(piece).await?;
        }
        Ok(self.pending.take())
    }

    fn stream(&mut self) -> BlobStream<'_> {
        Box::pin(futures_util::stream::try_unfold(self, |tee| async move {
            Ok(tee.next().await?.map(|piece| (piece, tee)))
        }))
    }
}
