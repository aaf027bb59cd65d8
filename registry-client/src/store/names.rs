//! Image names in `index.json`.

use std::fs::File;
use std::io::Read as _;

use super::{INGEST, Store, writer};
use crate::error::{RegistryError, Result};
use crate::layout::{CONTAINERD_NAME, INDEX_FILE, REF_NAME, empty_index, without_names};
use crate::manifest::{Descriptor, Index, MANIFEST_LIMIT};
use crate::reference::Reference;

impl Store {
    /// Gives a name to an image; the name may have meant another one before. A name with a digest can mean nothing else.
    ///
    /// # Errors
    /// `DigestMismatch` when the name has the digest of another image; `Io` or `InvalidDocument` when `index.json` cannot be read or written.
    pub fn tag(&self, name: &Reference, descriptor: &Descriptor) -> Result<()> {
        self.check_digest(name, descriptor)?;
        let name = name.canonical();
        let mut entry = descriptor.clone();
        entry.annotations.insert(REF_NAME.to_owned(), name.clone());
        entry.annotations.insert(CONTAINERD_NAME.to_owned(), name.clone());
        self.change_names(|entries| {
            entries.retain(|other| name_of(other) != Some(&name));
            entries.push(entry);
        })
    }

    /// Takes a name away; its blobs stay. Returns whether there was such a name.
    ///
    /// # Errors
    /// `Io` or `InvalidDocument` when `index.json` cannot be read or written.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        let name = name.canonical();
        let mut found = false;
        self.change_names(|entries| {
            let before = entries.len();
            entries.retain(|entry| name_of(entry) != Some(&name));
            found = entries.len() < before;
        })?;
        Ok(found)
    }

    /// Finds the image of a name.
    ///
    /// # Errors
    /// `DigestMismatch` when the name has a digest, and an entry says it means another image; `Io` or `InvalidDocument` when `index.json` cannot be read.
    pub fn resolve(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let canonical = name.canonical();
        let entries = self.read_names()?.manifests;
        let found = entries.into_iter().rfind(|entry| name_of(entry) == Some(&canonical));
        if let Some(found) = &found {
            self.check_digest(name, found)?;
        }
        Ok(found.map(without_names))
    }

    /// Lists all names in sorted order. Entries other tools have written without a full name are left out.
    ///
    /// # Errors
    /// `Io` or `InvalidDocument` when `index.json` cannot be read.
    pub fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let entries = self.read_names()?.manifests;
        let named = |entry: Descriptor| Some((name_of(&entry)?.parse().ok()?, without_names(entry)));
        let mut list: Vec<(Reference, Descriptor)> = entries.into_iter().filter_map(named).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(list)
    }

    /// A digest in a name decides what it means: that manifest, or an image that the index of that digest lists.
    pub(crate) fn check_digest(&self, name: &Reference, image: &Descriptor) -> Result<()> {
        let Some(expected) = name.digest().filter(|digest| **digest != image.digest) else {
            return Ok(());
        };
        let lists = |index: Index| index.manifests.iter().any(|entry| entry.digest == image.digest);
        let index = self
            .read_blob(expected, MANIFEST_LIMIT)
            .and_then(|bytes| Index::parse(&bytes));
        if index.is_ok_and(lists) {
            return Ok(());
        }
        Err(RegistryError::DigestMismatch {
            what: format!("the image to be `{name}`"),
            expected: expected.clone(),
            actual: image.digest.clone(),
        })
    }

    fn change_names(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<()> {
        let lock = self.lock()?;
        let mut index = self.read_names()?;
        change(&mut index.manifests);
        index.manifests.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
        let result = writer::replace(
            &self.dir().join(INGEST),
            &self.dir().join(INDEX_FILE),
            &index.to_bytes(),
        );
        drop(lock);
        result
    }

    fn read_names(&self) -> Result<Index> {
        let path = self.dir().join(INDEX_FILE);
        let failed = |error| RegistryError::io("read", &path, error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(empty_index()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
        Index::parse(&bytes)
    }
}

fn name_of(entry: &Descriptor) -> Option<&String> {
    entry.annotations.get(REF_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::media_type;
    use crate::test_dir::TestDir;

    fn image(bytes: &[u8]) -> Descriptor {
        Descriptor::of(media_type::OCI_MANIFEST, bytes)
    }

    #[test]
    fn names_are_kept_moved_listed_and_removed() {
        let dir = TestDir::new("names");
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = "node:20".parse().unwrap();
        assert_eq!(store.resolve(&name).unwrap(), None);
        store.tag(&name, &image(b"old")).unwrap();
        store.tag(&name, &image(b"new")).unwrap();
        store.tag(&"a.example/app".parse().unwrap(), &image(b"new")).unwrap();
        assert_eq!(store.resolve(&name).unwrap(), Some(image(b"new")));
        let names: Vec<String> = store.list().unwrap().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["a.example/app:latest", "docker.io/library/node:20"]);
        assert_eq!(
            (store.untag(&name).unwrap(), store.untag(&name).unwrap()),
            (true, false)
        );
        assert_eq!(store.resolve(&name).unwrap(), None);
    }

    #[test]
    fn a_digest_in_a_name_is_the_image_s_or_its_index_s() {
        let dir = TestDir::new("names-digest");
        let store = Store::open(dir.path()).unwrap();
        let (inside, outside) = (image(b"inside"), image(b"outside"));
        let mut index = crate::layout::empty_index();
        index.manifests.push(inside.clone());
        let digest = store.put(&index.to_bytes()).unwrap();
        let name = |digest: &crate::digest::Digest| "app:1".parse::<Reference>().unwrap().with_digest(digest.clone());
        store.tag(&name(&inside.digest), &inside).unwrap();
        store.tag(&name(&digest), &inside).unwrap();
        for wrong in [name(&digest), name(&inside.digest)] {
            assert!(matches!(
                store.tag(&wrong, &outside),
                Err(RegistryError::DigestMismatch { .. })
            ));
        }
        // What another program has written there does not count either.
        let text = std::fs::read_to_string(dir.path().join(INDEX_FILE)).unwrap();
        let forged = text.replace(
            &format!("\"digest\":\"{}\"", inside.digest),
            &format!("\"digest\":\"{}\"", outside.digest),
        );
        std::fs::write(dir.path().join(INDEX_FILE), forged).unwrap();
        assert!(matches!(
            store.resolve(&name(&digest)),
            Err(RegistryError::DigestMismatch { .. })
        ));
    }

    #[test]
    fn concurrent_taggers_lose_no_name() {
        let dir = TestDir::new("names-race");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = dir.path();
                scope.spawn(move || {
                    // A store of its own: the lock must hold between processes, not between clones.
                    let store = Store::open(path).unwrap();
                    for tag in 0..10 {
                        store
                            .tag(&format!("app:{thread}-{tag}").parse().unwrap(), &image(b"x"))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(Store::open(dir.path()).unwrap().list().unwrap().len(), 40);
    }

    #[test]
    fn a_broken_index_is_an_error_and_stays() {
        let dir = TestDir::new("names-broken");
        let store = Store::open(dir.path()).unwrap();
        std::fs::write(dir.path().join(INDEX_FILE), "{").unwrap();
        store.tag(&"app".parse().unwrap(), &image(b"x")).unwrap_err();
        assert_eq!(std::fs::read_to_string(dir.path().join(INDEX_FILE)).unwrap(), "{");
    }
}
