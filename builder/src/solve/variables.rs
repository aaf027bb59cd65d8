//! ARG and ENV: what a name means at an instruction.

use super::error::{BuildError, Result};
use crate::dockerfile::words::{self, WordError};
use crate::dockerfile::{Dockerfile, Kind};
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

/// Arguments that mean something without an ARG.
const KNOWN: [&str; 6] = [
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
    EPOCH,
];

/// The time of what is built, in seconds since 1970; or a word for where it is to be found.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Holds the ARGs before the first FROM, the values given on the command line, and the automatic ones.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    declared: BTreeMap<String, Option<String>>,
    given: BTreeMap<String, String>,
    automatic: BTreeMap<String, String>,
    platform: Platform,
}

impl Globals {
    /// `target` is what `--target` names.
    pub(super) fn new(
        file: &Dockerfile,
        target: Option<&str>,
        given: &BTreeMap<String, String>,
        platform: &Platform,
    ) -> Result<Self> {
        let host = Platform::host();
        let mut automatic = BTreeMap::new();
        let last = file.stages.last().and_then(|stage| stage.name.as_deref());
        let stage = target.or(last).unwrap_or("default");
        automatic.insert("TARGETSTAGE".to_owned(), stage.to_owned());
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
    fn value(&self, name: &str, default: Option<String>) -> Option<String> {
        if let Some(given) = self.given.get(name) {
            return Some(given.clone());
        }
        if default.is_some() {
            return default;
        }
        self.declared
            .get(name)
            .cloned()
            .flatten()
            .or_else(|| self.automatic.get(name).cloned())
    }

    /// Finds the time that `SOURCE_DATE_EPOCH` gives, when it is given. An empty one is not.
    ///
    /// `context` is replaced by the time of the context, for stages that declare the ARG, too. As with BuildKit, a directory of this
    /// machine has none: its times are those of the checkout.
    pub(super) fn settle_epoch(&mut self, file: &Dockerfile, context_time: Option<i64>) -> Result<Option<i64>> {
        let declared = self.declared.get(EPOCH).cloned().flatten();
        let Some(text) = self
            .given
            .get(EPOCH)
            .cloned()
            .or(declared)
            .filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        if text == "context" {
            self.declared.remove(EPOCH);
            self.given.remove(EPOCH);
            if let Some(time) = context_time {
                self.given.insert(EPOCH.to_owned(), time.to_string());
            }
            return Ok(context_time);
        }
        if file.stage_index(&text, file.stages.len()).is_some() && text.parse::<i64>().is_err() {
            return Err(BuildError::Other(format!(
                "cannot honour `{EPOCH}={text}`: the time of a stage is not known here; give seconds since 1970, or `context`"
            )));
        }
        let seconds = text.parse::<i64>().ok().filter(|s| (0..=253_402_300_799).contains(s));
        let message = || {
            BuildError::Other(format!(
                "invalid {EPOCH} `{text}`: expected whole seconds since 1970, or `context`"
            ))
        };
        seconds.map(Some).ok_or_else(message)
    }
}

/// Holds what names mean in one stage. As with BuildKit an ENV and an ARG of one name replace each other: the later one counts for
/// words and for RUN, although only ENV gets into the image.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    globals: Globals,
    environment: Vec<(String, String)>,
    /// The ARGs in the order of their declaration, those of the stages below first.
    declared: Vec<String>,
}

impl Scope {
    /// Begins with the environment of the stage's base.
    pub(super) fn new(globals: &Globals, environment: &[(String, String)]) -> Self {
        Self {
            globals: globals.clone(),
            environment: environment.to_vec(),
            declared: Vec::new(),
        }
    }

    /// Takes over what names mean at the end of the stage this one is built on.
    pub(super) fn inherit(&mut self, parent: &Self) {
        self.environment.clone_from(&parent.environment);
        self.declared.clone_from(&parent.declared);
    }

    /// Takes over a variable that ENV sets.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.environment.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.environment.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Declares an ARG and gives its value. `default` is expanded only when it is used.
    pub(super) fn declare(
        &mut self,
        name: &str,
        default: Option<&str>,
        escape: char,
    ) -> std::result::Result<Option<String>, WordError> {
        let default = match default {
            Some(text) if !self.globals.given.contains_key(name) => Some(self.expand(text, escape)?),
            _ => None,
        };
        let value = self.globals.value(name, default);
        if let Some(value) = &value {
            self.set(name, value);
        }
        if !self.declared.iter().any(|known| known == name) {
            self.declared.push(name.to_owned());
        }
        Ok(value)
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    /// Expands a word.
    pub(super) fn expand(&self, text: &str, escape: char) -> std::result::Result<String, WordError> {
        words::expand(text, escape, &|name: &str| self.lookup(name))
    }

    /// Expands words and splits them at white space.
    pub(super) fn expand_split(&self, text: &str, escape: char) -> std::result::Result<Vec<String>, WordError> {
        words::expand_split(text, escape, &|name: &str| self.lookup(name))
    }

    /// Expands a heredoc body.
    pub(super) fn expand_heredoc(&self, text: &str, escape: char) -> std::result::Result<String, WordError> {
        words::expand_heredoc(text, escape, &|name: &str| self.lookup(name))
    }

    /// The variables that RUN sees.
    pub(super) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The ARGs declared so far with what their names mean now, for the history.
    pub(super) fn declared(&self) -> Vec<(String, String)> {
        let value = |name: &String| self.lookup(name).unwrap_or_default();
        self.declared.iter().map(|name| (name.clone(), value(name))).collect()
    }

    /// Proxy variables for RUN under both their names, whichever was given; they beat every other variable.
    pub(super) fn proxies(&self) -> Vec<(String, String)> {
        let mut proxies: Vec<(String, String)> = Vec::new();
        for upper in PROXIES.iter().filter(|name| name.starts_with(char::is_uppercase)) {
            let lower = upper.to_ascii_lowercase();
            let given = |name: &str| self.globals.given.get(name).cloned();
            if let Some(value) = given(&lower).or_else(|| given(upper)) {
                proxies.push(((*upper).to_owned(), value.clone()));
                proxies.push((lower, value));
            }
        }
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
    let known = |name: &str| PROXIES.contains(&name) || KNOWN.contains(&name);
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
    fn the_epoch_is_a_number_or_the_context_s() {
        let platform = Platform::host();
        let settle = |text: &str, given: Option<&str>, context| {
            let file = parse("Dockerfile", text).unwrap();
            let given = given
                .map(|value| (EPOCH.to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            let mut globals = Globals::new(&file, None, &given, &platform).unwrap();
            let epoch = globals.settle_epoch(&file, context);
            (epoch, globals.value(EPOCH, None))
        };
        let file = "ARG SOURCE_DATE_EPOCH=7\nFROM scratch AS one\n";
        assert_eq!(settle(file, None, None).0.unwrap(), Some(7));
        assert_eq!(settle(file, Some("8"), None).0.unwrap(), Some(8));
        assert_eq!(settle(file, Some(""), None).0.unwrap(), None);
        let (epoch, seen) = settle(file, Some("context"), Some(9));
        assert_eq!((epoch.unwrap(), seen.as_deref()), (Some(9), Some("9")));
        let (epoch, seen) = settle(&file.replace('7', "context"), None, None);
        assert_eq!((epoch.unwrap(), seen), (None, None));
        let error = settle(file, Some("one"), None).0.unwrap_err().to_string();
        assert!(error.contains("time of a stage"), "{error}");
        settle(file, Some("soon"), None).0.unwrap_err();
    }

    #[test]
    fn args_globals_env_and_automatic() {
        let file = parse("Dockerfile", "ARG A=1\nARG B=$A-2\nARG C\nFROM scratch\nARG A\n").unwrap();
        let given = BTreeMap::from([
            ("C".to_owned(), "c".to_owned()),
            ("HTTP_PROXY".to_owned(), "p".to_owned()),
        ]);
        let platform: Platform = "linux/arm64".parse().unwrap();
        let globals = Globals::new(&file, None, &given, &platform).unwrap();
        assert_eq!(globals.expand("$B $C $TARGETARCH", '\\').unwrap(), "1-2 c arm64");
        let mut scope = Scope::new(&globals, &[("PATH".to_owned(), "/bin".to_owned())]);
        assert_eq!(scope.expand("$A$PATH", '\\').unwrap(), "/bin");
        for (name, default) in [("A", None), ("D", Some("$A$A")), ("TARGETARCH", None), ("E", None)] {
            scope.declare(name, default, '\\').unwrap();
        }
        assert_eq!(scope.expand("$A $D $TARGETARCH", '\\').unwrap(), "1 11 arm64");
        scope.set("A", "env");
        assert_eq!(scope.expand("$A", '\\').unwrap(), "env");
        let declared: Vec<String> = scope
            .declared()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(declared, ["A=env", "D=11", "TARGETARCH=arm64", "E="]);
        scope.declare("A", Some("later"), '\\').unwrap();
        assert_eq!(scope.expand("$A", '\\').unwrap(), "later");
        let mut child = Scope::new(&globals, &[]);
        child.inherit(&scope);
        child.declare("D", None, '\\').unwrap();
        assert_eq!(child.expand("$D", '\\').unwrap(), "11");
        let both = [
            ("HTTP_PROXY".to_owned(), "p".to_owned()),
            ("http_proxy".to_owned(), "p".to_owned()),
        ];
        assert_eq!(scope.proxies(), both);
        assert_eq!(
            unused_args(&file, &BTreeMap::from([("X".into(), String::new())])),
            ["X"]
        );
    }
}
