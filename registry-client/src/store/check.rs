//! Checking a store: every blob against its digest, every name against what it needs.

use std::fs::{self, File};

use super::{BLOBS, Store};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, media_type};

pub(super) const BUFFER_SIZE: usize = 256 * 1024;

/// What is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A blob's content is not what its name says.
    WrongContent {
        /// The digest in its name.
        digest: Digest,
        /// The digest of its content.
        actual: Digest,
    },
    /// A file among the blobs is none.
    Foreign {
        /// Its name.
        name: String,
    },
    /// A named image needs a manifest or a configuration that is neither here nor known elsewhere.
    Missing {
        /// Name of the image.
        image: String,
        /// What it needs.
        digest: Digest,
    },
    /// A document that the store itself needs cannot be read.
    Document {
        /// Its file name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A document of a named image cannot be read.
    Unreadable {
        /// Name of the image.
        image: String,
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongContent { digest, actual } => write!(f, "blob {digest} has content with digest {actual}"),
            Self::Foreign { name } => write!(f, "file `{}` among the blobs is no blob", crate::digest::shorten(name)),
            Self::Document { name, reason } => write!(f, "`{name}` of the store cannot be read: {reason}"),
            Self::Missing { image, digest } => write!(f, "image `{image}` needs {digest}, which is missing"),
            Self::Unreadable { image, digest, reason } => {
                write!(f, "document {digest} of image `{image}` cannot be read: {reason}")
            }
        }
    }
}

impl Finding {
    /// Tells whether a check with `repair` removes what was found. What an image lacks must be built or fetched again.
    #[must_use]
    pub fn can_be_repaired(&self) -> bool {
        matches!(self, Self::WrongContent { .. } | Self::Document { .. })
    }
}

/// What a check has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names looked at.
    pub images: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Reads every blob and compares it with its digest, and sees whether every name has what it needs.
    ///
    /// Layers that are not here are no finding when a repository is known to have them: base layers are fetched only when
    /// they are needed. With `repair`, blobs that are wrong are removed, so that they are fetched or built again.
    ///
    /// # Errors
    /// `Io` or `InvalidDocument` when the store itself cannot be read.
    pub fn check(&self, repair: bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let dir = self.dir().join(BLOBS);
        let failed = |error| RegistryError::io("read", &dir, error);
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_file = entry.file_type().map_err(failed)?.is_file();
            match format!("sha256:{name}").parse::<Digest>() {
                Ok(digest) if is_file => self.check_blob(&digest, repair, &mut report)?,
                _ => report.findings.push(Finding::Foreign { name }),
            }
        }
        for (name, descriptor) in self.list()? {
            report.images += 1;
            self.check_image(&name.to_string(), &descriptor, &mut report.findings, 0);
        }
        Ok(report)
    }

    fn check_blob(&self, digest: &Digest, repair: bool, report: &mut CheckReport) -> Result<()> {
        let path = self.blob_path(digest);
        let failed = |error| RegistryError::io("read", &path, error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Removed meanwhile, which is no fault.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let meta = file.metadata().map_err(failed)?;
        let actual = super::stamps::hash(&mut file).map_err(failed)?;
        report.blobs += 1;
        report.bytes += meta.len();
        if actual == *digest {
            self.stamp(digest, &meta);
            return Ok(());
        }
        match repair {
            true => self.remove_blob(digest),
            false => self.distrust(digest),
        }
        report.findings.push(Finding::WrongContent {
            digest: digest.clone(),
            actual,
        });
        Ok(())
    }

    fn check_image(&self, image: &str, descriptor: &Descriptor, findings: &mut Vec<Finding>, depth: usize) {
        let missing = |digest: &Digest| Finding::Missing {
            image: image.to_owned(),
            digest: digest.clone(),
        };
        let found = self.read_blob(&descriptor.digest, MANIFEST_LIMIT);
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(RegistryError::BlobMissing { digest, .. }) => return findings.push(missing(&digest)),
            // Its content was reported as wrong already.
            Err(RegistryError::DigestMismatch { .. }) => return,
            Err(error) => return findings.push(unreadable(image, descriptor, &error)),
        };
        if media_type::is_index(&descriptor.media_type) {
            match Index::parse(&bytes) {
                // Images of other platforms may have been left behind.
                Ok(index) if depth < 3 => index
                    .manifests
                    .iter()
                    .filter(|child| self.has(&child.digest))
                    .for_each(|child| self.check_image(image, child, findings, depth + 1)),
                Ok(_) => {}
                Err(error) => findings.push(unreadable(image, descriptor, &error)),
            }
            return;
        }
        match Manifest::parse(&bytes) {
            Ok(manifest) => {
                let own = manifest
                    .layers
                    .iter()
                    .filter(|layer| !media_type::is_foreign_layer(&layer.media_type));
                for blob in own.chain([&manifest.config]) {
                    if !self.has(&blob.digest) && self.sources(&blob.digest).is_empty() {
                        findings.push(missing(&blob.digest));
                    }
                }
            }
            Err(error) => findings.push(unreadable(image, descriptor, &error)),
        }
    }
}

fn unreadable(image: &str, descriptor: &Descriptor, error: &RegistryError) -> Finding {
    Finding::Unreadable {
        image: image.to_owned(),
        digest: descriptor.digest.clone(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::collections::BTreeMap;

    fn image(store: &Store) -> Descriptor {
        let put = |kind: &str, bytes: &[u8]| {
            store.put(bytes).unwrap();
            Descriptor::of(kind, bytes)
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: put(media_type::OCI_CONFIG, b"{}"),
            layers: vec![put(media_type::OCI_LAYER_TAR, b"layer")],
            subject: None,
            annotations: BTreeMap::new(),
        };
        put(media_type::OCI_MANIFEST, &manifest.to_bytes())
    }

    #[test]
    fn a_sound_store_has_no_findings_and_damage_is_found() {
        let dir = TestDir::new("check");
        let store = Store::open(dir.path()).unwrap();
        let descriptor = image(&store);
        store.tag(&"app".parse().unwrap(), &descriptor).unwrap();
        let report = store.check(false).unwrap();
        assert_eq!((report.blobs, report.images, report.findings), (3, 1, vec![]));

        let layer = Digest::of(b"layer");
        fs::write(store.blob_path(&layer), b"lay3r").unwrap();
        fs::write(dir.path().join(BLOBS).join("junk"), b"x").unwrap();
        let findings = store.check(true).unwrap().findings;
        let wrong = Finding::WrongContent {
            digest: layer.clone(),
            actual: Digest::of(b"lay3r"),
        };
        let foreign = Finding::Foreign {
            name: "junk".to_owned(),
        };
        assert!(findings.contains(&wrong) && findings.contains(&foreign), "{findings:?}");

        // Repaired, the layer is missing, until a repository is known to have it.
        fs::remove_file(dir.path().join(BLOBS).join("junk")).unwrap();
        let missing = Finding::Missing {
            image: "docker.io/library/app:latest".to_owned(),
            digest: layer.clone(),
        };
        assert_eq!(store.check(false).unwrap().findings, [missing]);
        store.add_source(&layer, &"r.example/app".parse().unwrap()).unwrap();
        assert_eq!(store.check(false).unwrap().findings, []);
        fs::remove_file(store.blob_path(&descriptor.digest)).unwrap();
        assert_eq!(store.check(false).unwrap().findings.len(), 1);
    }
}
