//! Cache keys. A wrong key gives a user somebody else's output, so every input is named and framed, and nothing is implied.

use roadstead_registry_client::Digest;
use sha2::{Digest as _, Sha256};

/// Changes when the meaning of a key or of a layer's bytes changes; old records are then never found.
const VERSION: &str = "roadstead-step/2";

/// Builds one key out of named inputs. Order matters; every name and value is framed by its length.
#[derive(Debug, Clone)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Begins the key of a step of `kind`, such as `RUN`.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.add("version", VERSION);
        key.add("kind", kind);
        key
    }

    /// Adds one input.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds a list, framed by its length.
    pub fn add_all<T: AsRef<[u8]>>(&mut self, name: &str, values: impl ExactSizeIterator<Item = T>) -> &mut Self {
        self.add(name, values.len().to_string());
        for value in values {
            self.add("item", value);
        }
        self
    }

    /// Ends the key.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_sha256(self.0.finalize().into())
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
