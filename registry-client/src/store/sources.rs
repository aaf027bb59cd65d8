//! Where a blob that may not be here can be fetched or mounted from.
//!
//! A base layer that is never unpacked is never downloaded: its source is enough for the push to mount it.

use std::fs::File;
use std::io::Read as _;

use super::{INGEST, SOURCES, Store, writer};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};
use crate::reference::Reference;

/// Sources kept for a blob. More would only be asked in vain: the newest are the likeliest.
const SOURCE_LIMIT: usize = 16;
const FILE_LIMIT: u64 = 16 * 1024;

impl Store {
    /// Notes a repository that has the blob. The tag of the name does not count.
    ///
    /// # Errors
    /// `Io` when the note cannot be written.
    pub fn add_source(&self, digest: &Digest, repository: &Reference) -> Result<()> {
        let repository = repository.without_tag();
        // Most calls repeat what is known; they need no lock.
        if self.sources(digest).first() == Some(&repository) {
            return Ok(());
        }
        let lock = self.lock()?;
        let mut list = self.sources(digest);
        list.retain(|known| *known != repository);
        list.insert(0, repository);
        list.truncate(SOURCE_LIMIT);
        let text: String = list.iter().map(|source| format!("{}\n", source.name())).collect();
        let result = writer::replace(
            &self.dir().join(INGEST),
            &self.dir().join(SOURCES).join(digest.hex()),
            text.as_bytes(),
        );
        drop(lock);
        result
    }

    /// Lists the repositories known to have the blob, the newest first.
    ///
    /// A note that cannot be read is no source: the blob is then fetched or uploaded in another way.
    #[must_use]
    pub fn sources(&self, digest: &Digest) -> Vec<Reference> {
        let path = self.dir().join(SOURCES).join(digest.hex());
        let read = File::open(&path).and_then(|file| {
            let mut text = String::new();
            file.take(FILE_LIMIT).read_to_string(&mut text)?;
            Ok(text)
        });
        match read.map_err(|error| RegistryError::io("read", &path, error)) {
            Ok(text) => text
                .lines()
                .filter_map(|line| line.parse().ok())
                .take(SOURCE_LIMIT)
                .collect(),
            Err(RegistryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "sources of a blob are unknown");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn sources_are_newest_first_bounded_and_without_tags() {
        let dir = TestDir::new("sources");
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"layer");
        assert!(store.sources(&digest).is_empty());
        for number in 0..20 {
            store
                .add_source(&digest, &format!("r.example/app{number}:tag").parse().unwrap())
                .unwrap();
        }
        store
            .add_source(&digest, &"r.example/app10:other".parse().unwrap())
            .unwrap();
        let names: Vec<String> = store.sources(&digest).iter().map(ToString::to_string).collect();
        assert_eq!(
            (names.len(), names[0].as_str(), names[1].as_str()),
            (SOURCE_LIMIT, "r.example/app10", "r.example/app19")
        );
        std::fs::write(
            dir.path().join(SOURCES).join(digest.hex()),
            "r.example/good\n../bad\n\0\n",
        )
        .unwrap();
        assert_eq!(store.sources(&digest), ["r.example/good".parse().unwrap()]);
    }
}
