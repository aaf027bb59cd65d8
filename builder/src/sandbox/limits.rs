//! Resource limits of a command: `--ulimit`.

use super::SandboxError;
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The limits by docker's names.
const RESOURCES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// One limit: `NAME=SOFT[:HARD]`, where -1 is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    name: String,
    soft: Option<u64>,
    hard: Option<u64>,
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, values)) = text.split_once('=') else {
            return Err(format!(
                "`{text}` is no limit: NAME=SOFT[:HARD], such as nofile=1024:2048"
            ));
        };
        if !RESOURCES.iter().any(|(known, _)| *known == name) {
            let names = RESOURCES.map(|(known, _)| known).join(", ");
            return Err(format!("there is no limit `{name}`: {names}"));
        }
        let number = |value: &str| match value {
            "-1" => Ok(None),
            value => value
                .parse()
                .map(Some)
                .map_err(|_| format!("`{value}` in `{text}` is no number")),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        // No limit is above every other.
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(format!("`{text}`: the soft limit is above the hard one"));
        }
        Ok(Self {
            name: name.to_owned(),
            soft,
            hard,
        })
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
        write!(f, "{}={}:{}", self.name, number(self.soft), number(self.hard))
    }
}

impl Ulimit {
    /// Sets it for this process and those it starts.
    pub(super) fn apply(&self) -> Result<(), SandboxError> {
        let Some((_, resource)) = RESOURCES.iter().find(|(known, _)| *known == self.name) else {
            return Err(SandboxError::Setup(format!("there is no limit `{}`", self.name)));
        };
        let limit = Rlimit {
            current: self.soft,
            maximum: self.hard,
        };
        rustix::process::setrlimit(*resource, limit).map_err(|e| {
            SandboxError::system(
                format!("set the limit `{self}`: a hard limit is raised by root only"),
                e,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_docker_s() {
        for (text, want) in [
            ("nofile=10", Ok("nofile=10:10")),
            ("core=0:-1", Ok("core=0:-1")),
            ("memlock=-1", Ok("memlock=-1:-1")),
            ("nproc=3:2", Err("above the hard one")),
            ("nproc=-1:2", Err("above the hard one")),
            ("files=3", Err("there is no limit `files`: core, cpu")),
            ("nofile", Err("is no limit")),
            ("nofile=", Err("is no number")),
            ("nofile=1:2:3", Err("is no number")),
            ("nofile=-2", Err("is no number")),
        ] {
            match (text.parse::<Ulimit>(), want) {
                (Ok(limit), Ok(want)) => assert_eq!(limit.to_string(), want),
                (Err(error), Err(want)) => assert!(error.contains(want), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }
}
