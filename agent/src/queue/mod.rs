//! Queues of jobs, behind one contract.

#[cfg(test)]
mod conformance;
mod contract;
mod open;
#[cfg_attr(
    not(feature = "sqs"),
    expect(dead_code, reason = "SQLite keeps logs and records itself")
)]
mod results;
mod schema;
mod sqlite;
#[cfg(feature = "sqs")]
mod sqs;

pub(crate) use contract::{Claim, JobState, Queue, QueueError, State};
pub(crate) use open::{default_url, open, open_existing};
