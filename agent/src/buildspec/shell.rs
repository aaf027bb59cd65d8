//! The shell of a build: each command in a fresh process, with the variables and the directory of the one before.
//!
//! CodeBuild speaks of one shell, but what can be seen of it is this wrapper: errors name line 4 of a script, functions and
//! `set -e` do not carry over, plain assignments do. The script is
//!
//! ```text
//! 1  cd -- 'the directory the last command ended in'
//! 2  set -a
//! 3  . env.sh
//! 4  the command …
//!
//!    CODEBUILD_LAST_EXIT=$?, export -p > env.new, pwd > directory.new, exit with the status
//! ```
//!
//! A command that leaves by `exit` or `exec` saves nothing. The new state counts only when both files are complete.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use super::{ShellKind, Version};
use crate::environment::is_shell_identifier;
use crate::error::FileError;
use crate::interrupt::Interrupt;
use crate::job::output::Output;
use crate::processes;

/// Bytes of the saved environment at most; beyond it a command could fill the disk of the runner.
const MAX_STATE_BYTES: u64 = 64 * 1024 * 1024;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this status.
    Exited(ExitStatus),
    /// The run was interrupted meanwhile, and the command was ended.
    Interrupted,
}

/// Why a command could not be run at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot run the shell `{}`", shell.display())]
    Spawn { shell: PathBuf, source: std::io::Error },
    #[error("cannot read the output of a command")]
    Output(#[source] std::io::Error),
    #[error("the build's environment has grown beyond {MAX_STATE_BYTES} bytes")]
    StateTooLarge,
}

/// The state that passes from command to command.
#[derive(Debug)]
pub(crate) struct Shell {
    program: PathBuf,
    version: Version,
    state: PathBuf,
    start: PathBuf,
    directory: PathBuf,
}

impl Shell {
    /// Prepares a shell whose files live in `state` and whose first command starts in `start`.
    pub(crate) fn new(
        kind: ShellKind,
        version: Version,
        state: &Path,
        start: &Path,
        variables: &BTreeMap<String, OsString>,
    ) -> Result<Self, ShellError> {
        let program = match kind {
            ShellKind::Sh => PathBuf::from("/bin/sh"),
            ShellKind::Bash => find_program("bash", variables.get("PATH")).unwrap_or_else(|| "/bin/bash".into()),
        };
        let shell = Self {
            program,
            version,
            state: state.to_owned(),
            start: start.to_owned(),
            directory: start.to_owned(),
        };
        let mut saved = Vec::new();
        for (name, value) in variables {
            export_line(name, value.as_bytes(), &mut saved);
        }
        fs::write(shell.file("env.sh"), saved).map_err(FileError::at("write", &shell.file("env.sh")))?;
        Ok(shell)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// Sets a variable for the commands to come.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), ShellError> {
        let path = self.file("env.sh");
        let mut saved = fs::read(&path).map_err(FileError::at("read", &path))?;
        export_line(name, value.as_bytes(), &mut saved);
        fs::write(&path, saved).map_err(FileError::at("write", &path))?;
        Ok(())
    }

    /// Runs one command to its end, its output going to `output`.
    pub(crate) async fn run(
        &mut self,
        command: &str,
        output: &mut Output,
        interrupt: &mut Interrupt,
    ) -> Result<Ended, ShellError> {
        let script = self.file("script.sh");
        fs::write(&script, self.script(command)).map_err(FileError::at("write", &script))?;
        let status = {
            let mut shell = self.command(&script);
            shell.stdout(output.writer().map_err(ShellError::Output)?);
            shell.stderr(output.writer().map_err(ShellError::Output)?);
            let mut child = shell.spawn().map_err(|source| ShellError::Spawn {
                shell: self.program.clone(),
                source,
            })?;
            // The writers that `shell` holds must go, or the end of the output would never be seen.
            drop(shell);
            let group = child.id();
            tokio::select! {
                status = output.copy_until(child.wait()) => status.map_err(ShellError::Output)?,
                () = interrupt.wait() => {
                    processes::end_group(group, &mut child, interrupt, output).await;
                    return Ok(Ended::Interrupted);
                }
            }
        };
        if self.version == Version::V0_2 {
            self.keep_state()?;
        }
        Ok(Ended::Exited(status))
    }

    /// What the shell makes of `text` inside double quotes, after the last command; for names given as shell text.
    pub(crate) async fn expand(&self, text: &str) -> Result<Vec<u8>, ShellError> {
        self.query(&format!("printf '%s' \"{text}\"")).await
    }

    /// The values of exported variables after the last command; those that are not set are left out.
    pub(crate) async fn exported(&self, names: &[String]) -> Result<BTreeMap<String, String>, ShellError> {
        let mut values = BTreeMap::new();
        for name in names {
            // A mark before the value tells an empty value from none.
            let value = self
                .query(&format!("[ -z \"${{{name}+x}}\" ] || printf '=%s' \"${name}\""))
                .await?;
            if let Some(value) = value.strip_prefix(b"=") {
                values.insert(name.clone(), String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(values)
    }

    async fn query(&self, command: &str) -> Result<Vec<u8>, ShellError> {
        let script = self.file("query.sh");
        let text = format!(
            "cd -- {}\nset -a\n. {}\n{command}\n",
            self.quoted_directory(),
            quoted(&self.file("env.sh"))
        );
        fs::write(&script, text).map_err(FileError::at("write", &script))?;
        let mut shell = self.command(&script);
        shell.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let done = shell.output().await.map_err(|source| ShellError::Spawn {
            shell: self.program.clone(),
            source,
        })?;
        Ok(done.stdout)
    }

    fn command(&self, script: &Path) -> Command {
        let mut shell = Command::new(&self.program);
        shell
            .arg(script)
            .env_clear()
            .stdin(Stdio::null())
            .process_group(0)
            .current_dir("/");
        shell
    }

    fn quoted_directory(&self) -> String {
        quoted(if self.version == Version::V0_1 {
            &self.start
        } else {
            &self.directory
        })
    }

    /// The script around `command`, which begins on line 4 so that the shell's messages read as CodeBuild's do. The empty line
    /// after it is for a command that ends in a backslash, which would take the next line for its own. Nothing of what follows
    /// shows in the log of a command that has said `set -x`.
    fn script(&self, command: &str) -> String {
        let [saved, env, directory] = ["env.sh", "env.new", "directory.new"].map(|name| quoted(&self.file(name)));
        let start = self.quoted_directory();
        format!(
            "cd -- {start}\nset -a\n. {saved}\n{command}\n\n{{ CODEBUILD_LAST_EXIT=$?; set +x -a; }} 2>/dev/null\nexport -p > {env} && pwd > \
             {directory}\nexit $CODEBUILD_LAST_EXIT\n"
        )
    }

    /// Takes over what the last command saved, if it did.
    fn keep_state(&mut self) -> Result<(), ShellError> {
        let [env, directory] = ["env.new", "directory.new"].map(|name| self.file(name));
        let saved = match fs::read(&directory) {
            Ok(saved) => saved,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::at("read", &directory)(error).into()),
        };
        fs::remove_file(&directory).map_err(FileError::at("remove", &directory))?;
        let size = fs::symlink_metadata(&env).map_err(FileError::at("read", &env))?.len();
        if size > MAX_STATE_BYTES {
            return Err(ShellError::StateTooLarge);
        }
        fs::rename(&env, self.file("env.sh")).map_err(FileError::at("rename", &env))?;
        if let Some(path) = saved.strip_suffix(b"\n").filter(|path| path.starts_with(b"/")) {
            self.directory = PathBuf::from(OsString::from_vec(path.to_vec()));
        }
        Ok(())
    }
}

/// How a status reads in a phase context: Go's words, which CodeBuild prints.
pub(crate) fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_text(signal)),
        (None, None) => "unknown status".to_owned(),
    }
}

fn signal_text(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

fn find_program(name: &str, path: Option<&OsString>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|program| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::metadata(program).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// Names are checked where they come in; one that is none must not be read as a command here.
fn export_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if !is_shell_identifier(name) {
        tracing::warn!(name, "a variable is left out, since its name is none for a shell");
        return;
    }
    out.extend_from_slice(b"export ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    quote(value, out);
    out.push(b'\n');
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for byte in text {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            _ => out.push(*byte),
        }
    }
    out.push(b'\'');
}

fn quoted(path: &Path) -> String {
    let mut out = Vec::new();
    quote(path.as_os_str().as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
