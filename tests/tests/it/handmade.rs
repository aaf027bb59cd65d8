//! Images put together by hand, honest or not, and laid straight into an OCI layout.

use crate::image::sha256;
use serde_json::{Value, json};
use std::path::Path;

/// One entry of a layer, every field as the test wants it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    header: tar::Header,
    content: Vec<u8>,
    records: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(kind: tar::EntryType, path: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(content.len() as u64);
        // Not through `set_path`, which refuses what a hostile archive holds.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        Self {
            header,
            content: content.to_vec(),
            records: Vec::new(),
        }
    }

    pub(crate) fn file(path: &str, content: &str) -> Self {
        Self::new(tar::EntryType::Regular, path, 0o644, content.as_bytes())
    }

    pub(crate) fn dir(path: &str, mode: u32) -> Self {
        Self::new(tar::EntryType::Directory, path, mode, b"")
    }

    pub(crate) fn link(path: &str, target: &str) -> Self {
        Self::new(tar::EntryType::Symlink, path, 0o777, b"").with_target(target)
    }

    pub(crate) fn hard_link(path: &str, target: &str) -> Self {
        Self::new(tar::EntryType::Link, path, 0o644, b"").with_target(target)
    }

    pub(crate) fn device(path: &str, major: u32, minor: u32) -> Self {
        let mut entry = Self::new(tar::EntryType::Char, path, 0o666, b"");
        entry.header.set_device_major(major).unwrap();
        entry.header.set_device_minor(minor).unwrap();
        entry
    }

    fn with_target(mut self, target: &str) -> Self {
        self.header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        self
    }

    /// Replaces a word in the link's target.
    pub(crate) fn replaced(mut self, word: &str, by: &str) -> Self {
        let field = &mut self.header.as_mut_bytes()[157..257];
        let target = String::from_utf8(field.iter().copied().take_while(|b| *b != 0).collect())
            .unwrap()
            .replace(word, by);
        field.fill(0);
        field[..target.len()].copy_from_slice(target.as_bytes());
        self
    }

    pub(crate) fn owned_by(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    pub(crate) fn with_record(mut self, key: &str, value: &[u8]) -> Self {
        self.records.push((key.to_owned(), value.to_vec()));
        self
    }
}

/// Writes entries as a tar.
pub(crate) fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let records = entry.records.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        builder.append_pax_extensions(records).unwrap();
        let mut header = entry.header.clone();
        header.set_cksum();
        builder.append(&header, &entry.content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Lays an image of plain layers into `layout` under `name`, its config changed by `change`.
pub(crate) fn put(layout: &Path, name: &str, layers: &[Vec<u8>], change: impl FnOnce(&mut Value)) {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let diff_ids: Vec<String> = layers.iter().map(|l| sha256(l)).collect();
    let mut config = json!({
        "architecture": architecture, "os": "linux", "config": {}, "history": [], "rootfs": { "type": "layers", "diff_ids": diff_ids }
    });
    change(&mut config);
    let descriptor = |media_type: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        let path = layout.join("blobs").join(digest.replace(':', "/"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layers: Vec<Value> = layers
        .iter()
        .map(|l| descriptor("application/vnd.oci.image.layer.v1.tar", l))
        .collect();
    let config = descriptor(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers }).to_string();
    let mut entry = descriptor(media_type, manifest.as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name });
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let path = layout.join("index.json");
    let mut index: Value = std::fs::read(&path).map_or_else(
        |_| json!({ "schemaVersion": 2, "manifests": [] }),
        |text| serde_json::from_slice(&text).unwrap(),
    );
    index["manifests"].as_array_mut().unwrap().push(entry);
    std::fs::write(path, index.to_string()).unwrap();
}
