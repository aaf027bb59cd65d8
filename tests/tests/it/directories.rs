//! Builds where nothing can be mounted give the images that all others give.

use crate::binary::is_root;
use crate::site::{Outcome, Site};
use std::process::Command;

/// Dockerfiles without RUN over [`context`], one feature each.
const CASES: &[&str] = &[
    "FROM base\nCOPY src /x\nCOPY src/a /y\nCOPY t.txt /dir/\nCOPY t.txt src/a /two/\nWORKDIR /w\nCOPY t.txt .\nCOPY t.txt rel/name\n",
    // Over what is there: files, directories, links.
    "FROM base\nCOPY t.txt /etc/passwd\nCOPY src /etc/\nCOPY t.txt /bin/t\nCOPY src /usr\nCOPY t.txt /home/app/t\n",
    "FROM base\nCOPY links /\nCOPY t.txt /abs/\nCOPY t.txt /rel/new/\nCOPY t.txt /dangling\nCOPY src /dangling-dir/tree\n",
    // Owners and modes.
    "FROM base\nCOPY --chown=app t.txt /n/ame\nCOPY --chown=app:extra src /tree\nCOPY --chown=55:66 --chmod=0640 src /m\nCOPY --chmod=u+s,go=rX src /s\n",
    "FROM base\nCOPY --chown=app --link t.txt /n/ame\nCOPY --link src /x\nCOPY t.txt /x/t\nCOPY --link --chown=9 src /x\n",
    "FROM base\nUSER app\nWORKDIR /home/app/deep/er\nUSER 5:6\nWORKDIR /other\nUSER root\nCOPY --chmod=2755 src /sg\nWORKDIR /sg/new\n",
    // Links, pipes, archives.
    "FROM base\nCOPY hard /h\nCOPY hard/one /one\nCOPY odd /odd\nFROM scratch\nCOPY --from=0 /h /h\nCOPY --from=0 /odd /odd\n",
    "FROM base\nADD archive.tar /a/\nADD archive.tar.gz /usr/\nADD archive.tar /a/\nCOPY archive.tar /a/\n",
    "FROM base\nCOPY <<one <<two /here/\n1\none\n2\ntwo\nCOPY <<EOF /here/one\nother\nEOF\n",
    // Stages: that stand on each other, and that are copied from while others stand on them.
    "FROM base AS a\nCOPY src /a\nFROM a AS b\nCOPY t.txt /b\nFROM a AS c\nCOPY t.txt /c\nCOPY --from=a /a /from-a\nFROM b\nCOPY --from=c / /c\nCOPY --from=a /a /from-a\nCOPY --from=b /b /from-b\n",
    "FROM base AS a\nCOPY src /a\nWORKDIR /a/w\nFROM scratch AS b\nCOPY --from=a / /\nFROM b\nCOPY --from=base /etc /etc2\nCOPY --from=a --chown=3:4 /a /b\n",
    "FROM scratch\nCOPY t.txt /\nCOPY --link t.txt /\n",
    "FROM scratch\nWORKDIR /\nCOPY empty /\n",
    "FROM base\nCOPY --parents --exclude=**/b ./src/./sub t.txt /p/\nCOPY --exclude=a src /e\n",
    // What only the config has, and triggers.
    "FROM base AS on\nONBUILD COPY t.txt /triggered\nONBUILD WORKDIR /later\nFROM on\nENV A=b\nLABEL x=y\nCMD [\"true\"]\n",
    // The same layer twice, upon different ones.
    "FROM base\nCOPY src /x\nCOPY t.txt /y\nCOPY src /x\n",
];

/// A context with something of everything.
fn site() -> Site {
    let site = Site::new();
    site.file("t.txt", "T")
        .file("src/a", "A")
        .file("src/sub/b", "B")
        .mode("src/sub/b", 0o600);
    site.mode("src/sub", 0o750).link("src/link", "a");
    site.file("links/real/dir/f", "F")
        .link("links/abs", "/real/dir")
        .link("links/rel", "real/dir");
    site.link("links/dangling", "/later/file")
        .link("links/dangling-dir", "/later/dir");
    site.file("hard/one", "same").file("odd/plain", "x");
    std::fs::hard_link(site.context().join("hard/one"), site.context().join("hard/two")).unwrap();
    std::fs::create_dir(site.context().join("empty")).unwrap();
    let shell = |script: &str| {
        let status = Command::new("sh")
            .args(["-ec", script])
            .current_dir(site.context())
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    };
    shell(
        "mkfifo odd/pipe; mkdir -p arc/usr/bin arc/deep; echo arc > arc/usr/bin/tool; ln arc/usr/bin/tool arc/deep/hard; ln -s ../usr arc/deep/l; chmod 1777 arc/deep",
    );
    shell("tar -cf archive.tar --owner=7 --group=8 -C arc .; tar -czf archive.tar.gz -C arc usr deep; rm -r arc");
    site
}

#[test]
fn privileged_images_are_the_same_without_mounts() {
    if !is_root("privileged_images_are_the_same_without_mounts") {
        return;
    }
    let site = site();
    for text in CASES {
        site.dockerfile(text);
        let digests: Vec<String> = ["namespaces", "chroot", "none"]
            .iter()
            .map(|sandbox| {
                site.build(&["--sandbox", sandbox, "--no-cache", "-t", "result"]).good();
                site.digest_of("result")
            })
            .collect();
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "{text}: {digests:?}"
        );
    }
}

/// A user that no system has.
const UID: &str = "61235";

#[test]
fn privileged_an_ordinary_user_without_namespaces_makes_the_same_images() {
    if !is_root("privileged_an_ordinary_user_without_namespaces_makes_the_same_images") {
        return;
    }
    let site = site();
    let shell = |script: &str| {
        let status = Command::new("sh")
            .args(["-ec", script])
            .current_dir(site.dir())
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    };
    shell(
        "mkdir -p dev/dev; mknod dev/dev/sda b 8 0; mknod dev/dev/null c 1 3; cp /usr/bin/busybox dev/cap; chmod 755 dev/cap; setcap cap_net_raw+ep dev/cap; \
         tar --xattrs --xattrs-include='*' -cf context/special.tar -C dev .; rm -r dev",
    );
    std::fs::copy(crate::binary::roadstead(), site.dir().join("roadstead")).unwrap();
    let own = [
        "FROM base\nADD special.tar /\nCOPY --chown=4:5 --chmod=0000 src /locked\nCOPY --chmod=6711 t.txt /ids\nCOPY t.txt /locked/sub/t\nFROM base\nCOPY --from=0 / /all\n",
        "FROM base\nCOPY --chown=app src /x\nFROM base\nCOPY --from=0 /x /y\nCOPY --chown=7:8 --chmod=2755 src /x\nWORKDIR /x/new/deep\n",
    ];
    for text in CASES.iter().chain(&own) {
        site.dockerfile(text);
        shell("chown -R 0:0 data");
        site.build(&["--sandbox", "namespaces", "--no-cache", "-t", "result"])
            .good();
        let want = site.digest_of("result");
        shell(&format!("chmod 755 .; chown -R {UID}:{UID} data context roadstead"));
        let mut command = Command::new("setpriv");
        site.prepare(&mut command)
            .args(["--reuid", UID, "--regid", UID, "--clear-groups"]);
        command
            .arg(site.dir().join("roadstead"))
            .args(["build", "--sandbox", "none", "--no-cache", "-t", "result"]);
        let outcome = Outcome::of(command.arg(site.context()).env("HOME", site.dir()).output().unwrap()).good();
        assert_eq!(site.digest_of("result"), want, "{text}: {}", outcome.log);
        site.assert_clean();
        shell("chown -R 0:0 context");
    }
}

#[test]
fn privileged_caches_are_shared_by_all_sandboxes() {
    if !is_root("privileged_caches_are_shared_by_all_sandboxes") {
        return;
    }
    let text =
        "FROM base AS a\nCOPY src /a\nWORKDIR /a/w\nFROM base\nCOPY t.txt /t\nCOPY --from=a /a /b\nCOPY t.txt /b/w/\n";
    for (first, second) in [("namespaces", "chroot"), ("chroot", "namespaces"), ("none", "chroot")] {
        let site = site();
        site.dockerfile(text);
        site.build(&["--sandbox", first, "-t", "first"]).good();
        let cached = site.build(&["--sandbox", second, "-t", "second"]).good();
        assert_eq!(cached.ran(), [""; 0], "{first} then {second}");
        assert_eq!(site.digest_of("first"), site.digest_of("second"));
        // One more step upon what is remembered.
        site.dockerfile(&format!("{text}COPY --from=a /a/sub /c\nCOPY t.txt /d\n"));
        let more = site.build(&["--sandbox", second, "-t", "more"]).good();
        assert!(more.ran().contains(&"COPY t.txt /d".to_owned()), "{}", more.log);
        let other = site.with_fresh_data();
        other.build(&["--sandbox", "namespaces", "-t", "more"]).good();
        assert_eq!(site.digest_of("more"), other.digest_of("more"), "{first} then {second}");
    }
}

#[test]
fn privileged_outputs_are_the_same_without_mounts() {
    if !is_root("privileged_outputs_are_the_same_without_mounts") {
        return;
    }
    let site = site();
    site.dockerfile("FROM base AS a\nCOPY src /a\nFROM a\nCOPY --link t.txt /t\nCOPY --chown=5:6 hard /h\n");
    let written = |sandbox: &str, kind: &str| {
        let path = site.out(&format!("{sandbox}-{kind}"));
        let output = format!("type={kind},dest={}", path.display());
        let command = ["--sandbox", sandbox, "--no-cache", "-o", &output];
        site.build(&command).good();
        if kind == "local" {
            let listing = Command::new("sh")
                .args([
                    "-ec",
                    "find . -printf '%P %y %m %U %n %l\\n' | sort; find . -type f | sort | xargs md5sum",
                ])
                .current_dir(&path)
                .output()
                .unwrap();
            return listing.stdout;
        }
        std::fs::read(&path).unwrap()
    };
    for kind in ["local", "tar", "oci", "docker"] {
        let want = written("namespaces", kind);
        assert!(!want.is_empty() && written("chroot", kind) == want, "{kind}");
        assert!(written("none", kind) == want, "{kind}");
    }
}

#[test]
fn privileged_a_command_without_a_sandbox_is_a_clear_error() {
    if !is_root("privileged_a_command_without_a_sandbox_is_a_clear_error") {
        return;
    }
    let site = site();
    site.dockerfile("FROM base\nCOPY t.txt /\nRUN true\n");
    let log = site.build(&["--sandbox", "none"]).bad(1);
    assert!(
        log.contains("cannot run commands here") && log.contains("   3 | >>> RUN true"),
        "{log}"
    );
    assert!(log.contains("hint: "), "{log}");
    // One that is remembered is not run.
    site.build(&["--sandbox", "namespaces", "-t", "first"]).good();
    site.build(&["--sandbox", "none", "-t", "second"]).good();
    assert_eq!(site.digest_of("first"), site.digest_of("second"));
}

#[test]
fn privileged_devices_of_a_base_never_come_to_exist() {
    if !is_root("privileged_devices_of_a_base_never_come_to_exist") {
        return;
    }
    let site = site();
    let script = "mkdir -p dev/dev/deep; mknod dev/dev/null c 1 3; mknod dev/dev/sda b 8 0; mknod dev/dev/deep/kvm c 10 232; chown 5:6 dev/dev/sda; chmod 640 dev/dev/sda; \
                  tar -cf devices.tar -C dev .; rm -r dev";
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(site.context())
        .status()
        .unwrap();
    assert!(made.success());
    let base = "FROM base AS devices\nADD devices.tar /\n";
    for text in [
        format!("{base}COPY t.txt /dev/t\n"),
        format!("{base}FROM base\nCOPY --from=devices /dev /copied\n"),
        format!(
            "{base}FROM base\nCOPY --from=devices --chown=7 --chmod=600 /dev/sda /copied\nCOPY --from=devices /dev/deep /dev/deep\n"
        ),
    ] {
        site.dockerfile(&text);
        site.build(&["--sandbox", "namespaces", "--no-cache", "-t", "first"])
            .good();
        site.build(&["--sandbox", "chroot", "--no-cache", "-t", "second"])
            .good();
        assert_eq!(site.digest_of("first"), site.digest_of("second"), "{text}");
    }
}
