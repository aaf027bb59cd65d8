//! The real services of the tests: CNCF Distribution and moto, on free ports. What cannot be had fails the test.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::workspace::{Workspace, wait_for};

/// The user of the registry with a login, and bcrypt of the password `secret-pass`.
const USERS: &str = "tester:$2b$05$abcdefghijklmnopqrstuuwCOGMJGvW9mUhylOie71ybcMVUf/jdO\n";

/// A server that ends with this value.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; what counts is that it is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(command: &mut Command, port: u16) -> Service {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut service = Service { child, port };
    wait_for("a service", || {
        assert!(service.child.try_wait().unwrap().is_none(), "{command:?} ended");
        TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(200)).is_ok()
    });
    service
}

/// Starts a registry. With a login, it takes only user `tester`.
pub(crate) fn registry(workspace: &Workspace, with_login: bool) -> Service {
    let (port, root) = (free_port(), workspace.path("registry"));
    let mut config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        root.display()
    );
    if with_login {
        let users = workspace.path("users");
        fs::write(&users, USERS).unwrap();
        config.push_str(&format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            users.display()
        ));
    }
    workspace.write("registry.yml", &config);
    start(
        Command::new("docker-registry")
            .arg("serve")
            .arg(workspace.path("registry.yml")),
        port,
    )
}

/// Puts a small image into a registry.
pub(crate) fn push_base(workspace: &Workspace, registry: &Service, name: &str) {
    let layout = workspace.path("layout");
    workspace.write("file", "hello\n");
    let image = format!("{}:base", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &image]));
    run(Command::new("umoci")
        .args(["insert", "--image", &image])
        .arg(workspace.path("file"))
        .arg("/file"));
    let target = format!("docker://127.0.0.1:{}/{name}", registry.port);
    run(Command::new("skopeo").args([
        "copy",
        "-q",
        "--dest-tls-verify=false",
        &format!("oci:{image}"),
        &target,
    ]));
}

/// Puts the image of [`push_base`] into the registry again, as one for another platform.
pub(crate) fn push_arm(workspace: &Workspace, registry: &Service, name: &str) {
    let layout = workspace.path("layout");
    let image = format!("{}:base", layout.display());
    run(Command::new("umoci").args(["config", "--image", &image, "--tag", "arm", "--architecture", "arm64"]));
    let target = format!("docker://127.0.0.1:{}/{name}", registry.port);
    let image = format!("oci:{}:arm", layout.display());
    run(Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &image, &target]));
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output();
    assert!(
        done.as_ref().is_ok_and(|done| done.status.success()),
        "{command:?}: {done:?}"
    );
}

fn target_directory() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_roadstead"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

/// Starts the AWS emulator, installing it below the target directory when it is not there.
pub(crate) fn moto() -> Service {
    let home = target_directory().join("moto");
    let server = home.join("bin/moto_server");
    let lock = File::create(target_directory().join("moto.lock")).unwrap();
    lock.lock().unwrap();
    if !server.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&home));
        run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "moto[server]"]));
    }
    drop(lock);
    let port = free_port();
    start(
        Command::new(server).args(["-H", "127.0.0.1", "-p", &port.to_string()]),
        port,
    )
}

/// Points a workspace's runs to the emulator.
pub(crate) fn use_moto(workspace: &mut Workspace, moto: &Service) {
    workspace.set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", moto.port));
    workspace.set("AWS_ACCESS_KEY_ID", "test");
    workspace.set("AWS_SECRET_ACCESS_KEY", "a-secret-access-key");
    workspace.set("AWS_REGION", "us-east-1");
}
