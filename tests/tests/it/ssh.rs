//! RUN --mount=type=ssh: an agent is lent to one command, and nothing of it stays.

use crate::binary::roadstead;
use crate::site::{Outcome, Site, files_below};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An agent with one key, ended when dropped.
pub(crate) struct SshAgent {
    process: Child,
    pub(crate) socket: PathBuf,
    /// The key as `ssh-add -L` lists it.
    pub(crate) public: String,
}

impl SshAgent {
    pub(crate) fn start(site: &Site, name: &str) -> Self {
        let key = key(site, name, "");
        let socket = site.dir().join(format!("{name}.socket"));
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("openssh-client is needed");
        until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        let added = Command::new("ssh-add")
            .args(["-q"])
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(added.unwrap().success());
        Self {
            process,
            socket,
            public: public(&key),
        }
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Makes a key outside the context.
pub(crate) fn key(site: &Site, name: &str, passphrase: &str) -> PathBuf {
    let path = site.dir().join(name);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", name, "-N", passphrase, "-f"])
        .arg(&path)
        .status()
        .expect("openssh-client is needed");
    assert!(status.success());
    path
}

fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub"))
        .unwrap()
        .trim()
        .to_owned()
}

fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A site whose base has `ssh-add`.
fn site() -> Site {
    let site = Site::new();
    site.program("/usr/bin/ssh-add");
    site
}

const TOOLS: &str = "FROM base AS tools\nCOPY root /\nRUN mkdir -p /usr/bin && chmod 755 /usr /usr/bin\n";

#[test]
fn an_agent_is_lent_for_one_command() {
    let site = site();
    let agent = SshAgent::start(&site, "me");
    let other = SshAgent::start(&site, "other");
    site.dockerfile(&format!(
        "{TOOLS}FROM tools\n\
         RUN --mount=type=ssh echo at $SSH_AUTH_SOCK && stat -c '%a %u:%g %F' $SSH_AUTH_SOCK && ssh-add -L\n\
         RUN --mount=type=ssh ssh-add -D; ssh-add -x; ssh-add -L | wc -l\n\
         RUN test ! -e /run/buildkit && test -z \"$SSH_AUTH_SOCK\" && echo gone\n\
         USER app\n\
         RUN --mount=type=ssh,uid=1000,gid=77,mode=0660 stat -c '%a %u:%g' $SSH_AUTH_SOCK && id -u && ssh-add -L\n\
         RUN --mount=type=ssh ! ssh-add -L 2>&1\n\
         RUN --mount=type=ssh,id=nobody --mount=type=ssh,id=second,target=/tmp/agent,uid=1000 --mount=type=ssh,id=second,uid=1000 \\\n\
           echo $SSH_AUTH_SOCK; ls /run/buildkit; SSH_AUTH_SOCK=/tmp/agent ssh-add -L && SSH_AUTH_SOCK=/run/buildkit/ssh_agent.2 ssh-add -L | wc -l\n\
         ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK\n"
    ));
    let mut command = site.command(&["-t", "result", "--ssh", "default"]);
    let second = format!("second={}", other.socket.display());
    command.args(["--ssh", &second]).env("SSH_AUTH_SOCK", &agent.socket);
    let outcome = Outcome::of(command.output().unwrap()).good();
    site.assert_clean();
    let said: Vec<&str> = outcome
        .said()
        .into_iter()
        .filter(|line| !line.contains("agent refused") && !line.contains("emove"))
        .collect();
    let want = [
        "at /run/buildkit/ssh_agent.0",
        "600 0:0 socket",
        &agent.public,
        "gone",
        "660 1000:77",
        "1000",
        "/run/buildkit/ssh_agent.0",
        "ssh_agent.2",
        &other.public,
        "1",
        "/mine",
    ];
    for line in want {
        assert!(said.contains(&line), "{line}: {}", outcome.log);
    }
    assert_eq!(
        said.iter().filter(|line| **line == agent.public).count(),
        2,
        "{}",
        outcome.log
    );
    assert!(outcome.log.contains("ermission denied"), "{}", outcome.log);
    // The keys are still there: a command can neither remove them nor lock the agent.
    assert_eq!(said.iter().filter(|line| **line == "1").count(), 2, "{}", outcome.log);

    let image = site.image("result");
    assert!(
        image
            .layers
            .iter()
            .flatten()
            .all(|path| !path.contains("buildkit") && !path.contains("agent"))
    );
    let document = image.document.to_string();
    assert!(
        !document.contains("ssh_agent.0") && !document.contains(agent.socket.to_str().unwrap()),
        "{document}"
    );
    for file in files_below(&site.data()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let needle = agent.socket.to_str().unwrap().as_bytes();
        assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{}", file.display());
    }
    // Another agent, and none, are no other key.
    let outcome = site
        .build(&["--ssh", &format!("default={}", other.socket.display())])
        .good();
    assert_eq!(outcome.ran(), [""; 0], "{}", outcome.log);
    assert_eq!(site.build(&[]).good().ran(), [""; 0]);
}

#[test]
fn keys_are_held_by_an_agent_of_the_build() {
    let site = site();
    let (one, two) = (key(&site, "one", ""), key(&site, "two", ""));
    // What other tools do not mind is no reason to fail.
    std::fs::set_permissions(&one, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    site.dockerfile(&format!("{TOOLS}RUN --mount=type=ssh,required ssh-add -L && sleep 0\n"));
    let flag = format!("default={},{}", one.display(), two.display());
    let outcome = site.build(&["--ssh", &flag]).good();
    for key in [&one, &two] {
        assert!(outcome.said().contains(&public(key).as_str()), "{}", outcome.log);
    }
    // It ends with the build also when that is killed.
    site.dockerfile(&format!(
        "{TOOLS}RUN --mount=type=ssh ssh-add -L && echo ready && sleep 300\n"
    ));
    let started = site.start_until(&["--ssh", &flag], "ready");
    started.signal(Signal::KILL);
    started.wait();
    until(|| site.users().is_empty());
}

#[test]
fn what_cannot_be_lent_is_a_clear_error() {
    let site = site();
    let protected = key(&site, "protected", "hunter2");
    let plain = key(&site, "plain", "");
    site.dockerfile("FROM base\nRUN --mount=type=ssh,id=x true\nRUN --mount=type=ssh,id=github,required true\n");
    let log = site.build(&[]).bad(1);
    assert!(
        log.contains("SSH agent `github` is required and was not given"),
        "{log}"
    );
    assert!(log.contains("3 | >>> RUN --mount=type=ssh"), "{log}");
    for (flag, want) in [
        (format!("a={}", protected.display()), "is protected by a passphrase"),
        (
            format!("a={}", plain.with_extension("pub").display()),
            "is neither a socket nor a private key",
        ),
        ("a=/no/such".into(), "cannot read `/no/such`"),
        ("default".into(), "SSH_AUTH_SOCK is not set"),
    ] {
        let output = site.command(&["--ssh", &flag]).env_remove("SSH_AUTH_SOCK").output();
        let log = Outcome::of(output.unwrap()).bad(2);
        assert!(
            log.contains(want) && log.contains(&format!("`--ssh {flag}`")),
            "{flag}: {log}"
        );
    }
    let mut command = site.command(&["--ssh", &format!("a={}", plain.display())]);
    let log = Outcome::of(command.env("PATH", site.dir()).output().unwrap()).bad(2);
    assert!(log.contains("`ssh-agent`, which is not installed"), "{log}");
    // The socket of an agent that has ended.
    let gone = SshAgent::start(&site, "gone");
    let socket = gone.socket.clone();
    drop(gone);
    let log = site.build(&["--ssh", &format!("a={}", socket.display())]).bad(2);
    assert!(
        log.contains("cannot reach the SSH agent") || log.contains("cannot read"),
        "{log}"
    );
}

#[test]
fn an_agent_that_ends_or_hangs_does_not_hold_the_build_up() {
    let site = site();
    let socket = site.dir().join("silent");
    // It takes connections and never answers.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let held = std::thread::spawn(move || listener.incoming().take(3).map(Result::unwrap).collect::<Vec<_>>());
    site.dockerfile(&format!(
        "{TOOLS}RUN --mount=type=ssh timeout 1 ssh-add -L; echo went on; (ssh-add -L &)\n"
    ));
    let mut command = Command::new(roadstead());
    site.prepare(&mut command)
        .args(["build", "--ssh"])
        .arg(format!("default={}", socket.display()));
    let outcome = Outcome::of(command.arg(site.context()).output().unwrap()).good();
    assert!(outcome.said().contains(&"went on"), "{}", outcome.log);
    site.assert_clean();
    drop(std::os::unix::net::UnixStream::connect(&socket));
    drop(held);
}
