//! Waiting for other builds that share the cache.
//!
//! No cycle of builds can wait for each other. What is waited for is taken in one order, and nothing is waited for backwards:
//!
//! 1. other stages of this build (COPY --from, mounts, FROM): before anything of the step is held;
//! 2. the step's key within this build (`Steps`), then its turn between builds; a COPY takes those of its identity first and, holding
//!    them, those of its content, while a RUN and a WORKDIR have one key only;
//! 3. unpacking: a lock a stack within this build, then the turn of one layer at a time between builds;
//! 4. the claim of a blob that is fetched;
//! 5. a place for a command, then the locks of its cache mounts;
//! 6. a slot for file work, which waits for nothing.
//!
//! Whoever waits for one of a class holds only those of the classes before it, and one key never is both an identity and a content. So
//! of all who wait, one with the highest class waits for a holder that waits for nothing. A turn ends with its step, well or not, and
//! the kernel ends that of a killed build.

use super::cancel::Cancel;
use super::error::{BuildError, Result};
use super::tools::Tools;
use crate::cache::turns::Turn;
use roadstead_registry_client::Digest;
use std::time::Duration;

/// How often a turn that another build has is asked for again.
const PATIENCE: Duration = Duration::from_millis(25);

/// Takes the turn of `key`. While another build has it, this one waits until it is stopped; `waiting` is called once then.
pub(super) async fn turn(tools: &Tools, key: &Digest, cancel: &Cancel, waiting: impl FnOnce()) -> Result<Turn> {
    let mut waiting = Some(waiting);
    loop {
        if let Some(turn) = tools.cache.try_turn(key)? {
            return Ok(turn);
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        tokio::select! {
            () = tokio::time::sleep(PATIENCE) => {}
            () = cancel.canceled() => return Err(BuildError::Canceled),
        }
    }
}
