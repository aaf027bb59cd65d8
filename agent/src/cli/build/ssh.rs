//! `--ssh`, as docker takes it: `default|ID[=SOCKET|KEY[,KEY...]]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roadstead_builder::ssh::keys::{Key, KeyAgent, KeyError};
use roadstead_builder::ssh::{Agent, is_socket};

use crate::environment;

/// The agent that a flag without an id means.
const DEFAULT: &str = "default";

/// What one flag gives.
#[derive(Debug)]
pub(super) enum Given {
    /// An agent that runs.
    Agent(Agent),
    /// Keys for an agent of the build's own.
    Keys(Vec<Key>),
}

/// Reads all flags now, so that an agent or a key that is missing is an error before anything is built.
pub(super) fn read(flags: &[String]) -> Result<BTreeMap<String, Given>, String> {
    let own = std::env::var_os(environment::SSH_AUTH_SOCK).filter(|path| !path.is_empty());
    let mut agents = BTreeMap::new();
    for flag in flags {
        let (id, paths) = flag.split_once('=').unwrap_or((flag, ""));
        let id = if id.is_empty() { DEFAULT } else { id };
        let given = read_one(paths, own.as_deref().map(Path::new)).map_err(|why| format!("`--ssh {flag}`: {why}"))?;
        if agents.insert(id.to_owned(), given).is_some() {
            return Err(format!("`--ssh` gives the agent `{id}` twice"));
        }
    }
    Ok(agents)
}

fn read_one(paths: &str, own: Option<&Path>) -> Result<Given, String> {
    if paths.is_empty() {
        let own =
            own.ok_or("SSH_AUTH_SOCK is not set: start an agent, or give its socket or a key file: --ssh ID=PATH")?;
        return agent(own);
    }
    let paths: Vec<&Path> = paths.split(',').map(Path::new).collect();
    match paths.as_slice() {
        [only] if is_socket(only) => agent(only),
        several if several.iter().any(|path| is_socket(path)) => {
            Err("one socket or several key files, but not both".to_owned())
        }
        keys => {
            let keys = keys.iter().map(|path| Key::read(path)).collect::<Result<Vec<_>, _>>();
            let keys = keys.and_then(|keys| KeyAgent::check().map(|()| keys));
            keys.map(Given::Keys).map_err(|error| told(&error))
        }
    }
}

fn agent(socket: &Path) -> Result<Given, String> {
    let failed = |error| format!("cannot reach the SSH agent at `{}`: {error}", socket.display());
    let socket = std::path::absolute(socket).map_err(failed)?;
    Agent::at(socket).map(Given::Agent).map_err(failed)
}

/// One message with its cause.
fn told(error: &KeyError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The agents of a build, and those among them that it has started: they end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Agents {
    by_id: BTreeMap<String, Agent>,
    _own: Vec<KeyAgent>,
}

impl Agents {
    /// Starts an agent for each set of keys. Their sockets lie below `scratch`.
    pub(super) fn start(given: &BTreeMap<String, Given>, scratch: &Path) -> Result<Self, String> {
        let mut agents = Self::default();
        for (number, (id, given)) in given.iter().enumerate() {
            let agent = match given {
                Given::Agent(agent) => agent.clone(),
                Given::Keys(keys) => {
                    let directory: PathBuf = scratch.join(format!("ssh-agent-{number}"));
                    let own = KeyAgent::start(&directory, keys);
                    let own = own.map_err(|error| format!("`--ssh {id}`: {}", told(&error)))?;
                    let agent = own.agent();
                    agents._own.push(own);
                    agent
                }
            };
            agents.by_id.insert(id.clone(), agent);
        }
        Ok(agents)
    }

    pub(super) fn by_id(&self) -> BTreeMap<String, Agent> {
        self.by_id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_what_is_wrong() {
        let dir = std::env::temp_dir().join(format!("roadstead-ssh-flag-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let socket = dir.join("agent");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let path = socket.to_str().unwrap();
        assert!(matches!(read_one("", Some(&socket)), Ok(Given::Agent(_))));
        let agents = read(&[format!("={path}"), format!("github={path}")]).unwrap();
        assert_eq!(agents.keys().collect::<Vec<_>>(), ["default", "github"]);
        assert!(
            read(&[format!("a={path}"), format!("a={path}")])
                .unwrap_err()
                .contains("`a` twice")
        );
        assert!(read_one("", None).unwrap_err().contains("SSH_AUTH_SOCK is not set"));
        for (paths, want) in [
            (format!("{path},/x"), "not both"),
            ("/no/such/key".into(), "cannot read `/no/such/key`: No such file"),
            ("/etc/hostname".into(), "neither a socket nor a private key"),
        ] {
            let error = read_one(&paths, None).unwrap_err();
            assert!(error.contains(want), "{paths}: {error}");
        }
        drop(listener);
        assert!(read_one(path, None).unwrap_err().contains("cannot reach the SSH agent"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
