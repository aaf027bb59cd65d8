//! An image read back: its config, and all its layers laid over each other in memory. Shares no code with the builder.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// `d`, `f`, `l`, `c`, `b` or `p`.
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) target: String,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// Equal for the names of one file; the name the archive had first.
    pub(crate) file: String,
}

/// An image of an OCI layout.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) digest: String,
    pub(crate) manifest: Value,
    pub(crate) document: Value,
    pub(crate) tree: BTreeMap<String, Node>,
    /// Each layer's entries as `path`, lowest layer first.
    pub(crate) layers: Vec<Vec<String>>,
}

impl Image {
    pub(crate) fn read(layout: &Path, name: &str) -> Self {
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let named = |m: &&Value| m["annotations"]["org.opencontainers.image.ref.name"] == name;
        let found = index["manifests"].as_array().unwrap().iter().find(named);
        let descriptor = found.unwrap_or_else(|| panic!("no image `{name}` in {}", layout.display()));
        Self::of_digest(layout, descriptor["digest"].as_str().unwrap())
    }

    pub(crate) fn of_digest(layout: &Path, digest: &str) -> Self {
        let manifest: Value = serde_json::from_slice(&blob(layout, digest)).unwrap();
        let document: Value =
            serde_json::from_slice(&blob(layout, manifest["config"]["digest"].as_str().unwrap())).unwrap();
        let mut image = Self {
            digest: digest.to_owned(),
            manifest,
            document,
            tree: BTreeMap::new(),
            layers: Vec::new(),
        };
        let diff_ids = image.document["rootfs"]["diff_ids"].as_array().unwrap().clone();
        let layers = image.manifest["layers"].as_array().unwrap().clone();
        assert_eq!(diff_ids.len(), layers.len());
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let packed = blob(layout, layer["digest"].as_str().unwrap());
            assert_eq!(Some(packed.len() as u64), layer["size"].as_u64());
            let mut plain = packed.clone();
            if packed.starts_with(&[0x1f, 0x8b]) {
                plain.clear();
                // One member: what every reader takes.
                flate2::read::GzDecoder::new(&packed[..])
                    .read_to_end(&mut plain)
                    .unwrap();
            } else if packed.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                plain = zstd::decode_all(&packed[..]).unwrap();
            }
            assert_eq!(diff_id, sha256(&plain), "diff_id of a layer");
            image.apply(&plain);
        }
        image
    }

    fn apply(&mut self, layer: &[u8]) {
        let mut paths = Vec::new();
        let mut fresh = BTreeMap::new();
        for entry in tar::Archive::new(layer).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let path = path.trim_end_matches('/').to_owned();
            paths.push(path.clone());
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.tree.retain(|p, _| !p.starts_with(&format!("{parent}/")));
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                let gone = if parent.is_empty() {
                    hidden.to_owned()
                } else {
                    format!("{parent}/{hidden}")
                };
                self.remove(&gone);
            } else {
                let node = Node::read(&mut entry, &path, &fresh);
                fresh.insert(path, node);
            }
        }
        for (path, node) in fresh {
            if node.kind != 'd' || self.tree.get(&path).is_some_and(|old| old.kind != 'd') {
                self.remove(&path);
            }
            self.tree.insert(path, node);
        }
        self.layers.push(paths);
    }

    fn remove(&mut self, path: &str) {
        self.tree
            .retain(|p, _| p != path && !p.starts_with(&format!("{path}/")));
    }

    pub(crate) fn node(&self, path: &str) -> &Node {
        self.tree
            .get(path)
            .unwrap_or_else(|| panic!("no `{path}` in the image: {:?}", self.tree.keys().collect::<Vec<_>>()))
    }

    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8(self.node(path).content.clone()).unwrap()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.tree.contains_key(path)
    }

    /// Lists what lies below `top`, one line a file: kind, mode, owner, path, content or target.
    pub(crate) fn list(&self, top: &str) -> String {
        let mut out = String::new();
        for (path, node) in &self.tree {
            if path == top || path.starts_with(&format!("{top}/")) {
                writeln!(out, "{}", node.line(path)).unwrap();
            }
        }
        out
    }

    pub(crate) fn config(&self) -> &Value {
        &self.document["config"]
    }

    pub(crate) fn history(&self) -> Vec<String> {
        let all = self.document["history"].as_array().unwrap();
        all.iter()
            .map(|h| h["created_by"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Node {
    fn read(entry: &mut tar::Entry<'_, impl std::io::Read>, path: &str, fresh: &BTreeMap<String, Self>) -> Self {
        let mut xattrs = BTreeMap::new();
        if let Some(records) = entry.pax_extensions().unwrap() {
            for record in records {
                let record = record.unwrap();
                if let Some(name) = record.key().unwrap().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                }
            }
        }
        let header = entry.header().clone();
        let target = entry
            .link_name_bytes()
            .map(|b| String::from_utf8(b.into_owned()).unwrap())
            .unwrap_or_default();
        let kind = match header.entry_type() {
            tar::EntryType::Link => {
                return fresh
                    .get(&target)
                    .unwrap_or_else(|| panic!("hard link to `{target}`"))
                    .clone();
            }
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Char => 'c',
            tar::EntryType::Block => 'b',
            tar::EntryType::Fifo => 'p',
            _ => 'f',
        };
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        // Blank where there is no device.
        let device = (
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        );
        Self {
            kind,
            mode: header.mode().unwrap(),
            uid: header.uid().unwrap(),
            gid: header.gid().unwrap(),
            mtime: header.mtime().unwrap(),
            content,
            target,
            device,
            xattrs,
            file: path.to_owned(),
        }
    }

    fn line(&self, path: &str) -> String {
        let mut line = format!("{} {:o} {}:{} {path}", self.kind, self.mode, self.uid, self.gid);
        match self.kind {
            'l' => write!(line, " -> {}", self.target).unwrap(),
            'f' if self.content.len() <= 64 && self.content.is_ascii() => {
                write!(line, " = {}", String::from_utf8_lossy(&self.content).trim_end()).unwrap();
            }
            'f' => write!(line, " # {}", sha256(&self.content)).unwrap(),
            _ => {}
        }
        line
    }
}

fn blob(layout: &Path, digest: &str) -> Vec<u8> {
    let path: PathBuf = layout.join("blobs").join(digest.replace(':', "/"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(digest, sha256(&bytes), "a blob under a wrong name");
    bytes
}

/// Gives `sha256:HEX`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
