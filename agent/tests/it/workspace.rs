//! A directory for one test, and the binary run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// A test's files; gone when it ends.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    variables: Vec<(String, String)>,
}

/// What a run of the binary came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("roadstead-test-{}-{number}", std::process::id()));
        for directory in ["src", "config", "home", "tmp"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        Self {
            root: root.canonicalize().unwrap(),
            variables: Vec::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap()
    }

    /// Sets a variable for the runs to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The binary with an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .stdin(Stdio::null());
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"));
        command
            .env("ROADSTEAD_CONFIG", self.path("config"))
            .env("ROADSTEAD_DATA", self.path("data"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn roadstead(&self, arguments: &[&str]) -> Done {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done {
            status: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs a buildspec whose build phase has these commands.
    pub(crate) fn run_commands(&self, commands: &[&str]) -> Done {
        let quoted: Vec<String> = commands
            .iter()
            .map(|c| format!("      - '{}'\n", c.replace('\'', "''")))
            .collect();
        self.write(
            "src/buildspec.yml",
            &format!("version: 0.2\nphases:\n  build:\n    commands:\n{}", quoted.concat()),
        );
        self.roadstead(&["run", "src"])
    }

    /// Panics when a temporary file or directory was left behind.
    pub(crate) fn assert_tidy(&self) {
        let left: Vec<_> = fs::read_dir(self.path("tmp"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed is below the system's temporary directory.
        drop(fs::remove_dir_all(&self.root));
    }
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process is alive whose command line holds `mark`.
pub(crate) fn is_running(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.into_iter().any(|process: PathBuf| holds(&process, mark))
}

fn holds(process: &Path, mark: &str) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let own = process.ends_with(std::process::id().to_string());
    !own && String::from_utf8_lossy(&line).contains(mark)
}

/// The log without its times.
pub(crate) fn without_times(log: &str) -> String {
    let strip = |line: &str| match line.strip_prefix("[Container] ") {
        // `YYYY/MM/DD HH:MM:SS.ffffff ` has 27 bytes.
        Some(rest) => format!("[Container] {}", rest.get(27..).unwrap_or(rest)),
        None => line.to_owned(),
    };
    log.split('\n').map(strip).collect::<Vec<_>>().join("\n")
}
