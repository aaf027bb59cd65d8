//! Dockerfiles and contexts that mean harm, or change while they are read: a clear error or the right image, and nothing outside is
//! touched or shown.

use crate::site::{Outcome, Site};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Builds a Dockerfile of any bytes.
fn build(site: &Site, text: &[u8]) -> Outcome {
    site.file("Dockerfile", text);
    site.build(&["-t", "result"])
}

#[test]
fn dockerfiles_that_are_no_text_or_without_end() {
    let site = Site::new();
    let before = fs::read(site.data().join("store/index.json")).unwrap();
    let huge = format!("FROM scratch\n{}", "# comment\n".repeat(1 << 20));
    let mounts = format!("FROM base\nRUN {}true\n", "--mount=target=/x ".repeat(100_000));
    let nested = format!("FROM base\nENV A={}{}\n", "${B:-".repeat(100_000), "}".repeat(100_000));
    for (case, text, status, want) in [
        ("10 MB", huge.as_bytes(), 2, "is larger than 8388608 bytes"),
        ("5 MB", &huge.as_bytes()[..5 << 20], 1, "larger than 4 MiB"),
        ("NUL", b"FROM base\nRUN echo \0\n", 1, "holds a NUL byte"),
        ("no UTF-8", b"FROM base\nLABEL a=\xff\xfe\n", 2, "is no UTF-8: line 2"),
        ("UTF-16", b"\xff\xfeF\0R\0O\0M\0", 2, "is no UTF-8"),
        ("nothing", b"", 1, "holds no instruction"),
        ("mounts without end", mounts.as_bytes(), 1, "at most 1000 mounts"),
        ("nesting without end", nested.as_bytes(), 1, "Dockerfile:2"),
        (
            "a stage from itself",
            b"FROM base AS a\nCOPY --from=a / /\n",
            1,
            "names the stage it stands in",
        ),
        (
            "a mount from itself",
            b"FROM base AS a\nRUN --mount=from=a,target=/x true\n",
            1,
            "names the stage it stands in",
        ),
        (
            "a later stage",
            b"FROM base\nCOPY --from=1 / /\nFROM base\n",
            1,
            "names no earlier stage",
        ),
        // A name that only a later stage has is an image, as with docker: there is no way to a circle.
        ("a circle", b"FROM b AS a\nFROM a AS b\nFROM b\n", 1, "Dockerfile:1:6"),
    ] {
        let mut command = site.command(&["--offline", "-t", "result"]);
        site.file("Dockerfile", text);
        let log = Outcome::of(command.output().unwrap()).bad(status);
        assert!(
            log.contains(want),
            "{case}: {}",
            log.chars().take(2000).collect::<String>()
        );
        assert!(
            fs::read(site.data().join("store/index.json")).unwrap() == before,
            "{case}"
        );
        site.assert_clean();
    }
}

#[test]
fn dockerfiles_in_other_spellings_are_the_same() {
    let site = Site::new();
    let text = "FROM base\nRUN echo a \\\n  b > /x\nLABEL k=v\n";
    build(&site, text.as_bytes()).good();
    let digest = site.image("result").digest;
    for text in [
        text.replace('\n', "\r\n"),
        format!("\u{feff}{text}"),
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
    ] {
        build(&site, text.as_bytes()).good();
        assert_eq!(site.image("result").digest, digest, "{text:?}");
    }
}

#[test]
fn ten_thousand_stages_are_built_or_left_out() {
    let site = Site::new();
    let mut chain = "FROM scratch AS s0\n".to_owned();
    for n in 1..10_000 {
        chain.push_str(&format!("FROM s{} AS s{n}\n", n - 1));
    }
    build(&site, format!("{chain}COPY Dockerfile /x\n").as_bytes()).good();
    assert_eq!(site.image("result").layers.len(), 1);
    let unneeded = chain.replace("AS s", "AS s0");
    build(&site, format!("{unneeded}FROM base\n").as_bytes()).good();
}

#[test]
fn links_of_a_context_lead_nowhere() {
    let site = Site::new();
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host").unwrap();
    let out = outside.to_str().unwrap();
    site.link("absolute", out)
        .link("relative", "../outside")
        .link("file", &format!("{out}/secret"));
    site.link("loop", "loop").link("proc", "/proc/self/root/etc");
    for source in [
        "absolute/secret",
        "relative/secret",
        "absolute/*",
        "loop",
        "loop/x",
        "proc/hostname",
        "../outside/secret",
        "/../outside/secret",
    ] {
        for verb in ["COPY", "ADD"] {
            site.dockerfile(&format!("FROM base\n{verb} {source} /got\n"));
            let outcome = site.build(&["-t", "result"]);
            if outcome.status == Some(0) {
                let image = site.image("result");
                assert!(
                    image.tree.values().all(|node| node.content != b"of the host"),
                    "{verb} {source}"
                );
            } else {
                outcome.bad(1);
            }
        }
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "of the host");
    // Out of the root on the other side: what the image or the context has there is no way out either.
    site.file("payload", "x");
    site.dockerfile(&format!("FROM base\nRUN ln -s {out} /out && ln -s ../../../../..{out} /up\nCOPY payload /out/a\nCOPY payload /up/b\nCOPY payload ../../../..{out}/c\nADD payload /out/d\n"));
    site.build(&["-t", "result"]).good();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(site.image("result").has(&format!("{}/a", out.trim_start_matches('/'))));
}

/// Swaps two names as fast as it goes while `work` is done.
fn while_swapping(one: &Path, other: &Path, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).unwrap();
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

#[test]
fn a_directory_swapped_for_a_link_during_the_copy_shows_nothing_of_the_host() {
    let site = Site::new();
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    for n in 0..200 {
        fs::write(outside.join(format!("f{n}")), "of the host").unwrap();
        site.file(&format!("dir/f{n}"), "of the context");
    }
    site.link("link", outside.to_str().unwrap());
    let (one, other) = (site.context().join("dir"), site.context().join("link"));
    while_swapping(&one, &other, || {
        for round in 0..12 {
            site.dockerfile(&format!("FROM scratch\nLABEL round={round}\nCOPY dir /dir\n"));
            let outcome = site.build(&["-t", "result", "--no-cache"]);
            if outcome.status == Some(0) {
                for (path, node) in &site.image("result").tree {
                    assert_ne!(node.content, b"of the host", "{path}");
                }
            } else {
                assert!(outcome.bad(1).contains("Dockerfile:3"));
            }
        }
    });
}

#[test]
fn a_context_that_changes_while_it_is_read() {
    let site = Site::new();
    for n in 0..50 {
        site.file(&format!("dir/f{n}"), "x".repeat(50_000));
    }
    site.dockerfile("FROM scratch\nCOPY dir /dir\n");
    let (context, done) = (site.context(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0usize.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let path = context.join(format!("dir/f{}", round % 50));
                // Shorter, longer, and gone.
                match round % 3 {
                    0 => fs::write(&path, "short").unwrap(),
                    1 => fs::write(&path, "y".repeat(90_000)).unwrap(),
                    _ => drop(fs::remove_file(&path)),
                }
            }
        });
        for _ in 0..8 {
            let outcome = site.build(&["-t", "result"]);
            if outcome.status == Some(0) {
                // Reading it back checks every size and digest.
                assert!(!site.image("result").tree.is_empty());
            } else {
                let log = outcome.bad(1);
                assert!(log.contains("Dockerfile:2") && log.contains(">>> COPY"), "{log}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // Once it keeps still, what comes of it is what is there.
    site.build(&["-t", "result"]).good();
    let image = site.image("result");
    for entry in fs::read_dir(context.join("dir")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("dir/{}", path.file_name().unwrap().to_string_lossy());
        assert_eq!(image.node(&name).content, fs::read(&path).unwrap(), "{name}");
    }
}
