//! The local layer cache: what runs again, and what must not.

use crate::site::Site;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TEXT: &str = "FROM base AS deps\nCOPY deps.txt /deps\nRUN echo installing; cat /deps > /installed\nFROM base AS app\nCOPY src /src\nRUN echo building; cat /src/* > /built\n\
     FROM base\nCOPY --from=deps /installed /\nCOPY --from=app /built /\nWORKDIR /work\nADD extra.txt /x\n";

fn site() -> Site {
    let site = Site::new();
    site.file("deps.txt", "deps")
        .file("src/a", "a")
        .file("src/b", "b")
        .file("extra.txt", "extra")
        .dockerfile(TEXT);
    site
}

fn touch(path: &Path) {
    assert!(
        Command::new("touch")
            .args(["-d", "2001-01-01"])
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_second_build_runs_nothing() {
    let site = site();
    let first = site.build(&["-t", "one"]).good();
    assert_eq!(first.ran().len(), 9 - 1, "{}", first.log);
    let second = site.build(&["-t", "two"]).good();
    assert_eq!(second.ran(), [""; 0], "{}", second.log);
    assert!(!second.said().contains(&"installing"));
    assert_eq!(site.image("one").digest, site.image("two").digest);
    let third = site.build(&["-t", "three", "--no-cache"]).good();
    assert_eq!(third.ran().len(), 8);
    assert_eq!(site.image("one").digest, site.image("three").digest);
}

#[test]
fn an_edit_runs_only_what_depends_on_it() {
    let site = site();
    site.build(&[]).good();
    site.file("src/b", "changed");
    let mut ran = site.build(&["-t", "x"]).good().ran();
    ran.sort_unstable();
    assert_eq!(
        ran,
        [
            "ADD extra.txt /x",
            "COPY --from=app /built /",
            "COPY src /src",
            "RUN echo building; cat /src/* > /built",
            "WORKDIR /work"
        ]
    );
    assert_eq!(site.image("x").text("built"), "achanged");
    // Back again: the old results are still known.
    site.file("src/b", "b");
    assert_eq!(site.build(&[]).good().ran(), [""; 0]);
    // Another time is no change; another mode, name or kind is.
    touch(&site.context().join("src/a"));
    touch(&site.context().join("src"));
    assert_eq!(site.build(&[]).good().ran(), [""; 0]);
    let copied_again = || site.build(&[]).good().ran().contains(&"COPY src /src".to_owned());
    site.mode("src/a", 0o755);
    assert!(copied_again());
    site.mode("src/a", 0o644);
    std::fs::rename(site.context().join("src/a"), site.context().join("src/c")).unwrap();
    assert!(copied_again());
    std::fs::rename(site.context().join("src/c"), site.context().join("src/a")).unwrap();
    std::fs::remove_file(site.context().join("src/b")).unwrap();
    site.link("src/b", "a");
    assert!(copied_again());
}

#[test]
fn two_names_of_one_file_are_not_two_files() {
    let site = Site::new();
    site.file("d/a", "same").file("d/b", "same");
    let two = site.image_of("FROM base\nCOPY d /d\n");
    assert_ne!(two.node("d/a").file, two.node("d/b").file);
    std::fs::remove_file(site.context().join("d/b")).unwrap();
    std::fs::hard_link(site.context().join("d/a"), site.context().join("d/b")).unwrap();
    let one = site.image_of("FROM base\nCOPY d /d\n");
    assert_eq!(one.node("d/a").file, one.node("d/b").file);
}

#[test]
fn equal_results_are_hits_further_on() {
    // The edit changes what a stage is made of, but not what is copied from it.
    let site = Site::new();
    site.file("noise", "1").dockerfile(
        "FROM base AS s\nCOPY noise /noise\nRUN echo same > /out\nFROM base\nCOPY --from=s /out /\nRUN echo after\n",
    );
    site.build(&[]).good();
    site.file("noise", "2");
    let ran = site.build(&[]).good().ran();
    assert_eq!(ran, ["COPY noise /noise", "RUN echo same > /out"]);
}

#[test]
fn an_argument_counts_from_its_declaration() {
    let site = Site::new();
    site.dockerfile(
        "FROM base\nRUN echo before\nARG v=1\nRUN echo after $v\nCOPY Dockerfile /d$v\nENV e=$v\nRUN echo env\n",
    );
    site.build(&[]).good();
    assert_eq!(site.build(&["--build-arg", "v=1"]).good().ran(), [""; 0]);
    assert_eq!(
        site.build(&["--build-arg", "v=2"]).good().ran(),
        ["RUN echo after $v", "COPY Dockerfile /d$v", "RUN echo env"]
    );
    // Proxies and labels do not count.
    assert_eq!(
        site.build(&["--build-arg", "HTTP_PROXY=x", "--label", "a=b"])
            .good()
            .ran(),
        [""; 0]
    );
}

#[test]
fn keys_tell_apart_what_looks_alike() {
    let site = Site::new();
    site.file("f", "x").file("d/f", "x");
    let mut digests = std::collections::BTreeMap::new();
    for text in [
        "COPY f /a",
        "COPY f /a/",
        "COPY --chown=1 f /a",
        "COPY --chown=1:2 f /a",
        "COPY --chmod=600 f /a",
        "COPY d /a2",
        "COPY --from=base /etc/group /a",
        "COPY <<f /a\nx\nf",
        "COPY <<f /a\ny\nf",
        "RUN echo a > /a",
        "RUN [\"sh\", \"-c\", \"echo a > /b\"]",
        "USER app\nWORKDIR /a",
        "WORKDIR /a",
        "ENV x=1\nRUN echo $x > /a",
        "ENV x=2\nRUN echo $x > /a",
        "WORKDIR /tmp\nRUN pwd > /a",
        "USER app\nRUN id -u > /tmp/a",
        "RUN id -u > /tmp/a",
        "SHELL [\"/bin/sh\", \"-xc\"]\nRUN echo $- > /a",
        "RUN echo $- > /a",
    ] {
        let image = site.image_of(&format!("FROM base\n{text}\n"));
        let fresh = site.with_fresh_data();
        let again = fresh.image_of(&format!("FROM base\n{text}\n"));
        assert_eq!(image.digest, again.digest, "the cache gave another image for {text}");
        if let Some(other) = digests.insert(image.manifest["layers"].to_string() + &image.config().to_string(), text) {
            panic!("`{text}` and `{other}` gave one image");
        }
    }
}

#[test]
fn independent_stages_run_side_by_side() {
    let site = Site::new();
    // Each prints, waits, and prints: side by side the lines interleave whatever the machine's speed.
    site.dockerfile(
        "FROM base AS a\nRUN echo a1; sleep 3; echo a2; touch /a\nFROM base AS b\nRUN echo b1; sleep 3; echo b2; touch /b\nFROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    );
    let outcome = site.build(&[]).good();
    let at = |word: &str| outcome.said().iter().position(|l| *l == word).unwrap();
    assert!(at("a1").max(at("b1")) < at("a2").min(at("b2")), "{}", outcome.log);
}

#[test]
fn many_builds_at_once_share_one_data_directory() {
    let site = site();
    let children: Vec<_> = (0..6)
        .map(|n| {
            site.command(&["-t", &format!("n{n}")])
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        crate::site::Outcome::of(child.wait_with_output().unwrap()).good();
    }
    site.assert_clean();
    let digests: std::collections::BTreeSet<String> = (0..6).map(|n| site.image(&format!("n{n}")).digest).collect();
    assert_eq!(digests.len(), 1);
}

#[test]
fn a_lost_layer_is_made_again() {
    let site = site();
    site.build(&["-t", "one"]).good();
    let image = site.image("one");
    for layer in image.manifest["layers"].as_array().unwrap().iter().rev().take(2) {
        let digest = layer["digest"].as_str().unwrap();
        std::fs::remove_file(site.data().join("store/blobs").join(digest.replace(':', "/"))).unwrap();
    }
    site.build(&["-t", "two"]).good();
    assert_eq!(site.image("two").digest, image.digest);
    // Without the unpacked forms nothing is lost either.
    std::fs::remove_dir_all(site.data().join("layers")).unwrap();
    site.dockerfile(&format!("{TEXT}RUN cat /built\n"));
    assert!(site.build(&[]).good().said().contains(&"ab"));
}

#[test]
fn a_file_that_changes_while_it_is_copied_is_not_remembered() {
    let site = Site::new();
    // Two contents that differ in their first byte, written in place by turns: about every other copy takes the one that was not
    // digested.
    let content = |first: u8| [vec![first], vec![b'-'; 16 << 20]].concat();
    site.file("f", content(b'0')).dockerfile("FROM base\nCOPY f /f\n");
    let path = site.context().join("f");
    for _ in 0..4 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for first in [b"1", b"2"].iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                    file.write_all(*first).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            site.build(&["--no-cache"]).good();
            stop.store(true, Ordering::Relaxed);
        });
        for first in *b"12" {
            std::fs::write(&path, content(first)).unwrap();
            site.build(&["-t", "after"]).good();
            assert_eq!(
                site.image("after").node("f").content[0],
                first,
                "the cache gave other bytes"
            );
        }
    }
}

#[test]
fn what_changed_is_explained() {
    let site = site();
    let explained = |log: &str| {
        let lines = log
            .lines()
            .filter_map(|line| Some(line.split_once(" runs since ")?.1.to_owned()));
        lines.collect::<Vec<_>>()
    };
    let first = site.build(&["--explain-cache"]).good();
    assert!(
        explained(&first.log)
            .iter()
            .all(|why| why == "no build before had this step"),
        "{}",
        first.log
    );
    assert_eq!(explained(&site.build(&["--explain-cache"]).good().log), [""; 0]);
    site.file("src/b", "changed").file("src/c", "new");
    std::fs::remove_file(site.context().join("src/a")).unwrap();
    let third = site.build(&["--explain-cache"]).good();
    let why = explained(&third.log);
    assert!(
        why.contains(
            &"these are others than before: the files (src/b changed, src/c is new, src/a is gone)".to_owned()
        ),
        "{why:?}"
    );
    assert!(
        why.contains(&"these are others than before: the layers below".to_owned()),
        "{why:?}"
    );
    site.dockerfile(&TEXT.replace("echo installing", "echo again"));
    let fourth = site.build(&["--explain-cache"]).good();
    assert!(explained(&fourth.log)[0].ends_with("the command"), "{}", fourth.log);
    let last = site.build(&["--explain-cache", "--no-cache"]).good();
    assert!(explained(&last.log).iter().all(|why| why == "the cache is not asked"));
    assert_eq!(explained(&site.build(&["--no-cache"]).good().log), [""; 0]);
}
