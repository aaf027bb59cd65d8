//! Agents and queues: many jobs, lost agents, lost leases, stopping.

use std::collections::BTreeMap;
use std::process::Child;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::services;
use crate::workspace::{Workspace, is_running, wait_for};

/// Long enough for a busy machine to send a heartbeat in every third of it.
const LEASE: &str = "6";

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

fn submit(workspace: &Workspace, arguments: &[&str]) -> String {
    let done = workspace.roadstead(&[&["submit", "--source", "src"], arguments].concat());
    assert_eq!(done.status, Some(0), "{done:?}");
    done.stdout.trim().to_owned()
}

fn jobs(workspace: &Workspace) -> Vec<Value> {
    let done = workspace.roadstead(&["jobs", "list", "--json"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

fn buildspec(workspace: &Workspace, command: &str) {
    let text = format!(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - '{command}'\n      - echo done > out.txt\nartifacts:\n  files: out.txt\n"
    );
    workspace.write("src/buildspec.yml", &text);
}

#[test]
fn twenty_jobs_three_agents_one_killed() {
    let workspace = Workspace::new();
    let ends = workspace.path("ends");
    std::fs::create_dir(&ends).unwrap();
    let first = workspace.path("first");
    // The first job to run holds until it is killed with its agent; all others, and its second attempt, end by themselves.
    let held = "if mkdir FIRST 2>/dev/null; then echo $JOB > FIRST/job; sleep 977; fi; echo $$ >> ENDS/$JOB";
    let held = held
        .replace("FIRST", &first.display().to_string())
        .replace("ENDS", &ends.display().to_string());
    buildspec(&workspace, &held);
    let mut ids = BTreeMap::new();
    for number in 0..20 {
        let name = format!("job{number}");
        ids.insert(submit(&workspace, &["--env", &format!("JOB={name}")]), name);
    }
    let doomed = workspace.start(&["agent", "--lease", LEASE, "--name", "doomed"]);
    wait_for("the first job", || first.join("job").exists());
    let mut others = ["b", "c"].map(|name| workspace.start(&["agent", "--lease", LEASE, "--name", name]));
    let mut doomed = doomed;
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    wait_for("the killed agent's job to end", || !is_running("sleep\x00977"));
    wait_for("all jobs", || {
        jobs(&workspace).iter().all(|job| !job["record"].is_null())
    });
    for agent in &mut others {
        signal(agent, Signal::TERM);
        assert_eq!(agent.wait().unwrap().code(), Some(0));
    }
    let listed = jobs(&workspace);
    assert_eq!(listed.len(), 20);
    for job in &listed {
        let id = job["id"].as_str().unwrap();
        assert_eq!(job["status"], "SUCCEEDED", "{job}");
        let name = &ids[id];
        // Each job's last command ran once, the killed one's too.
        assert_eq!(workspace.read(&format!("ends/{name}")).lines().count(), 1, "{name}");
        let artifacts = job["artifacts"].as_str().unwrap();
        assert_eq!(
            std::fs::read_to_string(format!("{artifacts}/out.txt")).unwrap(),
            "done\n"
        );
    }
    let lost = workspace.read("first/job");
    let again = listed
        .iter()
        .find(|job| ids[job["id"].as_str().unwrap()] == lost.trim())
        .unwrap();
    assert_eq!(again["attempts"], 2);
    assert_ne!(again["agent"], "doomed");
    assert_eq!(listed.iter().filter(|job| job["attempts"] == 1).count(), 19);
    let database = Connection::open(workspace.path("data/queue.db")).unwrap();
    let ended: i64 = database
        .query_row("SELECT count(*) FROM attempt WHERE status = 'SUCCEEDED'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(ended, 20, "a job has two results");
    workspace.assert_tidy();
}

#[test]
fn a_killed_job_process_leaves_nothing_running() {
    let workspace = Workspace::new();
    buildspec(
        &workspace,
        &format!(": > {}/started; sleep 976", workspace.path("").display()),
    );
    let id = submit(&workspace, &[]);
    let mut agent = workspace.start(&["agent", "--lease", "60", "--once"]);
    wait_for("the job", || workspace.path("started").exists());
    let process = child_of(agent.id());
    kill_process(process, Signal::KILL).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
    assert!(!is_running("sleep\x00976"));
    let found = workspace.roadstead(&["jobs", "show", &id]);
    assert!(
        found.stdout.contains("status:    FAULT\n") && found.stdout.contains("ended without a record"),
        "{}",
        found.stdout
    );
    workspace.assert_tidy();
}

/// The one child of a process.
fn child_of(parent: u32) -> Pid {
    let found = std::process::Command::new("ps")
        .args(["-o", "pid=", "--ppid", &parent.to_string()])
        .output();
    let text = String::from_utf8(found.unwrap().stdout).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

#[test]
fn a_stopping_agent_finishes_its_job_and_takes_no_other() {
    let workspace = Workspace::new();
    buildspec(
        &workspace,
        &format!(
            ": > {0}/started; while [ ! -e {0}/go ]; do sleep 0.05; done",
            workspace.path("").display()
        ),
    );
    let (first, second) = (submit(&workspace, &[]), submit(&workspace, &[]));
    let mut agent = workspace.start(&["agent", "--lease", LEASE]);
    wait_for("the job", || workspace.path("started").exists());
    signal(&agent, Signal::TERM);
    // Longer than the lease: the heart must go on beating while the agent drains.
    std::thread::sleep(std::time::Duration::from_secs(7));
    workspace.write("go", "");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
    let states: BTreeMap<String, Value> = jobs(&workspace)
        .into_iter()
        .map(|job| (job["id"].as_str().unwrap().to_owned(), job["status"].clone()))
        .collect();
    assert_eq!(states[&first], "SUCCEEDED");
    assert_eq!(states[&second], "QUEUED");
    let log = workspace.roadstead(&["jobs", "logs", &first]);
    assert!(
        log.stdout.contains("Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED"),
        "{}",
        log.stdout
    );
    workspace.assert_tidy();
}

#[test]
fn a_second_signal_puts_the_job_back() {
    let workspace = Workspace::new();
    buildspec(
        &workspace,
        &format!(": > {}/started; sleep 978", workspace.path("").display()),
    );
    let id = submit(&workspace, &[]);
    let mut agent = workspace.start(&["agent", "--lease", "60"]);
    wait_for("the job", || workspace.path("started").exists());
    signal(&agent, Signal::TERM);
    // Two signals that wait at once are heard in any order.
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(&agent, Signal::QUIT);
    assert_eq!(agent.wait().unwrap().code(), Some(143));
    let found = workspace.roadstead(&["jobs", "show", &id, "--json"]);
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found["status"], "QUEUED");
    assert!(!is_running("sleep\x00978"));
    workspace.assert_tidy();
}

#[test]
fn an_idle_agent_told_twice_ends_well() {
    let workspace = Workspace::new();
    let mut agent = workspace.start(&["agent"]);
    wait_for("the queue", || workspace.path("data/queue.db-wal").exists());
    signal(&agent, Signal::TERM);
    signal(&agent, Signal::QUIT);
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn a_lost_lease_ends_the_job_and_its_result_is_discarded() {
    let workspace = Workspace::new();
    buildspec(
        &workspace,
        &format!(": > {}/started; sleep 979", workspace.path("").display()),
    );
    let id = submit(&workspace, &[]);
    let mut agent = workspace.start(&["agent", "--lease", LEASE, "--once"]);
    wait_for("the job", || workspace.path("started").exists());
    // As if another agent had been given the job meanwhile.
    let database = Connection::open(workspace.path("data/queue.db")).unwrap();
    database
        .execute(
            "UPDATE job SET attempt = attempt + 1, agent = 'other', lease_until = lease_until + 600000",
            [],
        )
        .unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
    assert!(!is_running("sleep\x00979"));
    let found = workspace.roadstead(&["jobs", "show", &id, "--json"]);
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(
        (&found["status"], &found["agent"]),
        (&"IN_PROGRESS".into(), &"other".into())
    );
    assert!(found["record"].is_null());
    workspace.assert_tidy();
}

#[test]
fn failed_builds_and_bad_sources_get_their_record() {
    let workspace = Workspace::new();
    buildspec(&workspace, "sh -c \"exit 4\"");
    let failed = submit(&workspace, &[]);
    let bad = submit(&workspace, &["--buildspec", "none.yml"]);
    let gone = workspace
        .roadstead(&["submit", "--source", "file:///nowhere/none.git"])
        .stdout
        .trim()
        .to_owned();
    for _ in 0..3 {
        assert_eq!(workspace.roadstead(&["agent", "--once"]).status, Some(0));
    }
    for (id, status, message) in [
        (&failed, "FAILED", "Reason: exit status 4"),
        (&bad, "FAILED", "YAML file does not exist"),
        (&gone, "FAULT", "git fetch of file:///nowhere/none.git failed"),
    ] {
        let found = workspace.roadstead(&["jobs", "show", id]);
        assert!(
            found.stdout.contains(&format!("status:    {status}\n")) && found.stdout.contains(message),
            "{}",
            found.stdout
        );
    }
    assert!(
        workspace
            .roadstead(&["jobs", "logs", &bad])
            .stdout
            .contains(" --> none.yml")
    );
    let unknown = workspace.roadstead(&["jobs", "show", "no-such-job"]);
    assert!(unknown.status == Some(1) && unknown.stderr.contains("the queue has no job `no-such-job`"));
    workspace.assert_tidy();
}

#[test]
fn a_hand_written_document_cannot_run_commands_by_a_variables_name() {
    let workspace = Workspace::new();
    buildspec(&workspace, "true");
    let id = submit(&workspace, &["--env", "HARMLESS=1"]);
    let trap = workspace.path("trapped");
    let database = Connection::open(workspace.path("data/queue.db")).unwrap();
    let name = format!("x;touch {};", trap.display());
    let changed = database.execute("UPDATE job SET document = replace(document, 'HARMLESS', ?1)", [name]);
    assert_eq!(changed.unwrap(), 1);
    assert_eq!(workspace.roadstead(&["agent", "--once"]).status, Some(0));
    let found = workspace.roadstead(&["jobs", "show", &id]);
    assert!(
        found.stdout.contains("status:    FAULT\n") && found.stdout.contains("is no name for an environment variable"),
        "{}",
        found.stdout
    );
    assert!(!trap.exists());
    workspace.assert_tidy();
}

#[test]
fn a_buildspec_outside_the_source_is_not_read() {
    let workspace = Workspace::new();
    workspace.write("private", "top: secret\n");
    std::os::unix::fs::symlink("../private", workspace.path("src/link.yml")).unwrap();
    let absolute = workspace.path("private").display().to_string();
    for name in ["../private", &absolute, "link.yml"] {
        // A directory is copied, so that what is beside it is beside the copy no more.
        let id = submit(&workspace, &["--buildspec", name]);
        assert_eq!(workspace.roadstead(&["agent", "--once"]).status, Some(0));
        let shown = workspace.roadstead(&["jobs", "show", &id]).stdout;
        let log = workspace.roadstead(&["jobs", "logs", &id]).stdout;
        assert!(!shown.contains("SUCCEEDED") && !log.contains("secret"), "{shown}{log}");
        if name == absolute {
            assert!(shown.contains("the buildspec lies outside the source"), "{shown}");
        }
    }
    workspace.assert_tidy();
}

#[test]
fn a_job_through_sqs_from_a_git_repository() {
    let mut workspace = Workspace::new();
    let moto = services::moto();
    services::use_moto(&mut workspace, &moto);
    buildspec(
        &workspace,
        "echo at ${CODEBUILD_RESOLVED_SOURCE_VERSION:+a-commit} of $CODEBUILD_SOURCE_REPO_URL with $X",
    );
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "."],
        &["commit", "-q", "-m", "one"],
    ] {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-C"])
            .arg(workspace.path("src"));
        assert!(git.args(arguments).status().unwrap().success());
    }
    create_queue(&moto);
    let queue = format!("sqs://127.0.0.1:{}/123456789012/jobs", moto.port);
    let url = format!("file://{}", workspace.path("src").display());
    let done = workspace.roadstead(&[
        "submit",
        "--source",
        &url,
        "--source-version",
        "main",
        "--env",
        "X=1",
        "--queue",
        &queue,
    ]);
    let id = done.stdout.trim();
    assert_eq!(done.status, Some(0), "{done:?}");
    let done = workspace.roadstead(&["agent", "--once", "--queue", &queue, "--results", "results"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    let shown = workspace.roadstead(&["jobs", "show", id, "--queue", &queue, "--results", "results"]);
    assert!(shown.stdout.contains("status:    SUCCEEDED\n"), "{shown:?}");
    let log = workspace.roadstead(&["jobs", "logs", id, "--queue", &queue, "--results", "results"]);
    assert!(
        log.stdout.contains(&format!("\nat a-commit of {url} with 1\n")),
        "{}",
        log.stdout
    );
    assert_eq!(
        workspace.read(&format!("results/{id}/attempt-1/artifacts/out.txt")),
        "done\n"
    );
    workspace.assert_tidy();
}

/// Makes the queue by the emulator's HTTP interface, the tests having no SDK of their own.
fn create_queue(moto: &services::Service) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", moto.port)).unwrap();
    let body = "{\"QueueName\":\"jobs\"}";
    let credential = "Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0";
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: sqs.us-east-1.amazonaws.com\r\nX-Amz-Target: AmazonSQS.CreateQueue\r\nContent-Type: \
         application/x-amz-json-1.0\r\nAuthorization: AWS4-HMAC-SHA256 {credential}\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
