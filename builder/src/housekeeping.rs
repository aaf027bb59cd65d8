//! What builds leave behind for those to come: how much it is, and removing what was used longest ago.
//!
//! Builds may run meanwhile. What one of them uses or has made is newer than its beginning, and stays.

use crate::beneath::FileError;
use crate::cache::local::LocalCache;
use crate::cache::mounts::CacheMounts;
use crate::rootfs::overlay::{Layers, OverlayError};
use crate::rootfs::scratch::oldest_running;
use roadstead_registry_client::{Digest, Store};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// File systems note times by clocks that tick some milliseconds late.
const TICK: Duration = Duration::from_millis(100);

/// Tells why room could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HouseError {
    /// Files cannot be read or removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Unpacked layers cannot be read or removed.
    #[error(transparent)]
    Layers(#[from] OverlayError),
    /// The store cannot be read, or a blob not removed.
    #[error(transparent)]
    Store(#[from] roadstead_registry_client::Error),
    /// Records of steps cannot be read or removed.
    #[error("cannot read or remove records of steps")]
    Records(#[source] std::io::Error),
}

/// What an item of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a step gave: a small record that names a layer.
    Step,
    /// A layer's files, unpacked.
    Layer,
    /// A layer, manifest or configuration in the store.
    Blob,
    /// A directory of `RUN --mount=type=cache`.
    Mount,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Step => "step",
            Self::Layer => "layer",
            Self::Blob => "blob",
            Self::Mount => "mount",
        })
    }
}

/// One thing that can be removed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its name among those of its kind.
    pub name: String,
    /// Bytes that it takes, about.
    pub size: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// Whether a running build may use it.
    pub in_use: bool,
    /// Whether an image that has a name needs it.
    pub is_named: bool,
}

impl Item {
    /// Tells whether it may be removed now.
    #[must_use]
    pub fn is_reclaimable(&self) -> bool {
        !self.in_use && !self.is_named
    }
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only as much as is needed for no more than so many bytes to be left, not counting what cannot be removed for an image's sake.
    pub keep: Option<u64>,
    /// Cache mounts as well.
    pub mounts: bool,
}

/// The parts of a data directory that outlive builds.
#[derive(Debug)]
pub struct House {
    /// Blobs and names.
    pub store: Store,
    /// Unpacked layers.
    pub layers: Layers,
    /// Records of steps.
    pub cache: LocalCache,
    /// Cache mounts.
    pub mounts: CacheMounts,
    /// Where all builds have their temporary directories.
    pub scratches: PathBuf,
}

impl House {
    /// Lists all there is, what was used longest ago first. Cache mounts only when they are asked for: their files must be counted.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn items(&self, mounts: bool) -> Result<Vec<Item>, HouseError> {
        let oldest = begun(&self.scratches)?;
        let item = |kind, name, size, used, is_named| Item {
            kind,
            name,
            size,
            used,
            in_use: used >= oldest,
            is_named,
        };
        let mut items = Vec::new();
        for one in self.cache.usage().map_err(HouseError::Records)? {
            items.push(item(Kind::Step, one.key.hex().to_owned(), one.size, one.used, false));
        }
        for one in self.layers.usage()? {
            items.push(item(Kind::Layer, one.name, one.size, one.used, false));
        }
        for one in self.store.usage()? {
            items.push(item(
                Kind::Blob,
                one.digest.hex().to_owned(),
                one.size,
                one.used,
                one.is_named,
            ));
        }
        if mounts {
            for one in self.mounts.usage()? {
                let mut mount = item(Kind::Mount, one.name, one.size, one.used, false);
                mount.in_use |= one.is_used;
                items.push(mount);
            }
        }
        items.sort_by(|a, b| (a.used, a.kind, &a.name).cmp(&(b.used, b.kind, &b.name)));
        Ok(items)
    }

    /// Removes what was used longest ago, as far as it is wanted and nothing needs it; gives what is gone.
    ///
    /// # Errors
    /// When something cannot be read or removed; what was removed before that is gone.
    pub fn prune(&self, wanted: &Wanted) -> Result<Vec<Item>, HouseError> {
        let items = self.items(wanted.mounts)?;
        let mut left: u64 = items.iter().filter(|item| !item.is_named).map(|item| item.size).sum();
        let limit = match wanted.unused_for {
            Some(age) => SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            None => SystemTime::now() + Duration::from_secs(1),
        };
        let mut chosen = Vec::new();
        for item in items.into_iter().filter(Item::is_reclaimable) {
            if item.used >= limit || wanted.keep.is_some_and(|keep| left <= keep) {
                continue;
            }
            left = left.saturating_sub(item.size);
            chosen.push(item);
        }
        self.remove(chosen)
    }

    /// Removes items that were found unused, unless they have been used since.
    fn remove(&self, chosen: Vec<Item>) -> Result<Vec<Item>, HouseError> {
        let before = begun(&self.scratches)?;
        let of = |kind: Kind| chosen.iter().filter(move |item| item.kind == kind);
        let digest = |item: &Item| format!("sha256:{}", item.name).parse::<Digest>().ok();
        let blobs: Vec<Digest> = of(Kind::Blob).filter_map(digest).collect();
        let going: HashSet<&Digest> = blobs.iter().collect();
        let steps: HashSet<&str> = of(Kind::Step).map(|item| item.name.as_str()).collect();
        let layers: Vec<String> = of(Kind::Layer).map(|item| item.name.clone()).collect();
        // Records first: none may name a blob that is going. One that does without is only a step done again.
        let mut gone: HashSet<(Kind, String)> = HashSet::new();
        for record in self.cache.usage().map_err(HouseError::Records)? {
            let loses_blob = record.blob.is_some_and(|blob| going.contains(&blob));
            if record.used < before && (loses_blob || steps.contains(record.key.hex())) {
                self.cache.remove(&record.key).map_err(HouseError::Records)?;
                gone.insert((Kind::Step, record.key.hex().to_owned()));
            }
        }
        let removed = self.layers.remove_unused(&layers, before)?;
        gone.extend(removed.into_iter().map(|name| (Kind::Layer, name)));
        let removed = self.store.remove_unused(&blobs, before)?;
        gone.extend(removed.into_iter().map(|blob| (Kind::Blob, blob.hex().to_owned())));
        for mount in of(Kind::Mount) {
            if self.mounts.remove_unused(&mount.name, before)? {
                gone.insert((Kind::Mount, mount.name.clone()));
            }
        }
        let is_gone = |item: &Item| gone.contains(&(item.kind, item.name.clone()));
        Ok(chosen.into_iter().filter(is_gone).collect())
    }
}

/// When the oldest of the running builds began: what was used since may be in use.
fn begun(scratches: &Path) -> Result<SystemTime, FileError> {
    let oldest = oldest_running(scratches)?.unwrap_or_else(SystemTime::now);
    Ok(oldest.checked_sub(TICK).unwrap_or(SystemTime::UNIX_EPOCH))
}
