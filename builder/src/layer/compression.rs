//! How layers are compressed: what a user may choose, and the name each choice has in manifests and records.

use super::compress::{BLOCK, ZSTD_BLOCK};
use roadstead_registry_client::media_type;
use std::fmt;

/// Gzip's level when none is given. `docs/benchmarks.md` has the measurement behind it; changing it changes every digest.
const GZIP_LEVEL: i32 = 1;
/// Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

/// A compression with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// The tar as it is.
    Uncompressed,
    /// Gzip, levels 0 to 9.
    Gzip(i32),
    /// Zstandard, levels 1 to 22.
    Zstd(i32),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip(GZIP_LEVEL)
    }
}

impl Compression {
    /// Reads a name and a level as BuildKit takes them. Gzip is meant where only a level is given.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub fn parse(name: Option<&str>, level: Option<&str>) -> Result<Self, String> {
        let level = level
            .map(|text| {
                text.parse::<i32>()
                    .map_err(|_| format!("compression level `{text}` is no number"))
            })
            .transpose()?;
        let bounded = |least: i32, most: i32, default: i32| match level {
            None => Ok(default),
            Some(level) if (least..=most).contains(&level) => Ok(level),
            Some(level) => Err(format!("compression level {level} is not between {least} and {most}")),
        };
        match name.unwrap_or("gzip") {
            "gzip" => Ok(Self::Gzip(bounded(0, 9, GZIP_LEVEL)?)),
            "zstd" => Ok(Self::Zstd(bounded(1, 22, ZSTD_LEVEL)?)),
            "uncompressed" if level.is_some() => Err("`uncompressed` has no compression level".to_owned()),
            "uncompressed" => Ok(Self::Uncompressed),
            "estargz" => Err("cannot honour compression `estargz`: it is gzip, zstd or uncompressed".to_owned()),
            other => Err(format!("no compression `{other}`: it is gzip, zstd or uncompressed")),
        }
    }

    /// The media type of a layer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => media_type::OCI_LAYER_TAR,
            Self::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Self::Zstd(_) => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// Whether a layer of this media type is compressed in this way, at whatever level.
    #[must_use]
    pub fn is_of(self, layer: &str) -> bool {
        let same_as = match self {
            Self::Uncompressed => media_type::DOCKER_LAYER_TAR,
            Self::Gzip(_) => media_type::DOCKER_LAYER_GZIP,
            Self::Zstd(_) => return layer == media_type::OCI_LAYER_ZSTD,
        };
        layer == self.media_type() || layer == same_as
    }
}

/// Names the compressor, its level and its blocks: other bytes come out when any of them changes. Records of layers hold it.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncompressed => f.write_str("uncompressed"),
            Self::Gzip(level) => write!(f, "gzip/libdeflate/level-{level}/block-{BLOCK}/1"),
            Self::Zstd(level) => write!(
                f,
                "zstd/{}/level-{level}/block-{ZSTD_BLOCK}/1",
                zstd::zstd_safe::VERSION_NUMBER
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels() {
        let parse = Compression::parse;
        assert_eq!(parse(None, None), Ok(Compression::default()));
        assert_eq!(parse(Some("gzip"), Some("9")), Ok(Compression::Gzip(9)));
        assert_eq!(parse(None, Some("0")), Ok(Compression::Gzip(0)));
        assert_eq!(parse(Some("zstd"), Some("22")), Ok(Compression::Zstd(22)));
        for (name, level, want) in [
            (Some("gzip"), Some("10"), "between 0 and 9"),
            (Some("zstd"), Some("0"), "between 1 and 22"),
            (Some("zstd"), Some("x"), "no number"),
            (Some("uncompressed"), Some("1"), "no compression level"),
            (Some("estargz"), None, "estargz"),
            (Some("lz4"), None, "`lz4`"),
        ] {
            let error = parse(name, level).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn layers_of_docker_s_types_are_known() {
        assert!(Compression::Gzip(1).is_of(media_type::DOCKER_LAYER_GZIP));
        assert!(!Compression::Gzip(1).is_of(media_type::OCI_LAYER_ZSTD));
        assert!(Compression::Uncompressed.is_of(media_type::DOCKER_LAYER_TAR));
    }
}
