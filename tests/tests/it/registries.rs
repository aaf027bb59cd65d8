//! Base images from registries and pushes to them, with all that goes wrong there.

use crate::registry::{LOGIN, Registry, free_port};
use crate::site::{Site, files_below};
use std::process::Command;

/// Pushes the image `base` to a registry under `name`.
fn push_base(registry: &Registry, name: &str) -> String {
    let site = Site::new();
    let full = format!("{}/{name}", registry.host());
    site.dockerfile("FROM base\nLABEL from=registry\n");
    site.build(&["-t", &full, "--push"]).good();
    full
}

#[test]
fn a_base_from_a_registry_and_a_push_back() {
    let registry = Registry::start();
    let base = push_base(&registry, "team/base:1");
    let site = Site::empty();
    let target = format!("{}/team/app:2", registry.host());
    site.dockerfile(&format!("FROM {base}\nRUN echo made > /made\nCMD [\"x\"]\n"));
    let outcome = site.build(&["-t", &target, "--push"]).good();
    assert!(outcome.log.contains("digest: sha256:"), "{}", outcome.log);
    // Read by others: skopeo names the digest, umoci unpacks it.
    let layout = site.out("layout");
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{target}"))
        .arg(format!("oci:{}:app", layout.display()))
        .output()
        .expect("skopeo is needed");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let image = crate::image::Image::read(&layout, "app");
    assert_eq!(image.text("made"), "made\n");
    assert_eq!(image.config()["Labels"]["from"], "registry");
    let local = crate::image::Image::read(&site.data().join("store"), &target);
    assert_eq!(local.digest, image.digest);
    let bundle = site.out("bundle");
    let mut umoci = Command::new("umoci");
    umoci
        .arg("unpack")
        .args((!rustix::process::geteuid().is_root()).then_some("--rootless"));
    let unpacked = umoci
        .arg("--image")
        .arg(format!("{}:app", layout.display()))
        .arg(&bundle)
        .output()
        .expect("umoci is needed");
    assert!(
        unpacked.status.success(),
        "{}",
        String::from_utf8_lossy(&unpacked.stderr)
    );
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/made")).unwrap(), "made\n");
    let found = files_below(&bundle.join("rootfs")).len();
    assert_eq!(found, image.tree.len(), "umoci and our reader see the same files");
}

#[test]
fn a_base_that_is_not_needed_is_not_moved() {
    let registry = Registry::start();
    let base = push_base(&registry, "base:1");
    let site = Site::empty();
    let target = format!("{}/app:1", registry.host());
    site.dockerfile(&format!(
        "FROM {base}\nENV a=b\nLABEL c=d\nEXPOSE 80\nUSER 1000\nCMD [\"x\"]\n"
    ));
    site.build(&["-t", &target, "--push"]).good();
    let blobs = site.data().join("store/blobs/sha256");
    let sizes: Vec<u64> = std::fs::read_dir(&blobs)
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .collect();
    // Documents only: the base holds a busybox of two million bytes and layers besides.
    assert!(sizes.iter().all(|s| *s < 10_000), "{sizes:?}");
    assert_eq!(files_below(&site.data().join("layers")).len(), 0);
    let inspected = Command::new("skopeo")
        .args([
            "inspect",
            "--tls-verify=false",
            "--config",
            &format!("docker://{target}"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(inspected.stdout).unwrap();
    assert!(
        text.contains("a=b") && text.contains("\"from\":\"registry\"") || text.contains("\"from\": \"registry\""),
        "{text}"
    );
    // COPY --link needs no files of the base either; an ordinary one does.
    site.file("f", "x")
        .dockerfile(&format!("FROM {base}\nCOPY --link f /f\n"));
    site.build(&["-t", &target, "--push"]).good();
    assert!(
        std::fs::read_dir(&blobs)
            .unwrap()
            .all(|e| e.unwrap().metadata().unwrap().len() < 10_000)
    );
    site.dockerfile(&format!("FROM {base}\nCOPY f /f\n"));
    site.build(&["-t", &target, "--push"]).good();
    assert!(
        std::fs::read_dir(&blobs)
            .unwrap()
            .any(|e| e.unwrap().metadata().unwrap().len() > 500_000)
    );
}

#[test]
fn names_map_to_other_places() {
    let registry = Registry::start();
    push_base(&registry, "mirror/base:1");
    let site = Site::empty();
    site.registries(&format!(
        "[[registry]]\nprefix = \"registry.invalid/team\"\nlocation = \"{}/mirror\"\ninsecure = true\n",
        registry.host()
    ));
    site.dockerfile("FROM registry.invalid/team/base:1\nRUN echo mapped\n");
    let outcome = site.build(&["-t", "registry.invalid/team/out:1", "--push"]).good();
    assert!(outcome.said().contains(&"mapped"));
}

#[test]
fn what_goes_wrong_with_a_base() {
    let registry = Registry::start();
    let closed = free_port();
    let host = registry.host();
    for (image, want) in [
        (format!("{host}/no/such:1"), "no/such"),
        (format!("{host}/no/such@sha256:{}", "0".repeat(64)), "no/such"),
        (format!("127.0.0.1:{closed}/x:1"), "127.0.0.1"),
        ("registry.invalid/x:1".to_owned(), "registry.invalid"),
    ] {
        let site = Site::empty();
        let log = site.error_of(&format!("FROM {image}\nRUN true\n"));
        assert!(
            log.contains(want)
                && log.contains("cannot use base image")
                && log.contains("Dockerfile:1:6")
                && log.contains("^^^"),
            "{image}: {log}"
        );
        let log = site.error_of(&format!("FROM scratch\nCOPY --from={image} /a /b\n"));
        assert!(log.contains(want) && log.contains("   2 | >>> "), "{image}: {log}");
    }
}

#[test]
fn logins() {
    let registry = Registry::with_login();
    let site = Site::new();
    let target = format!("{}/private/app:1", registry.host());
    site.dockerfile("FROM base\nRUN touch /x\n");
    let auth = |user: &str, password: &str| {
        let text = format!("{user}:{password}");
        let encoded = base64(text.as_bytes());
        std::fs::write(
            site.dir().join("config/config.json"),
            format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{encoded}\"}}}}}}", registry.host()),
        )
        .unwrap();
    };
    let log = site.build(&["-t", &target, "--push"]).bad(1);
    assert!(log.contains(&registry.host()), "{log}");
    auth("tester", "wrong-password");
    let log = site.build(&["-t", &target, "--push"]).bad(1);
    assert!(
        log.contains(&registry.host()) && !log.contains("wrong-password"),
        "{log}"
    );
    // Nothing is named after a failed push.
    site.dockerfile(&format!("FROM {target}\nRUN true\n"));
    let log = site.build(&["--pull"]).bad(1);
    assert!(
        log.contains("cannot use base image") && log.contains("Dockerfile:1:6") && !log.contains("wrong-password"),
        "{log}"
    );
    auth(LOGIN.0, LOGIN.1);
    site.dockerfile("FROM base\nRUN touch /x\n");
    site.build(&["-t", &target, "--push"]).good();
    let other = Site::empty();
    std::fs::copy(
        site.dir().join("config/config.json"),
        other.dir().join("config/config.json"),
    )
    .unwrap();
    other.dockerfile(&format!("FROM {target}\nRUN test -e /x\n"));
    other.build(&[]).good();
}

#[test]
fn damaged_blobs_of_a_registry_are_refused() {
    let registry = Registry::start();
    let base = push_base(&registry, "base:1");
    let maker = Site::empty();
    maker.dockerfile(&format!("FROM {base}\n"));
    maker.build(&["-t", "seen"]).good();
    let layers = maker.image_documents("seen");
    let digest = layers[0]["digest"].as_str().unwrap().to_owned();
    let path = registry.blob_path(&digest);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[1000] ^= 1;
    for (case, bytes) in [("cut", whole[..whole.len() / 2].to_vec()), ("flipped", flipped)] {
        std::fs::write(&path, bytes).unwrap();
        let site = Site::empty();
        let log = site.error_of(&format!("FROM {base}\nRUN true\n"));
        assert!(
            log.contains(&digest[..20]) && log.contains("   2 | >>> "),
            "{case}: {log}"
        );
        assert!(
            !site.data().join("store/blobs").join(digest.replace(':', "/")).exists(),
            "{case}"
        );
    }
    std::fs::write(&path, whole).unwrap();
    maker.dockerfile(&format!("FROM {base}\nRUN true\n"));
    maker.build(&[]).good();
}

#[test]
fn a_huge_manifest_is_refused() {
    let registry = Registry::start();
    let base = push_base(&registry, "base:1");
    let maker = Site::empty();
    maker.dockerfile(&format!("FROM {base}\n"));
    maker.build(&["-t", "seen"]).good();
    let digest = maker.digest_of("seen");
    // The registry serves what lies on its disk.
    std::fs::write(registry.blob_path(&digest), vec![b' '; 20 << 20]).unwrap();
    let log = Site::empty().error_of(&format!("FROM {}@{digest}\nRUN true\n", base.trim_end_matches(":1")));
    assert!(
        log.contains("Dockerfile:1:6") && log.contains("cannot use base image"),
        "{log}"
    );
}

/// Encodes in base64.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            let letter = LETTERS[usize::try_from(bits >> (18 - 6 * at) & 63).unwrap()];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
