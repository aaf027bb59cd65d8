//! Signals during a run.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::workspace::{Workspace, is_running, wait_for};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

/// Runs a command that marks its start, signals the run, and gives its status and log.
fn interrupted(workspace: &Workspace, command: &str, signals: &[Signal]) -> (Option<i32>, String) {
    let text =
        format!("version: 0.2\nphases:\n  build:\n    commands:\n      - '{command}'\n    finally: [echo NEVER]\n");
    workspace.write("src/buildspec.yml", &text);
    let mut child = workspace
        .command(&["run", "src"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the command", || workspace.path("src/started").exists());
    for (index, one) in signals.iter().enumerate() {
        if index > 0 {
            wait_for("the first signal's effect", || workspace.path("src/asked").exists());
            // A signal that comes sooner would count as a repetition.
            std::thread::sleep(Duration::from_secs(1));
        }
        signal(&child, *one);
    }
    let mut log = String::new();
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    let status = child.wait().unwrap().code();
    std::fs::remove_file(workspace.path("src/started")).unwrap();
    (status, log)
}

#[test]
fn a_signal_ends_command_and_run() {
    let workspace = Workspace::new();
    let mark = format!("{}.5", 800_000 + std::process::id() % 90_000);
    for (one, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (ended, log) = interrupted(&workspace, &format!(": > started; sleep {mark}; true"), &[one]);
        assert_eq!(ended, Some(status));
        assert!(log.contains("Phase complete: BUILD State: STOPPED"), "{log}");
        assert!(!log.contains("NEVER\n") && !log.contains("POST_BUILD"), "{log}");
        assert!(!is_running(&format!("sleep\0{mark}")));
        workspace.assert_tidy();
    }
}

#[test]
fn a_command_may_clean_up_and_a_second_signal_insists() {
    let workspace = Workspace::new();
    let trap = "trap \"echo cleaned; exit 0\" TERM; : > started; while :; do sleep 0.05; done";
    let (ended, log) = interrupted(&workspace, trap, &[Signal::INT]);
    assert!(ended == Some(130) && log.contains("\ncleaned\n"), "{log}");
    // A command that ignores SIGTERM has ten seconds; the second signal cuts them short.
    let deaf = "trap \": > asked\" TERM; : > started; while :; do sleep 0.05; done";
    let (ended, log) = interrupted(&workspace, deaf, &[Signal::INT, Signal::INT]);
    assert!(ended == Some(130) && log.contains("State: STOPPED"), "{log}");
    workspace.assert_tidy();
}

#[test]
fn a_registry_that_never_answers_holds_nobody() {
    let workspace = Workspace::new();
    // Accepts by its backlog, and says nothing ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/image:1", silent.local_addr().unwrap());
    for command in [
        format!(": > started; docker pull {name}"),
        format!(": > started; echo secret-pass | docker login -u u --password-stdin {name}"),
    ] {
        let (ended, log) = interrupted(&workspace, &command, &[Signal::INT]);
        assert_eq!(ended, Some(130), "{log}");
        assert!(log.contains("Phase complete: BUILD State: STOPPED"), "{log}");
        workspace.assert_tidy();
    }
}

#[test]
fn a_build_ends_with_its_killed_runner() {
    let workspace = Workspace::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/image:1", silent.local_addr().unwrap());
    workspace.write("src/Dockerfile", &format!("FROM {name}\n"));
    workspace.write(
        "src/buildspec.yml",
        "version: 0.2\nphases:\n  build:\n    commands:\n      - docker build .\n",
    );
    let mut runner = workspace.start(&["run", "src"]);
    let mark = format!("build\x00--runner\x00{}\x00", runner.id());
    wait_for("the build", || is_running(&mark));
    // The build speaks to the registry once it is set up.
    let connection = silent.accept().unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while is_running(&mark) {
        assert!(Instant::now() < until, "the build goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(connection);
}
