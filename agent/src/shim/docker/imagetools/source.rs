//! What `imagetools create` puts together: references, digests and descriptors.

use std::collections::BTreeSet;

use roadstead_registry_client::{Descriptor, Digest, Error, Reference, without_login};
use serde::Deserialize;

/// An image or index to put into the new one.
#[derive(Debug, PartialEq)]
pub(super) struct Source {
    /// Where it is; `None` in the repository that all the others name.
    reference: Option<Reference>,
    digest: Option<Digest>,
    media_type: Option<String>,
    size: Option<u64>,
}

/// A descriptor as users write it. What would change the image's entry is refused rather than left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    digest: String,
    media_type: Option<String>,
    size: Option<u64>,
}

impl Source {
    /// Reads a source.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |reason: String| {
            format!(
                "cannot honour the source `{}`: {reason}",
                without_login(text).escape_debug()
            )
        };
        let digest = |text: &str| text.parse::<Digest>().map_err(|error| wrong(error.to_string()));
        let mut source = Self {
            reference: None,
            digest: None,
            media_type: None,
            size: None,
        };
        if text.starts_with('{') {
            let described: Described = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            source.digest = Some(digest(&described.digest)?);
            (source.media_type, source.size) = (described.media_type, described.size);
        } else if text.starts_with("sha256:") {
            source.digest = Some(digest(text)?);
        } else {
            source.reference = Some(text.parse().map_err(|error: Error| wrong(error.to_string()))?);
        }
        Ok(source)
    }

    /// Whether it says more than where the image is.
    pub(super) fn is_described(&self) -> bool {
        self.size.is_some() || self.media_type.is_some()
    }

    /// Compares what was found with what a descriptor says of it.
    pub(super) fn check(&self, found: &Descriptor) -> Result<(), String> {
        let wrong = |what: &str, said: String, is: String| {
            Err(format!(
                "ERROR: the {what} of {} is {is}, not {}",
                found.digest,
                said.escape_debug()
            ))
        };
        match (self.size, &self.media_type) {
            (Some(size), _) if size != found.size => wrong("size", size.to_string(), found.size.to_string()),
            (_, Some(said)) if *said != found.media_type => wrong("media type", said.clone(), found.media_type.clone()),
            _ => Ok(()),
        }
    }
}

/// Says where each source is. One that names no repository is in the only one that tags and sources name.
pub(super) fn locate(sources: &[Source], tags: &[Reference]) -> Result<Vec<Reference>, String> {
    let named = sources.iter().filter_map(|source| source.reference.as_ref());
    let repositories: BTreeSet<String> = tags.iter().chain(named.clone()).map(Reference::name).collect();
    let only = match repositories.len() {
        0 => return Err("no repositories specified, please set a reference in tag or source".to_owned()),
        1 => tags.iter().chain(named).next().map(Reference::without_tag),
        _ => None,
    };
    let place = |source: &Source| match (&source.reference, &source.digest) {
        (Some(reference), _) => Ok(reference.clone()),
        (None, Some(digest)) => only
            .as_ref()
            .map(|only| only.with_digest(digest.clone()))
            .ok_or_else(|| format!("multiple repositories specified, cannot infer repository for {digest}")),
        (None, None) => Err("a source names neither an image nor a digest".to_owned()),
    };
    sources.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_references_digests_and_descriptors() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let read = |text: &str| Source::read(text).unwrap();
        let described = read(&format!(
            " {{\"digest\":\"{digest}\",\"size\":3,\"mediaType\":\"x/y\"}}\n"
        ));
        let tag = || vec!["r.io/app:1".parse::<Reference>().unwrap()];
        let located = locate(&[read(&digest), read("r.io/app:2")], &tag()).unwrap();
        assert_eq!(located[0].canonical(), format!("r.io/app@{digest}"));
        assert_eq!(located[1].canonical(), "r.io/app:2");
        for (sources, tags, want) in [
            (vec![read(&digest)], vec![], "no repositories"),
            (vec![read(&digest), read("r.io/other")], tag(), "multiple repositories"),
        ] {
            assert!(locate(&sources, &tags).unwrap_err().contains(want));
        }
        let found = |size, kind: &str| Descriptor::new(kind, digest.parse().unwrap(), size);
        described.check(&found(3, "x/y")).unwrap();
        assert!(described.check(&found(4, "x/y")).unwrap_err().contains("size"));
        assert!(described.check(&found(3, "x/z")).unwrap_err().contains("media type"));
        for bad in ["", "sha256:abc", "{}", "UPPER", "{\"digest\":\"sha256:x\"}"] {
            Source::read(bad).unwrap_err();
        }
        let platform = format!("{{\"digest\":\"{digest}\",\"platform\":{{}}}}");
        assert!(Source::read(&platform).unwrap_err().contains("platform"));
    }
}
