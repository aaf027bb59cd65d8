//! Base images that mean harm: one clear error each, and nothing outside is touched.

use crate::binary::is_root;
use crate::handmade::{Entry, layer, put};
use crate::site::Site;
use serde_json::{Value, json};

/// Lays an image `evil` into the site's store and builds on it with a step that needs files.
fn build_on(site: &Site, layers: &[Vec<u8>], change: impl FnOnce(&mut Value)) -> crate::site::Outcome {
    put(
        &site.data().join("store"),
        "docker.io/library/evil:latest",
        layers,
        change,
    );
    site.dockerfile("FROM evil\nCOPY Dockerfile /copied/here\n");
    site.build(&["-t", "result"])
}

#[test]
fn archives_that_lead_out_are_refused() {
    let cases: [(&str, Vec<Entry>, &str); 8] = [
        ("dots", vec![Entry::file("../../../escaped", "x")], "`..`"),
        ("dots within", vec![Entry::file("a/../../escaped", "x")], "`..`"),
        (
            "absolute link",
            vec![Entry::link("out", "OUTSIDE"), Entry::file("out/escaped", "x")],
            "out",
        ),
        (
            "relative link",
            vec![
                Entry::link("out", "../../../../.."),
                Entry::hard_link("host", "out/OUTSIDE/secret"),
            ],
            "hard link",
        ),
        (
            "hard link out",
            vec![Entry::hard_link("p", "../../../../OUTSIDE/secret")],
            "hard link",
        ),
        (
            "hard link absolute",
            vec![Entry::hard_link("p", "OUTSIDE/secret")],
            "hard link",
        ),
        (
            "hard link over a link",
            vec![
                Entry::link("l", "OUTSIDE/secret"),
                Entry::hard_link("l2", "l"),
                Entry::file("l2/x", "x"),
            ],
            "l2",
        ),
        ("whiteout device", vec![Entry::device("etc", 0, 0)], "0:0"),
    ];
    for (case, entries, want) in cases {
        let site = Site::new();
        let outside = site.dir().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "untouched").unwrap();
        // The place is known only now; its length is bounded by a tar field.
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|e| e.replaced("OUTSIDE", &outside.display().to_string()))
            .collect();
        let log = build_on(&site, &[layer(&entries)], |_| {}).bad(1);
        assert!(log.contains(want), "{case}: {log}");
        assert!(
            log.contains("   2 | >>> ") && log.contains("cannot unpack layer sha256:"),
            "{case}: {log}"
        );
        assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "{case}");
        assert!(!site.dir().join("escaped").exists() && !site.data().join("escaped").exists());
    }
}

#[test]
fn links_of_a_lower_layer_are_no_way_out() {
    let site = Site::new();
    let outside = site.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let lower = layer(&[
        Entry::dir("etc/", 0o755),
        Entry::link("copied", &outside.display().to_string()),
        Entry::link("etc/passwd", "/proc/1/environ"),
    ]);
    build_on(&site, &[lower], |_| {}).good();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let inside = format!("{}/here", outside.display().to_string().trim_start_matches('/'));
    assert!(
        site.image("result").has(&inside),
        "the link leads to its target inside the image"
    );
    // A passwd that leads out of the image is no passwd.
    site.dockerfile("FROM evil\nCOPY --chown=root Dockerfile /x\n");
    assert!(site.build(&[]).bad(1).contains("no user `root`"));
}

#[test]
fn attributes_that_steer_the_overlay_are_dropped() {
    let site = Site::new();
    let lower = layer(&[Entry::dir("d/", 0o755), Entry::file("d/hidden?", "still here")]);
    let upper = layer(&[Entry::dir("d/", 0o755)
        .with_record("SCHILY.xattr.user.overlay.opaque", b"y")
        .with_record("SCHILY.xattr.user.overlay.redirect", b"/etc")
        .with_record("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .with_record("SCHILY.xattr.security.selinux", b"host_t")
        .with_record("SCHILY.xattr.user.kept", b"yes")]);
    put(
        &site.data().join("store"),
        "docker.io/library/evil:latest",
        &[lower, upper],
        |_| {},
    );
    let image = site.image_of("FROM evil AS e\nFROM base\nCOPY --from=e /d /d\nCOPY --from=e / /all/\n");
    assert_eq!(image.text("d/hidden?"), "still here");
    assert_eq!(image.node("all/d").xattrs.keys().collect::<Vec<_>>(), ["user.kept"]);
}

#[test]
fn documents_that_disagree_are_refused() {
    let good = layer(&[Entry::file("f", "x")]);
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 4] = [
        (
            "wrong diff_id",
            |c| c["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "0".repeat(64))),
            "but the image config says",
        ),
        ("missing diff_id", |c| c["rootfs"]["diff_ids"] = json!([]), "malformed"),
        (
            "malformed diff_id",
            |c| c["rootfs"]["diff_ids"][0] = json!("sha256:../../../x"),
            "digest",
        ),
        (
            "no rootfs",
            |c| drop(c.as_object_mut().unwrap().remove("rootfs")),
            "malformed",
        ),
    ];
    for (case, change, want) in cases {
        let site = Site::new();
        let log = build_on(&site, std::slice::from_ref(&good), change).bad(1);
        assert!(log.contains(want) && log.contains("Dockerfile:"), "{case}: {log}");
    }
    for trigger in [
        "FROM other",
        "ONBUILD RUN x",
        "RUN x\nRUN y",
        "# only a comment",
        "",
        "NOPE",
        "COPY <<EOF /x",
        "RUN --mount=nope x",
    ] {
        let site = Site::new();
        let log = build_on(&site, std::slice::from_ref(&good), |c| {
            c["config"] = json!({"OnBuild": [trigger]});
        })
        .bad(1);
        assert!(
            log.contains("`ONBUILD ") && log.contains("Dockerfile:1:6"),
            "{trigger}: {log}"
        );
    }
}

#[test]
fn damaged_layers_are_refused() {
    let whole = layer(&[Entry::file("f", &"x".repeat(3000)), Entry::file("g", "y")]);
    let mut garbage = whole.clone();
    garbage[512..700].fill(0xff);
    garbage[148..156].fill(b'7');
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 100]].concat();
    for (case, bytes) in [
        ("cut", whole[..1800].to_vec()),
        ("garbage", garbage),
        ("broken gzip", gzip),
    ] {
        let site = Site::new();
        let log = build_on(&site, &[bytes], |_| {}).bad(1);
        assert!(
            log.contains("cannot unpack layer") && log.contains("   2 | >>> "),
            "{case}: {log}"
        );
    }
}

#[test]
fn privileged_devices_and_owners_of_a_base_survive_but_do_not_work() {
    if !is_root("privileged_devices_and_owners_of_a_base_survive_but_do_not_work") {
        return;
    }
    let site = Site::new();
    let passwd = "root:x:0:0::/root:/bin/sh\n";
    let entries = [
        Entry::device("null", 1, 3),
        Entry::dir("etc/", 0o755),
        Entry::file("etc/passwd", passwd).owned_by(70_000, 0o7_777_777),
        Entry::device("etc/group", 1, 5),
    ];
    put(
        &site.data().join("store"),
        "docker.io/library/evil:latest",
        &[layer(&entries)],
        |_| {},
    );
    let image = site.image_of(
        "FROM evil AS e\nFROM base\nCOPY --from=e / /e/\nRUN (echo x > /e/null) 2>/dev/null && touch /usable || true\n",
    );
    assert_eq!((image.node("e/null").kind, image.node("e/null").device), ('c', (1, 3)));
    assert_eq!(
        image.list("e/etc/passwd"),
        format!("f 644 70000:2097151 e/etc/passwd = {}\n", passwd.trim_end())
    );
    assert!(!image.has("usable"));
    // The group file of an image may be a device that never ends or bites: it is not opened.
    let log = site.error_of("FROM evil\nCOPY --chown=0:some Dockerfile /x\n");
    assert!(log.contains("etc/group") && log.contains("no regular file"), "{log}");
}

#[test]
fn directories_without_end_are_an_error_and_are_cleaned_up() {
    let site = Site::new();
    let nest = |depth: u32| {
        format!(
            "FROM base\nRUN i=0; while [ $i -lt {depth} ]; do mkdir d 2>/dev/null && cd d 2>/dev/null || break; i=$((i+1)); done; true\nRUN rm -rf /d\n"
        )
    };
    let log = site.error_of(&nest(1100));
    assert!(
        log.contains("nested more than 1024 levels") && log.contains("   2 | >>> "),
        "{log}"
    );
    site.dockerfile(&nest(900));
    site.build(&[]).good();
    // The same in the context.
    let deep = "d/".repeat(900);
    site.file(&format!("{deep}file"), "x")
        .dockerfile("FROM base\nCOPY d /d\n");
    site.build(&[]).good();
}
