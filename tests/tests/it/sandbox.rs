//! What a RUN can see and do: nothing of the caller, of the host, or of other steps.

use crate::binary::{is_root, roadstead};
use crate::site::{Outcome, Site};
use std::process::Command;

/// Builds `FROM base` and one RUN; gives what the command wrote.
fn run(site: &Site, text: &str) -> String {
    site.dockerfile(&format!("FROM base\nRUN {text}\n"));
    site.build(&[]).good().said().join("\n")
}

#[test]
fn nothing_of_the_caller_leaks_in() {
    let site = Site::new();
    site.dockerfile(
        "FROM base\nRUN env | cut -d= -f1 | sort | tr '\\n' ' '; echo\nRUN [\"ls\", \"-1\", \"/proc/self/fd\"]\n",
    );
    let mut command = Command::new("sh");
    site.prepare(&mut command)
        .args(["-c", "umask 077; exec 9</etc; exec \"$@\"", "sh"]);
    command
        .arg(roadstead())
        .arg("build")
        .arg(site.context())
        .env("CALLERS_SECRET", "1");
    let outcome = Outcome::of(command.output().unwrap()).good();
    // 3 is the directory that ls reads.
    let want = ["HOME PATH PWD SHLVL ", "0", "1", "2", "3"];
    assert_eq!(outcome.said()[..5], want, "{}", outcome.log);
    assert!(!outcome.said()[5..].contains(&"9"), "{}", outcome.log);
    site.assert_clean();
}

#[test]
fn the_callers_umask_changes_no_byte() {
    let site = Site::empty();
    std::fs::copy("/usr/bin/busybox", site.context().join("busybox")).unwrap();
    // An image without /etc and /run: what is mounted below them must not give them the caller's mode.
    let text = "FROM scratch\nCOPY busybox /bin/sh\nWORKDIR /new/dir\nCOPY busybox /some/where/\nRUN echo x > /etc/file; echo y > /run/file; echo z > /plain\n";
    site.dockerfile(text);
    let mut digests = Vec::new();
    for umask in ["022", "077", "000"] {
        let fresh = Site::empty();
        std::fs::remove_dir(fresh.context()).unwrap();
        std::os::unix::fs::symlink(site.context(), fresh.context()).unwrap();
        let mut command = Command::new("sh");
        fresh
            .prepare(&mut command)
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$@\""))
            .arg("sh");
        command.arg(roadstead()).args(["build", "-t", "x"]).arg(fresh.context());
        Outcome::of(command.output().unwrap()).good();
        digests.push((umask, fresh.image("x").digest));
    }
    assert!(digests.iter().all(|d| d.1 == digests[0].1), "{digests:?}");
}

#[test]
fn privileged_device_nodes_made_by_run_are_dead() {
    if !is_root("privileged_device_nodes_made_by_run_are_dead") {
        return;
    }
    let site = Site::new();
    // 1:3 is /dev/null, which no device cgroup forbids: only nodev makes the copy useless.
    let log = run(
        &site,
        "for dir in / /dev/ /dev/shm/ /dev/mqueue/ /tmp/; do mknod ${dir}mine c 1 3 2>/dev/null && (echo x > ${dir}mine) 2>/dev/null && echo \"USABLE in $dir\"; done; \
         echo x > /dev/null && echo own devices work",
    );
    assert!(log.contains("own devices work") && !log.contains("USABLE in"), "{log}");
}

#[test]
fn the_kernel_cannot_be_steered() {
    let site = Site::new();
    let log = run(
        &site,
        "(echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo BROKEN sys; (echo b > /proc/sysrq-trigger) 2>/dev/null && echo BROKEN sysrq; \
         mount -t tmpfs none /tmp 2>/dev/null && echo BROKEN mount; mount -o remount,rw /proc/sys 2>/dev/null && echo BROKEN remount; \
         umount /proc/sys 2>/dev/null && echo BROKEN umount; unshare -U true 2>/dev/null && echo BROKEN userns; unshare -m true 2>/dev/null && echo BROKEN mountns; \
         chroot /proc/1/root true || echo BROKEN chroot; hostname evil 2>/dev/null && echo BROKEN hostname; dmesg 2>/dev/null && echo BROKEN dmesg; \
         (mkdir /sys/fs/cgroup/x) 2>/dev/null && echo BROKEN cgroup; swapoff -a 2>/dev/null && echo BROKEN swap; \
         head -c1 /proc/kcore 2>/dev/null | grep -q . && echo BROKEN kcore; test \"$(ls -d /proc/[0-9]* | wc -l)\" -lt 6 || echo BROKEN pids; \
         test \"$(hostname)\" = buildkitsandbox || echo BROKEN name; echo $$ is one",
    );
    assert!(log.contains("1 is one") && !log.contains("BROKEN"), "{log}");
}

#[test]
fn capabilities_are_a_containers() {
    let site = Site::new();
    let log = run(&site, "grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(log.contains(&format!("{set}:\t00000000a80425fb")), "{log}");
    }
    site.dockerfile("FROM base\nUSER app\nRUN grep -E 'CapEff|CapPrm' /proc/self/status\n");
    let log = site.build(&[]).good().log;
    assert!(
        log.contains("CapPrm:\t0000000000000000") && log.contains("CapEff:\t0000000000000000"),
        "{log}"
    );
}

#[test]
fn no_terminal_of_the_caller_is_reachable() {
    let site = Site::new();
    // With the caller's terminal a RUN could push keystrokes into the caller's shell (TIOCSTI).
    site.dockerfile("FROM base\nRUN (exec 3<>/dev/tty) 2>/dev/null && echo 'HAS'' TERMINAL'; echo end of test\n");
    let line = format!(
        "{} build --progress=plain {}",
        roadstead().display(),
        site.context().display()
    );
    let mut command = Command::new("script");
    let output = site
        .prepare(&mut command)
        .args(["-qec", &line, "/dev/null"])
        .output()
        .expect("script of bsdutils is needed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("end of test"), "{text}");
    assert!(!text.contains("HAS TERMINAL"), "{text}");
}

#[test]
fn links_of_the_image_lead_no_mount_astray() {
    for (path, target) in [
        ("proc", "/etc"),
        ("dev", "/dev"),
        ("sys", "../../../../sys"),
        ("proc", "loop"),
    ] {
        let site = Site::new();
        site.file("tree/keep", "").link(&format!("tree/{path}"), target);
        site.dockerfile("FROM base\nCOPY tree/ /\nRUN echo ran\n");
        let log = site.build(&[]).bad(1);
        assert!(
            log.contains(&format!("`/{path}`")) && log.contains("Dockerfile:3"),
            "{log}"
        );
    }
}

#[test]
fn an_image_may_lack_the_directories_mounted_on() {
    let site = Site::new();
    let image = site.image_of("FROM base\nRUN rm -rf /run /tmp; mkdir /run; ls -la /run\nRUN <<e\n#!/bin/sh\ntest -e /dev/pipes/e && echo there\ne\nRUN touch /done\n");
    assert!(
        image.has("done") && image.has("run") && !image.has("run/roadstead") && !image.has("tmp"),
        "{}",
        image.list("run")
    );
    for path in ["proc", "sys", "dev"] {
        assert!(!image.has(path), "{path}");
    }
}

#[test]
fn exit_statuses_are_the_commands_own() {
    let site = Site::new();
    for status in ["1", "2", "127", "233", "255"] {
        let log = site.error_of(&format!("FROM base\nRUN echo said; exit {status}\n"));
        assert!(log.contains(&format!("exit code: {status}\n")), "{log}");
        assert!(
            log.contains("Dockerfile:2\n") && log.contains("   2 | >>> RUN echo said"),
            "{log}"
        );
    }
    let log = site.error_of("FROM base\nRUN sh -c 'kill -9 $$'; exit $?\n");
    assert!(log.contains("exit code: 137"), "{log}");
    let log = site.error_of("FROM base\nRUN [\"no-such-program\"]\n");
    assert!(
        log.contains("`no-such-program`") && log.contains("   2 | >>> RUN"),
        "{log}"
    );
    let log = site.error_of("FROM base\nSHELL [\"/no/shell\"]\nRUN x\n");
    assert!(log.contains("/no/shell") && log.contains("   3 | >>> RUN x\n"), "{log}");
}

#[test]
fn a_background_process_ends_with_its_run() {
    let site = Site::new();
    let image = site.image_of("FROM base\nRUN (sleep 1000; touch /late) & echo started\nRUN touch /next\n");
    assert!(image.has("next") && !image.has("late"));
}

#[test]
fn other_steps_cannot_be_reached() {
    let site = Site::new();
    // Both run at once; neither sees the other's processes or files, nor the builder.
    site.dockerfile(
        "FROM base AS one\nRUN echo secret-of-one > /mine; sleep 2; cat /proc/*/cmdline | tr '\\0' ' ' | grep -q 'sleep.2\\.5' && echo SEEN; true\n\
         FROM base AS two\nRUN cat /proc/*/root/mine 2>/dev/null && echo SEEN; sleep 2.5\n\
         FROM base\nCOPY --from=one /mine /\nCOPY --from=two /etc/passwd /\n",
    );
    let outcome = site.build(&[]).good();
    assert!(!outcome.said().contains(&"SEEN"), "{}", outcome.log);
}

#[test]
fn whiteout_names_made_by_hand_are_refused() {
    let site = Site::new();
    let log = site.error_of("FROM base\nRUN touch /etc/.wh.passwd\n");
    assert!(log.contains(".wh.passwd") && log.contains("   2 | >>> RUN"), "{log}");
    site.file(".wh.etc", "");
    let log = site.error_of("FROM base\nCOPY . /\n");
    assert!(log.contains(".wh.etc") && log.contains("   2 | >>> COPY"), "{log}");
}

#[test]
fn privileged_layers_on_disk_are_no_ones_but_the_owners() {
    use std::os::unix::fs::MetadataExt as _;
    if !is_root("privileged_layers_on_disk_are_no_ones_but_the_owners") {
        return;
    }
    // A set-uid program of an image must not be a set-uid program of the host.
    let site = Site::new();
    site.image_of("FROM base\nRUN cp /bin/busybox /suid && chmod 4755 /suid\n");
    for dir in ["layers", "tmp"] {
        assert_eq!(
            std::fs::metadata(site.data().join(dir)).unwrap().mode() & 0o077,
            0,
            "{dir}"
        );
    }
}

#[test]
fn privileged_the_hosts_binary_cannot_be_written() {
    if !is_root("privileged_the_hosts_binary_cannot_be_written") {
        return;
    }
    let site = Site::new();
    // The image starts the host's binary through /proc/self/exe and makes it load code of the image (CVE-2019-5736).
    site.file(
        "evil.c",
        "#include <stdio.h>\n#include <sys/statvfs.h>\n__attribute__((constructor)) static void evil(void) {\n\
         struct statvfs at; int failed = statvfs(\"/proc/self/exe\", &at); printf(\"read-only %d\\n\", !failed && (at.f_flag & ST_RDONLY)); fflush(stdout); }\n",
    );
    let library = site.context().join("root/evil.so");
    std::fs::create_dir_all(library.parent().unwrap()).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(site.context().join("evil.c"))
        .status()
        .expect("cc is needed");
    assert!(compiled.success());
    let libraries = String::from_utf8(Command::new("ldd").arg(roadstead()).output().unwrap().stdout).unwrap();
    for word in libraries.split_whitespace().filter(|w| w.starts_with('/')) {
        let target = site.context().join("root").join(word.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(word, target).unwrap();
    }
    site.dockerfile("FROM base\nCOPY root /\nENV LD_PRELOAD=/evil.so\nRUN [\"/proc/self/exe\", \"--version\"]\n");
    let outcome = site.build(&[]).good();
    let said = outcome.said();
    // Once no process runs the file any more, only the mount keeps it from being written. A static binary loads nothing.
    let is_static = !libraries.contains("libc.so");
    assert!(said.iter().any(|l| l.starts_with("roadstead ")), "{}", outcome.log);
    assert!(is_static || said.contains(&"read-only 1"), "{}", outcome.log);
}
