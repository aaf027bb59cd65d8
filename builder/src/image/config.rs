//! The image config as instructions change it, and its JSON with sorted keys.

use crate::cache::document::{CacheDocument, INLINE_FIELD};
use crate::dockerfile::instruction::{Command, Healthcheck};
use roadstead_registry_client::{Digest, ImageConfig, Platform};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// PATH of an image that sets none. Source: moby, `DefaultPathEnvUnix`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Holds the run configuration of an image under construction.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageState {
    /// Environment in order.
    pub env: Vec<(String, String)>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// CMD.
    pub cmd: Option<Vec<String>>,
    /// Whether CMD was given in this stage: ENTRYPOINT resets only an inherited one.
    pub cmd_is_own: bool,
    /// WORKDIR; empty means `/`.
    pub working_dir: String,
    /// USER.
    pub user: String,
    /// EXPOSE, as `port/protocol`.
    pub exposed: BTreeSet<String>,
    /// VOLUME.
    pub volumes: BTreeSet<String>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// HEALTHCHECK in the config's form.
    pub healthcheck: Option<Value>,
    /// SHELL.
    pub shell: Option<Vec<String>>,
    /// MAINTAINER.
    pub author: Option<String>,
    /// History, base first.
    pub history: Vec<Value>,
    /// Platform.
    pub platform: Platform,
    /// ONBUILD triggers for the stages that stand on this one.
    pub on_build: Vec<String>,
    /// Fields of `config` that no instruction knows.
    rest: Map<String, Value>,
}

fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    let list = value?.as_array()?;
    Some(list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn keys(value: Option<&Value>) -> BTreeSet<String> {
    value
        .and_then(Value::as_object)
        .map(|o| o.keys().cloned().collect())
        .unwrap_or_default()
}

impl ImageState {
    /// The state of `FROM scratch`: a PATH and `/`, as BuildKit has it.
    #[must_use]
    pub fn scratch(platform: Platform) -> Self {
        Self {
            env: vec![("PATH".into(), DEFAULT_PATH.into())],
            entrypoint: None,
            cmd: None,
            cmd_is_own: false,
            working_dir: "/".into(),
            user: String::new(),
            exposed: BTreeSet::new(),
            volumes: BTreeSet::new(),
            labels: BTreeMap::new(),
            stop_signal: None,
            healthcheck: None,
            shell: None,
            author: None,
            history: Vec::new(),
            platform,
            on_build: Vec::new(),
            rest: Map::new(),
        }
    }

    /// Takes over a base image's config.
    #[must_use]
    pub fn from_base(base: &ImageConfig) -> Self {
        let raw = base.raw();
        let config = raw
            .get("config")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let env = strings(config.get("Env")).unwrap_or_default();
        let mut state = Self::scratch(base.platform());
        state.env = env
            .iter()
            .map(|e| {
                e.split_once('=')
                    .map_or((e.clone(), String::new()), |(k, v)| (k.into(), v.into()))
            })
            .collect();
        if state.get_env("PATH").is_none() {
            state.set_env("PATH", DEFAULT_PATH);
        }
        state.entrypoint = strings(config.get("Entrypoint"));
        state.cmd = strings(config.get("Cmd"));
        state.working_dir = text(config.get("WorkingDir"));
        state.user = text(config.get("User"));
        state.exposed = keys(config.get("ExposedPorts"));
        state.volumes = keys(config.get("Volumes"));
        if let Some(labels) = config.get("Labels").and_then(Value::as_object) {
            state.labels = labels.iter().map(|(k, v)| (k.clone(), text(Some(v)))).collect();
        }
        state.stop_signal = config
            .get("StopSignal")
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
            .map(str::to_owned);
        state.healthcheck = config.get("Healthcheck").filter(|v| !v.is_null()).cloned();
        state.shell = strings(config.get("Shell"));
        state.author = raw.get("author").and_then(Value::as_str).map(str::to_owned);
        state.history = raw
            .get("history")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        state.on_build = strings(config.get("OnBuild")).unwrap_or_default();
        const KNOWN: [&str; 13] = [
            "Env",
            "Entrypoint",
            "Cmd",
            "WorkingDir",
            "User",
            "ExposedPorts",
            "Volumes",
            "Labels",
            "StopSignal",
            "Healthcheck",
            "Shell",
            "OnBuild",
            "Image",
        ];
        state.rest = config
            .into_iter()
            .filter(|(k, v)| !KNOWN.contains(&k.as_str()) && !v.is_null())
            .collect();
        state
    }

    /// Looks a variable up.
    #[must_use]
    pub fn get_env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Sets a variable in its old place, or at the end.
    pub fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(k, _)| k == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The shell of shell forms.
    #[must_use]
    pub fn shell(&self) -> Vec<String> {
        self.shell
            .clone()
            .unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()])
    }

    /// The words of a command, shell forms with the stage's shell before them.
    #[must_use]
    pub fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }

    /// Sets CMD.
    pub fn set_cmd(&mut self, command: &Command) {
        self.cmd = Some(self.words(command));
        self.cmd_is_own = true;
        self.rest.insert("ArgsEscaped".into(), Value::Bool(true));
    }

    /// Sets ENTRYPOINT, which resets an inherited CMD.
    pub fn set_entrypoint(&mut self, command: &Command) {
        self.entrypoint = Some(self.words(command));
        if !self.cmd_is_own {
            self.cmd = None;
        }
    }

    /// Sets HEALTHCHECK.
    pub fn set_healthcheck(&mut self, check: &Healthcheck) {
        let Some(command) = &check.command else {
            self.healthcheck = Some(json!({ "Test": ["NONE"] }));
            return;
        };
        let test = match command {
            Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
            Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
        };
        let mut value = Map::new();
        value.insert("Test".into(), json!(test));
        for (name, number) in [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
            ("Retries", i64::from(check.retries)),
        ] {
            if number != 0 {
                value.insert(name.into(), json!(number));
            }
        }
        self.healthcheck = Some(Value::Object(value));
    }

    /// Records an instruction in the history.
    pub fn add_history(&mut self, created: &str, created_by: &str, empty_layer: bool) {
        let mut entry = json!({ "created": created, "created_by": created_by, "comment": "roadstead.dockerfile" });
        if empty_layer && let Some(entry) = entry.as_object_mut() {
            entry.insert("empty_layer".into(), Value::Bool(true));
        }
        self.history.push(entry);
    }

    /// Writes the config document. Keys are sorted, so equal states give equal bytes.
    #[must_use]
    pub fn to_bytes(&self, created: &str, diff_ids: &[Digest], inline_cache: Option<&CacheDocument>) -> Vec<u8> {
        let set = |names: &BTreeSet<String>| Value::Object(names.iter().map(|n| (n.clone(), json!({}))).collect());
        let mut config = self.rest.clone();
        let env: Vec<String> = self.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut put = |name: &str, value: Value, wanted: bool| {
            if wanted {
                config.insert(name.to_owned(), value);
            }
        };
        put("Env", json!(env), !env.is_empty());
        put("Entrypoint", json!(self.entrypoint), self.entrypoint.is_some());
        put("Cmd", json!(self.cmd), self.cmd.is_some());
        put("WorkingDir", json!(self.working_dir), !self.working_dir.is_empty());
        put("User", json!(self.user), !self.user.is_empty());
        put("ExposedPorts", set(&self.exposed), !self.exposed.is_empty());
        put("Volumes", set(&self.volumes), !self.volumes.is_empty());
        put("OnBuild", json!(self.on_build), !self.on_build.is_empty());
        put("Labels", json!(self.labels), !self.labels.is_empty());
        put("StopSignal", json!(self.stop_signal), self.stop_signal.is_some());
        put("Healthcheck", json!(self.healthcheck), self.healthcheck.is_some());
        put("Shell", json!(self.shell), self.shell.is_some());
        let mut document = json!({
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "created": created,
            "config": config,
            "history": self.history,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        if let Some(document) = document.as_object_mut() {
            if let Some(cache) = inline_cache {
                document.insert(INLINE_FIELD.to_owned(), cache.to_value());
            }
            for (name, value) in [("variant", &self.platform.variant), ("author", &self.author)] {
                if let Some(value) = value {
                    document.insert(name.into(), json!(value));
                }
            }
        }
        // serde_json's maps are sorted as long as its `preserve_order` feature is off; a test holds that.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_whatever_the_order_of_writing() {
        let mut state = ImageState::scratch("linux/amd64".parse().unwrap());
        state.labels.insert("z".into(), "1".into());
        state.labels.insert("a".into(), "2".into());
        state.set_cmd(&Command::Shell("x".into()));
        let text = String::from_utf8(state.to_bytes("1980-01-01T00:00:01Z", &[], None)).unwrap();
        assert_eq!(
            text,
            r#"{"architecture":"amd64","config":{"ArgsEscaped":true,"Cmd":["/bin/sh","-c","x"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Labels":{"a":"2","z":"1"},"WorkingDir":"/"},"created":"1980-01-01T00:00:01Z","history":[],"os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}"#
        );
    }

    #[test]
    fn entrypoint_resets_only_an_inherited_cmd() {
        let base = ImageConfig::parse(br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["a"],"Vendor":1},"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        let mut state = ImageState::from_base(&base);
        state.set_entrypoint(&Command::Exec(vec!["e".into()]));
        assert_eq!(state.cmd, None);
        state.set_cmd(&Command::Exec(vec!["c".into()]));
        state.set_entrypoint(&Command::Exec(vec!["e".into()]));
        assert_eq!(state.cmd, Some(vec!["c".into()]));
        assert!(
            String::from_utf8(state.to_bytes("", &[], None))
                .unwrap()
                .contains("\"Vendor\":1")
        );
    }
}
