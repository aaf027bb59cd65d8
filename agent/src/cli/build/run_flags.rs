//! The flags of docker build that are about what RUN commands see and may do.

use clap::ValueEnum;
use roadstead_builder::dockerfile::instruction::Network;
use roadstead_builder::sandbox::{Choice, Ulimit};
use roadstead_builder::solve::{Host, RunOptions};

use crate::config;

/// Settings of all RUN commands.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RunFlags {
    /// Show an SSH agent to RUN --mount=type=ssh: the one of SSH_AUTH_SOCK, that of a socket, or one that holds key files; may be
    /// repeated.
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY...]]")]
    pub(super) ssh: Vec<String>,
    /// A further name in /etc/hosts of RUN commands; `host-gateway` as IP is this machine; may be repeated.
    #[arg(long = "add-host", value_name = "NAME:IP")]
    hosts: Vec<Host>,
    /// Network of RUN commands that don't say themselves; `default` is the host's.
    #[arg(long = "network", value_enum, value_name = "MODE")]
    mode: Option<NetworkMode>,
    /// Let RUN commands ask this machine's endpoints of credentials and metadata (IMDS, ECS, EKS Pod Identity), which they otherwise
    /// cannot reach.
    #[arg(long)]
    allow_metadata: bool,
    /// Size of /dev/shm of RUN commands [default: 64m].
    #[arg(long, value_name = "SIZE", value_parser = config::size)]
    shm_size: Option<u64>,
    /// Resource limit of RUN commands, such as nofile=1024:2048; may be repeated.
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<Ulimit>,
    /// What RUN commands are kept in: namespaces, or chroot where neither mounts nor user namespaces are allowed; auto takes the first
    /// that works, none runs no command.
    #[arg(
        long,
        env = "ROADSTEAD_SANDBOX",
        value_name = "auto|namespaces|chroot|none",
        default_value = "auto"
    )]
    pub(super) sandbox: Choice,
    /// Allow what docker asks about: network.host is allowed in any case, the others are refused.
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
}

/// Values of `--network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NetworkMode {
    /// The host's.
    Default,
    /// A loopback interface and nothing else.
    None,
    /// The host's.
    Host,
}

impl RunFlags {
    /// Refuses what cannot be honoured.
    pub(super) fn check(&self) -> Result<(), String> {
        for entitlement in &self.allow {
            let why = match entitlement.split('=').next().unwrap_or_default() {
                "network.host" => continue,
                "security.insecure" => "a RUN never gets more than a container's capabilities and system calls",
                "device" => "a RUN sees no devices of the machine",
                _ => "it is one of network.host, security.insecure and device",
            };
            return Err(format!("cannot honour `--allow={entitlement}`: {why}"));
        }
        Ok(())
    }

    pub(super) fn options(&self) -> RunOptions {
        RunOptions {
            hosts: self.hosts.clone(),
            shm_size: self.shm_size,
            ulimits: self.ulimits.clone(),
            network: match self.mode {
                None | Some(NetworkMode::Default) => Network::Default,
                Some(NetworkMode::Host) => Network::Host,
                Some(NetworkMode::None) => Network::None,
            },
            allow_metadata: self.allow_metadata,
        }
    }
}
