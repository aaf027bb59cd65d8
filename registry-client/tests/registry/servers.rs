//! Real servers for the tests, on free ports of 127.0.0.1: Debian's `docker-registry`, and moto for AWS.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A directory of its own for a test, removed at its end.
pub(crate) struct TestDir {
    path: PathBuf,
}

impl TestDir {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roadstead-registry-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).unwrap();
    }
}

/// A server process, killed at the end of its test.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    dir: TestDir,
}

/// What a client needs to reach a registry that wants a certificate.
pub(crate) struct ClientFiles {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes a certificate for 127.0.0.1 of its own authority; returns what the registry's configuration says of it, and its text.
fn server_certificate(dir: &TestDir) -> (String, String) {
    let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    openssl(
        &[
            "req",
            "-x509",
            "-subj",
            "/CN=roadstead test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ],
        &[("-keyout", &key), ("-out", &certificate)],
    );
    let text = std::fs::read_to_string(&certificate).unwrap();
    let tls = format!(
        "  tls:\n    certificate: {}\n    key: {}\n",
        certificate.display(),
        key.display()
    );
    (tls, text)
}

fn openssl(words: &[&str], files: &[(&str, &Path)]) {
    let mut command = Command::new("openssl");
    command.args(words).stderr(Stdio::null());
    command.args([
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    assert!(command.status().expect("openssl is needed for this test").success());
}

/// User and password the registry of [`Server::with_login`] takes.
pub(crate) const LOGIN: (&str, &str) = ("tester", "secret-pass");

/// bcrypt of `secret-pass`, and of the token moto gives to account 123456789012.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuwCOGMJGvW9mUhylOie71ybcMVUf/jdO\n\
    AWS:$2b$05$abcdefghijklmnopqrstuu/4ofrUS75HrKu6f.iuRo0I/XlrmpqlC\n";

impl Server {
    /// Starts a registry that asks for no login.
    pub(crate) fn registry() -> Self {
        Self::start_registry("", TestDir::new())
    }

    /// Starts a registry that asks for a login of its htpasswd file.
    pub(crate) fn with_login() -> Self {
        let dir = TestDir::new();
        let file = dir.path().join("htpasswd");
        std::fs::write(&file, HTPASSWD).unwrap();
        Self::start_registry(
            &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display()),
            dir,
        )
    }

    /// Starts a registry that speaks https with a certificate of its own authority; returns that certificate, too.
    pub(crate) fn with_tls() -> (Self, String) {
        let dir = TestDir::new();
        let (tls, text) = server_certificate(&dir);
        (Self::start_registry(&tls, dir), text)
    }

    /// Starts a registry that speaks https and wants a client certificate; returns the files a client needs.
    pub(crate) fn with_client_certificates() -> (Self, ClientFiles) {
        let dir = TestDir::new();
        let (tls, _) = server_certificate(&dir);
        let authority = dir.path().join("authority.pem");
        let files = ClientFiles {
            ca: dir.path().join("cert.pem"),
            certificate: dir.path().join("client.pem"),
            key: dir.path().join("client.key"),
        };
        let authority_key = dir.path().join("authority.key");
        openssl(
            &[
                "req",
                "-x509",
                "-subj",
                "/CN=clients",
                "-addext",
                "basicConstraints=critical,CA:TRUE",
            ],
            &[("-keyout", &authority_key), ("-out", &authority)],
        );
        openssl(
            &[
                "req",
                "-x509",
                "-subj",
                "/CN=builder",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
            &[
                ("-CA", &authority),
                ("-CAkey", &authority_key),
                ("-keyout", &files.key),
                ("-out", &files.certificate),
            ],
        );
        let tls = format!("{tls}    clientcas:\n      - {}\n", authority.display());
        (Self::start_registry(&tls, dir), files)
    }

    /// Starts moto, which stands for AWS.
    pub(crate) fn moto() -> Self {
        let port = free_port();
        let mut command = Command::new("moto_server");
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        Self::start(
            &mut command,
            port,
            TestDir::new(),
            "moto_server (of the Python package moto) is needed for this test",
        )
    }

    fn start_registry(more: &str, dir: TestDir) -> Self {
        let port = free_port();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            dir.path().join("storage").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        Self::start(
            &mut command,
            port,
            dir,
            "docker-registry (of Debian's package of that name) is needed for this test",
        )
    }

    fn start(command: &mut Command, port: u16, dir: TestDir, needed: &str) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(needed);
        let server = Self { child, port, dir };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the server on port {port} did not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Where a registry keeps a repository's links and uploads.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let repositories = self.dir.path().join("storage/docker/registry/v2/repositories");
        repositories.join(name)
    }

    /// Names the server as a registry.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Returns a port nothing listens on.
///
/// It lies below the range from which the kernel gives ports to proxies and clients of other tests, so that none of them
/// takes it before the server does.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        // Test processes that run side by side start far from each other.
        let number = COUNTER
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id().wrapping_mul(97));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
