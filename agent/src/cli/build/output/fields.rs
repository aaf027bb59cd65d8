//! The fields of `--output`: comma-separated values as Go's CSV reader takes them, each `key=value`.

use roadstead_builder::dockerfile::csv;
use roadstead_builder::dockerfile::instruction::distance;

/// Keys that belong to some type of output.
const KEYS: [&str; 20] = [
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

/// Fields that were not looked at yet.
#[derive(Debug)]
pub(super) struct Fields {
    text: String,
    rest: Vec<(String, String)>,
}

impl Fields {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let fields = csv::record(text).map_err(|e| format!("invalid output `{text}`: {e}"))?;
        let pair = |field: String| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
            None => Err(format!("invalid output `{text}`: `{field}` has no value")),
        };
        Ok(Self {
            text: text.to_owned(),
            rest: fields.into_iter().map(pair).collect::<Result<_, _>>()?,
        })
    }

    /// Takes a key; the last one counts.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let found = self
            .rest
            .iter()
            .rfind(|(known, _)| known == key)
            .map(|(_, value)| value.clone());
        self.rest.retain(|(known, _)| known != key);
        found
    }

    /// Takes a key that is true or false, as Go reads it; without value it is true.
    pub(super) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(format!(
                "invalid `{key}={value}` in output `{}`: it is true or false",
                self.text
            )),
        }
    }

    /// Takes all fields whose key begins with `prefix`.
    pub(super) fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, rest) = std::mem::take(&mut self.rest)
            .into_iter()
            .partition(|(key, _)| key.starts_with(prefix));
        self.rest = rest;
        taken
    }

    /// Makes what is wrong with the output a message.
    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("invalid output `{}`: {what}", self.text)
    }

    /// Refuses what nobody has taken.
    pub(super) fn finish(self, kind: &str) -> Result<(), String> {
        let Some((key, value)) = self.rest.first() else {
            return Ok(());
        };
        let of = format!("of output `{}`", self.text);
        if KEYS.contains(&key.as_str()) {
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
        let near = KEYS
            .iter()
            .min_by_key(|known| distance(known, key))
            .filter(|known| distance(known, key) <= 3);
        let near = near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        Err(format!("there is no key `{key}` {of}{near}"))
    }
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
            let error = Fields::read(text).unwrap().finish("tar").unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        assert!(
            Fields::read("push=maybe")
                .unwrap()
                .take_bool("push")
                .unwrap_err()
                .contains("true or false")
        );
        assert!(Fields::read("push").unwrap_err().contains("no value"));
    }
}
