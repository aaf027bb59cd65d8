//! The agent's loop: take a job, run it in a process of its own under a lease, complete it.
//!
//! ```text
//! claim -> job process  --output--> log in the queue
//!             |  heartbeat every third of the lease; lease lost: the process is killed and its work discarded
//!             '- record -> complete with the claim's token
//! ```

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use roadstead_proto::record::Record;
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use crate::error::{FileError, chain};
use crate::interrupt::Interrupt;
use crate::processes;
use crate::queue::{Claim, Queue, QueueError};
use crate::scratch::Scratch;

/// How long one look for a job lasts. A stopping agent waits for the last one, since a message must not get lost in it.
const POLL: Duration = Duration::from_secs(5);
/// Time between tries when the queue does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// Time a job's process has to clean up when it is told to end at once.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// Bytes of log that are gathered before they are written, and the time after which fewer are.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNK_TIME: Duration = Duration::from_millis(500);
/// Bytes of a job's log that are kept; a command that prints for ever must not fill the queue's disk.
const MAX_LOG_BYTES: usize = 256 * 1024 * 1024;
/// Tries of the last write of a job.
const COMPLETE_TRIES: u32 = 10;
/// Bytes of a record at most.
const MAX_RECORD_BYTES: u64 = 16 * 1024 * 1024;

/// How an agent works.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The agent's name in the queue.
    pub(crate) name: String,
    /// End after one job.
    pub(crate) once: bool,
    /// How long a job is held without a heartbeat.
    pub(crate) lease: Duration,
}

/// Why an agent had to give up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot start a job's process")]
    Spawn(#[source] std::io::Error),
}

/// How a claim ended.
#[derive(Debug)]
enum Ended {
    Exited(ExitStatus),
    LeaseLost,
    /// The operator insisted on the agent's end.
    Killed,
}

/// Runs jobs until the process is asked to stop, or one job when `once` is set. Says whether a job that ran was given back.
pub(crate) async fn work(
    queue: Arc<dyn Queue>,
    options: &Options,
    interrupt: &mut Interrupt,
) -> Result<bool, WorkerError> {
    let mut failures = 0_u32;
    while interrupt.signal().is_none() {
        let claim = match queue.claim(&options.name, options.lease, POLL).await {
            Ok(claim) => claim,
            Err(error) => {
                failures += 1;
                if failures >= COMPLETE_TRIES {
                    return Err(error.into());
                }
                tracing::warn!(error = chain(&error), "cannot look for a job");
                tokio::select! {
                    () = tokio::time::sleep(RETRY * failures) => {}
                    () = interrupt.wait() => {}
                }
                continue;
            }
        };
        failures = 0;
        let Some(claim) = claim else { continue };
        if interrupt.signal().is_some() {
            queue.release(&claim).await?;
            break;
        }
        if run_claim(&queue, &claim, options, interrupt).await? {
            return Ok(true);
        }
        if options.once {
            break;
        }
    }
    Ok(false)
}

/// Runs the job of a claim; says whether it was given back.
async fn run_claim(
    queue: &Arc<dyn Queue>,
    claim: &Claim,
    options: &Options,
    interrupt: &mut Interrupt,
) -> Result<bool, WorkerError> {
    let job = &claim.job.id;
    tracing::info!(%job, attempt = claim.token, "running");
    let scratch = Scratch::new()?;
    let record = scratch.path().join("record.json");
    let (mut child, output) = spawn(queue, claim, &scratch, &record)?;
    let group = child.id();
    let log = tokio::spawn(copy_log(Arc::clone(queue), claim.clone(), output));
    let ended = watch(&**queue, claim, options.lease, &mut child, interrupt).await;
    if !matches!(ended, Ended::Exited(_)) {
        processes::signal_group(group, Signal::QUIT);
        if tokio::time::timeout(CLEAN_UP, child.wait()).await.is_err() {
            processes::signal_group(group, Signal::KILL);
            if let Err(error) = child.wait().await {
                tracing::warn!(%error, %job, "cannot wait for a job's process");
            }
        }
    }
    // A job's process that was killed leaves its commands behind; none may go on once the job is told to have ended.
    processes::end_descendants();
    if let Err(error) = log.await {
        tracing::warn!(%error, %job, "the log ended early");
    }
    let result = match ended {
        Ended::Exited(status) => complete(&**queue, claim, &record, status).await.map(|()| false),
        Ended::LeaseLost => Err(QueueError::LeaseLost(job.clone())),
        Ended::Killed => queue.release(claim).await.map(|()| true),
    };
    match result {
        Err(QueueError::LeaseLost(_)) => {
            tracing::warn!(%job, attempt = claim.token, "the lease is lost; the attempt is discarded");
            Ok(false)
        }
        other => Ok(other?),
    }
}

/// Starts the job's process, its stdout and stderr in one pipe.
fn spawn(
    queue: &Arc<dyn Queue>,
    claim: &Claim,
    scratch: &Scratch,
    record: &Path,
) -> Result<(Child, Receiver), WorkerError> {
    let document = scratch.path().join("job.json");
    let text = serde_json::to_vec(&claim.job).map_err(QueueError::Document)?;
    std::fs::write(&document, text).map_err(FileError::at("write", &document))?;
    let (reader, writer) = std::io::pipe().map_err(WorkerError::Spawn)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("roadstead")
        .arg("run-job")
        .arg("--document")
        .arg(&document);
    command.arg("--source").arg(scratch.path().join("src"));
    command
        .arg("--artifacts")
        .arg(queue.artifacts(claim))
        .arg("--record")
        .arg(record);
    command.args([
        "--number",
        &claim.number.to_string(),
        "--parent",
        &std::process::id().to_string(),
    ]);
    command.stdin(std::process::Stdio::null()).process_group(0);
    command
        .stdout(writer.try_clone().map_err(WorkerError::Spawn)?)
        .stderr(writer);
    let child = command.spawn().map_err(WorkerError::Spawn)?;
    Ok((
        child,
        Receiver::from_owned_fd(reader.into()).map_err(WorkerError::Spawn)?,
    ))
}

/// Waits for the job's end and keeps the lease meanwhile.
async fn watch(
    queue: &dyn Queue,
    claim: &Claim,
    lease: Duration,
    child: &mut Child,
    interrupt: &mut Interrupt,
) -> Ended {
    let beats = async {
        loop {
            tokio::time::sleep(lease / 3).await;
            match queue.heartbeat(claim, lease).await {
                Ok(()) => {}
                Err(QueueError::LeaseLost(_)) => return,
                // The lease outlives two missed beats, and its end shows as LeaseLost.
                Err(error) => tracing::warn!(error = chain(&error), job = %claim.job.id, "cannot extend the lease"),
            }
        }
    };
    tokio::select! {
        status = child.wait() => match status {
            Ok(status) => Ended::Exited(status),
            Err(error) => {
                tracing::warn!(%error, "cannot wait for a job's process");
                Ended::Killed
            }
        },
        () = beats => Ended::LeaseLost,
        () = interrupt.wait_insisting() => Ended::Killed,
    }
}

/// Copies the job's output to the queue, in chunks. A log that cannot be written does not end the job.
async fn copy_log(queue: Arc<dyn Queue>, claim: Claim, mut output: Receiver) {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    let mut since = tokio::time::Instant::now();
    let (mut open, mut room) = (true, MAX_LOG_BYTES);
    while open {
        let due = since + CHUNK_TIME;
        let idle = chunk.is_empty();
        tokio::select! {
            read = output.read_buf(&mut chunk) => open = matches!(read, Ok(bytes) if bytes > 0),
            () = tokio::time::sleep_until(due), if !idle => {}
        }
        if idle {
            since = tokio::time::Instant::now();
        }
        let due = !open || chunk.len() >= CHUNK_BYTES || since.elapsed() >= CHUNK_TIME;
        if due && !chunk.is_empty() {
            if room > 0 && room <= chunk.len() {
                chunk.truncate(room);
                chunk.extend_from_slice(b"\nThe log ends here: it has reached its limit.\n");
                room = 0;
            } else if room == 0 {
                chunk.clear();
                continue;
            }
            room = room.saturating_sub(chunk.len());
            if let Err(error) = queue.append_log(&claim, &chunk).await {
                tracing::warn!(error = chain(&error), job = %claim.job.id, "a part of the log is lost");
            }
            chunk.clear();
            since = tokio::time::Instant::now();
        }
    }
}

async fn complete(queue: &dyn Queue, claim: &Claim, path: &Path, status: ExitStatus) -> Result<(), QueueError> {
    let record = read_record(path).unwrap_or_else(|| {
        crate::job::fault(
            &claim.job,
            &format!("the job's process ended without a record: {status}"),
        )
    });
    let mut tries = 0;
    loop {
        match queue.complete(claim, &record).await {
            Ok(()) => {
                tracing::info!(job = %claim.job.id, status = %record.build_status, "completed");
                return Ok(());
            }
            Err(error @ QueueError::LeaseLost(_)) => return Err(error),
            Err(error) if tries >= COMPLETE_TRIES => return Err(error),
            Err(error) => {
                tracing::warn!(error = chain(&error), job = %claim.job.id, "cannot complete the job yet");
                tries += 1;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn read_record(path: &Path) -> Option<Record> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(MAX_RECORD_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}
