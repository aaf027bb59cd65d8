//! `--output` in all its forms, and reproducible digests.

use crate::image::Image;
use crate::site::{Outcome, Site};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

const TEXT: &str = "FROM base AS b\nRUN mkdir -p /w && echo in > /w/in && chmod 750 /w/in && ln /w/in /w/hard && ln -s in /w/link\nFROM scratch\nCOPY --from=b --chown=5:6 /w /w\n";

fn tar_list(path: &std::path::Path) -> String {
    let output = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn directories_and_tars() {
    let site = Site::new();
    site.dockerfile(TEXT);
    for form in ["DEST", "type=local,dest=DEST"] {
        let out = site.out("local");
        site.build(&["-o", &form.replace("DEST", out.to_str().unwrap())]).good();
        assert_eq!(std::fs::read_to_string(out.join("w/in")).unwrap(), "in\n");
        let metadata = std::fs::metadata(out.join("w/in")).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, metadata.nlink()), (0o750, 2));
        // The caller owns what the caller asked for.
        assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
        assert_eq!(std::fs::read_link(out.join("w/link")).unwrap().to_str(), Some("in"));
        std::fs::remove_dir_all(&out).unwrap();
    }
    let file = site.out("x.tar");
    site.build(&["--output", &format!("type=tar,dest={}", file.display())])
        .good();
    let list = tar_list(&file);
    assert!(
        list.lines()
            .any(|l| l.starts_with("-rwxr-x--- 5/6") && l.ends_with(" w/hard")),
        "{list}"
    );
    assert!(list.lines().any(|l| l.ends_with("w/in link to w/hard")), "{list}");
    let Outcome { stdout, .. } = site.build(&["-o", "-"]).good();
    assert!(stdout == std::fs::read(&file).unwrap());
}

#[test]
fn archives_that_others_read() {
    let site = Site::new();
    site.dockerfile(TEXT);
    for kind in ["oci", "docker"] {
        let file = site.out(&format!("{kind}.tar"));
        site.build(&["-t", "x:v1", "-o", &format!("type={kind},dest={}", file.display())])
            .good();
        let layout = site.out(&format!("read-{kind}"));
        let prefix = if kind == "oci" { "oci-archive" } else { "docker-archive" };
        let copied = Command::new("skopeo")
            .args(["copy", "--quiet"])
            .arg(format!("{prefix}:{}", file.display()))
            .arg(format!("oci:{}:x", layout.display()))
            .output();
        let copied = copied.expect("skopeo is needed");
        assert!(
            copied.status.success(),
            "{kind}: {}",
            String::from_utf8_lossy(&copied.stderr)
        );
        let image = Image::read(&layout, "x");
        assert_eq!(
            image.list("w"),
            "d 755 5:6 w\nf 750 5:6 w/hard = in\nf 750 5:6 w/in = in\nl 777 5:6 w/link -> in\n"
        );
        if kind == "oci" {
            assert_eq!(
                image.digest,
                Image::read(&site.data().join("store"), "docker.io/library/x:v1").digest
            );
        }
    }
    for (output, want) in [
        ("type=local", "dest"),
        ("type=what,dest=x", "type=what"),
        ("type=image,compression=estargz", "estargz"),
        ("type=registry", "needs a name"),
    ] {
        let log = site.build(&["-o", output]).bad(2);
        assert!(log.contains(want), "{output}: {log}");
    }
    let log = site.build(&["-o", "type=tar,dest=/no/such/dir/x.tar"]).bad(1);
    assert!(log.contains("/no/such/dir/x.tar"), "{log}");
}

#[test]
fn same_inputs_same_digest() {
    let site = Site::new();
    site.file("src/z", "z")
        .file("src/a", vec![b'x'; 3 << 20])
        .link("src/l", "z");
    site.dockerfile("FROM base\nCOPY src /src\nRUN seq 1 200000 > /numbers; for i in $(seq 1 50); do echo $i > /tmp/$i; done\nWORKDIR /w\nRUN date > /dev/null; touch /now\n");
    let mut digests = Vec::new();
    for (case, wrap) in [
        ("first", None),
        ("second", None),
        ("one core", Some("0")),
        ("another time zone", None),
    ] {
        let fresh = site.with_fresh_data();
        let mut command = match wrap {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores]).arg(crate::binary::roadstead());
                command
            }
            None => Command::new(crate::binary::roadstead()),
        };
        fresh
            .prepare(&mut command)
            .args(["build", "-t", "result"])
            .arg(fresh.context());
        if case == "another time zone" {
            command.env("TZ", "Asia/Tokyo").env("LC_ALL", "tr_TR.UTF-8");
        }
        Outcome::of(command.output().unwrap()).good();
        digests.push(fresh.image("result").digest);
        // Other times of the context's files change nothing.
        assert!(
            Command::new("touch")
                .arg(site.context().join("src/z"))
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

#[test]
fn the_epoch_bounds_all_times() {
    let site = Site::new();
    site.file("new", "n").file("old", "o").dockerfile(
        "FROM base\nCOPY new old /\nRUN touch /made && date -r /made +%s > /seen && stat -c %y /old > /old-seen\nCOPY --from=base /etc/passwd /p\n",
    );
    assert!(
        Command::new("touch")
            .args(["-d", "@1000000000.5"])
            .arg(site.context().join("old"))
            .status()
            .unwrap()
            .success()
    );
    let mut command = site.command(&["-t", "result"]);
    Outcome::of(command.env("SOURCE_DATE_EPOCH", "1500000000").output().unwrap()).good();
    let image = site.image("result");
    assert_eq!(
        (
            image.node("new").mtime,
            image.node("old").mtime,
            image.node("made").mtime
        ),
        (1_500_000_000, 1_000_000_000, 1_500_000_000)
    );
    // A step sees what the image holds: whole seconds.
    assert!(
        image.text("old-seen").contains(":40.000000000 "),
        "{}",
        image.text("old-seen")
    );
    assert_eq!(image.document["created"], "2017-07-14T02:40:00Z");
    site.build(&["-t", "again", "--build-arg", "SOURCE_DATE_EPOCH=1500000000"])
        .good();
    assert_eq!(site.image("again").digest, image.digest);
    site.build(&["-t", "default"]).good();
    assert_eq!(site.image("default").node("new").mtime, 315_532_801);
    for bad in ["soon", "-1", "1.5", "99999999999999"] {
        let log = site.build(&["--build-arg", &format!("SOURCE_DATE_EPOCH={bad}")]).bad(1);
        assert!(log.contains("SOURCE_DATE_EPOCH"), "{log}");
    }
}
