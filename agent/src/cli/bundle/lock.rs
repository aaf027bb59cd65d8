//! The lock file beside a bundle: what is in it, by digest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use roadstead_registry_client::{Descriptor, Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, FileError};

const VERSION: u32 = 1;
const LIMIT: u64 = 16 << 20;

/// The lock file's content. It is committed and compared, so its names stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lock {
    schema_version: u32,
    /// Sorted by name.
    pub(super) images: Vec<LockedImage>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LockedImage {
    /// Full name.
    pub(super) name: String,
    /// What the name means: a manifest or an index.
    pub(super) digest: Digest,
    media_type: String,
    size: u64,
    /// Platforms that were taken along.
    platforms: Vec<String>,
}

impl LockedImage {
    pub(super) fn new(name: String, image: &Descriptor, platforms: &[Platform]) -> Self {
        Self {
            name,
            digest: image.digest.clone(),
            media_type: image.media_type.clone(),
            size: image.size,
            platforms: platforms.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Lock {
    pub(super) fn new(mut images: Vec<LockedImage>) -> Self {
        images.sort();
        Self {
            schema_version: VERSION,
            images,
        }
    }

    /// The platforms that were taken along for an image; `None` when it is not locked.
    pub(super) fn platforms(&self, name: &str) -> Option<BTreeSet<Platform>> {
        let image = self.images.iter().find(|image| image.name == name)?;
        image.platforms.iter().map(|platform| platform.parse().ok()).collect()
    }

    /// Where the lock file of a bundle is.
    pub(super) fn path(bundle: &Path) -> PathBuf {
        let mut path = bundle.as_os_str().to_owned();
        path.push(".lock");
        path.into()
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(CliError::failed)?;
        text.push(b'\n');
        // By rename, so that a bundle never has half a lock.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|error| CliError::failed(FileError::at("write", path)(error)))
    }

    /// Reads the lock file; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CliError> {
        use std::io::Read as _;
        let failed = |error| CliError::usage(FileError::at("read", path)(error));
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
        let lock: Self = serde_json::from_slice(&bytes)
            .map_err(|error| CliError::usage(format!("cannot use `{}`: {error}", path.display())))?;
        match lock.schema_version {
            VERSION => Ok(Some(lock)),
            other => Err(CliError::usage(format!(
                "cannot use `{}`: its schemaVersion is {other}, not {VERSION}",
                path.display()
            ))),
        }
    }

    /// Tells what of a bundle is not as it is written here.
    pub(super) fn differences(&self, found: &[(String, Digest, u64)]) -> Vec<String> {
        let mut differences = Vec::new();
        for image in &self.images {
            match found.iter().find(|(name, ..)| *name == image.name) {
                None => differences.push(format!("`{}` is missing", image.name)),
                Some((name, digest, _)) if *digest != image.digest => {
                    differences.push(format!("`{name}` is {digest}, not {}", image.digest));
                }
                Some((name, _, size)) if *size != image.size => {
                    differences.push(format!("`{name}` has {size} bytes, not {}", image.size));
                }
                Some(_) => {}
            }
        }
        for (name, ..) in found {
            if !self.images.iter().any(|image| image.name == *name) {
                differences.push(format!("`{name}` is not locked"));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_locked_is_told() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let image = |name: &str, digest: &Digest| {
            let descriptor = Descriptor::new("type", digest.clone(), 1);
            LockedImage::new(name.to_owned(), &descriptor, &[Platform::host()])
        };
        let lock = Lock::new(vec![image("b", &two), image("a", &one)]);
        let found = |list: &[(&str, &Digest)]| -> Vec<(String, Digest, u64)> {
            list.iter()
                .map(|(name, digest)| ((*name).to_owned(), (*digest).clone(), 1))
                .collect()
        };
        assert_eq!(
            lock.differences(&found(&[("a", &one), ("b", &two)])),
            Vec::<String>::new()
        );
        assert_eq!(
            lock.differences(&found(&[("b", &one), ("c", &one)])),
            [
                "`a` is missing".to_owned(),
                format!("`b` is {one}, not {two}"),
                "`c` is not locked".to_owned()
            ]
        );
    }
}
