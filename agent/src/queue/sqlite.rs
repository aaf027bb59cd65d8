//! A queue in one SQLite file: the embedded default, for the agents of one machine.
//!
//! Never on a network file system: write-ahead logging needs shared memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roadstead_proto::job::{Job, JobId, MAX_DOCUMENT_BYTES};
use roadstead_proto::record::{Record, Status};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;

use super::contract::{BoxFuture, MAX_ATTEMPTS, TOO_MANY_ATTEMPTS, UNREADABLE};
use super::results::Results;
use super::{Claim, JobState, Queue, QueueError, State, schema};
use crate::job::{fault, fault_of};

/// Between looks for a job while waiting for one.
const POLL: Duration = Duration::from_millis(250);
/// A queue in a file.
#[derive(Debug, Clone)]
pub(super) struct SqliteQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    connection: Mutex<Connection>,
    results: Results,
}

impl SqliteQueue {
    /// Opens the queue in a file; with `make`, makes the file and its directory when they are not there.
    pub(super) fn open(file: &Path, results: &Path, make: bool) -> Result<Self, QueueError> {
        let connection = schema::connect(file, make)?;
        let inner = Inner {
            file: file.to_owned(),
            connection: Mutex::new(connection),
            results: Results::new(results),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs a transaction on a thread that may block.
    async fn transact<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T, QueueError>> + Send + 'static,
    ) -> Result<T, QueueError> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = |source| QueueError::Database {
                operation,
                file: inner.file.clone(),
                source,
            };
            // Immediate: a transaction that starts as a reader may find the file locked when it wants to write.
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(failed)?;
            let result = work(&transaction).map_err(failed)??;
            transaction.commit().map_err(failed)?;
            Ok(result)
        });
        match task.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn claim_now(&self, agent: &str, lease: Duration) -> Result<Option<Claim>, QueueError> {
        let agent = agent.to_owned();
        let results = self.inner.results.clone();
        self.transact("claim a job", move |transaction| {
            let now = now_ms();
            if let Err(error) = give_up(transaction, now)? {
                return Ok(Err(error));
            }
            loop {
                let found = transaction
                    .query_row(
                        "UPDATE job SET state = 'IN_PROGRESS', attempt = attempt + 1, lease_until = ?2, agent = ?3
                         WHERE number = (SELECT number FROM job
                                         WHERE state = 'QUEUED' OR (state = 'IN_PROGRESS' AND lease_until <= ?1)
                                         ORDER BY number LIMIT 1)
                         RETURNING number, id, document, attempt",
                        params![now, now.saturating_add(millis(lease)), agent],
                        |row| Ok((row.get(0)?, text(row, 1)?, document(row, 2)?, row.get(3)?)),
                    )
                    .optional()?;
                let Some((number, id, job, attempt)) = found else {
                    return Ok(Ok(None));
                };
                transaction.execute(
                    "INSERT INTO attempt (job, attempt, agent, started_at) VALUES (?1, ?2, ?3, ?4)",
                    params![number, attempt, agent, now],
                )?;
                if let Some(job) = job {
                    if let Err(error) = results.prepare() {
                        return Ok(Err(error));
                    }
                    return Ok(Ok(Some(Claim {
                        job,
                        token: unsigned(attempt),
                        number: unsigned(number),
                        handle: String::new(),
                    })));
                }
                // It would be the oldest job for ever, and no job behind it would be taken.
                if let Err(error) = end(transaction, number, &fault_of(id, UNREADABLE))? {
                    return Ok(Err(error));
                }
            }
        })
        .await
    }

    /// Runs a write that counts only under a valid lease.
    async fn fenced(
        &self,
        claim: &Claim,
        operation: &'static str,
        write: impl FnOnce(&Transaction<'_>, i64, i64) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), QueueError> {
        let (id, number, token) = (claim.job.id.clone(), signed(claim.number), signed(claim.token));
        self.transact(operation, move |transaction| {
            let valid: bool = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM job WHERE number = ?1 AND attempt = ?2 AND state = 'IN_PROGRESS'
                                AND lease_until > ?3)",
                params![number, token, now_ms()],
                |row| row.get(0),
            )?;
            if !valid {
                return Ok(Err(QueueError::LeaseLost(id)));
            }
            write(transaction, number, token)?;
            Ok(Ok(()))
        })
        .await
    }

    async fn states(&self, id: Option<String>) -> Result<Vec<JobState>, QueueError> {
        let results = self.inner.results.clone();
        self.transact("read jobs", move |transaction| {
            let mut statement = transaction.prepare(
                "SELECT id, document, state, attempt, agent, record FROM job WHERE ?1 IS NULL OR id = ?1 ORDER BY number",
            )?;
            let rows = statement.query_map(params![id], |row| job_state(row, &results))?;
            rows.collect::<rusqlite::Result<_>>().map(Ok)
        })
        .await
    }
}

/// Ends jobs that were handed out too often, so that one job cannot take down agent after agent for ever.
fn give_up(transaction: &Transaction<'_>, now: i64) -> rusqlite::Result<Result<(), QueueError>> {
    let mut statement = transaction.prepare(
        "SELECT number, id, document FROM job WHERE state = 'IN_PROGRESS' AND lease_until <= ?1 AND attempt >= ?2",
    )?;
    let rows = statement.query_map(params![now, signed(MAX_ATTEMPTS)], |row| {
        let record = match document(row, 2)? {
            Some(job) => fault(&job, TOO_MANY_ATTEMPTS),
            None => fault_of(text(row, 1)?, UNREADABLE),
        };
        Ok((row.get(0)?, record))
    })?;
    let lost: Vec<(i64, Record)> = rows.collect::<rusqlite::Result<_>>()?;
    for (number, record) in lost {
        if let Err(error) = end(transaction, number, &record)? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Ends a job that no agent holds.
fn end(transaction: &Transaction<'_>, number: i64, record: &Record) -> rusqlite::Result<Result<(), QueueError>> {
    let record = match serde_json::to_string(record) {
        Ok(record) => record,
        Err(error) => return Ok(Err(QueueError::Document(error))),
    };
    transaction.execute(
        "UPDATE job SET state = 'DONE', record = ?2 WHERE number = ?1",
        params![number, record],
    )?;
    Ok(Ok(()))
}

/// A text that somebody else may have written: one that is not UTF-8 is no reason to fail.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(column)?.as_bytes()?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The document in a column; `None` when there is none or when it cannot be read.
fn document<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let bytes = row.get_ref(column)?.as_bytes_or_null()?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()))
}

fn job_state(row: &Row<'_>, results: &Results) -> rusqlite::Result<JobState> {
    let id = text(row, 0)?;
    let state = text(row, 2)?;
    let attempts = unsigned(row.get(3)?);
    let record: Option<Record> = document(row, 5)?;
    let state = match (&record, state.as_str()) {
        (Some(record), _) => State::Done(record.build_status),
        (None, "QUEUED") => State::Queued,
        // Its record cannot be read.
        (None, "DONE") => State::Done(Status::Fault),
        (None, _) => State::InProgress,
    };
    let artifacts = JobId::new(&id).map(|id| results.artifacts(&id, attempts));
    Ok(JobState {
        id,
        job: document(row, 1)?,
        state,
        attempts,
        agent: row.get(4)?,
        record,
        artifacts,
    })
}

fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Queue for SqliteQueue {
    fn submit<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let document = serde_json::to_string(job).map_err(QueueError::Document)?;
            if document.len() > MAX_DOCUMENT_BYTES {
                return Err(QueueError::TooLarge(document.len()));
            }
            let id = job.id.clone();
            self.transact("submit a job", move |transaction| {
                let added = transaction.execute(
                    "INSERT INTO job (id, document, state, submitted_at) VALUES (?1, ?2, 'QUEUED', ?3)
                     ON CONFLICT (id) DO NOTHING",
                    params![id.as_str(), document, now_ms()],
                )?;
                Ok(if added == 1 {
                    Ok(())
                } else {
                    Err(QueueError::Duplicate(id))
                })
            })
            .await
        })
    }

    fn claim<'a>(&'a self, agent: &'a str, lease: Duration, wait: Duration) -> BoxFuture<'a, Option<Claim>> {
        Box::pin(async move {
            let until = Instant::now() + wait;
            loop {
                if let Some(claim) = self.claim_now(agent, lease).await? {
                    return Ok(Some(claim));
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                tokio::time::sleep(left.min(POLL)).await;
            }
        })
    }

    fn heartbeat<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, ()> {
        Box::pin(self.fenced(claim, "extend a lease", move |transaction, number, _| {
            let until = now_ms().saturating_add(millis(lease));
            transaction.execute(
                "UPDATE job SET lease_until = ?2 WHERE number = ?1",
                params![number, until],
            )?;
            Ok(())
        }))
    }

    fn append_log<'a>(&'a self, claim: &'a Claim, bytes: &'a [u8]) -> BoxFuture<'a, ()> {
        let bytes = bytes.to_vec();
        Box::pin(self.fenced(claim, "write a log", move |transaction, number, token| {
            transaction.execute(
                "INSERT INTO log (job, attempt, sequence, bytes) VALUES (?1, ?2,
                 (SELECT coalesce(max(sequence), 0) + 1 FROM log WHERE job = ?1 AND attempt = ?2), ?3)",
                params![number, token, bytes],
            )?;
            Ok(())
        }))
    }

    fn artifacts(&self, claim: &Claim) -> PathBuf {
        self.inner.results.artifacts(&claim.job.id, claim.token)
    }

    fn complete<'a>(&'a self, claim: &'a Claim, record: &'a Record) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let status = record.build_status.word();
            let record = serde_json::to_string(record).map_err(QueueError::Document)?;
            self.fenced(claim, "complete a job", move |transaction, number, token| {
                transaction.execute(
                    "UPDATE job SET state = 'DONE', record = ?2 WHERE number = ?1",
                    params![number, record],
                )?;
                transaction.execute(
                    "UPDATE attempt SET ended_at = ?3, status = ?4 WHERE job = ?1 AND attempt = ?2",
                    params![number, token, now_ms(), status],
                )?;
                Ok(())
            })
            .await
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, ()> {
        Box::pin(
            self.fenced(claim, "give a job back", move |transaction, number, token| {
                transaction.execute(
                    "UPDATE job SET state = 'QUEUED', lease_until = 0 WHERE number = ?1",
                    params![number],
                )?;
                transaction.execute(
                    "UPDATE attempt SET ended_at = ?3, status = 'RELEASED' WHERE job = ?1 AND attempt = ?2",
                    params![number, token, now_ms()],
                )?;
                Ok(())
            }),
        )
    }

    fn list(&self) -> BoxFuture<'_, Vec<JobState>> {
        Box::pin(self.states(None))
    }

    fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, JobState> {
        Box::pin(async move {
            let found = self.states(Some(id.to_owned())).await?.pop();
            found.ok_or_else(|| QueueError::NoSuchJob(id.to_owned()))
        })
    }

    fn log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Vec<u8>> {
        let wanted = id.to_owned();
        Box::pin(self.transact("read a log", move |transaction| {
            let found: Option<(i64, i64)> = transaction
                .query_row(
                    "SELECT number, attempt FROM job WHERE id = ?1",
                    params![wanted],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some((number, attempt)) = found else {
                return Ok(Err(QueueError::NoSuchJob(wanted)));
            };
            let mut statement =
                transaction.prepare("SELECT bytes FROM log WHERE job = ?1 AND attempt = ?2 ORDER BY sequence")?;
            let rows = statement.query_map(params![number, attempt], |row| row.get::<_, Vec<u8>>(0))?;
            let mut log = Vec::new();
            for row in rows {
                log.extend_from_slice(&row?);
            }
            Ok(Ok(log))
        }))
    }
}
