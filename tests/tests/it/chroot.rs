//! RUN where nothing can be mounted: what a command sees and gets, what it leaves, and that the image is the one of namespaces.

use crate::binary::{is_root, roadstead};
use crate::site::Site;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Makes the flag first, so that a test can add its own.
fn flags<'a>(sandbox: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--sandbox", sandbox], more].concat()
}

/// Builds `FROM base` and one RUN in the chroot sandbox; gives what the command wrote.
fn run(site: &Site, text: &str) -> String {
    site.dockerfile(&format!("FROM base\nRUN {text}\n"));
    site.build(&flags("chroot", &[])).good().said().join("\n")
}

#[test]
fn privileged_proc_is_there_and_holds_the_commands_own_processes() {
    if !is_root("privileged_proc_is_there_and_holds_the_commands_own_processes") {
        return;
    }
    let site = Site::new();
    let log = run(
        &site,
        "readlink /proc/self/exe; head -1 /proc/self/status; (exec -a echo /proc/self/exe by its link); ls -d /proc/[A-Za-z0-9][A-Za-z0-9][A-Za-z0-9]0;  cd /proc/self/fd && pwd | grep -c '^/proc/'; \
         cd ../..; pwd; cd ..; pwd; ls /proc | grep -c '^[0-9]*$'; test -e /proc/1 || echo no process 1; echo out > /dev/stdout; \
         echo in | cat /dev/stdin; cat /proc/sys/kernel/hostname; hostname; grep -c '^proc /proc proc ' /proc/mounts; ls -d /sys/class/net/lo; \
         (echo x > /proc/sys/kernel/hostname) 2>&1 | grep -o 'Read-only.*'; stat -f -c %T /proc; test -c /dev/null && echo null",
    );
    let want = [
        "/usr/bin/busybox",
        "Name:\thead",
        "by its link",
        "ls: /proc/[A-Za-z0-9][A-Za-z0-9][A-Za-z0-9]0: No such file or directory",
        "1",
        "/proc",
        "/",
        "no process 1",
        "out",
        "in",
        "buildkitsandbox",
        "/sys/class/net/lo",
        "Read-only file system",
        "null",
    ];
    let lines: Vec<&str> = log.lines().collect();
    for line in want {
        assert!(lines.contains(&line), "`{line}` is missing: {log}");
    }
}

#[test]
fn privileged_the_image_is_that_of_namespaces() {
    if !is_root("privileged_the_image_is_that_of_namespaces") {
        return;
    }
    let site = Site::new();
    site.file("dir/one", "1").file("dir/two", "2");
    site.dockerfile(
        "FROM base AS made\nRUN mkdir -p /data/a/b && echo 1 > /data/a/b/c && ln -s c /data/a/b/d && ln /data/a/b/c /data/e\n\
         RUN rm -r /data/a && mkdir /data/a && echo 2 > /data/a/new\nRUN chown -R 1000:1000 /data && chmod 4755 /data/e\nRUN true\n\
         FROM base\nCOPY --from=made /data /copied\nRUN --mount=type=bind,target=/src --mount=type=cache,target=/c cp /src/dir/* /c && cat /c/* > /sum\n\
         RUN rm /etc/group; cp /etc/passwd /etc/moved; echo hosts > /etc/hosts.bak; date > /tmp/now; rm /tmp/now\nUSER app\nRUN touch ~/mine\n",
    );
    let digest = |kind: &str| {
        site.build(&flags(kind, &["--no-cache", "-t", kind])).good();
        site.digest_of(kind)
    };
    assert_eq!(digest("namespaces"), digest("chroot"));
    site.assert_clean();
}

#[test]
fn privileged_mounts_are_what_they_are_elsewhere() {
    if !is_root("privileged_mounts_are_what_they_are_elsewhere") {
        return;
    }
    let site = Site::new();
    site.file("dir/one", "1");
    site.dockerfile(
        "FROM base\nRUN --mount=type=bind,source=dir,target=/ro --mount=type=bind,source=dir,target=/rw,rw \
         (echo x > /ro/new) 2>&1 | grep -o Read-only; (rm /ro/one) 2>&1 | grep -o Read-only; (mkdir /ro/d) 2>&1 | grep -o Read-only; \
         echo x > /rw/new && ls /rw | tr '\\n' ' '; (mv /ro /kept; mv /dev /also; rm -rf /proc; ln -s / /proc) 2>/dev/null; echo done\n\
         RUN --mount=type=cache,target=/c,id=x echo kept > /c/file; ln /c/file /linked 2>&1 | grep -io 'cross-device link'; rm -rf /c; echo end\n\
         RUN --mount=type=cache,target=/c,id=x ls -a /c | tr '\\n' ' '; echo again > /c/file\n\
         RUN --mount=type=cache,target=/c,id=x --mount=type=cache,target=/d,ro,id=y --mount=type=cache,target=/e,id=x cat /c/file /e/file; test -e /d && echo has d\n\
         RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/tmp touch /t/x /tmp/x; stat -c %a /t /tmp; echo over\n\
         RUN ls -d /ro /rw /kept /also /c /d /e /t /linked /proc/self /dev/null 2>/dev/null; true\n",
    );
    let outcome = site.build(&flags("chroot", &["-t", "x"])).good();
    let said = outcome.said().join("\n");
    assert!(
        said.starts_with("Read-only\nRead-only\nRead-only\nnew one done\ncross-device link\nend\n. .. "),
        "{said}"
    );
    assert!(
        said.ends_with("again\nagain\nhas d\n1777\n1777\nover\n/dev/null\n/proc/self"),
        "{said}"
    );
    let image = site.image("x");
    for path in ["ro", "rw", "kept", "also", "c", "d", "e", "t", "linked", "dev/null"] {
        assert!(!image.tree.contains_key(path), "{path}");
    }
}

#[test]
fn privileged_a_secret_is_on_no_disk_while_it_is_used() {
    if !is_root("privileged_a_secret_is_on_no_disk_while_it_is_used") {
        return;
    }
    let site = Site::new();
    let secret = site.out("secret");
    std::fs::write(&secret, "marker-5f0c2b7e").unwrap();
    site.dockerfile(
        "FROM base\nRUN --mount=type=secret,id=s,mode=0440,gid=78 cp /run/secrets/s /dev/null; cat /run/secrets/s | md5sum; stat -c '%s %a %g' /run/secrets/s; \
         cd /run; cat secrets/s | wc -c; ln -s /run/secrets/s /link; cat /link | wc -c; rm /link; touch /ready; sleep 1; rm /ready\n",
    );
    let mut command = site.command(&flags(
        "chroot",
        &["--secret", &format!("id=s,src={}", secret.display())],
    ));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !holds(&site.data().join("tmp"), &|path| path.ends_with("ready")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the command did not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    let leaks =
        |path: &Path| std::fs::read(path).is_ok_and(|bytes| bytes.windows(15).any(|part| part == b"marker-5f0c2b7e"));
    assert!(!holds(&site.data(), &leaks), "the secret lies on a disk");
    let outcome = crate::site::Outcome::of(child.wait_with_output().unwrap()).good();
    assert_eq!(outcome.said()[1..], ["15 440 78", "15", "15"], "{}", outcome.log);
}

/// Whether a regular file of the tree is `wanted`. No device is opened.
fn holds(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds(&entry.path(), wanted),
        Ok(kind) if kind.is_file() => wanted(&entry.path()),
        _ => false,
    })
}

#[test]
fn privileged_a_killed_builder_takes_its_command_along() {
    if !is_root("privileged_a_killed_builder_takes_its_command_along") {
        return;
    }
    let site = Site::new();
    site.dockerfile(
        "FROM base\nRUN --mount=type=cache,target=/c test -e /c/kept && echo still there; echo 1 > /c/kept; touch /ready; \
         (setsid sleep 71234 &); sleep 71234\n",
    );
    let mut command = site.command(&flags("chroot", &[]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !holds(&site.data().join("tmp"), &|path| path.ends_with("ready")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the command did not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    let is_left = || {
        Command::new("pgrep")
            .args(["-f", "^sleep 71234$"])
            .output()
            .unwrap()
            .status
            .success()
    };
    // The supervisor holds the dead build's directory until it has taken everything back.
    let is_held = || {
        let builds = std::fs::read_dir(site.data().join("tmp")).unwrap().flatten();
        let mut directories = builds.filter(|entry| entry.path().is_dir());
        directories.any(|entry| std::fs::File::open(entry.path()).unwrap().try_lock().is_err())
    };
    while is_left() || is_held() || !site.users().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "left: {:?}", site.users());
        std::thread::sleep(Duration::from_millis(10));
    }
    site.dockerfile("FROM base\nRUN --mount=type=cache,target=/c cat /c/kept; test -e /ready || echo new\n");
    let said = site.build(&flags("chroot", &[])).good().said().join(" ");
    assert_eq!(said, "1 new");
    site.assert_clean();
}

#[test]
fn a_place_without_commands_says_so_at_run() {
    let site = Site::new();
    site.dockerfile("FROM base\nCOPY Dockerfile /\nRUN true\n");
    let log = site.build(&flags("none", &[])).bad(1);
    assert!(
        log.contains("Dockerfile:3") && log.contains("cannot run commands here"),
        "{log}"
    );
}

#[test]
fn the_doctor_says_what_works() {
    let site = Site::new();
    let mut command = Command::new(roadstead());
    let output = site.prepare(&mut command).arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in [
        "sandbox            namespaces",
        "user notification",
        "Landlock",
        "SYS_PTRACE",
        "open files",
        "data",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let mut command = Command::new(roadstead());
    let output = site.prepare(&mut command).args(["doctor", "--json"]).output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["sandbox"], "namespaces");
    assert!(document["openFiles"]["soft"].is_u64());
}
