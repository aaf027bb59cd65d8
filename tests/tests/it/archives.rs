//! Images carried about: `save`, `load`, copies between places, and bundles for a site without a network.

use crate::binary::roadstead;
use crate::registry::Registry;
use crate::site::{Outcome, Site, files_below};
use std::process::{Command, Stdio};

fn run(site: &Site, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(roadstead());
    Outcome::of(site.prepare(&mut command).args(arguments).output().unwrap())
}

fn text(outcome: &Outcome) -> String {
    String::from_utf8(outcome.stdout.clone()).unwrap()
}

fn path(site: &Site, name: &str) -> String {
    site.out(name).display().to_string()
}

/// Builds an image of one file; gives its digest.
fn build(site: &Site, name: &str, content: &str) -> String {
    site.file("file", content);
    site.dockerfile("FROM scratch\nCOPY file /\n");
    site.build(&["-t", name]).good();
    text(&run(site, &["image", "digest", &format!("store:{name}")]).good())
        .trim()
        .to_owned()
}

#[test]
fn images_are_saved_and_loaded() {
    let (here, there) = (Site::empty(), Site::empty());
    let (one, two) = (build(&here, "team/one:1", "1"), build(&here, "r.example/two", "2"));
    let archive = path(&here, "both.tar");
    run(
        &here,
        &["image", "save", "-q", "-o", &archive, "team/one:1", "r.example/two"],
    )
    .good();
    let loaded = run(&there, &["image", "load", "-q", "-i", &archive]).good();
    assert_eq!(
        text(&loaded),
        "Loaded image: team/one:1\nLoaded image: r.example/two:latest\n"
    );
    for (name, digest) in [("team/one:1", &one), ("r.example/two", &two)] {
        assert_eq!(
            text(&run(&there, &["image", "digest", &format!("store:{name}")]).good()).trim(),
            digest
        );
    }
    run(&there, &["store", "check"]).good();

    // Through a pipe, as `docker save | gzip | docker load`.
    let piped = Site::empty();
    let mut save = Command::new(roadstead());
    let mut save = here
        .prepare(&mut save)
        .args(["image", "save", "-q", "team/one:1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut gzip = Command::new("gzip")
        .stdin(save.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut load = Command::new(roadstead());
    let load = piped
        .prepare(&mut load)
        .args(["image", "load", "-q"])
        .stdin(gzip.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(save.wait().unwrap().success() && gzip.wait().unwrap().success());
    assert_eq!(text(&Outcome::of(load).good()), "Loaded image: team/one:1\n");
}

#[test]
fn a_digest_in_a_name_cannot_be_given_to_another_image() {
    let site = Site::empty();
    build(&site, "app", "mine");
    let pinned = format!("docker.io/library/busybox@sha256:{}", "2".repeat(64));
    let file = path(&site, "forged.tar");
    run(
        &site,
        &[
            "image",
            "copy",
            "-q",
            "store:app",
            &format!("oci-archive:{file}:{pinned}"),
        ],
    )
    .good();
    for arguments in [
        &["image", "load", "-i", &file][..],
        &["bundle", "load", &file],
        &["image", "tag", "app", &pinned],
        &["image", "copy", "store:app", &format!("store:{pinned}")],
    ] {
        let log = run(&site, arguments).bad(1);
        assert!(log.contains("has digest"), "{arguments:?}: {log}");
    }
    site.dockerfile(&format!("FROM {pinned}\nCOPY file /\n"));
    let log = site.build(&["--offline", "-t", "victim"]).bad(1);
    assert!(log.contains("offline"), "{log}");
}

#[test]
fn a_load_that_waits_for_its_archive_ends_at_a_signal() {
    let site = Site::empty();
    let mut command = Command::new(roadstead());
    let mut load = site
        .prepare(&mut command)
        .args(["image", "load"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&load);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    // Its standard input stays open: nothing but the signal can end it.
    let begun = std::time::Instant::now();
    let status = loop {
        if let Some(status) = load.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed().as_secs() < 30, "it goes on waiting");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_copy_that_fails_leaves_no_file() {
    let site = Site::empty();
    let archive = path(&site, "x.tar");
    for destination in ["oci-archive:", "docker-archive:"] {
        run(
            &site,
            &["image", "copy", "store:absent", &format!("{destination}{archive}")],
        )
        .bad(1);
    }
    run(&site, &["image", "save", "-o", &archive, "absent"]).bad(1);
    assert_eq!(files_below(&site.dir().join("out")), Vec::<std::path::PathBuf>::new());
    std::fs::write(site.out("x.tar"), "no tar at all").unwrap();
    let log = run(&site, &["image", "load", "-i", &archive]).bad(1);
    assert!(log.contains("x.tar"), "{log}");
}

#[test]
fn an_image_goes_round_all_places() {
    let (registry, site) = (Registry::start(), Site::empty());
    let digest = build(&site, "app:1", "content");
    let places = [
        "store:app:1".to_owned(),
        format!("oci:{}:v1", path(&site, "layout")),
        format!("oci-archive:{}:v1", path(&site, "oci.tar")),
        format!("docker-archive:{}:r.example/app:v1", path(&site, "docker.tar")),
        format!("docker://{}/app:1", registry.host()),
        "store:back".to_owned(),
    ];
    for pair in places.windows(2) {
        let copied = run(&site, &["image", "copy", "-q", &pair[0], &pair[1]]).good();
        assert!(text(&copied).trim().ends_with(&digest), "{pair:?}: {}", text(&copied));
    }
    for (place, names) in [(1, "v1\n"), (2, "v1\n"), (3, "r.example/app:v1\n")] {
        let place = places[place]
            .rsplit_once(if place == 3 { ":r.example" } else { ":" })
            .unwrap()
            .0;
        assert_eq!(text(&run(&site, &["image", "ls", place]).good()), names, "{place}");
    }
}

#[test]
fn an_index_is_made_of_images_of_several_repositories() {
    let (registry, site) = (Registry::start(), Site::empty());
    for (platform, name) in [("linux/amd64", "amd"), ("linux/arm64", "arm")] {
        site.file("file", platform).dockerfile("FROM scratch\nCOPY file /\n");
        let name = format!("{}/{name}", registry.host());
        site.build(&["--push", "-t", &name, "--platform", platform]).good();
    }
    let (host, target) = (registry.host(), format!("{}/both:1", registry.host()));
    let sources = [format!("{host}/amd"), format!("{host}/arm")];
    let create = [
        "image",
        "index",
        "create",
        "--annotation",
        "a=b",
        &target,
        &sources[0],
        &sources[1],
    ];
    let made = run(&site, &create).good();
    assert!(made.log.contains("mounted from"), "{}", made.log);
    let shown = text(&run(&site, &["image", "index", "inspect", &target]).good());
    assert!(
        shown.contains("linux/amd64") && shown.contains("linux/arm64"),
        "{shown}"
    );
    let there = Site::empty();
    run(&there, &["image", "pull", "--all", &target]).good();
    let report = text(&run(&there, &["store", "check"]).good());
    assert!(report.contains("7 blobs"), "{report}");
    run(&there, &["image", "pull", "--platform", "linux/arm64", &target]).good();
    let log = run(&there, &["image", "pull", "--platform", "linux/s390x", &target]).bad(1);
    assert!(log.contains("only for linux/amd64, linux/arm64"), "{log}");
}

#[test]
fn a_bundle_is_all_that_a_build_without_a_network_needs() {
    let (registry, outside) = (Registry::start(), Site::new());
    let base = format!("{}/base:1", registry.host());
    let tools = format!("{}/tools:2", registry.host());
    for (name, content) in [(&base, "base"), (&tools, "tools")] {
        outside.file(content, content);
        outside.dockerfile(&format!("FROM scratch\nCOPY {content} /\n"));
        outside.build(&["--push", "-t", name]).good();
    }
    let dockerfile = format!(
        "ARG VERSION=0\nFROM {}/base:$VERSION AS unused\nFROM {base}\nCOPY --from={tools} /tools /\nCOPY own /\n",
        registry.host()
    );
    let maker = Site::empty();
    maker.file("Dockerfile", &dockerfile);
    let file = path(&maker, "site.tar");
    let from = maker.context().join("Dockerfile").display().to_string();
    run(&maker, &["bundle", "create", "-q", &file, "--for", &from]).good();
    let lock = std::fs::read_to_string(maker.out("site.tar.lock")).unwrap();
    assert!(
        lock.contains(&base) && lock.contains(&tools) && !lock.contains("unused"),
        "{lock}"
    );
    let listed = Command::new("skopeo")
        .args(["inspect", "--raw", &format!("oci-archive:{file}:{base}")])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    drop(registry);

    let inside = Site::empty();
    inside.file("own", "own").dockerfile(&dockerfile);
    let log = inside.build(&["--offline", "-t", "app"]).bad(1);
    assert!(log.contains("offline: the pull of") && log.contains("base:1"), "{log}");
    let loaded = run(&inside, &["bundle", "load", "-q", "--json", &file]).good();
    let loaded: serde_json::Value = serde_json::from_slice(&loaded.stdout).unwrap();
    assert_eq!((&loaded[0]["name"], &loaded[1]["name"]), (&base.into(), &tools.into()));
    inside.build(&["--offline", "-t", "app"]).good();
    // The site may say so for all.
    std::fs::write(inside.dir().join("config/config.toml"), "offline = true\n").unwrap();
    let log = run(&inside, &["image", "pull", "elsewhere.example/x"]).bad(1);
    assert!(log.contains("offline: the pull of `elsewhere.example/x`"), "{log}");

    let altered = lock.replacen("sha256:", "sha256:0", 1);
    std::fs::write(maker.out("site.tar.lock"), altered).unwrap();
    run(&Site::empty(), &["bundle", "load", &file]).bad(2);
    let digit = lock.find("sha256:").unwrap() + 7;
    let mut other = lock.clone();
    other.replace_range(digit..=digit, if &lock[digit..=digit] == "0" { "1" } else { "0" });
    std::fs::write(maker.out("site.tar.lock"), other).unwrap();
    let log = run(&Site::empty(), &["bundle", "load", &file]).bad(1);
    assert!(log.contains("nothing was loaded"), "{log}");
}

#[test]
fn a_bundle_keeps_the_digest_of_an_index() {
    let (registry, site) = (Registry::start(), Site::empty());
    for platform in ["linux/amd64", "linux/arm64"] {
        site.file("file", platform).dockerfile("FROM scratch\nCOPY file /\n");
        let name = format!("{}/base:{}", registry.host(), &platform[6..]);
        site.build(&["--push", "-t", &name, "--platform", platform]).good();
    }
    let host = registry.host();
    let names = ["both", "amd64", "arm64"].map(|tag| format!("{host}/base:{tag}"));
    run(
        &site,
        &["image", "index", "create", "-q", &names[0], &names[1], &names[2]],
    )
    .good();
    let digest = text(&run(&site, &["image", "digest", &names[0]]).good())
        .trim()
        .to_owned();
    let pinned = format!("{host}/base:both@{digest}");
    let file = path(&site, "b.tar");
    run(
        &site,
        &["bundle", "create", "-q", &file, &pinned, "--platform", "linux/amd64"],
    )
    .good();
    drop(registry);
    let inside = Site::empty();
    run(&inside, &["bundle", "load", "-q", &file]).good();
    inside.file("own", "own");
    inside.dockerfile(&format!("FROM {pinned}\nCOPY own /\n"));
    inside
        .build(&["--offline", "-t", "app", "--platform", "linux/amd64"])
        .good();
    let log = inside
        .build(&["--offline", "-t", "app", "--platform", "linux/arm64"])
        .bad(1);
    assert!(log.contains("offline"), "{log}");
}
