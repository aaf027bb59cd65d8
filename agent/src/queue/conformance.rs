//! The suite that every queue must pass.

use std::path::Path;
use std::time::Duration;

use roadstead_proto::job::{Environment, Job, JobId, Source, SourceKind};
use roadstead_proto::record::Status;

use super::contract::MAX_ATTEMPTS;
use super::{Queue, QueueError, State};
use crate::job::fault;
use crate::scratch::Scratch;

const LONG: Duration = Duration::from_secs(60);
/// Short enough for tests, and long enough for a busy machine to send a heartbeat in.
const SHORT: Duration = Duration::from_secs(2);
const PAST: Duration = Duration::from_millis(2_500);

fn job(name: &str) -> Job {
    Job {
        id: JobId::new(&format!("{name}-{}", uuid::Uuid::new_v4())).unwrap_or_else(|| JobId::new(name).unwrap()),
        project_name: "suite".into(),
        source: Source {
            kind: SourceKind::Directory,
            location: "/src".into(),
            git_clone_depth: None,
            buildspec: None,
            rest: Default::default(),
        },
        source_version: None,
        environment: Environment::default(),
        buildspec_override: None,
        timeout_in_minutes: Some(5),
        initiator: None,
        rest: Default::default(),
    }
}

fn record(job: &Job, status: Status) -> roadstead_proto::record::Record {
    roadstead_proto::record::Record {
        build_status: status,
        ..fault(job, "")
    }
}

fn is_lost(result: Result<(), QueueError>) -> bool {
    matches!(result, Err(QueueError::LeaseLost(_)))
}

/// Everything the contract promises. `first` and `second` are two openings of the same, empty queue.
async fn suite(first: &dyn Queue, second: &dyn Queue) {
    empty(first).await;
    one_holder_and_its_record(first, second).await;
    redelivery_and_fencing(first, second).await;
    heartbeats_keep_a_lease(first, second).await;
    released_jobs_come_back_at_once(first, second).await;
    attempts_are_limited(first).await;
    each_job_once(first, second).await;
}

async fn empty(queue: &dyn Queue) {
    assert!(queue.claim("a", LONG, Duration::ZERO).await.unwrap().is_none());
    assert!(matches!(queue.find("no-such").await, Err(QueueError::NoSuchJob(_))));
    assert!(matches!(queue.find("../x").await, Err(QueueError::NoSuchJob(_))));
}

async fn one_holder_and_its_record(first: &dyn Queue, second: &dyn Queue) {
    let job = job("record");
    first.submit(&job).await.unwrap();
    let claim = second.claim("b", LONG, LONG).await.unwrap().unwrap();
    assert_eq!(claim.job, job);
    assert!(
        first.claim("a", LONG, Duration::ZERO).await.unwrap().is_none(),
        "a second holder"
    );
    assert_eq!(first.find(job.id.as_str()).await.unwrap().state, State::InProgress);
    second.append_log(&claim, b"one\n").await.unwrap();
    second.append_log(&claim, b"two\xff\n").await.unwrap();
    assert!(
        second
            .artifacts(&claim)
            .ends_with(format!("{}/attempt-{}/artifacts", job.id, claim.token))
    );
    second.complete(&claim, &record(&job, Status::Failed)).await.unwrap();
    let found = first.find(job.id.as_str()).await.unwrap();
    assert_eq!(found.state, State::Done(Status::Failed));
    assert_eq!(found.attempts, 1);
    assert_eq!(
        found.record,
        Some(record(&job, Status::Failed)).map(|mut expected| {
            let found = found.record.clone().unwrap();
            (expected.start_time, expected.end_time) = (found.start_time.clone(), found.end_time.clone());
            expected.phases[0].start_time.clone_from(&found.phases[0].start_time);
            expected
        })
    );
    assert_eq!(first.log(job.id.as_str()).await.unwrap(), b"one\ntwo\xff\n");
    // Completed is completed, for its holder too.
    assert!(is_lost(second.complete(&claim, &record(&job, Status::Succeeded)).await));
    assert!(is_lost(second.heartbeat(&claim, LONG).await));
    assert!(first.claim("a", LONG, Duration::ZERO).await.unwrap().is_none());
    assert_eq!(
        first.find(job.id.as_str()).await.unwrap().state,
        State::Done(Status::Failed)
    );
}

async fn redelivery_and_fencing(first: &dyn Queue, second: &dyn Queue) {
    let job = job("fence");
    first.submit(&job).await.unwrap();
    let stale = first.claim("a", SHORT, LONG).await.unwrap().unwrap();
    first.append_log(&stale, b"first attempt").await.unwrap();
    tokio::time::sleep(PAST).await;
    // The lease is over, though nobody else has the job yet.
    assert!(is_lost(first.heartbeat(&stale, LONG).await));
    let claim = second.claim("b", LONG, LONG).await.unwrap().unwrap();
    assert_eq!(claim.job.id, job.id);
    assert!(claim.token > stale.token, "{} after {}", claim.token, stale.token);
    assert_ne!(second.artifacts(&claim), first.artifacts(&stale));
    assert!(is_lost(first.heartbeat(&stale, LONG).await));
    assert!(is_lost(first.append_log(&stale, b"stale").await));
    assert!(is_lost(first.complete(&stale, &record(&job, Status::Failed)).await));
    assert!(is_lost(first.release(&stale).await));
    second.append_log(&claim, b"second attempt").await.unwrap();
    second.complete(&claim, &record(&job, Status::Succeeded)).await.unwrap();
    let found = first.find(job.id.as_str()).await.unwrap();
    assert_eq!((found.state, found.attempts), (State::Done(Status::Succeeded), 2));
    assert_eq!(first.log(job.id.as_str()).await.unwrap(), b"second attempt");
}

async fn heartbeats_keep_a_lease(first: &dyn Queue, second: &dyn Queue) {
    let job = job("beat");
    first.submit(&job).await.unwrap();
    let claim = first.claim("a", SHORT, LONG).await.unwrap().unwrap();
    for _ in 0..8 {
        tokio::time::sleep(SHORT / 5).await;
        first.heartbeat(&claim, SHORT).await.unwrap();
        assert!(second.claim("b", LONG, Duration::ZERO).await.unwrap().is_none());
    }
    first.complete(&claim, &record(&job, Status::Succeeded)).await.unwrap();
}

async fn released_jobs_come_back_at_once(first: &dyn Queue, second: &dyn Queue) {
    let job = job("release");
    first.submit(&job).await.unwrap();
    let claim = first.claim("a", LONG, LONG).await.unwrap().unwrap();
    first.release(&claim).await.unwrap();
    assert!(is_lost(first.complete(&claim, &record(&job, Status::Failed)).await));
    let again = second.claim("b", LONG, LONG).await.unwrap().unwrap();
    assert!(again.job.id == job.id && again.token > claim.token);
    second.complete(&again, &record(&job, Status::Succeeded)).await.unwrap();
}

async fn attempts_are_limited(queue: &dyn Queue) {
    let job = job("limit");
    queue.submit(&job).await.unwrap();
    for _ in 0..MAX_ATTEMPTS {
        assert!(queue.claim("a", SHORT, LONG).await.unwrap().is_some());
        tokio::time::sleep(PAST).await;
    }
    assert!(queue.claim("a", SHORT, SHORT).await.unwrap().is_none());
    let found = queue.find(job.id.as_str()).await.unwrap();
    assert_eq!(found.state, State::Done(Status::Fault));
    assert_eq!(
        found.record.unwrap().phases[0].contexts[0].message,
        "the agent was lost during every attempt"
    );
}

async fn each_job_once(first: &dyn Queue, second: &dyn Queue) {
    let jobs: Vec<Job> = (0..12).map(|number| job(&format!("n{number}"))).collect();
    for job in &jobs {
        first.submit(job).await.unwrap();
    }
    let drain = async |queue: &dyn Queue, agent: &str| {
        let mut taken = Vec::new();
        while let Some(claim) = queue.claim(agent, LONG, SHORT).await.unwrap() {
            queue
                .complete(&claim, &record(&claim.job, Status::Succeeded))
                .await
                .unwrap();
            taken.push(claim.job.id.to_string());
        }
        taken
    };
    let (mut taken, others) = tokio::join!(drain(first, "a"), drain(second, "b"));
    taken.extend(others);
    taken.sort();
    let mut expected: Vec<String> = jobs.iter().map(|job| job.id.to_string()).collect();
    expected.sort();
    assert_eq!(taken, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let scratch = Scratch::new().unwrap();
    let url = format!("sqlite:{}", scratch.path().join("q/queue.db").display());
    let results = scratch.path().join("jobs");
    let first = super::open(&url, Some(&results), None).await.unwrap();
    let second = super::open(&url, Some(&results), None).await.unwrap();
    suite(&*first, &*second).await;
    let job = job("twice");
    first.submit(&job).await.unwrap();
    assert!(matches!(second.submit(&job).await, Err(QueueError::Duplicate(_))));
}

/// Documents and logs hold what was given to a job.
#[tokio::test]
async fn sqlite_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new().unwrap();
    let data = scratch.path().join("data");
    let url = format!("sqlite:{}", data.join("queue.db").display());
    let queue = super::open(&url, Some(&data.join("jobs")), None).await.unwrap();
    queue.submit(&job("private")).await.unwrap();
    assert!(queue.claim("a", LONG, Duration::ZERO).await.unwrap().is_some());
    for (name, mode) in [
        ("", 0o700),
        ("jobs", 0o700),
        ("queue.db", 0o600),
        ("queue.db-wal", 0o600),
    ] {
        let found = std::fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}: {found:o}");
    }
}

/// One job is unreadable when it is claimed, one when its agents are lost for the last time.
#[tokio::test]
async fn sqlite_is_not_held_up_by_what_it_cannot_read() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("queue.db");
    let queue = super::open(&format!("sqlite:{}", file.display()), None, None)
        .await
        .unwrap();
    let jobs = ["queued", "binary", "lost", "good"].map(job);
    for job in &jobs {
        queue.submit(job).await.unwrap();
    }
    let database = rusqlite::Connection::open(&file).unwrap();
    let set = |change: &str, job: &Job| {
        let changed = database.execute(&format!("UPDATE job SET {change} WHERE id = ?1"), [job.id.as_str()]);
        assert_eq!(changed.unwrap(), 1);
    };
    set("document = '{\"id\":\"a b\"}'", &jobs[0]);
    set("document = CAST(x'7bff' AS TEXT)", &jobs[1]);
    set("document = 'none', state = 'IN_PROGRESS', attempt = 3", &jobs[2]);
    let claim = queue.claim("a", LONG, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(claim.job, jobs[3]);
    let listed = queue.list().await.unwrap();
    assert_eq!(listed.len(), 4);
    for (job, found) in jobs.iter().zip(&listed).take(3) {
        assert_eq!((found.id.as_str(), &found.job), (job.id.as_str(), &None));
        assert_eq!(found.state, State::Done(Status::Fault));
        let record = found.record.as_ref().unwrap();
        assert_eq!(
            record.phases[0].contexts[0].message,
            "the job's document cannot be read"
        );
    }
    assert_eq!(listed[3].job.as_ref(), Some(&jobs[3]));
    assert_eq!(queue.find(jobs[0].id.as_str()).await.unwrap().job, None);
}

#[tokio::test]
async fn sqlite_refuses_a_later_schema_and_a_foreign_file() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("queue.db");
    let url = format!("sqlite:{}", file.display());
    drop(super::open(&url, None, None).await.unwrap());
    rusqlite::Connection::open(&file)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(matches!(super::open(&url, None, None).await, Err(QueueError::Newer(_))));
    std::fs::write(&file, "not a database, but long enough to be taken for one".repeat(10)).unwrap();
    assert!(matches!(
        super::open(&url, None, None).await,
        Err(QueueError::Database { .. })
    ));
}

#[tokio::test]
async fn sqlite_makes_no_queue_to_look_at_and_leaves_other_databases_alone() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("none/queue.db");
    let url = format!("sqlite:{}", file.display());
    let looked = super::open_existing(&url, None, None).await;
    assert!(matches!(looked, Err(QueueError::None(_))));
    assert!(!file.parent().unwrap().exists());
    drop(super::open(&url, None, None).await.unwrap());
    drop(super::open_existing(&url, None, None).await.unwrap());

    let foreign = scratch.path().join("foreign.db");
    let database = rusqlite::Connection::open(&foreign).unwrap();
    database.execute_batch("CREATE TABLE theirs (x)").unwrap();
    let url = format!("sqlite:{}", foreign.display());
    assert!(matches!(
        super::open(&url, None, None).await,
        Err(QueueError::Foreign(_))
    ));
    database.pragma_update(None, "user_version", 1).unwrap();
    database.pragma_update(None, "application_id", 7).unwrap();
    assert!(matches!(
        super::open(&url, None, None).await,
        Err(QueueError::Foreign(_))
    ));
    let tables: i64 = database
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .unwrap();
    let mode: String = database
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!((tables, mode.as_str()), (1, "delete"));
}

#[tokio::test]
async fn urls_that_are_no_queue() {
    for url in [
        "",
        "sqlite:",
        "file:/x",
        "sqs://host",
        "sqs://host/a",
        "sqs://host//n",
        "sqs:///a/n",
        "redis://x",
    ] {
        let error = super::open(url, Some(Path::new("/nonexistent")), None)
            .await
            .unwrap_err();
        assert!(matches!(error, QueueError::Url { .. }), "{url}: {error}");
    }
}

#[cfg(feature = "sqs")]
mod sqs {
    use super::*;
    use crate::queue::sqs::SqsQueue;
    use crate::test_moto::Moto;

    #[tokio::test(flavor = "multi_thread")]
    async fn sqs() {
        let moto = Moto::start();
        let scratch = Scratch::new().unwrap();
        let client = moto.sqs();
        let created = client.create_queue().queue_name("suite").send().await.unwrap();
        let url = created.queue_url().unwrap();
        let first = SqsQueue::new(client.clone(), url, scratch.path());
        let second = SqsQueue::new(client, url, scratch.path());
        suite(&first, &second).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_that_is_no_job_is_skipped_and_a_completed_one_is_not_run_again() {
        let moto = Moto::start();
        let scratch = Scratch::new().unwrap();
        let client = moto.sqs();
        let created = client.create_queue().queue_name("odd").send().await.unwrap();
        let url = created.queue_url().unwrap();
        client
            .send_message()
            .queue_url(url)
            .message_body("{\"id\":\"../..\"}")
            .send()
            .await
            .unwrap();
        let queue = SqsQueue::new(client, url, scratch.path());
        let job = job("again");
        queue.submit(&job).await.unwrap();
        let claim = queue.claim("a", LONG, LONG).await.unwrap().unwrap();
        queue.complete(&claim, &record(&job, Status::Succeeded)).await.unwrap();
        // SQS delivers at least once: the same message may come a second time.
        queue.submit(&job).await.unwrap();
        assert!(queue.claim("a", LONG, SHORT).await.unwrap().is_none());
        assert_eq!(queue.find(job.id.as_str()).await.unwrap().attempts, 1);
    }
}
