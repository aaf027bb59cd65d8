//! The form an image is written in: what `--output`, `--annotation` and `--compression` choose.

use crate::layer::compression::Compression;
use roadstead_registry_client::Platform;
use std::collections::BTreeMap;

/// A form. One build can be written in several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// How layers that were built are compressed.
    pub compression: Compression,
    /// Whether layers of base images are, too, where they have another compression.
    pub force_compression: bool,
    /// Whether documents and layers have docker's media types in place of OCI's.
    pub docker_types: bool,
    /// Annotations of manifests, of the index and of their descriptors.
    pub annotations: Annotations,
}

/// Where an annotation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into manifests.
    Manifest,
    /// Into the index.
    Index,
    /// To what points to a manifest.
    ManifestDescriptor,
    /// To what points to the index.
    IndexDescriptor,
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it is written.
    pub place: Place,
    /// For this platform only.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
}

/// All annotations, in the order they were given: of equal ones the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations(pub Vec<Annotation>);

impl Annotations {
    /// Those of a manifest or of its descriptor. One for its platform beats one for all.
    #[must_use]
    pub fn of(&self, place: Place, platform: &Platform) -> BTreeMap<String, String> {
        let general = self.0.iter().filter(|a| a.platform.is_none());
        let special = self
            .0
            .iter()
            .filter(|a| a.platform.as_ref().is_some_and(|p| p.matches(platform)));
        let chosen = general.chain(special).filter(|a| a.place == place);
        chosen.map(|a| (a.key.clone(), a.value.clone())).collect()
    }

    /// Those of the index or of its descriptor.
    #[must_use]
    pub fn of_index(&self, place: Place) -> BTreeMap<String, String> {
        let chosen = self.0.iter().filter(|a| a.place == place);
        chosen.map(|a| (a.key.clone(), a.value.clone())).collect()
    }
}

impl Form {
    /// Checks that the form can be written for these platforms, with an index or without.
    ///
    /// # Errors
    /// What cannot be, in one line.
    pub fn check(&self, platforms: &[Platform], is_index: bool) -> Result<(), String> {
        if self.docker_types && matches!(self.compression, Compression::Zstd(_)) {
            return Err(
                "docker has no media type for zstd: leave out `oci-mediatypes=false` or `compression=zstd`".to_owned(),
            );
        }
        for annotation in &self.annotations.0 {
            let key = &annotation.key;
            if self.docker_types {
                return Err(format!(
                    "cannot write the annotation `{key}` with `oci-mediatypes=false`: only OCI's documents have them"
                ));
            }
            if matches!(annotation.place, Place::Index | Place::IndexDescriptor) && !is_index {
                return Err(format!(
                    "cannot write the annotation `{key}`: an image for a single platform has no index"
                ));
            }
            if let Some(platform) = &annotation.platform
                && !platforms.iter().any(|built| platform.matches(built))
            {
                return Err(format!(
                    "cannot write the annotation `{key}`: nothing is built for {platform}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(place: Place, platform: Option<&str>, key: &str, value: &str) -> Annotation {
        Annotation {
            place,
            platform: platform.map(|p| p.parse().unwrap()),
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn the_platform_s_own_annotation_counts() {
        let annotations = Annotations(vec![
            annotation(Place::Manifest, Some("linux/arm64"), "a", "arm"),
            annotation(Place::Manifest, None, "a", "any"),
            annotation(Place::Manifest, None, "b", "1"),
            annotation(Place::Manifest, None, "b", "2"),
            annotation(Place::Index, None, "c", "3"),
        ]);
        let of = |platform: &str| annotations.of(Place::Manifest, &platform.parse().unwrap());
        assert_eq!(
            of("linux/arm64"),
            [("a".into(), "arm".into()), ("b".into(), "2".into())].into()
        );
        assert_eq!(of("linux/amd64")["a"], "any");
        assert_eq!(annotations.of_index(Place::Index).len(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let platforms = ["linux/amd64".parse().unwrap()];
        let with = |place, platform, docker_types, is_index| {
            let annotations = Annotations(vec![annotation(place, platform, "k", "v")]);
            let form = Form {
                docker_types,
                annotations,
                ..Form::default()
            };
            form.check(&platforms, is_index)
        };
        assert_eq!(with(Place::Manifest, Some("linux/amd64"), false, false), Ok(()));
        assert_eq!(with(Place::Index, None, false, true), Ok(()));
        assert!(with(Place::Index, None, false, false).unwrap_err().contains("no index"));
        assert!(
            with(Place::Manifest, Some("linux/arm64"), false, false)
                .unwrap_err()
                .contains("linux/arm64")
        );
        assert!(
            with(Place::Manifest, None, true, false)
                .unwrap_err()
                .contains("oci-mediatypes")
        );
        let form = Form {
            compression: Compression::Zstd(3),
            docker_types: true,
            ..Form::default()
        };
        assert!(form.check(&platforms, false).unwrap_err().contains("zstd"));
    }
}
