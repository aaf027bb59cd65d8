//! An agent that holds the caller's key files for as long as a build lasts.
//!
//! It is OpenSSH's own `ssh-agent`: whoever has keys has it, it knows every kind of key that `ssh` does, and signing takes no
//! cryptography of ours. The keys go to it through a pipe; its socket lies in a directory that only the builder may enter.

use super::Agent;
use crate::beneath::FileError;
use crate::rootfs::scratch::private_dir;
use base64::Engine as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most bytes of a key file, as with BuildKit.
const MAX_KEY: u64 = 100 << 10;
/// Time that the agent has to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Starts the agent, and ends it by its process id when standard input ends: also when the builder is killed.
const KEEPER: &str = "\"$0\" -D -a agent >/dev/null & read -r _; kill -9 $!; wait $!";

/// Tells why keys cannot be used. No message holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        /// Why.
        source: io::Error,
    },
    /// The file is no key that can be used.
    #[error("`{}` {what}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A program of OpenSSH is missing.
    #[error(
        "key files need `{0}`, which is not installed here: install openssh-client, or start an agent elsewhere and give its socket"
    )]
    Missing(&'static str),
    /// The agent does not take the key.
    #[error("ssh-add does not take `{}`: {message}", path.display())]
    Refused {
        /// The key.
        path: PathBuf,
        /// What it says.
        message: String,
    },
    /// The agent could not be started.
    #[error("cannot start ssh-agent: {message}")]
    Start {
        /// What it says.
        message: String,
    },
    /// There is no place for its socket.
    #[error(transparent)]
    Place(#[from] FileError),
}

/// The bytes of a private key. What it shows of itself is only where it is from.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    path: PathBuf,
    text: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.path.display())
    }
}

impl Key {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it cannot be read, is no private key, or is protected by a passphrase: a build has nobody to ask.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read {
            path: path.to_owned(),
            source,
        };
        let bad = |what| KeyError::Key {
            path: path.to_owned(),
            what,
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_KEY + 1).read_to_end(&mut bytes).map_err(failed)?;
        let text = String::from_utf8(bytes).ok();
        let text = text.filter(|text| text.len() as u64 <= MAX_KEY && is_private_key(text));
        // ssh-add wants lines that end in a line feed.
        let mut text = text
            .ok_or_else(|| bad("is neither a socket nor a private key"))?
            .replace('\r', "");
        if is_protected(&text) {
            return Err(bad(
                "is protected by a passphrase, and nobody can be asked for it: add it to an agent and give the agent's socket",
            ));
        }
        text.push('\n');
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }
}

fn is_private_key(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.any(|line| line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----"))
}

fn is_protected(text: &str) -> bool {
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    // OpenSSH's own form: a magic word, then the name of the cipher behind its length.
    let body: String = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let start = body.get(..64).unwrap_or(&body);
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(start) else {
        return false;
    };
    let cipher = bytes.strip_prefix(b"openssh-key-v1\0\0\0\0");
    cipher.is_some_and(|cipher| !cipher.starts_with(b"\x04none"))
}

/// An `ssh-agent` of the build's own, ended when dropped.
#[derive(Debug)]
pub struct KeyAgent {
    keeper: Child,
    agent: Agent,
}

impl KeyAgent {
    /// Tells whether there is what it needs.
    ///
    /// # Errors
    /// When OpenSSH's programs are not installed.
    pub fn check() -> Result<(), KeyError> {
        program("ssh-agent").and(program("ssh-add")).map(drop)
    }

    /// Starts an agent that holds `keys`. `directory`, which must not exist yet, is for its socket.
    ///
    /// # Errors
    /// When the agent does not start, or does not take a key.
    pub fn start(directory: &Path, keys: &[Key]) -> Result<Self, KeyError> {
        let (ssh_agent, ssh_add) = (program("ssh-agent")?, program("ssh-add")?);
        private_dir(directory)?;
        let keeper = quiet(Command::new("/bin/sh"), directory)
            .args(["-c", KEEPER])
            .arg(ssh_agent)
            .spawn()
            .map_err(|e| KeyError::Start { message: e.to_string() })?;
        let mut started = Self {
            keeper,
            agent: Agent {
                socket: directory.join("agent"),
            },
        };
        started.wait_for_agent()?;
        for key in keys {
            add(&ssh_add, directory, key)?;
        }
        Ok(started)
    }

    /// The agent, which commands may use as long as this lives.
    #[must_use]
    pub fn agent(&self) -> Agent {
        self.agent.clone()
    }

    fn wait_for_agent(&mut self) -> Result<(), KeyError> {
        let begun = Instant::now();
        while self.agent.connect().is_err() {
            if begun.elapsed() > PATIENCE {
                self.end();
                let mut message = String::new();
                if let Some(mut errors) = self.keeper.stderr.take() {
                    // What it has said until then is said.
                    drop(errors.read_to_string(&mut message));
                }
                let message = format!("it does not listen: {}", message.trim());
                return Err(KeyError::Start { message });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end(&mut self) {
        drop(self.keeper.stdin.take());
        // It has nothing else to wait for.
        drop(self.keeper.wait());
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        self.end();
    }
}

/// Gives a key to the agent through a pipe: no argument, variable or file holds it.
fn add(ssh_add: &Path, directory: &Path, key: &Key) -> Result<(), KeyError> {
    let refused = |message: &str| KeyError::Refused {
        path: key.path.clone(),
        message: message.trim().to_owned(),
    };
    let mut child = quiet(Command::new(ssh_add), directory)
        .args(["-q", "-"])
        .env("SSH_AUTH_SOCK", "agent")
        .spawn()
        .map_err(|e| refused(&e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read on says why.
        drop(stdin.write_all(key.text.as_bytes()));
    }
    let output = child.wait_with_output().map_err(|e| refused(&e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(&String::from_utf8_lossy(&output.stderr)))
}

/// A program that has nothing of the caller's: no variable, no terminal to ask at, and none of its signals.
fn quiet(mut command: Command, directory: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("SSH_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env("DISPLAY", "none")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

fn program(name: &'static str) -> Result<PathBuf, KeyError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_absolute() && file.is_file());
    found.ok_or(KeyError::Missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_other_files() {
        let dir = std::env::temp_dir().join(format!("roadstead-keys-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let openssh = |start: &[u8]| {
            let body =
                base64::engine::general_purpose::STANDARD.encode([b"openssh-key-v1\0\0\0\0", start, &[7; 90]].concat());
            format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n{}\n-----END OPENSSH PRIVATE KEY-----\r\n",
                &body[..70],
                &body[70..]
            )
        };
        for (text, want) in [
            (openssh(b"\x04none"), None),
            (openssh(b"\x0aaes256-ctr"), Some("protected by a passphrase")),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nhunter2\n".into(),
                Some("protected by a passphrase"),
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n".into(),
                Some("protected by a passphrase"),
            ),
            ("-----BEGIN EC PRIVATE KEY-----\nhunter2\n".into(), None),
            (
                "ssh-ed25519 hunter2 me@here".into(),
                Some("neither a socket nor a private key"),
            ),
            (
                format!("-----BEGIN RSA PRIVATE KEY-----\n{}", "x".repeat(200_000)),
                Some("neither"),
            ),
        ] {
            std::fs::write(dir.join("key"), &text).unwrap();
            let read = Key::read(&dir.join("key"));
            match want {
                None => assert!(!format!("{:?}", read.unwrap()).contains("hunter2")),
                Some(want) => {
                    let error = read.unwrap_err();
                    assert!(error.to_string().contains(want), "{error}");
                    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
                }
            }
        }
        assert!(
            Key::read(&dir.join("none"))
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
