//! Debian's `docker-registry` on a free port of 127.0.0.1.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// User and password that [`Registry::with_login`] takes.
pub(crate) const LOGIN: (&str, &str) = ("tester", "secret-pass");

/// bcrypt of `secret-pass`.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuwCOGMJGvW9mUhylOie71ybcMVUf/jdO\n";

/// A registry process, killed at the end of its test.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    pub(crate) fn with_login() -> Self {
        Self::start_with(|dir| {
            let file = dir.join("htpasswd");
            std::fs::write(&file, HTPASSWD).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        })
    }

    fn start_with(more: impl Fn(&Path) -> String) -> Self {
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("roadstead-it-registry-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            dir.join("storage").display(),
            more(&dir)
        );
        std::fs::write(dir.join("config.yml"), text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let registry = Self {
            child: child.expect("docker-registry is needed"),
            port,
            dir,
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the registry did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Names it, as `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Removes all blobs that are no documents, as a collection of garbage may.
    pub(crate) fn forget_layers(&self) {
        let shards = std::fs::read_dir(self.dir.join("storage/docker/registry/v2/blobs/sha256")).unwrap();
        for shard in shards {
            for blob in std::fs::read_dir(shard.unwrap().path()).unwrap() {
                let blob = blob.unwrap().path();
                if !std::fs::read(blob.join("data")).unwrap().starts_with(b"{") {
                    std::fs::remove_dir_all(&blob).unwrap();
                }
            }
        }
    }

    /// Where a blob's bytes lie.
    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir
            .join("storage/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Passes connections on to a registry, until a request holds `needle`: that one is never answered. Gives its own host name.
pub(crate) fn stalling_proxy(registry: &Registry, needle: String) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let upstream = registry.host();
    // The threads end with the tests' process.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), needle, upstream) = (client, needle.clone(), upstream.clone()) else {
                return;
            };
            std::thread::spawn(move || {
                let mut server = TcpStream::connect(upstream).unwrap();
                let (mut back, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut to_client));
                let mut buffer = [0; 65536];
                while let Ok(n @ 1..) = client.read(&mut buffer) {
                    if !String::from_utf8_lossy(&buffer[..n]).contains(&needle) {
                        server.write_all(&buffer[..n]).unwrap();
                    }
                }
            });
        }
    });
    own
}

/// Returns a port nothing listens on, below the range from which the kernel gives ports to clients.
pub(crate) fn free_port() -> u16 {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    for _ in 0..12_000 {
        let number = COUNTER
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id().wrapping_mul(97));
        let port = u16::try_from(20_000 + number % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
