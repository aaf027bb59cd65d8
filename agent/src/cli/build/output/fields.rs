//! The fields of `--output`: comma-separated values as Go's CSV reader takes them, each `key=value`.

use roadstead_builder::dockerfile::csv;
use roadstead_builder::dockerfile::instruction::distance;

/// Keys that belong to some type of output.
pub(super) const KEYS: &[&str] = &[
    "type",
    "dest",
    "name",
    "push",
    "push-by-digest",
    "name-canonical",
    "store",
    "unpack",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
    "rewrite-timestamp",
    "tar",
    "platform-split",
    "mode",
    "annotation",
    "annotation-index",
    "annotation-manifest-descriptor",
    "annotation-index-descriptor",
];

/// Keys whose values no message shows.
const SECRETS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];

/// Fields that were not looked at yet.
#[derive(Debug)]
pub(in super::super) struct Fields {
    /// What they say, such as `output`.
    what: &'static str,
    /// Keys that some type of it has.
    keys: &'static [&'static str],
    text: String,
    rest: Vec<(String, String)>,
}

impl Fields {
    pub(in super::super) fn read(
        what: &'static str,
        keys: &'static [&'static str],
        text: &str,
    ) -> Result<Self, String> {
        let is_secret = SECRETS.iter().any(|key| text.contains(key));
        let whole = if is_secret { "" } else { text };
        let fields = csv::record(text).map_err(|e| format!("invalid {what} `{whole}`: {e}"))?;
        let pair = |field: String| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
            None if is_secret => Err(format!("invalid {what}: a field has no value")),
            None => Err(format!("invalid {what} `{text}`: `{field}` has no value")),
        };
        let rest: Vec<(String, String)> = fields.into_iter().map(pair).collect::<Result<_, _>>()?;
        Ok(Self {
            what,
            keys,
            text: shown(text, &rest),
            rest,
        })
    }

    /// Takes a key; the last one counts.
    pub(in super::super) fn take(&mut self, key: &str) -> Option<String> {
        let found = self
            .rest
            .iter()
            .rfind(|(known, _)| known == key)
            .map(|(_, value)| value.clone());
        self.rest.retain(|(known, _)| known != key);
        found
    }

    /// Takes a key that is true or false, as Go reads it; without value it is true.
    pub(in super::super) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!(
                "invalid `{key}={value}` in {} `{}`: it is true or false",
                self.what, self.text
            )),
        }
    }

    /// Takes all fields whose key begins with `prefix`.
    pub(in super::super) fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, rest) = std::mem::take(&mut self.rest)
            .into_iter()
            .partition(|(key, _)| key.starts_with(prefix));
        self.rest = rest;
        taken
    }

    /// Makes what is wrong with the output a message.
    pub(in super::super) fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("invalid {} `{}`: {what}", self.what, self.text)
    }

    /// Refuses what nobody has taken.
    pub(in super::super) fn finish(self, kind: &str) -> Result<(), String> {
        let Some((key, value)) = self.rest.first() else {
            return Ok(());
        };
        let of = format!("of {} `{}`", self.what, self.text);
        if self.keys.contains(&key.as_str()) {
            return Err(format!(
                "cannot honour `{key}={value}` {of}: type={kind} has no such key"
            ));
        }
        if key == "compatibility-version" {
            return Err(format!(
                "cannot honour `{key}={value}` {of}: images are written in one way here, which is none of BuildKit's"
            ));
        }
        if key == "registry.insecure" {
            return Err(format!(
                "cannot honour `{key}={value}` {of}: `insecure = true` of registries.toml says that of a registry"
            ));
        }
        let near = self
            .keys
            .iter()
            .min_by_key(|known| distance(known, key))
            .filter(|known| distance(known, key) <= 3);
        let near = near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        Err(format!("there is no key `{key}` {of}{near}"))
    }
}

/// The text as messages show it: without what is secret in it.
fn shown(text: &str, fields: &[(String, String)]) -> String {
    let is_secret = |key: &str| SECRETS.contains(&key);
    if !fields.iter().any(|(key, _)| is_secret(key)) {
        return text.to_owned();
    }
    let field = |(key, value): &(String, String)| match is_secret(key) {
        true => format!("{key}=***"),
        false => format!("{key}={value}"),
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_named() {
        for (text, want) in [
            ("compresion=zstd", "did you mean `compression`?"),
            ("mode=copy", "type=tar has no such key"),
            ("compatibility-version=30", "compatibility-version"),
            ("registry.insecure=true", "registries.toml"),
            ("zzzzzzzzz=1", "there is no key `zzzzzzzzz`"),
        ] {
            let error = Fields::read("output", KEYS, text).unwrap().finish("tar").unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        assert!(
            Fields::read("output", KEYS, "push=maybe")
                .unwrap()
                .take_bool("push")
                .unwrap_err()
                .contains("true or false")
        );
        assert!(Fields::read("output", KEYS, "push").unwrap_err().contains("no value"));
    }
}
