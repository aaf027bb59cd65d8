//! Image names, normalised as docker does: `node:20` is `docker.io/library/node:20`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, shorten};
use crate::error::{RegistryError, Result};
use crate::secret::without_login;

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Limit of the distribution specification for registry and repository together.
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// Names an image: registry, repository, and a tag, a digest or both.
///
/// Displays in full: `docker.io/library/node:20@sha256:…`. The registry is kept in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry's host, with the port when one was given.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path of the repository within its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag as written, if one was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest as written, if one was.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the tag, or `latest`.
    #[must_use]
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }

    /// Returns the same name with another tag; a digest is kept.
    ///
    /// # Errors
    /// `InvalidReference` when the tag is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(invalid(
                tag,
                "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and starts with none of `.-`",
            ));
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            ..self.clone()
        })
    }

    /// Returns the same name with a digest; the tag is kept.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns registry and repository alone.
    #[must_use]
    pub fn without_tag(&self) -> Self {
        Self {
            tag: None,
            digest: None,
            ..self.clone()
        }
    }

    /// Returns `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the name that decides what is meant: `name@digest` when there is a digest, else `name:tag`.
    #[must_use]
    pub fn canonical(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name()),
            None => format!("{}:{}", self.name(), self.tag_or_latest()),
        }
    }

    /// Returns the name as docker prints it: `node:20`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let official = self.repository.strip_prefix(OFFICIAL_PREFIX);
        let short = official
            .filter(|rest| !rest.contains('/') && !is_hex_id(rest))
            .unwrap_or(&self.repository);
        // Without the registry, a first folder that looks like one would be taken for it.
        let (registry, repository) = split_registry(short);
        let mut text = match registry == self.registry && repository == self.repository {
            true => short.to_owned(),
            false => self.name(),
        };
        self.push_suffix(&mut text);
        text
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(invalid(text, "it is empty"));
        }
        if is_hex_id(text) {
            return Err(invalid(text, "64 hex digits are an image id, not a name"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(invalid(
                text,
                "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and starts with none of `.-`",
            ));
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) {
            return Err(invalid(text, "the registry is not a host name with an optional port"));
        }
        check_repository(text, &repository)?;
        if registry.len() + 1 + repository.len() > NAME_LIMIT {
            return Err(invalid(text, "the name is longer than 255 characters"));
        }
        Ok(Self {
            registry,
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn invalid(text: &str, reason: &'static str) -> RegistryError {
    RegistryError::InvalidReference {
        text: shorten(&without_login(text)),
        reason,
    }
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest> {
    match digest.contains(['/', '@']) {
        true => Err(invalid(
            text,
            "a digest follows an `@`; a login is no part of a name, but given by `docker login`",
        )),
        false => digest.parse(),
    }
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits at the last colon, unless it belongs to the registry's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':') {
        Some(colon) if !text[colon..].contains('/') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

/// Tells the registry from the first folder by docker's rule: a dot, a colon, a capital, or `localhost`.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            let lower = first.to_ascii_lowercase();
            // A name whose only mark of a registry is its capital must keep it: in lower case it would be a folder of the default.
            let marked = lower.contains(['.', ':']) || lower == "localhost";
            (if marked { lower } else { first.to_owned() }, rest)
        }
        _ => (DEFAULT_REGISTRY.to_owned(), name),
    };
    if registry == DEFAULT_REGISTRY || registry == LEGACY_DEFAULT_REGISTRY {
        let prefix = if repository.contains('/') { "" } else { OFFICIAL_PREFIX };
        return (DEFAULT_REGISTRY.to_owned(), format!("{prefix}{repository}"));
    }
    (registry, repository.to_owned())
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !tag.is_empty()
        && tag.len() <= TAG_LIMIT
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Tells whether the text is `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                if after.is_empty() {
                    return true;
                }
                match after.strip_prefix(':') {
                    Some(port) => ("localhost", Some(port)),
                    None => return false,
                }
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let good_port = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    good_port && host.split('.').all(is_host_label)
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn check_repository(text: &str, repository: &str) -> Result<()> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(invalid(text, "a repository is written in lower case"));
    }
    if repository.split('/').all(is_path_component) {
        return Ok(());
    }
    Err(invalid(
        text,
        "a repository is made of lower-case letters and digits, parted by `/`, `.`, `_`, `__` or dashes",
    ))
}

/// Implements `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` of the distribution specification.
pub(crate) fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    edges
        && bytes
            .split(|b| word(*b))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn parse(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn a_folder_that_looks_like_a_registry_keeps_the_real_one_before_it() {
        let id = format!("docker.io/library/{}", "a".repeat(64));
        for text in [
            "docker.io/a.b/c",
            "docker.io/localhost/c",
            "docker.io/library/x.y/z",
            "docker.io/docker.io/c",
            "docker.io/index.docker.io/a/b",
            &id,
        ] {
            let reference = parse(text);
            assert_eq!(parse(&reference.familiar()), reference, "{text}");
        }
        assert_eq!(parse("docker.io/a.b/c").familiar(), "docker.io/a.b/c");
    }

    #[test]
    fn a_registry_known_by_its_capital_alone_stays_one() {
        for (text, want) in [
            ("Registry/a", "Registry/a"),
            ("HOST.example/a", "host.example/a"),
            ("LOCALHOST/a", "localhost/a"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), want);
            assert_eq!(want.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, full, familiar, canonical) in [
            (
                "node",
                "docker.io/library/node",
                "node",
                "docker.io/library/node:latest",
            ),
            (
                "node:20",
                "docker.io/library/node:20",
                "node:20",
                "docker.io/library/node:20",
            ),
            (
                "index.docker.io/node:20",
                "docker.io/library/node:20",
                "node:20",
                "docker.io/library/node:20",
            ),
            ("docker.io/a/b", "docker.io/a/b", "a/b", "docker.io/a/b:latest"),
            ("a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x", "docker.io/a/b/c:x"),
            (
                "localhost/app",
                "localhost/app",
                "localhost/app",
                "localhost/app:latest",
            ),
            (
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
            ),
            (
                "[::1]:5000/app",
                "[::1]:5000/app",
                "[::1]:5000/app",
                "[::1]:5000/app:latest",
            ),
            ("REG/app", "REG/app", "REG/app", "REG/app:latest"),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-node-app:abc",
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-node-app:abc",
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-node-app:abc",
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-node-app:abc",
            ),
        ] {
            let reference = parse(text);
            assert_eq!(
                (
                    reference.to_string().as_str(),
                    reference.familiar().as_str(),
                    reference.canonical().as_str()
                ),
                (full, familiar, canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn a_digest_decides_and_the_tag_is_kept() {
        let reference = parse(&format!("node:20@{DIGEST}"));
        assert_eq!(reference.tag(), Some("20"));
        assert_eq!(reference.digest().map(ToString::to_string).as_deref(), Some(DIGEST));
        assert_eq!(reference.canonical(), format!("docker.io/library/node@{DIGEST}"));
        assert_eq!(reference.to_string(), format!("docker.io/library/node:20@{DIGEST}"));
        assert_eq!(reference.without_tag().to_string(), "docker.io/library/node");
        assert_eq!(parse("node:20").with_digest(DIGEST.parse().unwrap()), reference);
        assert_eq!(parse("node").with_tag("20").unwrap(), parse("node:20"));
    }

    #[test]
    fn refuses_what_docker_refuses() {
        for text in [
            "",
            ":tag",
            "node:",
            "node:-x",
            "Node",
            "a//b",
            "a/../b",
            "/a",
            "a/",
            "a:b:c",
            "-a/b.c",
            "host.example:port/app",
            "host.example:99999/app",
            "-x.example/app",
            "[::1/app",
            "a___b",
            "a..b",
            "node@sha256:12",
            "node 20",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was taken");
        }
        "a".repeat(300).parse::<Reference>().unwrap_err();
        parse("node").with_tag("a b").unwrap_err();
    }

    #[test]
    fn no_message_shows_a_login() {
        for text in [
            "user:hunter2@host/x",
            "user:hun@hunter2@host/x",
            "user:@hunter2/x@host:5000/x",
            "https://user:hunter2@host/x",
            "user:hun@sha256:hunter2@host/x",
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains("host") && !error.contains("hunter2"), "{error}");
        }
        let error = format!("Node@{DIGEST}").parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(DIGEST), "{error}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_display_round_trips(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,60}|.{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                prop_assert_eq!(&again, &reference);
                let familiar: Reference = reference.familiar().parse().unwrap();
                prop_assert_eq!(familiar, reference);
            }
        }
    }
}
