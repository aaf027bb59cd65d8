//! A place to build in: a context, data and configuration of its own, and checks that nothing is left behind.

use crate::binary::roadstead;
use crate::image::Image;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Makes the base image `base` that most tests stand on: busybox, a root and an ordinary user, merged `/usr`.
const BASE: &str = r#"FROM scratch AS tools
COPY busybox /usr/bin/busybox
RUN ["/usr/bin/busybox", "--install", "-s", "/usr/bin"]
FROM tools
RUN ["/usr/bin/ln", "-s", "usr/bin", "/bin"]
RUN mkdir -p /etc /root /home/app /tmp && chmod 1777 /tmp && chown 1000:1000 /home/app && chmod 700 /root
COPY <<passwd <<group /etc/
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
passwd
root:x:0:
app:x:1000:
extra:x:77:app
more:x:78:root,app
group
"#;

/// A directory of its own for one test, removed at its end.
#[derive(Debug)]
pub(crate) struct Site {
    dir: PathBuf,
}

/// How a build ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) log: String,
}

impl Site {
    /// A site whose local store holds the image `base`.
    pub(crate) fn new() -> Self {
        static BASE_STORE: OnceLock<PathBuf> = OnceLock::new();
        let store = BASE_STORE.get_or_init(|| {
            let maker = Self::empty();
            std::fs::copy("/usr/bin/busybox", maker.context().join("busybox")).expect("busybox-static is needed");
            maker.dockerfile(BASE);
            maker.build(&["-t", "base"]).good();
            let store = std::env::temp_dir().join(format!("roadstead-it-{}-store", std::process::id()));
            copy_tree(&maker.data().join("store"), &store);
            store
        });
        let site = Self::empty();
        copy_tree(store, &site.data().join("store"));
        site
    }

    /// A site with nothing in its store.
    pub(crate) fn empty() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("roadstead-it-{}-{number}", std::process::id()));
        for part in ["context", "data", "config", "out"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        Self { dir }
    }

    /// A second site with the same context and an empty data directory.
    pub(crate) fn with_fresh_data(&self) -> Self {
        let other = Self::new();
        std::fs::remove_dir(other.context()).unwrap();
        let status = Command::new("cp")
            .arg("-a")
            .arg(self.context())
            .arg(other.context())
            .status()
            .unwrap();
        assert!(status.success());
        other
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.dir.join("context")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A path for results, outside the context.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.dir.join("out").join(name)
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self
    }

    pub(crate) fn mode(&self, path: &str, mode: u32) -> &Self {
        std::fs::set_permissions(self.context().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.context().join(path)).unwrap();
        self
    }

    /// Copies a program of this machine and its libraries into the context, below `root`, for `COPY root /`.
    pub(crate) fn program(&self, path: &str) -> &Self {
        let output = Command::new("ldd").arg(path).output().unwrap();
        assert!(output.status.success(), "{path} is needed");
        let libraries = String::from_utf8(output.stdout).unwrap();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain([path]) {
            let target = self.context().join("root").join(file.trim_start_matches('/'));
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(file, target).unwrap();
        }
        self
    }

    pub(crate) fn dockerfile(&self, text: &str) -> &Self {
        self.file("Dockerfile", text)
    }

    pub(crate) fn registries(&self, toml: &str) -> &Self {
        std::fs::write(self.dir.join("config/registries.toml"), toml).unwrap();
        self
    }

    /// The command `roadstead build` with this site's directories; the context is its last argument.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(roadstead());
        self.prepare(&mut command)
            .arg("build")
            .args(arguments)
            .arg(self.context());
        command
    }

    /// Sets a command's environment to this site's.
    pub(crate) fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("ROADSTEAD_DATA", self.data())
            .env("ROADSTEAD_CONFIG", self.dir.join("config"))
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null())
    }

    /// Builds and checks that nothing is left behind, whatever the outcome.
    pub(crate) fn build(&self, arguments: &[&str]) -> Outcome {
        let outcome = Outcome::of(self.command(arguments).output().unwrap());
        self.assert_clean();
        outcome
    }

    /// Builds a Dockerfile as the image `result` and reads it back.
    pub(crate) fn image_of(&self, dockerfile: &str) -> Image {
        self.dockerfile(dockerfile);
        self.build(&["-t", "result"]).good();
        self.image("result")
    }

    /// Builds a Dockerfile that must fail; gives what was said.
    pub(crate) fn error_of(&self, dockerfile: &str) -> String {
        self.dockerfile(dockerfile);
        self.build(&["-t", "result"]).bad(1)
    }

    /// Reads an image of the local store.
    pub(crate) fn image(&self, name: &str) -> Image {
        Image::read(&self.data().join("store"), &format!("docker.io/library/{name}:latest"))
    }

    /// The layer descriptors of an image whose layers need not lie here.
    pub(crate) fn image_documents(&self, name: &str) -> Vec<serde_json::Value> {
        let store = self.data().join("store");
        let digest = self.digest_of(name);
        let bytes = std::fs::read(store.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        manifest["layers"].as_array().unwrap().clone()
    }

    /// The manifest digest of an image of the local store.
    pub(crate) fn digest_of(&self, name: &str) -> String {
        let text = std::fs::read(self.data().join("store/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let name = format!("docker.io/library/{name}:latest");
        let all = index["manifests"].as_array().unwrap();
        let found = all
            .iter()
            .find(|m| m["annotations"]["org.opencontainers.image.ref.name"] == *name)
            .unwrap();
        found["digest"].as_str().unwrap().to_owned()
    }

    /// Starts a build.
    pub(crate) fn start(&self, arguments: &[&str]) -> Started {
        self.start_as("log", arguments)
    }

    /// Starts a build whose log is called `name`, beside others.
    pub(crate) fn start_as(&self, name: &str, arguments: &[&str]) -> Started {
        let log = self.out(name);
        let stderr = std::fs::File::create(&log).unwrap();
        let child = self.command(arguments).stderr(stderr).spawn().unwrap();
        Started { child, log }
    }

    /// Starts a build and waits until one of its commands has written the line `word`.
    pub(crate) fn start_until(&self, arguments: &[&str], word: &str) -> Started {
        let mut started = self.start(arguments);
        started.wait_until(|text| text.lines().any(|line| said(line) == Some(word)));
        started
    }

    /// Nothing below `tmp`, no mount and no process that knows this site.
    pub(crate) fn assert_clean(&self) {
        let left = files_below(&self.data().join("tmp"));
        assert!(left.is_empty(), "left below tmp: {left:?}");
        let partial = files_below(&self.data().join("store/ingest"));
        assert!(partial.is_empty(), "left below store/ingest: {partial:?}");
        let users = self.users();
        assert!(users.is_empty(), "mounts or processes left: {users:?}");
    }

    /// Processes in whose mount table this site's data directory stands.
    pub(crate) fn users(&self) -> Vec<String> {
        let needle = self.data().to_string_lossy().into_owned();
        let mut users = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            if std::fs::read_to_string(path.join("mountinfo")).is_ok_and(|text| text.contains(&needle)) {
                users.push(path.display().to_string());
            }
        }
        users
    }
}

impl Drop for Site {
    #[expect(clippy::print_stderr, reason = "whoever looks into a failure needs the place")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.dir.display());
            return;
        }
        // Directories without write permission belong to hostile contexts; rm as root does not mind, and an ordinary user's are mended.
        if std::fs::remove_dir_all(&self.dir).is_err() {
            drop(Command::new("chmod").args(["-R", "u+rwX"]).arg(&self.dir).status());
            drop(std::fs::remove_dir_all(&self.dir));
        }
    }
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Self {
            status: output.status.code(),
            stdout: output.stdout,
            log,
        }
    }

    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.status, Some(0), "{}", self.log);
        self
    }

    /// Must have failed with `status`; gives the log.
    #[track_caller]
    pub(crate) fn bad(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{}", self.log);
        self.log
    }

    /// Steps by their text, each with whether it came from the cache; in the order they began.
    pub(crate) fn steps(&self) -> Vec<(String, bool)> {
        let mut steps: Vec<(String, String, bool)> = Vec::new();
        for line in self.log.lines() {
            let Some((id, rest)) = line.split_once(' ').filter(|(id, _)| id.starts_with('#')) else {
                continue;
            };
            if rest == "CACHED" {
                if let Some(step) = steps.iter_mut().find(|s| s.0 == id) {
                    step.2 = true;
                }
            } else if rest.starts_with('[') && !rest.starts_with("[internal]") && !steps.iter().any(|s| s.0 == id) {
                let text = rest.split_once("] ").map_or(rest, |(_, text)| text);
                steps.push((id.to_owned(), text.to_owned(), false));
            }
        }
        steps.into_iter().map(|(_, text, cached)| (text, cached)).collect()
    }

    /// What the commands wrote.
    pub(crate) fn said(&self) -> Vec<&str> {
        self.log.lines().filter_map(said).collect()
    }

    /// The steps that were not in the cache.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.steps()
            .into_iter()
            .filter(|(_, cached)| !cached)
            .map(|(text, _)| text)
            .collect()
    }
}

/// A build under way.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Started {
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log is as wanted, at most a minute.
    pub(crate) fn wait_until(&mut self, wanted: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !wanted(&self.text()) {
            assert!(self.child.try_wait().unwrap().is_none(), "ended early: {}", self.text());
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "waited in vain: {}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end, at most half a minute.
    pub(crate) fn wait(mut self) -> (std::process::ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.text());
            }
            if begun.elapsed() > Duration::from_secs(30) {
                self.child.kill().unwrap();
                panic!("still running after 30 seconds: {}", self.text());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Gives the text of a line of a command's output: `#3 0.125 text`.
pub(crate) fn said(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix('#')?.split_once(' ')?;
    let (seconds, text) = rest.split_once(' ')?;
    seconds.contains('.').then_some(seconds)?.parse::<f64>().ok()?;
    Some(text)
}

/// Names all files below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return found;
    };
    for entry in entries {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
