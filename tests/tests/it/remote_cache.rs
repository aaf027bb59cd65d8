//! `--cache-to` and `--cache-from`: a machine that knows nothing but a cache runs nothing.

use crate::registry::Registry;
use crate::site::Site;

/// Two stages of which the image holds one; a third step needs what another stage made.
const TEXT: &str = "FROM base AS build\nCOPY src /src\nRUN mkdir /out && cat /src/* > /out/built\nRUN wc -c /out/built > /out/size\n\
     FROM base\nRUN echo system > /system\nCOPY --from=build /out /app\nWORKDIR /app\n";

fn site() -> Site {
    let site = Site::new();
    site.file("src/a", "aaa").file("src/b", "bbb").dockerfile(TEXT);
    site
}

/// Builds on a machine of its own with the cache `from`; gives what ran there. The image is the one that was built first.
fn ran_elsewhere(first: &Site, from: &str, more: &[&str]) -> Vec<String> {
    let fresh = first.with_fresh_data();
    let built = fresh
        .build(&[&["-t", "result", "--cache-from", from], more].concat())
        .good();
    assert_eq!(fresh.digest_of("result"), first.digest_of("result"), "{}", built.log);
    built.ran()
}

/// The same after a source was changed: the stage's files are needed again. Gives what ran.
fn ran_after_an_edit(first: &Site, from: &str) -> Vec<String> {
    let fresh = first.with_fresh_data();
    fresh.file("src/b", "changed");
    let built = fresh.build(&["-t", "result", "--cache-from", from]).good();
    let image = fresh.image("result");
    assert_eq!(image.text("app/built"), "aaachanged", "{}", built.log);
    let mut ran = built.ran();
    ran.sort_unstable();
    ran.dedup();
    ran
}

const AFTER_AN_EDIT: [&str; 5] = [
    "COPY --from=build /out /app",
    "COPY src /src",
    "RUN mkdir /out && cat /src/* > /out/built",
    "RUN wc -c /out/built > /out/size",
    "WORKDIR /app",
];

#[test]
fn a_cache_in_a_registry_is_all_that_a_fresh_machine_needs() {
    let registry = Registry::start();
    for mode in ["min", "max"] {
        let site = site();
        let name = format!("{}/app:cache-{mode}", registry.host());
        let to = format!("type=registry,ref={name},mode={mode}");
        site.build(&["-t", "result", "--cache-to", &to]).good();
        assert_eq!(
            ran_elsewhere(&site, &format!("type=registry,ref={name}"), &[]),
            [""; 0],
            "{mode}"
        );
        assert_eq!(ran_elsewhere(&site, &name, &[]), [""; 0], "{mode}");
        assert_eq!(ran_after_an_edit(&site, &name), AFTER_AN_EDIT, "{mode}");
    }
}

/// The reason for `mode=max`: what a stage installs before its sources are copied needs not be installed again.
#[test]
fn files_of_other_stages_come_from_a_cache_that_has_them() {
    let registry = Registry::start();
    let site = site();
    site.dockerfile(&TEXT.replacen("COPY src", "RUN echo installed > /installed\nCOPY src", 1));
    let name = format!("{}/app:cache", registry.host());
    let directory = site.out("cache");
    for (place, from) in [
        (format!("type=registry,ref={name}"), name.clone()),
        (
            format!("type=local,dest={}", directory.display()),
            format!("type=local,src={}", directory.display()),
        ),
    ] {
        for (mode, installs) in [("max", false), ("min", true)] {
            site.build(&["--cache-to", &format!("{place},mode={mode}")]).good();
            let ran = ran_after_an_edit(&site, &from);
            let installed = ran.contains(&"RUN echo installed > /installed".to_owned());
            assert_eq!(installed, installs, "{place} {mode}: {ran:?}");
        }
    }
}

/// A stage that no image holds may find the step first, and needs no more than its digest.
#[test]
fn a_layer_that_two_stages_share_is_had_for_the_image() {
    let registry = Registry::start();
    let site = site();
    site.dockerfile(
        "FROM base AS one\nCOPY src /src\nRUN wc -c /src/* > /one\nFROM base\nCOPY src /src\nCOPY --from=one /one /one\n",
    );
    let image = format!("{}/app:1", registry.host());
    site.build(&["-t", &image, "--push", "--cache-to", "type=inline"])
        .good();
    site.build(&["-t", "result"]).good();
    for round in 0..8 {
        let archive = site.out(&format!("{round}.tar"));
        let output = format!("type=oci,dest={}", archive.display());
        assert_eq!(ran_elsewhere(&site, &image, &["-o", &output]), [""; 0], "{round}");
    }
}

#[test]
fn blobs_of_a_cache_are_mounted_where_the_image_goes() {
    let registry = Registry::start();
    let site = site();
    let to = format!("type=registry,ref={}/cache/app:1", registry.host());
    site.build(&["-t", "result", "--cache-to", &to]).good();
    let fresh = site.with_fresh_data();
    let image = format!("{}/app:1", registry.host());
    let pushing = fresh.build(&["-t", &image, "--push", "--cache-from", &to.replace(",mode=max", "")]);
    assert_eq!(pushing.good().ran(), [""; 0]);
    // Nothing but documents has come here: the layers went from repository to repository.
    let other = site.with_fresh_data();
    other.dockerfile(&format!("FROM {image}\nRUN cat /app/built > /again\n"));
    other.build(&["-t", "result"]).good();
    assert_eq!(other.image("result").text("again"), "aaabbb");
}

#[test]
fn a_cache_in_a_directory_and_one_in_the_image() {
    let registry = Registry::start();
    let site = site();
    let directory = site.out("cache");
    let to = format!("type=local,dest={},mode=max,compression=zstd", directory.display());
    site.build(&["-t", "result", "--cache-to", &to]).good();
    let from = format!("type=local,src={}", directory.display());
    assert_eq!(ran_elsewhere(&site, &from, &[]), [""; 0]);
    assert_eq!(ran_after_an_edit(&site, &from), AFTER_AN_EDIT);

    // The image itself has another config with a cache in it, always the same one.
    let image = format!("{}/app:1", registry.host());
    site.build(&["-t", &image, "--push", "--cache-to", "type=inline"])
        .good();
    site.build(&["-t", "result", "--cache-to", "type=inline"]).good();
    let digest = site.digest_of("result");
    let cold = site.with_fresh_data();
    cold.build(&["-t", "result", "--cache-to", "type=inline"]).good();
    assert_eq!(cold.digest_of("result"), digest);
    assert_eq!(ran_elsewhere(&site, &image, &["--cache-to", "type=inline"]), [""; 0]);
    assert_eq!(ran_after_an_edit(&site, &image), AFTER_AN_EDIT);
}

#[test]
fn a_cache_that_is_none_is_told_of_and_left_out() {
    let registry = Registry::start();
    let site = site();
    let host = registry.host();
    let plain = format!("{host}/plain:1");
    site.build(&["-t", &plain, "--push"]).good();
    site.build(&["-t", "result"]).good();
    let empty = site.out("nothing");
    for (from, want) in [
        (format!("{host}/app:none"), "not found"),
        (plain, "holds no cache"),
        (format!("type=local,src={}", empty.display()), "nothing"),
    ] {
        let fresh = site.with_fresh_data();
        let built = fresh.build(&["-t", "result", "--cache-from", &from]).good();
        assert!(
            built.log.contains(want) && built.log.contains("is not used"),
            "{from}: {}",
            built.log
        );
        assert_eq!(fresh.digest_of("result"), site.digest_of("result"));
    }
    // A cache that cannot be written is an error, unless that does not matter.
    let to = "type=registry,ref=127.0.0.1:1/app:cache";
    let failed = site.build(&["--cache-to", to]);
    assert!(failed.bad(1).contains("exporting cache"));
    site.build(&["--cache-to", &format!("{to},ignore-error=true")]).good();
}

#[test]
fn a_layer_that_is_gone_from_a_cache_is_made_again() {
    let site = site();
    let directory = site.out("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    site.build(&["-t", "result", "--cache-to", &to]).good();
    // All blobs that are no documents.
    for entry in std::fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        if !std::fs::read(&path).unwrap().starts_with(b"{") {
            std::fs::write(&path, "damaged").unwrap();
        }
    }
    let from = format!("type=local,src={}", directory.display());
    let ran = ran_elsewhere(&site, &from, &[]);
    assert!(ran.contains(&"RUN echo system > /system".to_owned()), "{ran:?}");
    assert_eq!(ran_after_an_edit(&site, &from).len(), 6);
}

#[test]
fn a_cache_mount_is_carried_and_saved_only_when_it_changes() {
    let registry = Registry::start();
    let site = site();
    let text = "FROM base\nARG N\nRUN --mount=type=cache,target=/cache,uid=1000 ls -n /cache > /before; echo $N > /cache/$N; chmod 600 /cache/$N\n";
    site.dockerfile(text);
    let place = format!("type=registry,ref={}/app:cache", registry.host());
    let with_mounts = format!("{place},mounts=true");
    let build = |site: &Site, number: &str| {
        let argument = format!("N={number}");
        let arguments = [
            "-t",
            "result",
            "--build-arg",
            &argument,
            "--cache-from",
            &with_mounts,
            "--cache-to",
            &with_mounts,
        ];
        site.build(&arguments).good();
    };
    let names = |site: &Site, number: &str| {
        build(site, number);
        let listed = site.image("result").text("before");
        let names = listed.lines().filter(|line| !line.starts_with("total"));
        names
            .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&site, "1"), [""; 0]);
    let second = site.with_fresh_data();
    assert_eq!(names(&second, "2"), ["1"]);
    // A step that does not run leaves the mount as it is: it is carried on.
    let third = site.with_fresh_data();
    build(&third, "2");
    let fourth = site.with_fresh_data();
    assert_eq!(names(&fourth, "4"), ["1", "2"]);
    let before = count(&fourth);
    build(&fourth, "4");
    assert_eq!(count(&fourth), before, "nothing has changed, and nothing was packed");
}

#[test]
fn cache_mounts_are_filled_only_by_a_cache_that_is_asked_for_them() {
    let registry = Registry::start();
    let site = site();
    site.dockerfile("FROM base\nRUN --mount=type=cache,id=m,target=/cache echo theirs > /cache/theirs\n");
    let name = format!("{}/app:cache", registry.host());
    let (remote, directory) = (format!("type=registry,ref={name}"), site.out("cache"));
    let to_registry = format!("{remote},mounts=true");
    let to_directory = format!("type=local,dest={},mounts=true", directory.display());
    site.build(&["-t", "result", "--cache-to", &to_registry, "--cache-to", &to_directory])
        .good();
    let local = format!("type=local,src={}", directory.display());
    let seen = |site: &Site, froms: &[&str]| {
        site.dockerfile("FROM base\nRUN --mount=type=cache,id=m,target=/cache ls /cache > /seen\n");
        let froms = froms.iter().flat_map(|from| ["--cache-from", from]);
        let arguments: Vec<&str> = ["-t", "result", "--no-cache"].into_iter().chain(froms).collect();
        site.build(&arguments).good();
        site.image("result").text("seen")
    };
    let unasked = site.with_fresh_data();
    assert_eq!(seen(&unasked, &[&name, &remote, &local]), "");
    // A mount that is there is not filled any more.
    assert_eq!(seen(&unasked, &[&to_registry]), "");
    for from in [&remote, &local] {
        let asked = site.with_fresh_data();
        let from = format!("{from},mounts=true");
        assert_eq!(seen(&asked, &[&name, &from]), "theirs\n", "{from}");
        assert_eq!(seen(&asked, &[]), "theirs\n", "it stays");
    }
}

fn count(site: &Site) -> usize {
    std::fs::read_dir(site.data().join("store/blobs/sha256"))
        .unwrap()
        .count()
}
