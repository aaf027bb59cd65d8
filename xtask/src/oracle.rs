//! Docker with BuildKit, from Debian 13 in a root of its own, so that the machine's packages stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{capture, logged, program, succeeds};
use crate::error::{Result, TaskError};
use crate::server::Server;
use crate::workspace::{is_root, make, write};

/// Makes ROOT the root of this process and the processes it becomes. dockerd refuses a plain chroot, since it can't remount `/`.
const ENTER: &str = r#"
set -e
root=$1; shift
mount --bind "$root" "$root"
mkdir -p "$root/.old"
for each in proc sys dev; do mount --rbind /$each "$root/$each"; done
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --bind "$1" "$root$1"
  shift
done
shift
cd "$root"
pivot_root . .old
umount -l /.old
cd /
exec "$@"
"#;
const PACKAGES: &str = "--include=docker.io,docker-cli,docker-buildx,iptables,ca-certificates,git";
/// Bytes of a unix socket's path, with the ending zero.
const SOCKET_LIMIT: usize = 108;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Docker {
    root: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    _server: Server,
}

impl Docker {
    /// Starts the daemon in its root below `directory`, which is made unless it is there. `work` takes what the daemon stores.
    pub(crate) fn start(directory: &Path, work: &Path) -> Result<Self> {
        Self::start_with(directory, work, &[])
    }

    /// The same, and containers can be shown what lies below the directories `shown`, under the same paths.
    pub(crate) fn start_with(directory: &Path, work: &Path, shown: &[&Path]) -> Result<Self> {
        let root = directory.join("trixie");
        make_root(&root)?;
        let config = directory.join("docker-config");
        let plugins = config.join("cli-plugins");
        make(work)?;
        make(&plugins)?;
        let plugin = root.join("usr/libexec/docker/cli-plugins/docker-buildx");
        std::fs::copy(&plugin, plugins.join("docker-buildx")).map_err(TaskError::at("copy", &plugin))?;
        let socket = work.join("docker.sock");
        if socket.as_os_str().len() >= SOCKET_LIMIT {
            return Err(TaskError::new(format!(
                "`{}` is too long for a socket",
                socket.display()
            )));
        }
        let mut command = program("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]);
        command.arg(&root).arg(work).args(shown).args([
            "--",
            "dockerd",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
        ]);
        command
            .arg("--data-root")
            .arg(work.join("data"))
            .arg("--exec-root")
            .arg(work.join("exec"));
        command
            .arg("--pidfile")
            .arg(work.join("docker.pid"))
            .arg("-H")
            .arg(format!("unix://{}", socket.display()));
        // The root's programs, wherever the caller's are.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut server = Server::start("dockerd", &mut command, &work.join("dockerd.log"))?;
        server.wait_for(|_| succeeds(client(&root, &socket, &config).arg("version")).then_some(()))?;
        Ok(Self {
            root,
            socket,
            config,
            _server: server,
        })
    }

    /// Lets BuildKit make its databases, as it has on a machine in use.
    pub(crate) fn warm_up(&self, context: &Path) -> Result<()> {
        make(context)?;
        write(&context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n")?;
        capture(
            self.client()
                .args(["buildx", "build", "--progress", "plain"])
                .arg(context),
        )
        .map(drop)
    }

    /// Prepares the client.
    pub(crate) fn client(&self) -> Command {
        client(&self.root, &self.socket, &self.config)
    }

    /// The versions of daemon and BuildKit's client.
    pub(crate) fn version(&self) -> Result<String> {
        let daemon = capture(self.client().args(["version", "--format", "{{.Server.Version}}"]))?;
        let buildx = capture(self.client().args(["buildx", "version"]))?;
        let buildx = buildx.split_whitespace().nth(1).unwrap_or_default().to_owned();
        Ok(format!("Docker {}, buildx {buildx}", daemon.trim()))
    }
}

/// Whether Docker can be run here: it wants to be root, and to mount.
pub(crate) fn is_possible() -> bool {
    is_root() && succeeds(program("unshare").args(["--mount", "true"]))
}

fn client(root: &Path, socket: &Path, config: &Path) -> Command {
    // It needs nothing but libc, so it runs on the machine as it is.
    let mut command = program(root.join("usr/bin/docker"));
    command
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("DOCKER_CONFIG", config);
    command
}

fn make_root(root: &Path) -> Result<()> {
    if root.exists() {
        return Ok(());
    }
    println!("making a root of Debian 13 with Docker, about half a minute");
    // The name becomes the last one only when the root is whole.
    let part = root.with_extension("part");
    if part.exists() {
        std::fs::remove_dir_all(&part).map_err(TaskError::at("remove", &part))?;
    }
    let mut mmdebstrap = program("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", PACKAGES, "trixie"]).arg(&part);
    logged(&mut mmdebstrap, &root.with_extension("log"))?;
    std::fs::rename(&part, root).map_err(TaskError::at("rename", &part))
}
