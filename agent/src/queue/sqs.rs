//! A queue on Amazon SQS, for fleets on AWS.
//!
//! SQS keeps no state of a job beside the message, so log, artifacts and record live in a results directory. The lease is the
//! message's visibility; the fencing token is its receive count. SQS takes a stale receipt handle without complaint, so an
//! agent also holds itself to the lease's end by its own clock, counted from before the request that set it. The record is
//! written once: a message that SQS delivers again after its job was completed is deleted unrun.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use roadstead_proto::job::{Job, JobId, MAX_DOCUMENT_BYTES};
use roadstead_proto::record::Record;

use super::contract::{BoxFuture, MAX_ATTEMPTS, TOO_MANY_ATTEMPTS};
use super::results::Results;
use super::{Claim, JobState, Queue, QueueError, State};

/// Seconds of the longest long poll SQS offers.
const MAX_WAIT_SECONDS: u64 = 20;
/// Seconds of visibility SQS takes at most; 43,200 itself fails once the message has aged.
const MAX_LEASE_SECONDS: u64 = 43_195;

/// A queue on SQS.
#[derive(Debug)]
pub(super) struct SqsQueue {
    client: Client,
    url: String,
    results: Results,
    /// Ends of the leases that this process holds, by receipt handle.
    leases: Mutex<HashMap<String, Instant>>,
}

impl SqsQueue {
    pub(super) fn new(client: Client, url: &str, results: &Path) -> Self {
        Self {
            client,
            url: url.to_owned(),
            results: Results::new(results),
            leases: Mutex::default(),
        }
    }

    fn failed(&self, operation: &'static str, error: &(dyn std::error::Error + 'static)) -> QueueError {
        QueueError::Service {
            operation,
            url: self.url.clone(),
            reason: DisplayErrorContext(error).to_string(),
        }
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a claim whose lease is over.
    fn check(&self, claim: &Claim) -> Result<(), QueueError> {
        match self.leases().get(&claim.handle) {
            Some(until) if *until > Instant::now() => Ok(()),
            _ => Err(QueueError::LeaseLost(claim.job.id.clone())),
        }
    }

    async fn delete(&self, handle: &str) -> Result<(), QueueError> {
        let request = self.client.delete_message().queue_url(&self.url).receipt_handle(handle);
        request
            .send()
            .await
            .map_err(|error| self.failed("delete a message", &error))?;
        Ok(())
    }

    /// Turns a message into a claim; `None` when there is nothing to run in it.
    async fn accept(&self, message: Message, until: Instant) -> Result<Option<Claim>, QueueError> {
        let Some(handle) = message.receipt_handle() else {
            return Ok(None);
        };
        let count = message.attributes().and_then(|attributes| {
            attributes
                .get(&MessageSystemAttributeName::ApproximateReceiveCount)?
                .parse::<u64>()
                .ok()
        });
        let job: Job = match serde_json::from_str(message.body().unwrap_or_default()) {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(%error, "a message on the queue is no job");
                // The queue's own redrive policy decides where such a message goes; without one it must not stay for ever.
                if count.unwrap_or(0) > MAX_ATTEMPTS {
                    self.delete(handle).await?;
                }
                return Ok(None);
            }
        };
        if self.results.record(&job.id)?.is_some() {
            self.delete(handle).await?;
            return Ok(None);
        }
        // The receive count alone is approximate; with the attempts that are on record it cannot but rise.
        let token = count.unwrap_or(1).max(self.results.attempts(&job.id).saturating_add(1));
        if token > MAX_ATTEMPTS {
            self.results
                .finish(&job.id, &crate::job::fault(&job, TOO_MANY_ATTEMPTS))?;
            self.delete(handle).await?;
            return Ok(None);
        }
        self.results.begin(&job, token)?;
        self.leases().insert(handle.to_owned(), until);
        Ok(Some(Claim {
            job,
            token,
            number: token,
            handle: handle.to_owned(),
        }))
    }

    /// Whether a later attempt than the claim's has begun where these results are kept.
    fn overtaken(&self, claim: &Claim) -> bool {
        self.results.attempts(&claim.job.id) > claim.token
    }

    fn state(&self, id: &JobId) -> Result<Option<JobState>, QueueError> {
        let job = match self.results.document(id) {
            Ok(None) => return Ok(None),
            Err(QueueError::Document(_)) => None,
            read => read?,
        };
        let record = self.results.record(id)?;
        let attempts = self.results.attempts(id);
        let state = record
            .as_ref()
            .map_or(State::InProgress, |record| State::Done(record.build_status));
        Ok(Some(JobState {
            id: id.to_string(),
            job,
            state,
            attempts,
            agent: None,
            record,
            artifacts: Some(self.results.artifacts(id, attempts)),
        }))
    }
}

fn lease_seconds(lease: Duration) -> i32 {
    i32::try_from(lease.as_secs().clamp(1, MAX_LEASE_SECONDS)).unwrap_or(i32::MAX)
}

impl Queue for SqsQueue {
    fn submit<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let document = serde_json::to_string(job).map_err(QueueError::Document)?;
            if document.len() > MAX_DOCUMENT_BYTES {
                return Err(QueueError::TooLarge(document.len()));
            }
            let mut request = self.client.send_message().queue_url(&self.url).message_body(document);
            if self.url.ends_with(".fifo") {
                request = request
                    .message_group_id(&job.project_name)
                    .message_deduplication_id(job.id.as_str());
            }
            request
                .send()
                .await
                .map_err(|error| self.failed("submit a job", &error))?;
            Ok(())
        })
    }

    fn claim<'a>(&'a self, _agent: &'a str, lease: Duration, wait: Duration) -> BoxFuture<'a, Option<Claim>> {
        Box::pin(async move {
            let end = Instant::now() + wait;
            loop {
                let left = end.saturating_duration_since(Instant::now());
                let seconds = i32::try_from(left.as_secs().min(MAX_WAIT_SECONDS)).unwrap_or(0);
                let asked = Instant::now();
                let answer = self
                    .client
                    .receive_message()
                    .queue_url(&self.url)
                    .max_number_of_messages(1)
                    .wait_time_seconds(seconds)
                    .visibility_timeout(lease_seconds(lease))
                    .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
                    .send()
                    .await
                    .map_err(|error| self.failed("receive a job", &error))?;
                // In a long poll the visibility begins when a message turns up, which is no longer ago than its answer travels.
                let granted = lease.max(Duration::from_secs(1));
                let until = if seconds == 0 {
                    asked + granted
                } else {
                    Instant::now() + granted
                };
                let Some(message) = answer.messages.unwrap_or_default().pop() else {
                    if left.as_secs() == 0 {
                        return Ok(None);
                    }
                    continue;
                };
                if let Some(claim) = self.accept(message, until).await? {
                    return Ok(Some(claim));
                }
            }
        })
    }

    fn heartbeat<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.check(claim)?;
            if self.overtaken(claim) {
                return Err(QueueError::LeaseLost(claim.job.id.clone()));
            }
            let until = Instant::now() + lease.max(Duration::from_secs(1));
            let request = self
                .client
                .change_message_visibility()
                .queue_url(&self.url)
                .receipt_handle(&claim.handle);
            let request = request.visibility_timeout(lease_seconds(lease));
            request
                .send()
                .await
                .map_err(|error| self.failed("extend a lease", &error))?;
            self.leases().insert(claim.handle.clone(), until);
            Ok(())
        })
    }

    fn append_log<'a>(&'a self, claim: &'a Claim, bytes: &'a [u8]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.check(claim)?;
            self.results.append_log(&claim.job.id, claim.token, bytes)
        })
    }

    fn artifacts(&self, claim: &Claim) -> PathBuf {
        self.results.artifacts(&claim.job.id, claim.token)
    }

    fn complete<'a>(&'a self, claim: &'a Claim, record: &'a Record) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.check(claim)?;
            // The record first: a message that outlives its job is deleted on its next delivery, a lost job never comes back.
            if self.overtaken(claim) || !self.results.finish(&claim.job.id, record)? {
                return Err(QueueError::LeaseLost(claim.job.id.clone()));
            }
            self.leases().remove(&claim.handle);
            self.delete(&claim.handle).await
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.check(claim)?;
            self.leases().remove(&claim.handle);
            let request = self
                .client
                .change_message_visibility()
                .queue_url(&self.url)
                .receipt_handle(&claim.handle);
            request
                .visibility_timeout(0)
                .send()
                .await
                .map_err(|error| self.failed("give a job back", &error))?;
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, Vec<JobState>> {
        Box::pin(async move {
            let mut states = Vec::new();
            for id in self.results.ids()? {
                states.extend(self.state(&id)?);
            }
            Ok(states)
        })
    }

    fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, JobState> {
        Box::pin(async move {
            let none = || QueueError::NoSuchJob(id.to_owned());
            self.state(&JobId::new(id).ok_or_else(none)?)?.ok_or_else(none)
        })
    }

    fn log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let id = JobId::new(id).ok_or_else(|| QueueError::NoSuchJob(id.to_owned()))?;
            self.results.log(&id)
        })
    }
}
