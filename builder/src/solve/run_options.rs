//! What the caller's flags say of every RUN.

use crate::cache::key::KeyBuilder;
use crate::dockerfile::instruction::Network;
use crate::sandbox::Ulimit;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// Host name inside a RUN, as BuildKit has it, so that what programs write does not depend on the machine.
const HOSTNAME: &str = "buildkitsandbox";
/// Longest host name that the kernel takes, in bytes.
const MAX_HOSTNAME: usize = 64;

/// Settings of all RUN commands. Those that a command can tell are part of its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// `--add-host`, in order.
    pub hosts: Vec<Host>,
    /// `--shm-size`: the size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--network`: what a command has that does not say itself.
    pub network: Network,
    /// `--allow-metadata`: commands may ask the machine's endpoints of credentials.
    pub allow_metadata: bool,
}

impl RunOptions {
    /// Adds what the result of a command depends on. As with BuildKit, that is the names of hosts and not their addresses.
    pub(super) fn add_to(&self, key: &mut KeyBuilder) {
        if !self.hosts.is_empty() {
            key.add_all("hosts", self.hosts.iter().map(|host| &host.name));
        }
        if let Some(size) = self.shm_size {
            key.add("shm size", size.to_string());
        }
        if !self.ulimits.is_empty() {
            key.add_all("ulimits", self.ulimits.iter().map(ToString::to_string));
        }
    }

    /// Writes `/etc/hosts`.
    pub(super) fn hosts_file(&self, hostname: &str) -> String {
        let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for host in &self.hosts {
            // Into a string, which takes everything.
            let _whole = writeln!(text, "{}\t{}", host.address, host.name);
        }
        text
    }

    /// Tells whether a command has no network.
    pub(super) fn no_network(&self, of_command: Network) -> bool {
        match of_command {
            Network::Default => self.network == Network::None,
            network => network == Network::None,
        }
    }
}

/// A name and its address: `NAME:IP` or `NAME=IP`. The address `host-gateway` is the machine that builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: String,
    address: IpAddr,
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("`{text}` {what}: NAME=IP or NAME:IP");
        let parts = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = parts.ok_or_else(|| bad("is no host with an address"))?;
        if !is_host_name(name) {
            return Err(bad("has no host name"));
        }
        let address = match address {
            // A command has the network of the machine itself, so that is where its services are.
            "host-gateway" => Ipv4Addr::LOCALHOST.into(),
            address => {
                let bare = address
                    .strip_prefix('[')
                    .and_then(|a| a.strip_suffix(']'))
                    .unwrap_or(address);
                bare.parse().map_err(|_| bad("has no IP address"))?
            }
        };
        Ok(Self {
            name: name.to_ascii_lowercase(),
            address,
        })
    }
}

/// Reads the host name of `BUILDKIT_SANDBOX_HOSTNAME`.
pub(super) fn hostname(given: Option<&String>) -> Result<String, String> {
    match given.map(String::as_str).filter(|name| !name.is_empty()) {
        None => Ok(HOSTNAME.to_owned()),
        Some(name) if is_host_name(name) && name.len() <= MAX_HOSTNAME => Ok(name.to_owned()),
        Some(name) => Err(format!(
            "BUILDKIT_SANDBOX_HOSTNAME: `{}` is no host name of at most {MAX_HOSTNAME} letters, digits and `-._`",
            name.escape_debug()
        )),
    }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_both_spellings() {
        for (text, want) in [
            ("Db:10.0.0.1", Ok("10.0.0.1\tdb")),
            ("db=10.0.0.1", Ok("10.0.0.1\tdb")),
            ("six:::1", Ok("::1\tsix")),
            ("six=[fe80::1]", Ok("fe80::1\tsix")),
            ("up:host-gateway", Ok("127.0.0.1\tup")),
            ("db", Err("is no host with an address")),
            ("=1.2.3.4", Err("has no host name")),
            ("a b=1.2.3.4", Err("has no host name")),
            ("a\n1.1.1.1 b=1.2.3.4", Err("has no host name")),
            ("db=1.2.3", Err("has no IP address")),
            ("db=other", Err("has no IP address")),
        ] {
            match (text.parse::<Host>(), want) {
                (Ok(host), Ok(want)) => {
                    let options = RunOptions {
                        hosts: vec![host],
                        ..RunOptions::default()
                    };
                    assert_eq!(options.hosts_file("me").lines().last(), Some(want));
                }
                (Err(error), Err(want)) => assert!(error.contains(want), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn keys_tell_names_and_limits_apart_but_not_addresses() {
        let key = |host: &str, shm_size, ulimit: &str| {
            let options = RunOptions {
                hosts: vec![host.parse().unwrap()],
                shm_size,
                ulimits: vec![ulimit.parse().unwrap()],
                network: Network::Default,
                allow_metadata: false,
            };
            let mut key = KeyBuilder::new("RUN");
            options.add_to(&mut key);
            key.finish()
        };
        let one = key("a=1.1.1.1", None, "core=0");
        assert_eq!(one, key("A=2.2.2.2", None, "core=0:0"));
        for other in [
            key("b=1.1.1.1", None, "core=0"),
            key("a=1.1.1.1", Some(1), "core=0"),
            key("a=1.1.1.1", None, "core=0:1"),
        ] {
            assert_ne!(one, other);
        }
        let mut plain = KeyBuilder::new("RUN");
        RunOptions::default().add_to(&mut plain);
        assert_eq!(plain.finish(), KeyBuilder::new("RUN").finish());
    }

    #[test]
    fn host_names_are_checked() {
        assert_eq!(hostname(None).unwrap(), "buildkitsandbox");
        assert_eq!(hostname(Some(&"ci-1.example".to_owned())).unwrap(), "ci-1.example");
        for bad in ["a b", "a\nb", &"x".repeat(65)] {
            assert!(
                hostname(Some(&bad.to_owned())).unwrap_err().contains("is no host name"),
                "{bad}"
            );
        }
    }
}
