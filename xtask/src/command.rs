//! Runs programs so that none of them outlives this one.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{Result, TaskError};

/// Lines of a failed program's output that an error repeats.
const TAIL_LINES: usize = 40;

/// Prepares a program that the kernel ends by SIGTERM when this process is gone, be it by Ctrl-C, SIGKILL or a panic.
///
/// `setpriv` (util-linux, on every Debian) becomes the program, so the process id is the program's own. The signal comes
/// when the thread that started the program ends, so programs are started by the main thread.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(name)
        .stdin(Stdio::null());
    // `cargo run` describes this package to us; a cargo started from here must not take that for its own.
    for (name, _) in std::env::vars_os() {
        let described = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_BIN_")
        });
        if described {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program whose output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    check(command, status, "")
}

/// Runs a program and returns its standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    check(command, output.status, &String::from_utf8_lossy(&output.stderr))?;
    String::from_utf8(output.stdout).map_err(|_| TaskError::new(format!("{} printed what is no UTF-8", line(command))))
}

/// Runs a program whose output goes to a file; an error shows the end of it.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).map_err(TaskError::at("write", log))?;
    let copy = file.try_clone().map_err(TaskError::at("write", log))?;
    let status = command.stdout(file).stderr(copy).status();
    let status = status.map_err(|error| cannot_start(command, &error))?;
    check(command, status, &read_lossy(log))
}

/// Tells whether a program runs and ends well; its output is not shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Returns the last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Reads a log; one that cannot be read is empty, since it is only repeated in an error.
pub(crate) fn read_lossy(log: &Path) -> String {
    std::fs::read(log).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn check(command: &Command, status: ExitStatus, output: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let output = tail(output);
    let separator = if output.is_empty() { "" } else { "\n\n" };
    Err(TaskError::new(format!(
        "{} failed: {status}{separator}{output}",
        line(command)
    )))
}

fn cannot_start(command: &Command, error: &std::io::Error) -> TaskError {
    TaskError::new(format!("cannot start {}: {error}", line(command)))
}

/// The program and its first arguments, without `setpriv` before it, without scripts and what may be a password.
fn line(command: &Command) -> String {
    let words = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .skip_while(|word| *word != "--");
    let words: Vec<_> = words.skip(1).take(3).filter(|word| !word.contains('\n')).collect();
    match words.is_empty() {
        true => format!("`{}`", command.get_program().to_string_lossy()),
        false => format!("`{}`", words.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn output_goes_where_it_should() {
        assert_eq!(capture(program("echo").arg("a")).unwrap(), "a\n");
        let error = capture(program("sh").args(["-c", "echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("`sh -c "), "{error}");
        assert!(error.ends_with("exit status: 3\n\nwhy"), "{error}");
        assert!(succeeds(&mut program("true")));
        assert!(!succeeds(&mut program("false")));
    }

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let mut command = program("sh");
            command.args(["-c", "echo ready; exec sleep 30"]).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // The signal is asked for before the program starts, so not before its first word.
            let mut word = [0; 6];
            child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
            child
        });
        let mut child = started.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }

    #[test]
    fn a_tail_is_the_last_lines() {
        let text: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let tail = tail(&text.join("\n"));
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("\n99"));
    }
}
