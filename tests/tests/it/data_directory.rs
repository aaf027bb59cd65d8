//! Data directories that cannot be used as they are: full, read-only, in pieces, of an older version. A build fails and says why, or
//! goes on as if nothing were remembered.

use crate::binary::{is_root, roadstead};
use crate::site::{Outcome, Site, files_below};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

const TEXT: &str = "FROM base AS s\nRUN dd if=/dev/urandom of=/random bs=1000 count=500 2>/dev/null; md5sum < /usr/bin/busybox > /sum\n\
     FROM base\nCOPY f /f\nCOPY --from=s /sum /\nRUN cat /usr/bin/busybox /usr/bin/busybox > /twice\n";

fn site() -> Site {
    let site = Site::new();
    site.file("f", "content").dockerfile(TEXT);
    site
}

/// Runs a script in which `$BUILD` builds the image `app`, with mounts of its own; gives what it said.
fn in_own_mounts(site: &Site, script: &str) -> Outcome {
    let build = format!("{} build -t app {}", roadstead().display(), site.context().display());
    let mut command = Command::new("unshare");
    let command = site.prepare(&mut command).args(["--mount", "sh", "-c", script]);
    let command = command.env("BUILD", build).env("ROADSTEAD", roadstead());
    Outcome::of(command.output().unwrap())
}

fn assert_says_why(outcome: &Outcome, context: &str) {
    assert!(!outcome.log.contains("panicked"), "{context}: {}", outcome.log);
    assert!(
        outcome.log.to_lowercase().contains("error: "),
        "{context}: {}",
        outcome.log
    );
}

#[test]
fn privileged_a_full_disk_fails_the_build_and_damages_nothing() {
    if !is_root("a full disk") {
        return;
    }
    let site = site();
    site.build(&["-t", "app"]).good();
    let digest = site.digest_of("app");
    let store = Site::new();
    let mut failed = 0;
    // From hardly more than the base takes, to enough.
    for kilobytes in (2300..24_000).step_by(1100) {
        let script = format!(
            "mount -t tmpfs -o size={kilobytes}k,mode=700 none $ROADSTEAD_DATA || exit 99\ncp -a {}/store $ROADSTEAD_DATA/ || exit 98\n\
             $BUILD; first=$?\nmount -o remount,size=100m $ROADSTEAD_DATA || exit 97\n\
             $ROADSTEAD cache check >&2 || exit 96\n$BUILD || exit 95\ncp $ROADSTEAD_DATA/store/index.json {} || exit 94\n\
             $ROADSTEAD cache check >&2 || exit 93\nexit $first",
            store.data().display(),
            site.out("index.json").display()
        );
        let outcome = in_own_mounts(&site, &script);
        let context = format!("{kilobytes} kB");
        match outcome.status {
            Some(0) => {}
            Some(1) => {
                failed += 1;
                assert_says_why(&outcome, &context);
                assert!(
                    outcome.log.contains("No space left on device"),
                    "{context}: {}",
                    outcome.log
                );
            }
            other => panic!("{context}: {other:?}: {}", outcome.log),
        }
        let index = std::fs::read_to_string(site.out("index.json")).unwrap();
        assert!(index.contains(&digest), "{context}: another image: {}", outcome.log);
    }
    assert!(failed > 2, "only {failed} builds met a full disk");
}

#[test]
fn privileged_a_read_only_data_directory_is_an_error() {
    if !is_root("a read-only data directory") {
        return;
    }
    let site = site();
    for warm in [false, true] {
        if warm {
            site.build(&["-t", "app"]).good();
        }
        let script = "mount --bind $ROADSTEAD_DATA $ROADSTEAD_DATA && mount -o remount,bind,ro $ROADSTEAD_DATA || exit 99\n$BUILD";
        let outcome = in_own_mounts(&site, script);
        assert_eq!(outcome.status, Some(1), "{}", outcome.log);
        assert_says_why(&outcome, "read-only");
        assert!(outcome.log.contains("Read-only file system"), "{}", outcome.log);
    }
}

#[test]
fn privileged_parts_on_other_file_systems_work_or_are_named() {
    if !is_root("parts on other file systems") {
        return;
    }
    let site = site();
    site.build(&["-t", "app"]).good();
    let digest = site.digest_of("app");
    for (part, works) in [
        ("store", true),
        ("cache", true),
        ("cache-mounts", true),
        ("tmp", false),
        ("layers", false),
    ] {
        let elsewhere = site.out("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        let script = format!(
            "mount -t tmpfs -o mode=700 none {0} || exit 99\nmv $ROADSTEAD_DATA/{part} {0}/ || exit 98\nln -s {0}/{part} $ROADSTEAD_DATA/{part}\n\
             $BUILD --no-cache; status=$?; cp $ROADSTEAD_DATA/store/index.json {1}\nrm $ROADSTEAD_DATA/{part}; mv {0}/{part} $ROADSTEAD_DATA/; exit $status",
            elsewhere.display(),
            site.out("index.json").display()
        );
        let outcome = in_own_mounts(&site, &script);
        if works {
            assert_eq!(outcome.status, Some(0), "{part}: {}", outcome.log);
            assert!(
                std::fs::read_to_string(site.out("index.json"))
                    .unwrap()
                    .contains(&digest)
            );
        } else {
            assert_eq!(outcome.status, Some(1), "{part}: {}", outcome.log);
            assert!(
                outcome.log.contains("lies on another file system"),
                "{part}: {}",
                outcome.log
            );
        }
        // Back in its place, everything there has other inodes now, and is looked at anew.
        site.build(&["-t", "app"]).good();
        assert_eq!(site.digest_of("app"), digest, "{part}");
    }
}

#[test]
fn what_an_older_version_left_is_not_taken_for_anything_else() {
    let site = site();
    site.build(&["-t", "app"]).good();
    let digest = site.digest_of("app");
    // As it was before: records without a digest, layers without a seal, blobs without stamps.
    for record in files_below(&site.data().join("cache"))
        .iter()
        .filter(|path| path.is_file())
    {
        let bytes = std::fs::read(record).unwrap();
        let content = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        std::fs::write(record, &bytes[content..]).unwrap();
    }
    for layer in std::fs::read_dir(site.data().join("layers")).unwrap() {
        let (layer, old) = (layer.unwrap().path(), site.data().join("old"));
        if layer.is_dir() {
            std::fs::rename(layer.join("fs"), &old).unwrap();
            std::fs::remove_dir_all(&layer).unwrap();
            std::fs::rename(&old, &layer).unwrap();
        }
    }
    std::fs::remove_dir_all(site.data().join("store/checked")).unwrap();
    let again = site.build(&["-t", "app"]).good();
    assert_eq!(again.ran().len(), 4, "{}", again.log);
    assert_eq!(site.digest_of("app"), digest);
    assert_eq!(site.build(&["-t", "app"]).good().ran(), [""; 0]);
}

#[test]
fn what_is_no_data_directory_is_an_error() {
    let site = site();
    let file = site.out("file");
    std::fs::write(&file, "x").unwrap();
    let build = |data: &Path| {
        let mut command = site.command(&[]);
        Outcome::of(command.env("ROADSTEAD_DATA", data).output().unwrap())
    };
    let outcome = build(&file);
    assert_eq!(outcome.status, Some(1), "{}", outcome.log);
    assert_says_why(&outcome, "a file");
    for part in ["store", "layers", "cache", "cache-mounts", "tmp"] {
        let data = site.out(&format!("data-{part}"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join(part), "x").unwrap();
        let outcome = build(&data);
        assert_eq!(outcome.status, Some(1), "{part}: {}", outcome.log);
        assert_says_why(&outcome, part);
        assert!(
            outcome.log.contains(&*data.join(part).to_string_lossy()),
            "{part}: {}",
            outcome.log
        );
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Others could read the images, and stop all builds by holding a lock.
#[test]
fn only_its_owner_may_enter() {
    let site = site();
    let old = [site.data(), site.data().join("store"), site.data().join("cache")];
    for path in &old {
        std::fs::create_dir_all(path).unwrap();
        set_mode(path, 0o755);
    }
    let layout = site.out("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    site.build(&["-t", "app", "-o", &output]).good();
    for part in ["", "store", "cache", "layers", "tmp", "cache-mounts"] {
        assert_eq!(mode(&site.data().join(part)), 0o700, "{part}");
    }
    // What is exported is for others to read.
    assert_eq!(mode(&layout), mode(&site.context()));
    assert_eq!(mode(&layout.join("blobs/sha256")), mode(&site.context()));
    let fresh = site.out("new/data");
    let mut command = site.command(&["--call", "check"]);
    Outcome::of(command.env("ROADSTEAD_DATA", &fresh).output().unwrap()).good();
    assert!(!fresh.exists());
    let mut command = Command::new(roadstead());
    let command = site.prepare(&mut command).args(["image", "ls"]);
    Outcome::of(command.env("ROADSTEAD_DATA", &fresh).output().unwrap()).good();
    assert_eq!((mode(&fresh), mode(&fresh.join("store"))), (0o700, 0o700));
}

#[test]
fn a_directory_that_holds_other_things_keeps_its_mode() {
    let site = site();
    std::fs::write(site.data().join("other"), "").unwrap();
    set_mode(&site.data(), 0o755);
    set_mode(&site.data().join("store"), 0o755);
    site.build(&["-t", "app"]).good();
    assert_eq!((mode(&site.data()), mode(&site.data().join("store"))), (0o755, 0o700));
    set_mode(&site.data(), 0o1777);
    let log = site.build(&["-t", "app"]).bad(1);
    assert!(
        log.contains(&format!(
            "cannot use `{}`: other users can write to it",
            site.data().display()
        )),
        "{log}"
    );
    assert_eq!(mode(&site.data()), 0o1777);
}

#[test]
fn privileged_what_belongs_to_another_user_is_not_used() {
    if !is_root("a foreign data directory") {
        return;
    }
    let site = site();
    site.build(&["-t", "app"]).good();
    for part in ["", "store", "cache", "layers", "tmp"] {
        let path = site.data().join(part);
        chown(&path, Some(1), None).unwrap();
        for arguments in [&["build", "-t", "app"][..], &["image", "ls"], &["cache", "du"]] {
            let mut command = Command::new(roadstead());
            let command = site.prepare(&mut command).args(arguments);
            let context = (arguments[0] == "build").then(|| site.context());
            let log = Outcome::of(command.args(context).output().unwrap()).bad(1);
            let path = path.display().to_string();
            let says = format!("cannot use `{}`: it belongs to user 1", path.trim_end_matches('/'));
            assert!(log.contains(&says) && log.contains("not to user 0 (root)"), "{log}");
            assert!(log.contains("hint: give it to the user who builds"), "{log}");
        }
        chown(&path, Some(0), None).unwrap();
    }
    site.build(&["-t", "app"]).good();
}
