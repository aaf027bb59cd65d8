//! Operating system and processor an image is made for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::shorten;
use crate::error::{RegistryError, Result};

/// Says what an image runs on, with the names Go and OCI use (`linux`, `amd64`, `v7`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Processor, such as `amd64` or `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system; only Windows images carry one.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Variant of the processor, such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Returns Linux on the processor this binary was compiled for.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, "");
        Self {
            os: "linux".to_owned(),
            architecture,
            variant,
            os_version: None,
        }
    }

    /// Tells whether an image for `other` is what `self` asks for.
    ///
    /// Spellings are equalised first: `arm64` is `arm64/v8`, `amd64/v1` is `amd64`, `arm` is `arm/v7`. The version of the
    /// operating system counts only when `self` names one.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let key = |p: &Self| normalise(&p.architecture, p.variant.as_deref().unwrap_or_default());
        self.os.eq_ignore_ascii_case(&other.os)
            && key(self) == key(other)
            && (self.os_version.is_none() || self.os_version == other.os_version)
    }
}

/// Brings processor names to one spelling, as containerd's platforms package does.
fn normalise(architecture: &str, variant: &str) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "x86" | "386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le", other) => ("ppc64le", other),
        other => other,
    };
    (
        architecture.to_owned(),
        (!variant.is_empty()).then(|| variant.to_owned()),
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", shorten(&self.os), shorten(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", shorten(variant)),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let word =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] if !variant.is_empty() => (*os, *architecture, *variant),
            _ => return Err(RegistryError::InvalidPlatform { text: shorten(text) }),
        };
        if !parts.iter().all(word) {
            return Err(RegistryError::InvalidPlatform { text: shorten(text) });
        }
        let (architecture, variant) = normalise(architecture, variant);
        Ok(Self {
            os: os.to_ascii_lowercase(),
            architecture,
            variant,
            os_version: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let variant = variant.map(str::to_owned);
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
            os_version: None,
        }
    }

    #[test]
    fn spellings_are_equalised() {
        for (wanted, other, expected) in [
            ("linux/amd64", raw("linux", "amd64", None), true),
            ("linux/amd64", raw("linux", "amd64", Some("v1")), true),
            ("linux/amd64", raw("linux", "amd64", Some("v3")), false),
            ("linux/x86_64", raw("linux", "amd64", None), true),
            ("linux/arm64", raw("linux", "arm64", Some("v8")), true),
            ("linux/arm64/v8", raw("linux", "arm64", None), true),
            ("linux/aarch64", raw("linux", "arm64", None), true),
            ("linux/arm", raw("linux", "arm", Some("v7")), true),
            ("linux/arm/v6", raw("linux", "arm", Some("v7")), false),
            ("linux/amd64", raw("windows", "amd64", None), false),
            ("linux/amd64", raw("unknown", "unknown", None), false),
        ] {
            assert_eq!(
                wanted.parse::<Platform>().unwrap().matches(&other),
                expected,
                "{wanted} and {other}"
            );
        }
    }

    #[test]
    fn refuses_what_is_not_a_platform() {
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/",
            "linux/amd64/v1/x",
            "linux/am d64",
            "linux/arm\n",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn the_host_is_linux_on_a_known_processor() {
        let host = Platform::host();
        assert_eq!(host.os, "linux");
        assert_eq!(host.to_string().parse::<Platform>().unwrap(), host);
    }
}
