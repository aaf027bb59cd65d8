//! Named contexts (`--build-context`): directories and images that stand in for stages and images of the Dockerfile.

use super::graph::Origin;
use crate::context::Context;
use roadstead_registry_client::{Descriptor, Platform, Reference};
use std::collections::BTreeMap;

/// What a named context is.
#[derive(Debug, Clone)]
pub enum Named {
    /// Files.
    Directory(Context),
    /// An image of a registry or of the local store (`docker-image://`).
    Image(Reference),
    /// An image that lies in the local store without a name (`oci-layout://`).
    Stored(Descriptor),
    /// Nothing.
    Scratch,
}

/// All named contexts of a build.
#[derive(Debug, Clone, Default)]
pub struct NamedContexts(BTreeMap<String, Named>);

impl NamedContexts {
    /// Adds a context. `name` is a stage, an image, or any word that `--from` uses; `name::os/architecture` is for that platform
    /// only. A later one of the same name wins.
    pub fn insert(&mut self, name: &str, named: Named) {
        let (name, platform) = name
            .split_once("::")
            .map_or((name, None), |(name, rest)| (name, Some(rest)));
        let platform = platform.map(|text| {
            let parsed = text.parse::<Platform>();
            parsed.map_or_else(|_| text.to_owned(), |platform| platform.to_string())
        });
        let key = key(name, platform.as_deref());
        self.0.insert(key, named);
    }

    /// Finds the context for a name of the Dockerfile.
    pub(super) fn get(&self, name: &str, platform: &Platform) -> Option<Origin> {
        let of_platform = self.0.get(&key(name, Some(&platform.to_string())));
        let named = of_platform.or_else(|| self.0.get(&key(name, None)))?;
        Some(match named.clone() {
            Named::Directory(context) => Origin::Directory(context),
            Named::Image(reference) => Origin::Image {
                reference,
                platform: None,
            },
            Named::Stored(descriptor) => Origin::Stored(descriptor),
            Named::Scratch => Origin::Scratch,
        })
    }
}

/// An image's name counts in its short form without `latest`, any other name in lower case.
fn key(name: &str, platform: Option<&str>) -> String {
    let short = match name.parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.familiar();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        Err(_) => name.to_ascii_lowercase(),
    };
    match platform {
        Some(platform) => format!("{short}::{platform}"),
        None => short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_platforms() {
        let mut contexts = NamedContexts::default();
        contexts.insert("alpine", Named::Scratch);
        contexts.insert("docker.io/library/node:20", Named::Image("one".parse().unwrap()));
        contexts.insert("node:20::linux/arm64", Named::Image("two".parse().unwrap()));
        contexts.insert("Stage", Named::Scratch);
        let amd64 = "linux/amd64".parse().unwrap();
        let arm64 = "linux/arm64".parse().unwrap();
        assert_eq!(contexts.get("alpine:latest", &amd64), Some(Origin::Scratch));
        assert_eq!(contexts.get("alpine:3", &amd64), None);
        assert_eq!(contexts.get("stage", &amd64), Some(Origin::Scratch));
        let image = |name: &str| Origin::Image {
            reference: name.parse().unwrap(),
            platform: None,
        };
        assert_eq!(contexts.get("node:20", &amd64), Some(image("one")));
        assert_eq!(contexts.get("node:20", &arm64), Some(image("two")));
    }
}
