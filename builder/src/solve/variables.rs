//! ARG and ENV: what a name means at an instruction.

use super::error::{BuildError, Result};
use crate::dockerfile::words::{self, WordError};
use crate::dockerfile::{Dockerfile, Kind};
use crate::image::config::ImageState;
use roadstead_registry_client::Platform;
use std::collections::BTreeMap;

/// Proxy variables that `--build-arg` may set without an ARG; they reach RUN, but neither history nor cache keys.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Arguments that are read before the build begins.
const READ_BEFORE: [&str; 3] = ["BUILDKIT_DOCKERFILE_CHECK", "BUILDKIT_SYNTAX", "SOURCE_DATE_EPOCH"];

/// Holds the ARGs before the first FROM, the values given on the command line, and the automatic ones.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    declared: BTreeMap<String, Option<String>>,
    given: BTreeMap<String, String>,
    automatic: BTreeMap<String, String>,
    platform: Platform,
}

impl Globals {
    pub(super) fn new(file: &Dockerfile, given: &BTreeMap<String, String>, platform: &Platform) -> Result<Self> {
        let host = Platform::host();
        let mut automatic = BTreeMap::new();
        for (prefix, platform) in [("TARGET", platform), ("BUILD", &host)] {
            let variant = platform.variant.clone().unwrap_or_default();
            automatic.insert(format!("{prefix}PLATFORM"), platform.to_string());
            automatic.insert(format!("{prefix}OS"), platform.os.clone());
            automatic.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            automatic.insert(format!("{prefix}VARIANT"), variant);
        }
        let mut globals = Self {
            declared: BTreeMap::new(),
            given: given.clone(),
            automatic,
            platform: platform.clone(),
        };
        for instruction in &file.global_args {
            let Kind::Arg(args) = &instruction.kind else { continue };
            for (name, default) in args {
                let value = match (globals.given.get(name), default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        Some(globals.expand(default, file.escape).map_err(|e| BuildError::At {
                            place: Box::new(file.error(instruction.span, e.to_string())),
                        })?)
                    }
                    (None, None) => globals.automatic.get(name).cloned(),
                };
                globals.declared.insert(name.clone(), value);
            }
        }
        Ok(globals)
    }

    /// The platform that is built for.
    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Expands a word of FROM.
    pub(super) fn expand(&self, text: &str, escape: char) -> std::result::Result<String, WordError> {
        let lookup = |name: &str| match self.declared.get(name) {
            Some(value) => value.clone(),
            None => self.automatic.get(name).cloned(),
        };
        words::expand(text, escape, &lookup)
    }

    /// Gives the value of an ARG that a stage declares.
    fn value(&self, name: &str, default: Option<String>, stage_name: &str) -> Option<String> {
        if let Some(given) = self.given.get(name) {
            return Some(given.clone());
        }
        if default.is_some() {
            return default;
        }
        if name == "TARGETSTAGE" {
            return Some(stage_name.to_owned());
        }
        self.declared
            .get(name)
            .cloned()
            .flatten()
            .or_else(|| self.automatic.get(name).cloned())
    }

    /// Proxy variables given on the command line.
    pub(super) fn proxies(&self) -> Vec<(String, String)> {
        self.given
            .iter()
            .filter(|(name, _)| PROXIES.contains(&name.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// The time that `SOURCE_DATE_EPOCH` gives, when it is given.
    pub(super) fn epoch(&self) -> Result<Option<i64>> {
        let declared = self.declared.get("SOURCE_DATE_EPOCH").cloned().flatten();
        let Some(text) = self.given.get("SOURCE_DATE_EPOCH").cloned().or(declared) else {
            return Ok(None);
        };
        let seconds = text.parse::<i64>().ok().filter(|s| (0..=253_402_300_799).contains(s));
        let message = || {
            BuildError::Other(format!(
                "invalid SOURCE_DATE_EPOCH `{text}`: expected whole seconds since 1970"
            ))
        };
        seconds.map(Some).ok_or_else(message)
    }
}

/// Holds the ARGs of one stage in the order of their declaration.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    globals: Globals,
    stage_name: String,
    args: Vec<(String, Option<String>)>,
}

impl Scope {
    pub(super) fn new(globals: &Globals, stage_name: &str) -> Self {
        Self {
            globals: globals.clone(),
            stage_name: stage_name.to_owned(),
            args: Vec::new(),
        }
    }

    /// Takes over the ARGs of the stage this one is built on.
    pub(super) fn inherit(&mut self, parent: &Self) {
        self.args.clone_from(&parent.args);
    }

    /// Declares an ARG and gives its value. `default` is expanded only when it is used.
    pub(super) fn declare(
        &mut self,
        name: &str,
        default: Option<&str>,
        state: &ImageState,
        escape: char,
    ) -> std::result::Result<Option<String>, WordError> {
        let default = match default {
            Some(text) if !self.globals.given.contains_key(name) => Some(self.expand(text, state, escape)?),
            _ => None,
        };
        let value = self.globals.value(name, default, &self.stage_name);
        self.args.retain(|(known, _)| known != name);
        self.args.push((name.to_owned(), value.clone()));
        Ok(value)
    }

    fn lookup(&self, name: &str, state: &ImageState) -> Option<String> {
        let env = state.get_env(name).map(str::to_owned);
        env.or_else(|| {
            self.args
                .iter()
                .find(|(known, _)| known == name)
                .and_then(|(_, value)| value.clone())
        })
    }

    /// Expands a word. ENV beats ARG.
    pub(super) fn expand(
        &self,
        text: &str,
        state: &ImageState,
        escape: char,
    ) -> std::result::Result<String, WordError> {
        words::expand(text, escape, &|name: &str| self.lookup(name, state))
    }

    /// Expands words and splits them at white space.
    pub(super) fn expand_split(
        &self,
        text: &str,
        state: &ImageState,
        escape: char,
    ) -> std::result::Result<Vec<String>, WordError> {
        words::expand_split(text, escape, &|name: &str| self.lookup(name, state))
    }

    /// Expands a heredoc body.
    pub(super) fn expand_heredoc(
        &self,
        text: &str,
        state: &ImageState,
        escape: char,
    ) -> std::result::Result<String, WordError> {
        words::expand_heredoc(text, escape, &|name: &str| self.lookup(name, state))
    }

    /// The ARGs that RUN sees: those with a value, save where ENV has the name.
    pub(super) fn run_args(&self, state: &ImageState) -> Vec<(String, String)> {
        let visible = self.args.iter().filter(|(name, _)| state.get_env(name).is_none());
        visible
            .filter_map(|(name, value)| value.clone().map(|value| (name.clone(), value)))
            .collect()
    }

    /// Proxy variables for RUN that no ARG declares.
    pub(super) fn proxies(&self, state: &ImageState) -> Vec<(String, String)> {
        let mut proxies = self.globals.proxies();
        proxies.retain(|(name, _)| state.get_env(name).is_none() && !self.args.iter().any(|(known, _)| known == name));
        proxies
    }
}

/// Names the `--build-arg`s that no ARG takes and that mean nothing by themselves.
pub(super) fn unused_args(file: &Dockerfile, given: &BTreeMap<String, String>) -> Vec<String> {
    let all = file
        .global_args
        .iter()
        .chain(file.stages.iter().flat_map(|s| &s.instructions));
    let declared: Vec<&String> = all
        .filter_map(|i| {
            if let Kind::Arg(args) = &i.kind {
                Some(args)
            } else {
                None
            }
        })
        .flat_map(|args| args.iter().map(|(name, _)| name))
        .collect();
    let known = |name: &str| PROXIES.contains(&name) || READ_BEFORE.contains(&name);
    given
        .keys()
        .filter(|name| !declared.contains(name) && !known(name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    #[test]
    fn args_globals_env_and_automatic() {
        let file = parse("Dockerfile", "ARG A=1\nARG B=$A-2\nARG C\nFROM scratch\nARG A\n").unwrap();
        let given = BTreeMap::from([
            ("C".to_owned(), "c".to_owned()),
            ("HTTP_PROXY".to_owned(), "p".to_owned()),
        ]);
        let platform: Platform = "linux/arm64".parse().unwrap();
        let globals = Globals::new(&file, &given, &platform).unwrap();
        assert_eq!(globals.expand("$B $C $TARGETARCH", '\\').unwrap(), "1-2 c arm64");
        let mut state = ImageState::scratch(platform);
        let mut scope = Scope::new(&globals, "x");
        assert_eq!(scope.expand("$A", &state, '\\').unwrap(), "");
        scope.declare("A", None, &state, '\\').unwrap();
        scope.declare("D", Some("$A$A"), &state, '\\').unwrap();
        scope.declare("TARGETARCH", None, &state, '\\').unwrap();
        scope.declare("E", None, &state, '\\').unwrap();
        assert_eq!(scope.expand("$A $D $TARGETARCH", &state, '\\').unwrap(), "1 11 arm64");
        state.set_env("A", "env");
        assert_eq!(scope.expand("$A", &state, '\\').unwrap(), "env");
        assert_eq!(scope.run_args(&state).len(), 2);
        assert_eq!(scope.proxies(&state), [("HTTP_PROXY".to_owned(), "p".to_owned())]);
        assert_eq!(
            unused_args(&file, &BTreeMap::from([("X".into(), String::new())])),
            ["X"]
        );
    }
}
