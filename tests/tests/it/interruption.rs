//! Ctrl-C, SIGTERM and SIGKILL in the middle of a RUN.

use crate::registry::{Registry, stalling_proxy};
use crate::site::{Site, Started, files_below};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SLEEPER: &str = "FROM base\nRUN echo now sleeping; touch /half; sleep 1000\n";
/// Leaving uid 0 clears a process's parent death signal: the case that is easy to forget.
const SLEEPER_AS_USER: &str = "FROM base\nUSER app\nRUN echo now sleeping; touch /tmp/half; sleep 1000\n";

fn start(site: &Site, dockerfile: &str) -> Started {
    site.dockerfile(dockerfile);
    let started = site.start_until(&["-t", "x"], "now sleeping");
    assert!(!site.users().is_empty(), "the sleeping RUN is not seen");
    started
}

#[test]
fn signals_end_the_build_cleanly() {
    for (dockerfile, signal, status) in [
        (SLEEPER, Signal::INT, 130),
        (SLEEPER, Signal::TERM, 143),
        (SLEEPER_AS_USER, Signal::INT, 130),
        (SLEEPER_AS_USER, Signal::TERM, 143),
    ] {
        let site = Site::new();
        let started = start(&site, dockerfile);
        started.signal(signal);
        let (ended, log) = started.wait();
        assert_eq!(ended.code(), Some(status), "{log}");
        assert!(log.contains("the build was canceled"), "{log}");
        site.assert_clean();
        site.dockerfile("FROM base\nRUN echo again\n");
        site.build(&[]).good();
    }
}

#[test]
fn a_killed_builder_takes_its_run_along_and_the_next_build_cleans_up() {
    for dockerfile in [SLEEPER, SLEEPER_AS_USER] {
        let site = Site::new();
        let started = start(&site, dockerfile);
        started.signal(Signal::KILL);
        started.wait();
        let begun = Instant::now();
        while !site.users().is_empty() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "the sandbox outlived its builder: {:?}",
                site.users()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(
            !files_below(&site.data().join("tmp")).is_empty(),
            "nothing was left to clean: the test proves nothing"
        );
        site.dockerfile("FROM base\nRUN echo again\n");
        site.build(&[]).good();
    }
}

#[test]
fn a_failing_stage_stops_the_others() {
    let site = Site::new();
    let begun = Instant::now();
    let log = site.error_of(
        "FROM base AS slow\nRUN touch /x; sleep 1000\nFROM base AS quick\nRUN sleep 1; exit 7\nFROM base\nCOPY --from=slow /x /\nCOPY --from=quick /x /y\n",
    );
    assert!(
        log.contains("exit code: 7") && log.contains("   4 | >>> RUN sleep 1"),
        "{log}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "the other stage was waited for"
    );
}

#[test]
fn a_download_that_stalls_can_be_interrupted() {
    let registry = Registry::start();
    let maker = Site::new();
    maker.dockerfile("FROM base\n");
    maker.build(&["-t", "seen"]).good();
    maker
        .build(&["-t", &format!("{}/stalled:1", registry.host()), "--push"])
        .good();
    let layer = maker.image_documents("seen")[0]["digest"].as_str().unwrap().to_owned();
    let host = stalling_proxy(&registry, format!("GET /v2/stalled/blobs/{layer}"));
    let site = Site::empty();
    site.dockerfile(&format!("FROM {host}/stalled:1\nRUN true\n"));
    let mut started = site.start(&[]);
    started.wait_until(|text| text.contains(&format!("pulling {layer}")));
    started.signal(Signal::INT);
    let (ended, log) = started.wait();
    assert_eq!(ended.code(), Some(130), "{log}");
    site.assert_clean();
}
