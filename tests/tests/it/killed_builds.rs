//! SIGKILL at any moment of a build: nothing is damaged, and the next build is right and leaves nothing of the killed one.

use crate::binary::roadstead;
use crate::random::{Random, rounds_and_seed};
use crate::registry::Registry;
use crate::site::{Outcome, Site};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Files of the context: enough that copying, packing and unpacking take a moment.
const FILES: usize = 300;

/// A small form of the benchmark's workload: a base from a registry, two stages, three RUNs, many source files.
fn workload(registry: &Registry) -> Site {
    let base = format!("{}/base:1", registry.host());
    let maker = Site::new();
    let mut random = Random::new(7);
    maker.file("tools/library", random.bytes(2_000_000));
    maker.dockerfile("FROM base\nCOPY tools /tools\n");
    maker.build(&["--push", "-t", &base]).good();
    let site = Site::empty();
    for number in 0..FILES {
        site.file(&format!("src/dir{}/file{number}", number % 20), random.bytes(6000));
    }
    site.file("edited", "0");
    site.dockerfile(&format!(
        "FROM {base} AS build\nCOPY src /src\nRUN cat /src/*/* > /whole; (sleep 0.03; echo late > /late)\nCOPY edited /edited\n\
         RUN cat /whole /edited | md5sum > /sum\nFROM {base}\nRUN echo deps > /deps\nCOPY --from=build /whole /sum /out/\nCOPY src /src\n"
    ));
    site
}

fn data_of<'a>(site: &Site, command: &'a mut Command, data: &Site) -> &'a mut Command {
    site.prepare(command).env("ROADSTEAD_DATA", data.data())
}

fn check(data: &Site, context: &str) {
    let mut command = Command::new(roadstead());
    let checked = Outcome::of(data.prepare(&mut command).args(["cache", "check"]).output().unwrap());
    let text = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status, Some(0), "{context}: {text}{}", checked.log);
}

/// Waits until nothing of a killed build is left that the kernel takes away by itself: its processes and their mounts.
fn wait_until_gone(data: &Site, context: &str) {
    let begun = Instant::now();
    while !data.users().is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{context}: left: {:?}",
            data.users()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_build_killed_at_any_moment_leaves_a_sound_cache() {
    let (rounds, seed) = rounds_and_seed("KILLED_BUILDS", 12);
    let mut random = Random::new(seed);
    let registry = Registry::start();
    let site = workload(&registry);
    let build = |data: &Site| {
        let mut command = site.command(&["-t", "app"]);
        data_of(&site, &mut command, data);
        command
    };
    let mut right = [String::new(), String::new()];
    let mut whole = Duration::ZERO;
    for (number, digest) in right.iter_mut().enumerate() {
        let data = Site::empty();
        site.file("edited", number.to_string());
        let begun = Instant::now();
        Outcome::of(build(&data).output().unwrap()).good();
        whole = whole.max(begun.elapsed());
        *digest = data.digest_of("app");
    }
    let (mut data, mut unfinished) = (Site::empty(), 0);
    for round in 0..rounds {
        let context = format!("round {round} of seed {seed}");
        // Every other build finds what an earlier one has left, and an edit.
        let is_warm = round % 2 == 1;
        if !is_warm {
            data = Site::empty();
        }
        let state = usize::try_from(random.below(2)).unwrap();
        site.file("edited", state.to_string());
        let longest = if is_warm { whole / 3 } else { whole };
        let mut command = build(&data);
        let mut killed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(longest.mul_f64(random.below(1000) as f64 / 1000.0));
        killed.kill().unwrap();
        unfinished += u64::from(!killed.wait().unwrap().success());
        wait_until_gone(&data, &context);
        if data.data().join("store/oci-layout").exists() {
            check(&data, &context);
        }
        Outcome::of(build(&data).output().unwrap()).good();
        assert_eq!(data.digest_of("app"), right[state], "{context}");
        data.assert_clean();
        let names = std::fs::read_dir(data.data().join("cache")).unwrap();
        let litter: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.len() != 64 && name != "locks")
            .collect();
        assert!(litter.is_empty(), "{context}: left in the cache: {litter:?}");
        for locks in ["cache/locks", "store/locks"] {
            let count = std::fs::read_dir(data.data().join(locks)).unwrap().count();
            assert_eq!(count, 0, "{context}: left in {locks}");
        }
        check(&data, &context);
    }
    eprintln!("{unfinished} of {rounds} builds were killed before their end");
    assert!(
        unfinished * 2 > rounds,
        "only {unfinished} of {rounds} builds were killed before their end"
    );
}
