//! Which images of registries a Dockerfile needs, for taking them along to a site without a network.

use super::error::Result;
use super::graph::{Graph, Origin, copy_origin};
use super::named::NamedContexts;
use super::variables::Globals;
use crate::dockerfile::Dockerfile;
use roadstead_registry_client::{Platform, Reference};
use std::collections::BTreeMap;

/// An image that a build takes from a registry or from the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededImage {
    /// Its name as it will be asked for.
    pub reference: Reference,
    /// The platform that FROM names for it, in place of the build's.
    pub platform: Option<Platform>,
}

/// Lists the images that building `target` for `platform` needs, each once, in the order of the file.
///
/// # Errors
/// As a build: a stage that does not exist, a base that is no name, a word that cannot be expanded.
pub fn needed_images(
    file: &Dockerfile,
    target: Option<&str>,
    build_args: &BTreeMap<String, String>,
    platform: &Platform,
) -> Result<Vec<NeededImage>> {
    let globals = Globals::new(file, target, build_args, platform)?;
    let none = NamedContexts::default();
    let graph = Graph::new(file, target, &globals, &none)?;
    let mut needed: Vec<NeededImage> = Vec::new();
    let mut add = |origin: &Origin| {
        if let Origin::Image { reference, platform } = origin {
            let image = NeededImage {
                reference: reference.clone(),
                platform: platform.clone(),
            };
            if !needed.contains(&image) {
                needed.push(image);
            }
        }
    };
    for (index, origin) in &graph.stages {
        add(origin);
        for instruction in &file.stages[*index].instructions {
            for from in instruction.kind.sources() {
                add(&copy_origin(file, *index, from, &none, platform)?);
            }
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_and_sources_of_copies_are_listed_once() {
        let text = "ARG V=20\nFROM node:$V AS build\nFROM --platform=linux/arm64 alpine AS unused\nFROM scratch\n\
                    COPY --from=build /a /\nRUN --mount=from=busybox:1,target=/bin x\nCOPY --from=node:20 /x /\n";
        let file = crate::dockerfile::parse("Dockerfile", text).unwrap();
        let names = |target| {
            let needed = needed_images(&file, target, &BTreeMap::new(), &Platform::host()).unwrap();
            needed
                .iter()
                .map(|image| image.reference.familiar())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["node:20", "busybox:1"]);
        assert_eq!(names(Some("unused")), ["alpine"]);
        let file = crate::dockerfile::parse("Dockerfile", "FROM scratch\nCOPY --from=UPPER /a /\n").unwrap();
        needed_images(&file, None, &BTreeMap::new(), &Platform::host()).unwrap_err();
    }
}
