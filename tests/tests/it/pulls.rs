//! `roadstead image` at the command line: what a killed pull leaves, what is printed, and how mistakes end.

use crate::binary::roadstead;
use crate::random::{Random, rounds_and_seed};
use crate::registry::Registry;
use crate::site::{Outcome, Site};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn image(site: &Site, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(roadstead());
    Outcome::of(site.prepare(&mut command).args(arguments).output().unwrap())
}

fn text(outcome: &Outcome) -> String {
    String::from_utf8(outcome.stdout.clone()).unwrap()
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// Pushes an image of some layers; gives its name.
fn push(site: &Site, registry: &Registry, layers: usize, size: usize) -> String {
    let mut random = Random::new(7);
    let mut dockerfile = "FROM scratch\n".to_owned();
    for layer in 0..layers {
        let file = format!("file{layer}");
        site.file(&file, random.bytes(size));
        dockerfile.push_str(&format!("COPY {file} /\n"));
    }
    site.dockerfile(&dockerfile);
    let name = format!("{}/team/app:v1", registry.host());
    site.build(&["--push", "-t", &name]).good();
    name
}

#[test]
fn a_pull_killed_at_any_moment_leaves_a_sound_store() {
    let registry = Registry::start();
    let name = push(&Site::empty(), &registry, 6, 1_500_000);
    let (rounds, seed) = rounds_and_seed("KILL", 12);
    let mut random = Random::new(seed);
    let whole = {
        let site = Site::empty();
        let start = Instant::now();
        image(&site, &["image", "pull", &name]).good();
        start.elapsed()
    };
    let mut unfinished = 0;
    for round in 0..rounds {
        let site = Site::empty();
        let mut command = Command::new(roadstead());
        let mut pull = site
            .prepare(&mut command)
            .args(["image", "pull", &name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        pull.kill().unwrap();
        unfinished += u64::from(!pull.wait().unwrap().success());
        let checked = image(&site, &["store", "check"]);
        assert_eq!(checked.status, Some(0), "round {round}: {}", text(&checked));
        image(&site, &["image", "pull", &name]).good();
        let checked = image(&site, &["store", "check", "--json"]);
        let report = json(&checked);
        assert_eq!(
            (checked.status, &report["images"]),
            (Some(0), &Value::from(1)),
            "round {round}"
        );
        assert_eq!(report["findings"], Value::Array(Vec::new()));
    }
    assert!(
        unfinished * 2 > rounds,
        "only {unfinished} of {rounds} pulls were killed before their end"
    );
}

#[test]
fn a_killed_holder_frees_what_others_wait_for() {
    let registry = Registry::start();
    let name = push(&Site::empty(), &registry, 1, 1000);
    let stalling = {
        let manifest = image(&Site::empty(), &["image", "inspect", "--raw", &name]).good();
        let layer = json(&manifest)["layers"][0]["digest"].as_str().unwrap().to_owned();
        crate::registry::stalling_proxy(&registry, format!("GET /v2/team/app/blobs/{layer}"))
    };
    let site = Site::empty();
    let held = name.replace(&registry.host(), &stalling);
    let mut command = Command::new(roadstead());
    let mut holder = site
        .prepare(&mut command)
        .args(["image", "pull", &held])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let locks = site.data().join("store/locks");
    let begun = Instant::now();
    while std::fs::read_dir(&locks).map_or(0, Iterator::count) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "no download began");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut command = Command::new(roadstead());
    let mut waiter = site
        .prepare(&mut command)
        .args(["image", "pull", &name])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        waiter.try_wait().unwrap().is_none(),
        "it did not wait for the download under way"
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(waiter.wait().unwrap().success());
    image(&site, &["store", "check"]).good();
}

#[test]
fn names_are_listed_given_and_taken() {
    let registry = Registry::start();
    let site = Site::empty();
    let name = push(&site, &registry, 2, 1000);
    let digest = text(&image(&site, &["image", "digest", &name]).good());
    let pulled = image(&Site::empty(), &["image", "pull", "--json", &name]).good();
    assert_eq!(json(&pulled)["digest"], digest.trim());
    assert!(pulled.log.contains("done in"), "{}", pulled.log);
    let (repository, _) = name.rsplit_once(':').unwrap();
    let remote = format!("docker://{name}");
    image(&site, &["image", "tag", &remote, "v2"]).good();
    let tags = image(&site, &["image", "ls", &format!("docker://{repository}")]).good();
    assert_eq!(text(&tags), "v1\nv2\n");
    image(&site, &["image", "tag", &name, "local:x"]).good();
    let listed = text(&image(&site, &["image", "ls", "-q"]).good());
    assert_eq!(listed.lines().collect::<Vec<_>>(), [name.as_str(), "local:x"]);
    image(&site, &["image", "rm", "local:x"]).good();
    let gone = image(&site, &["image", "rm", "local:x"]).bad(1);
    assert!(
        gone.contains("the local store has no image `docker.io/library/local:x`"),
        "{gone}"
    );
    // Debian's registry knows only how to take the whole image away.
    let refused = image(&site, &["image", "rm", &remote]).bad(1);
    assert!(refused.contains("only the image with all of its tags"), "{refused}");
    let whole = format!("docker://{repository}@{}", digest.trim());
    image(&site, &["image", "rm", &whole]).good();
    image(&site, &["image", "digest", &name]).bad(1);
}

#[test]
fn mistakes_end_with_what_to_do() {
    let site = Site::empty();
    for (arguments, status, part) in [
        (
            &["image", "pull", "UPPER"][..],
            2,
            "a repository is written in lower case",
        ),
        (&["image", "pull", "--platform", "x", "app"], 2, "`x` is not a platform"),
        (
            &["image", "pull", "--all", "--platform", "linux/amd64", "app"],
            2,
            "cannot be used with",
        ),
        (
            &["image", "push", "absent"],
            1,
            "the local store has no image `docker.io/library/absent`",
        ),
        (
            &["image", "push", "--create-repository", "r.example/a"],
            2,
            "no private registry of Amazon ECR",
        ),
        (
            &["image", "push", "--wait-scan", "r.example/a"],
            2,
            "no private registry of Amazon ECR",
        ),
        (
            &["image", "push", "--wait-scan=bad", "r.example/a"],
            2,
            "`bad` is no severity",
        ),
        (&["image", "copy", "docker://x", "oci:"], 2, "names no file"),
        (
            &["image", "copy", "--offline", "r.example/a", "store:b"],
            1,
            "offline: the pull of `r.example/a` needs r.example",
        ),
        (
            &["image", "pull", "--ca-bundle", "/absent", "r.example/a"],
            2,
            "does not exist",
        ),
    ] {
        let log = image(&site, arguments).bad(status);
        assert!(log.contains(part), "{arguments:?}: {log}");
    }
}

#[test]
fn explain_shows_places_and_logins_without_secrets() {
    let site = Site::empty();
    site.registries(
        "[[registry]]\nprefix = 'docker.io'\nmirrors = ['mirror.example/hub']\ncredential = { user = 'ci', password-env = 'PW' }\n\
         [[registry]]\nprefix = 'mirror.example'\ninsecure = true\n",
    );
    let mut command = Command::new(roadstead());
    let shown = site
        .prepare(&mut command)
        .env("PW", "hunter2")
        .args(["image", "explain", "node:20"])
        .output()
        .unwrap();
    let shown = text(&Outcome::of(shown).good());
    let toml = site.dir().join("config/registries.toml");
    assert_eq!(
        shown,
        format!(
            "name:            docker.io/library/node:20\n\
             registries.toml: {}\n\
             entry:           docker.io\n\
             mirror:          http://mirror.example/v2/hub/library/node\n\
             location:        https://registry-1.docker.io/v2/library/node\n\
             login:           the job's own, then registries.toml: user ci, password in $PW\n\
             upload:          stream, another way after failures\n",
            toml.display()
        )
    );
}

#[test]
fn a_proxy_of_the_environment_is_asked_unless_it_is_spared() {
    let proxy = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut client, _) = proxy.accept().unwrap();
        let mut line = String::new();
        BufReader::new(client.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        client
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        line
    });
    let site = Site::empty();
    site.registries("[[registry]]\nprefix = 'r.example'\ninsecure = true\n");
    let digest = |spared: &str| {
        let mut command = Command::new(roadstead());
        let command = site
            .prepare(&mut command)
            .env("HTTP_PROXY", &address)
            .env("http_proxy", &address);
        Outcome::of(
            command
                .env("NO_PROXY", spared)
                .args(["image", "digest", "r.example/app"])
                .output()
                .unwrap(),
        )
        .bad(1)
    };
    let log = digest("r.example");
    assert!(log.contains("cannot reach registry r.example"), "{log}");
    let log = digest("other.example");
    assert!(log.contains("r.example denied"), "{log}");
    assert_eq!(
        asked.join().unwrap(),
        "HEAD http://r.example/v2/app/manifests/latest HTTP/1.1\r\n"
    );
}

#[test]
fn verbose_names_each_step_and_no_secret() {
    let registry = Registry::with_login();
    let site = Site::empty();
    let auth = "dGVzdGVyOnNlY3JldC1wYXNz";
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", registry.host());
    std::fs::write(site.dir().join("config/config.json"), config).unwrap();
    let name = push(&site, &registry, 1, 10);
    let log = image(&site, &["image", "digest", "-v", &name]).good().log;
    for part in [
        "registries.toml names none",
        "docker's config.json: user `tester`",
        "request method=HEAD",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("secret-pass") && !log.contains(auth), "{log}");
}
