//! `roadstead cache`: what it lists, what it removes and what must stay; and the bound on the cache's size.

use crate::binary::roadstead;
use crate::random::Random;
use crate::site::{Outcome, Site};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

fn cache(site: &Site, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(roadstead());
    Outcome::of(
        site.prepare(&mut command)
            .arg("cache")
            .args(arguments)
            .output()
            .unwrap(),
    )
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// How many items of each kind there are.
fn kinds(site: &Site) -> [usize; 4] {
    let listed = json(&cache(site, &["du", "--json"]).good());
    let items = listed["items"].as_array().unwrap();
    ["step", "layer", "blob", "mount"].map(|kind| items.iter().filter(|item| item["kind"] == kind).count())
}

/// What was used just now counts as in use.
fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn what_no_image_needs_is_removed_and_made_again() {
    let site = Site::new();
    site.file("f", "content");
    site.dockerfile(
        "FROM base AS s\nRUN --mount=type=cache,target=/c echo c > /c/kept; echo made > /made\nFROM base\nCOPY f /f\nCOPY --from=s /made /\n",
    );
    site.build(&["-t", "app"]).good();
    let digest = site.digest_of("app");
    pause();
    let [steps, layers, blobs, mounts] = kinds(&site);
    assert!(
        steps >= 3 && layers >= 3 && blobs > 3 && mounts == 1,
        "{:?}",
        kinds(&site)
    );
    let refused = cache(&site, &["prune"]).bad(2);
    assert!(refused.contains("--force"), "{refused}");
    let kept = json(&cache(&site, &["prune", "--force", "--filter", "until=1h", "--json"]).good());
    assert_eq!(kept["total"], 0);
    let pruned = cache(&site, &["prune", "--force"]).good();
    let text = String::from_utf8(pruned.stdout).unwrap();
    assert!(text.lines().last().unwrap().starts_with("Total: "), "{text}");
    assert_eq!((kinds(&site)[0], kinds(&site)[1], kinds(&site)[3]), (0, 0, 1));
    assert!(
        !site.data().join("tmp").read_dir().unwrap().any(|_| true),
        "trash is left"
    );
    assert_eq!(cache(&site, &["check"]).status, Some(0));
    // The images are whole, and what was removed is made again.
    assert_eq!(site.image("app").text("made"), "made\n");
    let again = site.build(&["-t", "app"]).good();
    assert_eq!(again.ran().len(), 3, "{}", again.log);
    assert_eq!(site.digest_of("app"), digest);
    let mut command = Command::new(roadstead());
    let untagged = site
        .prepare(&mut command)
        .args(["image", "rm", "app"])
        .output()
        .unwrap();
    Outcome::of(untagged).good();
    pause();
    cache(&site, &["prune", "--force", "--all"]).good();
    let of_base = kinds(&site);
    assert_eq!((of_base[0], of_base[1], of_base[3]), (0, 0, 0));
    assert!(of_base[2] < blobs, "blobs of the image without a name are left");
    site.build(&["-t", "app"]).good();
    assert_eq!(site.digest_of("app"), digest);
}

#[test]
fn what_a_running_build_uses_stays() {
    let site = Site::new();
    site.file("f", "content");
    let text = "FROM base AS s\nRUN echo made > /made\nFROM base\nCOPY f /f\nCOPY --from=s /made /\n";
    site.dockerfile(text);
    site.build(&["-t", "first"]).good();
    let digest = site.digest_of("first");
    pause();
    site.dockerfile(&format!("{text}RUN echo now at it; sleep 2; cat /made /f > /all\n"));
    let build = site.start_until(&["-t", "app"], "now at it");
    for _ in 0..3 {
        cache(&site, &["prune", "--force", "--all"]).good();
    }
    let (status, log) = build.wait();
    assert!(status.success(), "{log}");
    assert_eq!(site.image("app").text("all"), "made\ncontent");
    site.assert_clean();
    site.dockerfile(text);
    assert_eq!(site.build(&["-t", "again"]).good().ran(), [""; 0]);
    assert_eq!(site.digest_of("again"), digest);
    assert_eq!(cache(&site, &["check"]).status, Some(0));
}

#[test]
fn a_bound_keeps_what_was_used_last() {
    let site = Site::new();
    let mut random = Random::new(3);
    let contents: Vec<Vec<u8>> = (0..6).map(|_| random.bytes(1 << 20)).collect();
    let build = |number: usize, size: &str| {
        site.file("f", &contents[number]).dockerfile("FROM base\nCOPY f /f\n");
        pause();
        let mut command = site.command(&[]);
        Outcome::of(command.env("ROADSTEAD_CACHE_SIZE", size).output().unwrap())
    };
    for number in 0..6 {
        build(number, "8m").good();
    }
    let listed = json(&cache(&site, &["du", "--json"]).good());
    let taken = listed["total"].as_u64().unwrap() - listed["shared"].as_u64().unwrap();
    assert!(taken <= 9 << 20, "{listed}");
    assert_eq!(build(5, "off").good().ran(), [""; 0]);
    assert_eq!(build(0, "off").good().ran(), ["COPY f /f"]);
    assert_eq!(cache(&site, &["check"]).status, Some(0));
    let wrong = build(0, "much").bad(2);
    assert!(wrong.contains("`ROADSTEAD_CACHE_SIZE`: `much` is no size"), "{wrong}");
}
