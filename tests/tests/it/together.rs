//! Several builds at once on one data directory: a step that they share is done once, and none of them waits for ever.

use crate::random::{Random, rounds_and_seed};
use crate::site::{Site, Started};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BUILDS: usize = 8;
/// A round of eight small builds takes seconds; one that takes this long stands still.
const LONGEST: Duration = Duration::from_secs(180);

/// One of the builds: its Dockerfile, and the digest that it must give.
struct Wanted {
    file: String,
    digest: String,
}

/// Says a line of its own in a RUN, so that the logs tell how often it ran.
fn run(word: &str, random: &mut Random) -> String {
    let milliseconds = random.below(120);
    format!("RUN echo did {word}; sleep 0.{milliseconds:03}; echo {word} > /{word}\n")
}

/// Stages that several builds share, in an order of its own: a chain, a copy out of it, and a copy of equal content.
fn shared(round: u64, random: &mut Random) -> String {
    let base = run(&format!("base{round}"), random);
    let (left, right) = (
        run(&format!("left{round}"), random),
        run(&format!("right{round}"), random),
    );
    let last = run(&format!("last{round}"), random);
    format!(
        "FROM base AS below\n{base}FROM below AS left\n{left}FROM below AS right\nCOPY file /file\n{right}FROM base\n\
         COPY --from=left /left{round} /\nCOPY --from=right /right{round} /file /\n{last}"
    )
}

fn build(site: &Site, wanted: &Wanted, name: &str) -> Started {
    let file = site.context().join(&wanted.file);
    site.start_as(&format!("log-{name}"), &["-t", name, "-f", &file.to_string_lossy()])
}

/// Waits for all; they are killed and the test fails when they take too long.
fn finish(mut builds: Vec<Started>, context: &str) -> Vec<String> {
    let begun = Instant::now();
    while builds.iter_mut().any(|build| build.child.try_wait().unwrap().is_none()) {
        if begun.elapsed() > LONGEST {
            builds.iter_mut().for_each(|build| drop(build.child.kill()));
            let logs: Vec<String> = builds.iter().map(Started::text).collect();
            panic!("{context}: still running after {LONGEST:?}: {logs:#?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = builds.into_iter().map(|mut build| {
        let text = build.text();
        assert!(build.child.wait().unwrap().success(), "{context}: {text}");
        text
    });
    ended.collect()
}

#[test]
fn builds_together_do_each_step_once() {
    let (rounds, seed) = rounds_and_seed("TOGETHER", 3);
    let mut random = Random::new(seed);
    let site = Site::new();
    let alone = Site::new();
    let mut waited = 0;
    for round in 0..rounds {
        let context = format!("round {round} of seed {seed}");
        let shares = shared(round, &mut random);
        let mut wanted = Vec::new();
        for number in 0..BUILDS {
            let (file, text) = match number {
                0..4 => ("shared".to_owned(), shares.clone()),
                // These stand on shared stages, and go on differently.
                4..6 => (
                    format!("more{number}"),
                    shares.clone() + &run(&format!("own{number}x{round}"), &mut random),
                ),
                _ => {
                    let word = format!("own{number}x{round}");
                    (
                        format!("other{number}"),
                        format!("FROM base\n{}COPY file /\n", run(&word, &mut random)),
                    )
                }
            };
            for place in [&site, &alone] {
                place.file("file", format!("file {round}")).file(&file, &text);
            }
            let path = alone.context().join(&file);
            alone.build(&["-t", "alone", "-f", &path.to_string_lossy()]).good();
            wanted.push(Wanted {
                file,
                digest: alone.digest_of("alone"),
            });
        }
        let mut builds = Vec::new();
        for (number, wanted) in wanted.iter().enumerate() {
            builds.push(build(&site, wanted, &format!("n{number}")));
            std::thread::sleep(Duration::from_millis(random.below(30)));
        }
        let logs = finish(builds, &context);
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for line in logs.iter().flat_map(|log| log.lines()).filter_map(crate::site::said) {
            if let Some(word) = line.strip_prefix("did ") {
                *times.entry(word).or_default() += 1;
            }
        }
        assert_eq!(times.len(), 4 + 4, "{context}: {times:?}");
        assert!(
            times.values().all(|times| *times == 1),
            "{context}: {times:?} {logs:#?}"
        );
        for (number, wanted) in wanted.iter().enumerate() {
            assert_eq!(
                site.digest_of(&format!("n{number}")),
                wanted.digest,
                "{context}, build {number}"
            );
        }
        waited += logs
            .iter()
            .filter(|log| log.contains("waiting for another build"))
            .count();
        site.assert_clean();
        let locks = std::fs::read_dir(site.data().join("cache/locks")).unwrap();
        assert_eq!(locks.count(), 0, "{context}: locks are left");
    }
    eprintln!(
        "{rounds} rounds: {waited} of {} builds waited for another one",
        rounds * BUILDS as u64
    );
    assert!(waited > 0, "no build met another one");
}

#[test]
fn a_killed_build_frees_the_step_that_others_wait_for() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN echo now at it; sleep 5; echo x > /x\n");
    let holder = site.start_until(&["-t", "a"], "now at it");
    let mut waiter = site.start_as("waiter", &["-t", "b"]);
    waiter.wait_until(|text| text.contains("waiting for another build that is doing this step"));
    let mut canceled = site.start_as("canceled", &["-t", "c"]);
    canceled.wait_until(|text| text.contains("waiting for another build that is doing this step"));
    // A waiting build can be stopped; the others go on.
    canceled.signal(rustix::process::Signal::INT);
    assert_eq!(canceled.wait().0.code(), Some(130));
    holder.signal(rustix::process::Signal::KILL);
    holder.wait();
    let (status, log) = waiter.wait();
    assert!(status.success(), "{log}");
    assert!(
        log.lines().any(|line| crate::site::said(line) == Some("now at it")),
        "{log}"
    );
    assert_eq!(site.build(&[]).good().ran(), [""; 0]);
}
