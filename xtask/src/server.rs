//! Servers that run beside a task and end with it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{program, read_lossy, succeeds, tail};
use crate::error::{Result, TaskError};
use crate::{http, workspace};

/// Time a server has for its start.
const START: Duration = Duration::from_secs(60);
/// Time a server has to end by itself after SIGTERM.
const STOP: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A running server; it ends with this value, by its process id.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts a program, its output going to a log.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).map_err(TaskError::at("write", log))?;
        let copy = file.try_clone().map_err(TaskError::at("write", log))?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        let child = child.map_err(|error| TaskError::new(format!("cannot start {name}: {error}")))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
        })
    }

    /// Asks until there is an answer; an error with the log's end when the server ends, or is too slow.
    pub(crate) fn wait_for<T>(&mut self, mut ask: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let until = Instant::now() + START;
        loop {
            let log = read_lossy(&self.log);
            if let Some(answer) = ask(&log) {
                return Ok(answer);
            }
            let ended = self
                .child
                .try_wait()
                .map_err(|error| TaskError::new(format!("cannot watch {}: {error}", self.name)))?;
            if let Some(status) = ended {
                return Err(TaskError::new(format!(
                    "{} ended: {status}\n\n{}",
                    self.name,
                    tail(&log)
                )));
            }
            if Instant::now() > until {
                return Err(TaskError::new(format!("{} did not start\n\n{}", self.name, tail(&log))));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The server's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Asks the server to end, waits, and kills it only when it does not.
    fn stop(&mut self) -> std::io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let id = self.child.id().to_string();
        succeeds(Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &id]));
        let until = Instant::now() + STOP;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("cannot stop {} (process {}): {error}", self.name, self.child.id());
        }
    }
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| TaskError::new(format!("cannot find a free port: {error}")))
}

/// Debian's `docker-registry` with all of its files in one directory.
#[derive(Debug)]
pub(crate) struct Registry {
    /// The process.
    pub(crate) server: Server,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
}

impl Registry {
    /// Starts a registry without images. With an htpasswd file it asks for a login.
    pub(crate) fn start(directory: &Path, htpasswd: Option<&Path>) -> Result<Self> {
        workspace::make_empty(&directory.join("data"))?;
        Self::start_with_data(directory, htpasswd)
    }

    /// Starts a registry without images by another program.
    pub(crate) fn start_with_program(directory: &Path, command: Command) -> Result<Self> {
        workspace::make_empty(&directory.join("data"))?;
        Self::start_program(directory, None, command)
    }

    /// Starts a registry with the images that are in its directory already.
    pub(crate) fn start_with_data(directory: &Path, htpasswd: Option<&Path>) -> Result<Self> {
        Self::start_program(directory, htpasswd, program("docker-registry"))
    }

    /// Starts a registry with the images that are in its directory already, by another program.
    pub(crate) fn start_program(directory: &Path, htpasswd: Option<&Path>, mut command: Command) -> Result<Self> {
        let mut config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage:\n  cache: {{blobdescriptor: inmemory}}\n  \
             filesystem: {{rootdirectory: '{}/data'}}\n  delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            directory.display()
        );
        if let Some(file) = htpasswd {
            config.push_str(&format!(
                "auth:\n  htpasswd: {{realm: roadstead-demo, path: '{}'}}\n",
                file.display()
            ));
        }
        let path = directory.join("config.yml");
        workspace::write(&path, &config)?;
        let mut server = Server::start(
            "docker-registry",
            command.arg("serve").arg(&path),
            &directory.join("registry.log"),
        )?;
        let port = server.wait_for(listening_port)?;
        Ok(Self { server, port })
    }

    /// The registry as the first part of an image's name.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// The port the kernel chose, from the registry's log.
fn listening_port(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("listening on 127.0.0.1:")?;
    let (digits, _) = rest.split_once(|character: char| !character.is_ascii_digit())?;
    digits.parse().ok()
}

/// The AWS emulator.
#[derive(Debug)]
pub(crate) struct Moto {
    /// The process.
    pub(crate) server: Server,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
}

impl Moto {
    /// Starts moto from its directory of programs.
    pub(crate) fn start(programs: &Path, log: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = program(programs.join("moto_server"));
        let mut server = Server::start("moto", command.args(["-H", "127.0.0.1", "-p", &port.to_string()]), log)?;
        server.wait_for(|_| {
            http::get(port, "/moto-api/data.json")
                .ok()
                .filter(|(status, _)| *status == 200)
        })?;
        Ok(Self { server, port })
    }

    /// Gives a program the emulator's account and nothing of a real one.
    pub(crate) fn account<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_ECR"] {
            command.env_remove(name);
        }
        command
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ACCESS_KEY_ID", "demo")
            // A job's log masks it, so it is no word that a log may have anyway.
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anyone")
            .env("AWS_REGION", "us-east-1")
            // boto3 goes by this one.
            .env("AWS_DEFAULT_REGION", "us-east-1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_in_the_log() {
        assert_eq!(
            listening_port("time=x msg=\"listening on 127.0.0.1:39497\" go=1"),
            Some(39497)
        );
        assert_eq!(listening_port("msg=\"listening on 127.0.0.1:394"), None);
    }

    #[test]
    fn a_server_that_ends_is_reported_with_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-server-{}", std::process::id()));
        let mut server = Server::start("it", program("sh").args(["-c", "echo no space; exit 1"]), &log).unwrap();
        let error = server.wait_for(|_| None::<()>).unwrap_err().to_string();
        assert_eq!(error, "it ended: exit status: 1\n\nno space");
        std::fs::remove_file(&log).unwrap();
    }
}
