//! The size of the build cache is bounded: a build that made it grow removes at its end what was used longest ago.

use std::path::Path;

use roadstead_builder::housekeeping::{House, Wanted};
use roadstead_builder::solve::Tools;

use crate::config::size;
use crate::environment;
use crate::error::CliError;

/// Part of the file system that the cache may take when nobody says, in percent.
const DEFAULT_PERCENT: u64 = 20;

/// How large the cache may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// As large as it gets.
    None,
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the file system.
    Percent(u64),
}

impl Limit {
    /// Reads the setting of the environment.
    pub(super) fn read() -> Result<Self, CliError> {
        match std::env::var(environment::CACHE_SIZE) {
            Ok(text) if !text.is_empty() => Self::parse(&text).map_err(|reason| {
                let name = environment::CACHE_SIZE;
                CliError::usage(format!("`{name}`: {reason}"))
                    .hint("it is a size such as 20g, a part such as 20%, or off")
            }),
            _ => Ok(Self::Percent(DEFAULT_PERCENT)),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::None);
        }
        match text.strip_suffix('%') {
            Some(number) => match number.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("`{text}` is no part from 1% to 100%")),
            },
            None => size(text).map(Self::Bytes),
        }
    }

    fn bytes(self, data: &Path) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => {
                let whole = rustix::fs::statvfs(data).ok()?;
                Some(whole.f_blocks.saturating_mul(whole.f_frsize) / 100 * percent)
            }
        }
    }

    /// Removes what is too much, if this build has made the cache grow. The image is made already: failing is no failure of the build.
    pub(super) fn keep(self, data: &Path, tools: &Tools) {
        let Some(keep) = self.bytes(data).filter(|_| tools.cache.has_grown()) else {
            return;
        };
        let house = House {
            store: tools.store.clone(),
            layers: tools.layers.clone(),
            cache: tools.cache.clone(),
            mounts: tools.mounts.clone(),
            scratches: data.join("tmp"),
        };
        let wanted = Wanted {
            keep: Some(keep),
            ..Wanted::default()
        };
        if let Err(error) = house.prune(&wanted) {
            let text = crate::error::chain(&error);
            tools
                .progress
                .warn(format!("no room was made in the build cache: {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_parts() {
        assert_eq!(Limit::parse("10g"), Ok(Limit::Bytes(10 << 30)));
        assert_eq!(Limit::parse("5%"), Ok(Limit::Percent(5)));
        assert_eq!(Limit::parse("off"), Ok(Limit::None));
        for wrong in ["0%", "101%", "%", "x", "-1"] {
            assert!(Limit::parse(wrong).is_err(), "{wrong}");
        }
    }
}
