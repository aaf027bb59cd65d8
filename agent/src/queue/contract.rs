//! What every queue promises to its agents.

use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use roadstead_proto::job::{Job, JobId};
use roadstead_proto::record::{Record, Status};
use serde::Serialize;

/// Times a job is handed out at most; after that its agents are taken to be lost through the job's own doing.
pub(crate) const MAX_ATTEMPTS: u64 = 3;

/// A future that can be sent to another thread.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, QueueError>> + Send + 'a>>;

/// What can go wrong with a queue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    /// The claim's lease is over, or the job was given to another agent: what was done under it must be discarded.
    #[error("the lease of job {0} is lost")]
    LeaseLost(JobId),
    #[error("the queue has a job {0} already")]
    Duplicate(JobId),
    #[error("the queue has no job `{0}`")]
    NoSuchJob(String),
    #[error("`{url}` is no queue: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("the job document has {0} bytes, which is more than a queue takes")]
    TooLarge(usize),
    #[error("cannot read a document of the queue")]
    Document(#[source] serde_json::Error),
    #[error("cannot {operation} in the queue `{}`", file.display())]
    Database {
        operation: &'static str,
        file: PathBuf,
        source: rusqlite::Error,
    },
    #[error("the queue `{}` was made by a newer version of Roadstead", .0.display())]
    Newer(PathBuf),
    #[error("there is no queue at `{}`", .0.display())]
    None(PathBuf),
    #[error("`{}` is another program's database", .0.display())]
    Foreign(PathBuf),
    #[cfg(feature = "sqs")]
    #[error("cannot {operation} on the queue `{url}`: {reason}")]
    Service {
        operation: &'static str,
        url: String,
        reason: String,
    },
    #[error(transparent)]
    File(#[from] crate::error::FileError),
}

/// A job that an agent holds.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) job: Job,
    /// The fencing token: it rises with every claim of the job, and writes under a lower one are refused.
    pub(crate) token: u64,
    /// The job's number on its queue.
    pub(crate) number: u64,
    /// What the queue itself needs to know the claim again.
    #[cfg_attr(
        not(feature = "sqs"),
        expect(dead_code, reason = "SQLite knows a claim by its token")
    )]
    pub(super) handle: String,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    /// Waits for an agent.
    Queued,
    /// An agent holds it, or held it until its lease ran out.
    InProgress,
    /// It has its record.
    Done(Status),
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::InProgress => "IN_PROGRESS",
            Self::Done(status) => status.word(),
        }
    }
}

/// What a queue knows of a job.
#[derive(Debug, Clone)]
pub(crate) struct JobState {
    /// The job's name on its queue.
    pub(crate) id: String,
    /// The job itself; `None` when its document cannot be read.
    pub(crate) job: Option<Job>,
    pub(crate) state: State,
    /// Times the job was handed out.
    pub(crate) attempts: u64,
    /// Who had it last.
    pub(crate) agent: Option<String>,
    pub(crate) record: Option<Record>,
    /// Where the artifacts of the last attempt are; `None` when the name can be no directory's.
    pub(crate) artifacts: Option<PathBuf>,
}

/// A queue of jobs with leases.
///
/// Guarantees that implementations give, and that the conformance suite checks:
///
/// - At any time at most one claim of a job has a valid lease.
/// - The token of a later claim of a job is higher than that of an earlier one.
/// - `heartbeat`, `append_log` and `complete` under a lease that is over, or under a token that is not the last, fail with
///   [`QueueError::LeaseLost`] and change nothing.
/// - A job whose lease ran out is handed out again; after [`MAX_ATTEMPTS`] it gets a record with status FAULT instead.
/// - A document that cannot be read holds up no other job: the queue ends it or lets go of it, and lists it without its job.
/// - A completed job is never handed out again, and its record never changes.
pub(crate) trait Queue: Send + Sync + Debug {
    /// Puts a job on the queue.
    fn submit<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, ()>;

    /// Takes the oldest job there is for `lease`, waiting up to `wait` for one. Don't drop the future before it ends: a job
    /// that was about to be handed out would wait for its lease.
    fn claim<'a>(&'a self, agent: &'a str, lease: Duration, wait: Duration) -> BoxFuture<'a, Option<Claim>>;

    /// Extends the lease to `lease` from now.
    fn heartbeat<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, ()>;

    /// Adds to the log of the claim's attempt.
    fn append_log<'a>(&'a self, claim: &'a Claim, bytes: &'a [u8]) -> BoxFuture<'a, ()>;

    /// Where the artifacts of the claim's attempt belong. Each attempt has a place of its own.
    fn artifacts(&self, claim: &Claim) -> PathBuf;

    /// Ends the job with its record.
    fn complete<'a>(&'a self, claim: &'a Claim, record: &'a Record) -> BoxFuture<'a, ()>;

    /// Gives the job back at once, for another agent to take.
    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, ()>;

    /// All jobs the queue can tell of, the oldest first.
    fn list(&self) -> BoxFuture<'_, Vec<JobState>>;

    /// One job.
    fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, JobState>;

    /// The log of a job's last attempt.
    fn log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Vec<u8>>;
}

/// What the record of a job says whose document cannot be read.
pub(super) const UNREADABLE: &str = "the job's document cannot be read";
/// What the record of a job says that was handed out [`MAX_ATTEMPTS`] times in vain.
pub(super) const TOO_MANY_ATTEMPTS: &str = "the agent was lost during every attempt";
