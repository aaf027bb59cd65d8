//! Cache keys. A wrong key gives a user somebody else's output, so every input is named and framed, and nothing is implied.

use roadstead_registry_client::Digest;
use sha2::{Digest as _, Sha256};

/// Changes when the meaning of a key or of a layer's bytes changes; old records are then never found.
const VERSION: &str = "roadstead-step/3";

/// Builds one key out of named inputs. Order matters; every name and value is framed by its length.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    hash: Sha256,
    inputs: Inputs,
}

/// The names of a key's inputs, each with the beginning of its value's digest: enough to tell whether it is another one.
pub type Inputs = Vec<(String, String)>;
/// Hex digits of that beginning.
const DIGITS: usize = 16;

impl KeyBuilder {
    /// Begins the key of a step of `kind`, such as `RUN`.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut key = Self {
            hash: Sha256::new(),
            inputs: Vec::new(),
        };
        key.add("version", VERSION);
        key.add("kind", kind);
        key
    }

    /// Adds one input.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.note(name.to_owned(), value.as_ref());
        self.frame(name, value.as_ref())
    }

    /// Adds a list, framed by its length.
    pub fn add_all<T: AsRef<[u8]>>(&mut self, name: &str, values: impl ExactSizeIterator<Item = T>) -> &mut Self {
        self.frame(name, values.len().to_string().as_bytes());
        for (at, value) in values.enumerate() {
            let value = value.as_ref();
            // A variable is known by its own name.
            let variable = value.split(|byte| *byte == b'=').next().unwrap_or_default();
            match name {
                "env" => self.note(format!("env {}", String::from_utf8_lossy(variable)), value),
                name => self.note(format!("{name} {at}"), value),
            }
            self.frame("item", value);
        }
        self
    }

    fn note(&mut self, name: String, value: &[u8]) {
        let mut digest = Digest::of(value).hex().to_owned();
        digest.truncate(DIGITS);
        self.inputs.push((name, digest));
    }

    fn frame(&mut self, name: &str, value: &[u8]) -> &mut Self {
        for part in [name.as_bytes(), value] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
        self
    }

    /// The inputs so far.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        self.inputs.clone()
    }

    /// Ends the key.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_sha256(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[(&str, &str)], list: &[&str]) -> Digest {
        let mut key = KeyBuilder::new("RUN");
        for (name, value) in parts {
            key.add(name, value);
        }
        key.add_all("list", list.iter());
        key.finish()
    }

    #[test]
    fn framing_is_unambiguous() {
        let keys = [
            key(&[("a", "bc")], &[]),
            key(&[("ab", "c")], &[]),
            key(&[("a", "b"), ("c", "")], &[]),
            key(&[("a", "b")], &["c"]),
            key(&[("a", "b")], &["c", ""]),
            key(&[("a", "b")], &["", "c"]),
            key(&[], &["ab"]),
            key(&[], &["a", "b"]),
            key(&[("list", "0")], &[]),
        ];
        for (at, one) in keys.iter().enumerate() {
            for other in keys.iter().skip(at + 1) {
                assert_ne!(one, other);
            }
        }
        assert_eq!(key(&[("a", "b")], &["c"]), key(&[("a", "b")], &["c"]));
    }
}
