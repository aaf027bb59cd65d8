//! The image configuration, kept raw so that fields of other vendors survive.

use serde_json::Value;

use crate::digest::Digest;
use crate::error::Result;
use crate::manifest::invalid;
use crate::platform::Platform;

/// Largest image configuration taken, in bytes. Long histories stay far below it.
pub const CONFIG_LIMIT: u64 = 8 * 1024 * 1024;

/// Objects and lists taken, and values in them: each costs a hundred times its bytes in memory.
const OBJECTS_LIMIT: usize = 50_000;
const VALUES_LIMIT: usize = 500_000;

const WHAT: &str = "image configuration";

/// Holds an image configuration as the JSON object it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConfig {
    raw: Value,
}

impl ImageConfig {
    /// Parses an image configuration.
    ///
    /// # Errors
    /// `InvalidDocument` when the bytes are larger than 8 MiB or are not a JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > CONFIG_LIMIT {
            return Err(invalid(WHAT, "it is larger than 8 MiB"));
        }
        let opened = bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
        let listed = bytes.iter().filter(|byte| **byte == b',').count();
        if opened > OBJECTS_LIMIT || listed > VALUES_LIMIT {
            return Err(invalid(WHAT, "it holds more values than any real one"));
        }
        Self::from_value(serde_json::from_slice(bytes).map_err(|error| invalid(WHAT, &error.to_string()))?)
    }

    /// Wraps a JSON object.
    ///
    /// # Errors
    /// `InvalidDocument` when the value is not an object.
    pub fn from_value(raw: Value) -> Result<Self> {
        if raw.is_object() {
            Ok(Self { raw })
        } else {
            Err(invalid(WHAT, "it is not a JSON object"))
        }
    }

    /// Returns the whole object.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// Returns the platform; fields that are missing are empty.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let text = |key: &str| {
            self.raw
                .get(key)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        Platform {
            os: text("os").unwrap_or_default(),
            architecture: text("architecture").unwrap_or_default(),
            variant: text("variant"),
            os_version: text("os.version"),
        }
    }

    /// Returns the digests of the uncompressed layers, the lowest first.
    ///
    /// # Errors
    /// `InvalidDocument` or `InvalidDigest` when `rootfs.diff_ids` is not a list of digests. A missing list is empty.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        let list = match self.raw.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(invalid(WHAT, "`rootfs.diff_ids` is not a list")),
        };
        list.iter()
            .map(|item| {
                item.as_str()
                    .ok_or_else(|| invalid(WHAT, "`rootfs.diff_ids` holds something else than text"))?
                    .parse()
            })
            .collect()
    }

    /// Writes compact JSON with sorted keys.
    ///
    /// The bytes of a configuration that was pulled are usually others: keep those when the digest must stay.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.raw).expect("a JSON value always serialises")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_and_keys_are_sorted() {
        // Fails when a crate in the graph turns on serde_json's `preserve_order`, which would change digests.
        let config = ImageConfig::parse(br#"{"vendor":{"z":1,"a":2},"os":"linux","architecture":"arm64"}"#).unwrap();
        assert_eq!(
            config.to_bytes(),
            br#"{"architecture":"arm64","os":"linux","vendor":{"a":2,"z":1}}"#
        );
        assert_eq!(config.platform().to_string(), "linux/arm64");
        assert!(config.diff_ids().unwrap().is_empty());
    }

    #[test]
    fn diff_ids_are_read_and_checked() {
        let digest = Digest::of(b"x");
        let text = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#);
        assert_eq!(
            ImageConfig::parse(text.as_bytes()).unwrap().diff_ids().unwrap(),
            [digest]
        );
        for bad in [
            r#"{"rootfs":{"diff_ids":[1]}}"#,
            r#"{"rootfs":{"diff_ids":"x"}}"#,
            r#"{"rootfs":{"diff_ids":["x"]}}"#,
        ] {
            assert!(ImageConfig::parse(bad.as_bytes()).unwrap().diff_ids().is_err(), "{bad}");
        }
        ImageConfig::parse(b"[]").unwrap_err();
    }
}
