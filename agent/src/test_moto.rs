//! A real AWS emulator for tests: `moto_server`, installed once below the target directory.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};

/// A running emulator; it ends with this value.
#[derive(Debug)]
pub(crate) struct Moto {
    server: Child,
    port: u16,
}

/// The target directory, from where the test binary lies: `TARGET/PROFILE/deps/NAME`.
fn target_directory() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    binary.ancestors().nth(3).unwrap().to_owned()
}

/// Installs the emulator unless it is there. Several test processes may come here at once; a lock lets one work.
fn install() -> PathBuf {
    let home = target_directory().join("moto");
    let server = home.join("bin/moto_server");
    let lock = File::create(target_directory().join("moto.lock")).unwrap();
    lock.lock().unwrap();
    if !server.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&home));
        run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "moto[server]"]));
    }
    server
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{command:?}: {status:?}"
    );
}

fn is_up(port: u16) -> bool {
    TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(200)).is_ok()
}

impl Moto {
    /// Starts the emulator on a free port; panics when it cannot be had.
    pub(crate) fn start() -> Self {
        let program = install();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&program);
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null());
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut moto = Self { server, port };
        let until = Instant::now() + Duration::from_secs(60);
        while !is_up(port) {
            assert!(
                moto.server.try_wait().unwrap().is_none() && Instant::now() < until,
                "moto did not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        moto
    }

    /// A client of its SQS.
    pub(crate) fn sqs(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(format!("http://127.0.0.1:{}", self.port))
            .build();
        aws_sdk_sqs::Client::from_conf(config)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself; what counts is that it is gone.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
