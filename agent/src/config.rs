//! `config.toml`: what a site sets once for all runs.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::environment;
use crate::error::{CliError, FileError};

const FILE: &str = "config.toml";

/// A site's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Certificates to trust besides the system's; a relative path is below the file's directory.
    #[serde(default)]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Whether the registry client may use no network.
    #[serde(default)]
    pub(crate) offline: bool,
    /// Largest layer that is fetched, and that a build unpacks or writes, in bytes; written as docker writes sizes.
    #[serde(default, deserialize_with = "some_size")]
    pub(crate) max_layer_size: Option<u64>,
}

fn some_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    size(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads the first `config.toml` there is; without one, nothing is set.
    pub(crate) fn load() -> Result<Self, CliError> {
        for directory in environment::config_directories() {
            let path = directory.join(FILE);
            match std::fs::read_to_string(&path) {
                Ok(text) => return Self::parse(&text, &path),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(CliError::usage(FileError::at("read", &path)(error))),
            }
        }
        Ok(Self::default())
    }

    fn parse(text: &str, path: &Path) -> Result<Self, CliError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            CliError::usage(format!("{}:{line}: {}", path.display(), error.message()))
                .hint("settings: `ca-bundle`, `offline`, `max-layer-size`")
        })?;
        if let (Some(bundle), Some(directory)) = (&config.ca_bundle, path.parent()) {
            config.ca_bundle = Some(directory.join(bundle));
        }
        Ok(config)
    }
}

/// Reads a size as docker does: bytes, or with `k`, `m`, `g` or `t` for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: a number, with k, m, g or t where wanted");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches("i");
    let (digits, shift) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 10),
        Some('m') => (&digits[..digits.len() - 1], 20),
        Some('g') => (&digits[..digits.len() - 1], 30),
        Some('t') => (&digits[..digits.len() - 1], 40),
        _ => (digits, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|size| *size > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_mistakes() {
        let path = Path::new("/etc/roadstead/config.toml");
        let parse = |text| Config::parse(text, path);
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(
            parse("ca-bundle = 'ca.pem'").unwrap().ca_bundle,
            Some("/etc/roadstead/ca.pem".into())
        );
        assert_eq!(parse("ca-bundle = '/x.pem'").unwrap().ca_bundle, Some("/x.pem".into()));
        let whole = parse("offline = true\nmax-layer-size = '2g'").unwrap();
        assert_eq!((whole.offline, whole.max_layer_size), (true, Some(2 << 30)));
        for (text, expected) in [
            ("\nca-bundel = 'x'", "config.toml:2: unknown field `ca-bundel`"),
            ("x", "config.toml:1:"),
            ("offline = 1", "config.toml:1:"),
            ("max-layer-size = '1x'", "config.toml:1: `1x` is no size"),
        ] {
            let shown = parse(text).unwrap_err().to_string();
            assert!(shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn sizes_are_docker_s() {
        for (text, bytes) in [
            ("1", 1),
            ("10k", 10 << 10),
            ("2MB", 2 << 20),
            ("3GiB", 3 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "g", "-1", "1.5g", "0", "99999999999t", "1x"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
