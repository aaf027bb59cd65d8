//! The fields of `--output`: comma-separated values as Go's CSV reader takes them, each `key=value`.

use roadstead_builder::dockerfile::csv;
use roadstead_builder::dockerfile::instruction::distance;
use roadstead_registry_client::without_login;

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
/// So many wrong letters still make a key one that may have been meant.
const NEAR: usize = 3;

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
        let fields = csv::record(text).map_err(|e| unreadable(what, text, &e))?;
        let shown = shown(text, &fields);
        let pair = |field: String| match field.split_once('=') {
            Some((key, value)) => Ok((lower(key), value.to_owned())),
            // It may be the rest of a secret that holds a comma.
            None if has_secret(&fields) => Err(format!("invalid {what} `{shown}`: a field has no value")),
            None => {
                let field = without_login(&field);
                Err(format!("invalid {what} `{shown}`: `{field}` has no value"))
            }
        };
        let rest = fields.iter().cloned().map(pair).collect::<Result<_, _>>()?;
        Ok(Self {
            what,
            keys,
            text: shown,
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
                "invalid `{}` in {} `{}`: it is true or false",
                shown_pair(key, &value),
                self.what,
                self.text
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
        let pair = shown_pair(key, value);
        if self.keys.contains(&key.as_str()) {
            return Err(format!("cannot honour `{pair}` {of}: type={kind} has no such key"));
        }
        if key == "compatibility-version" {
            return Err(format!(
                "cannot honour `{pair}` {of}: images are written in one way here, which is none of BuildKit's"
            ));
        }
        if key == "registry.insecure" {
            return Err(format!(
                "cannot honour `{pair}` {of}: `insecure = true` of registries.toml says that of a registry"
            ));
        }
        let near = self
            .keys
            .iter()
            .min_by_key(|known| distance(known, key))
            .filter(|known| distance(known, key) <= NEAR);
        let near = near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        Err(format!("there is no key `{key}` {of}{near}"))
    }
}

fn lower(key: &str) -> String {
    key.trim().to_ascii_lowercase()
}

/// Whether a key's value is secret: a key that is nearly one of those was meant as one.
fn is_secret(key: &str) -> bool {
    SECRETS.iter().any(|secret| distance(secret, key) <= NEAR)
}

fn has_secret<T: AsRef<str>>(fields: &[T]) -> bool {
    let key = |field: &T| field.as_ref().split_once('=').map(|(key, _)| lower(key));
    fields.iter().filter_map(key).any(|key| is_secret(&key))
}

/// The text as messages show it: without what is secret in it.
fn shown(text: &str, fields: &[String]) -> String {
    let has_secret = has_secret(fields);
    if !has_secret && !text.contains('@') {
        return text.to_owned();
    }
    let field = |field: &String| match field.split_once('=') {
        Some((key, value)) => shown_pair(&lower(key), value),
        None if has_secret => "***".to_owned(),
        None => without_login(field),
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",")
}

/// A field as messages show it. Names and addresses may hold a login.
fn shown_pair(key: &str, value: &str) -> String {
    match is_secret(key) {
        true => format!("{key}=***"),
        false => format!("{key}={}", without_login(value)),
    }
}

/// The message for a text whose quotes are not in order. Where its fields begin and end is a guess, so that all of it may be secret.
fn unreadable(what: &str, text: &str, error: &csv::CsvError) -> String {
    let guessed: Vec<&str> = text.split([',', '"']).collect();
    match has_secret(&guessed) || text.contains('@') {
        true => format!("invalid {what}: its quotes are not in order"),
        false => format!("invalid {what} `{text}`: {error}"),
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

    #[test]
    fn no_message_shows_a_secret() {
        for text in [
            "secret_access_key=HUSH,zzz=1",
            "zzz=1,SECRET_ACCESS_KEY=HUSH",
            "secret_acces_key=HUSH",
            "session_tokens=HUSH",
            " Session_Token =HUSH",
            "access_key_id=HUSH,HUSH",
            "HUSH,access_key_id=1",
            "secret_access_key=HU\"HUSH",
            "\"secret_access_key=HUSH",
            "zzz=user:HUSH@host",
            "user:HUSH@host/x",
            "zzz=\"user:HUSH@host",
        ] {
            let error = Fields::read("output", KEYS, text).and_then(|fields| fields.finish("tar"));
            let error = error.unwrap_err();
            assert!(!error.contains("HUSH"), "{text}: {error}");
        }
        let digest = "name=a@sha256:12,x=1";
        let error = Fields::read("output", KEYS, digest).unwrap().finish("tar").unwrap_err();
        assert!(error.contains(digest), "{error}");
    }
}
