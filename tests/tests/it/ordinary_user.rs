//! Builds as an ordinary user: with ranges in `/etc/subuid`, and with one id only. The tests are root and become that user.

use crate::binary::{is_root, roadstead};
use crate::image::Image;
use crate::site::{Outcome, Site, files_below};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user that no system has, with or without ranges.
const UID: u32 = 61_234;

/// What the user can reach: a copy of the binary, a context, and a data directory of its own.
struct Home {
    site: Site,
    binary: PathBuf,
}

impl Home {
    fn new() -> Self {
        let site = Site::empty();
        let binary = site.dir().join("roadstead");
        std::fs::copy(roadstead(), &binary).unwrap();
        std::fs::copy("/usr/bin/busybox", site.context().join("busybox")).unwrap();
        let status = Command::new("chown")
            .arg("-R")
            .arg(format!("{UID}:{UID}"))
            .arg(site.dir())
            .status()
            .unwrap();
        assert!(status.success());
        Self { site, binary }
    }

    /// Builds as the user. `ranges` are what `/etc/subuid` and `/etc/subgid` say for this build alone.
    fn build(&self, ranges: &str, arguments: &[&str]) -> Outcome {
        let file = self.site.dir().join("ranges");
        std::fs::write(&file, ranges).unwrap();
        // newuidmap wants to know the user's name.
        let passwd = self.site.dir().join("passwd");
        let known = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write(&passwd, format!("{known}roadstead-test:x:{UID}:{UID}::/:/bin/sh\n")).unwrap();
        let script = format!(
            "mount --make-rprivate / && mount --bind {0} /etc/subuid && mount --bind {0} /etc/subgid && mount --bind {1} /etc/passwd && exec setpriv --reuid {UID} --regid {UID} --clear-groups \"$@\"",
            file.display(),
            passwd.display()
        );
        let mut command = Command::new("unshare");
        self.site
            .prepare(&mut command)
            .args(["--mount", "sh", "-c", &script, "sh"])
            .arg(&self.binary)
            .arg("build")
            .args(arguments);
        let outcome = Outcome::of(
            command
                .arg(self.site.context())
                .env("HOME", self.site.dir())
                .output()
                .unwrap(),
        );
        self.site.assert_clean();
        outcome
    }
}

const BASE: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    COPY <<passwd <<group /etc/\nroot:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\npasswd\nroot:x:0:\napp:x:1000:\nextra:x:77:app\ngroup\nRUN mkdir -m 1777 /tmp\n";

fn ranges() -> String {
    format!("{UID}:300000:65536\n")
}

fn skip(test: &str) -> bool {
    let files = ["/etc/subuid", "/etc/subgid"].iter().all(|f| Path::new(f).exists());
    assert!(files || !rustix::process::geteuid().is_root(), "uidmap is needed");
    !is_root(test)
}

#[test]
fn privileged_with_ranges_the_image_is_the_same_as_roots() {
    if skip("privileged_with_ranges_the_image_is_the_same_as_roots") {
        return;
    }
    let home = Home::new();
    let text = format!(
        "{BASE}FROM base\nRUN mkdir /d && touch /d/f && chown -R 1000:77 /d && chmod 6755 /d/f && ln -s f /d/l && mkfifo /d/p\nCOPY --chown=app:extra busybox /own\nUSER app\n\
         WORKDIR /home/app\nRUN id -u && id -G && touch mine /tmp/t && hostname && test -w . && mount 2>/dev/null | grep -c overlay\nUSER root\nRUN rm -rf /d/p && mkdir /x && rm -r /bin/vi && chown 65535:65534 /x\n"
    );
    home.site.dockerfile(&text);
    let outcome = home.build(&ranges(), &["-t", "result"]).good();
    assert!(outcome.said().contains(&"1000"), "{}", outcome.log);
    let as_user = Image::read(&home.site.data().join("store"), "docker.io/library/result:latest");
    assert_eq!(
        as_user.list("d"),
        "d 755 1000:77 d\nf 6755 1000:77 d/f = \nl 777 0:0 d/l -> f\n"
    );
    assert_eq!(as_user.list("x"), "d 755 65535:65534 x\n");
    let root = Site::empty();
    std::fs::copy("/usr/bin/busybox", root.context().join("busybox")).unwrap();
    assert_eq!(root.image_of(&text).digest, as_user.digest);
    // From the cache, from blobs alone, and into a directory that belongs to the user.
    assert_eq!(home.build(&ranges(), &[]).good().ran(), [""; 0]);
    let out = home.site.dir().join("exported");
    home.build(&ranges(), &["-o", out.to_str().unwrap()]).good();
    let owners: Vec<u32> = files_below(&out)
        .iter()
        .map(|p| std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(p).unwrap()))
        .collect();
    assert!(owners.len() > 100 && owners.iter().all(|o| *o == UID));
}

#[test]
fn privileged_a_data_directory_of_roots_is_not_used() {
    if skip("privileged_a_data_directory_of_roots_is_not_used") {
        return;
    }
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let home = Home::new();
    home.site.dockerfile(BASE);
    let data = home.site.data();
    chown(&data, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
    for ranges in ["", &ranges()] {
        let log = home.build(ranges, &[]).bad(1);
        let says = format!(
            "cannot use `{}`: it belongs to user 0 (root), not to user {UID} (roadstead-test)",
            data.display()
        );
        assert!(log.contains(&says), "{log}");
    }
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    chown(&data, Some(UID), Some(UID)).unwrap();
    home.build(&ranges(), &[]).good();
    assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn privileged_mounts_work_for_an_ordinary_user_too() {
    if skip("privileged_mounts_work_for_an_ordinary_user_too") {
        return;
    }
    let home = Home::new();
    home.site.dockerfile(&format!(
        "{BASE}FROM base\nRUN --network=none --mount=source=busybox,target=/tool --mount=type=cache,target=/c,uid=1000 --mount=type=tmpfs,target=/t \\\n\
         --mount=type=secret,id=s,uid=1000 test -x /tool && touch /t/x && stat -c %u /c /run/secrets/s && id >> /c/log && wc -l < /c/log && wc -l < /proc/net/dev\n"
    ));
    let secret = home.site.dir().join("secret");
    std::fs::write(&secret, "x").unwrap();
    let secret = format!("id=s,src={}", secret.display());
    for times in ["1", "2"] {
        let outcome = home.build(&ranges(), &["--no-cache", "--secret", &secret]).good();
        assert_eq!(outcome.said()[..4], ["1000", "1000", times, "3"], "{}", outcome.log);
    }
}

#[test]
fn privileged_an_ssh_agent_is_lent_by_an_ordinary_user_too() {
    if skip("privileged_an_ssh_agent_is_lent_by_an_ordinary_user_too") {
        return;
    }
    let home = Home::new();
    home.site.program("/usr/bin/ssh-add");
    let key = crate::ssh::key(&home.site, "key", "");
    let status = Command::new("chown").arg(UID.to_string()).arg(&key).status();
    assert!(status.unwrap().success());
    home.site.dockerfile(&format!(
        "{BASE}FROM base\nCOPY root /\nUSER app\nRUN --mount=type=ssh,uid=1000,required stat -c '%a %u:%g' $SSH_AUTH_SOCK && ssh-add -l | wc -l\n\
         USER root\nRUN --mount=type=ssh ssh-add -l | wc -l\n"
    ));
    let flag = format!("default={}", key.display());
    let outcome = home.build(&ranges(), &["--ssh", &flag, "--ulimit", "nofile=99"]).good();
    assert_eq!(outcome.said()[..3], ["600 1000:0", "1", "1"], "{}", outcome.log);
    // A limit above the machine's is not for everybody to set.
    let log = home
        .build(&ranges(), &["--no-cache", "--ulimit", "nofile=999999999"])
        .bad(1);
    assert!(
        log.contains("cannot set the limit `nofile=999999999:999999999`"),
        "{log}"
    );
}

#[test]
fn privileged_the_sandbox_holds_for_an_ordinary_user_too() {
    if skip("privileged_the_sandbox_holds_for_an_ordinary_user_too") {
        return;
    }
    let home = Home::new();
    home.site.dockerfile(&format!(
        "{BASE}RUN mknod /null c 1 3 2>/dev/null && echo x > /null && echo BROKEN device; (echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo BROKEN sys; \
         mount -t tmpfs none /tmp 2>/dev/null && echo BROKEN mount; unshare -U true 2>/dev/null && echo BROKEN userns; \
         find /sys -type d -path '*cgroup*' -maxdepth 4 2>/dev/null | while read d; do mkdir $d/roadstead-test 2>/dev/null && echo BROKEN cgroup $d; done; \
         grep -E ' /sys' /proc/self/mountinfo | grep -vE ' ro[, ]' && echo BROKEN writable mount; cat /proc/self/status | grep CapEff; echo end\n"
    ));
    let outcome = home.build(&ranges(), &[]).good();
    let said = outcome.said();
    assert!(
        said.contains(&"end") && said.contains(&"CapEff:\t00000000a80425fb"),
        "{}",
        outcome.log
    );
    assert!(!said.iter().any(|l| l.starts_with("BROKEN")), "{}", outcome.log);
}

#[test]
fn privileged_with_one_id_only_foreign_owners_are_a_clear_error() {
    if skip("privileged_with_one_id_only_foreign_owners_are_a_clear_error") {
        return;
    }
    let home = Home::new();
    home.site
        .dockerfile(&format!("{BASE}FROM base\nRUN echo works > /x && id -u\n"));
    let outcome = home.build("", &["-t", "result"]).good();
    assert!(
        outcome.log.contains("warning: no subordinate ids here"),
        "{}",
        outcome.log
    );
    let image = Image::read(&home.site.data().join("store"), "docker.io/library/result:latest");
    assert_eq!(image.list("x"), "f 644 0:0 x = works\n");
    assert!(image.tree.values().all(|n| (n.uid, n.gid) == (0, 0)));
    for (text, want) in [
        ("COPY --chown=app busybox /x", "is not mapped here"),
        (
            "USER app\nRUN true",
            "supplementary groups need more than one mapped id",
        ),
        ("USER 7:7\nRUN true", "is it mapped in this user namespace?"),
        ("USER app\nWORKDIR /w", "is not mapped here"),
    ] {
        home.site.dockerfile(&format!("{BASE}{text}\n"));
        let log = home.build("", &[]).bad(1);
        assert!(log.contains(want) && log.contains("Dockerfile:1"), "{text}: {log}");
        assert!(log.contains("/etc/subuid") || text.contains("RUN"), "{log}");
    }
    // A layer with other owners cannot be unpacked.
    home.site.dockerfile(&format!("{BASE}RUN chown 5:5 /tmp\n"));
    assert!(home.build("", &[]).bad(1).contains("exit code: 1"));
}
