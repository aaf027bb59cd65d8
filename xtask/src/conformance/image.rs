//! Images as `docker save` writes them: the layers laid upon each other, and the config, as lines that can be compared.
//!
//! This reads by code of its own, for it judges the product's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Result, TaskError};

/// Content up to this many bytes is shown, longer content by its length and hash.
const SHOWN: usize = 120;

/// One file of a root file system.
#[derive(Debug, Clone)]
struct Node {
    /// Type, mode, owner, content or target, attributes.
    shown: String,
    /// Seconds since 1970.
    mtime: u64,
    is_dir: bool,
    /// The number of the file that several names may share.
    inode: usize,
}

/// An image read from an archive.
#[derive(Debug)]
pub(super) struct Image {
    nodes: BTreeMap<PathBuf, Node>,
    config: Value,
    inodes: usize,
}

/// An entry to lay upon the others.
struct Entry {
    path: PathBuf,
    kind: Kind,
    node: Node,
}

enum Kind {
    Plain,
    HardLink(PathBuf),
    Whiteout,
    Opaque,
}

impl Image {
    /// Reads an archive. Layers whose diff_id is among `without` are left out.
    pub(super) fn read(archive: &Path, without: &BTreeSet<String>) -> Result<Self> {
        let mut documents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut links: BTreeMap<String, String> = BTreeMap::new();
        let file = File::open(archive).map_err(TaskError::at("open", archive))?;
        let mut reader = tar::Archive::new(file);
        for entry in reader.entries().map_err(TaskError::at("read", archive))? {
            let mut entry = entry.map_err(TaskError::at("read", archive))?;
            let name = entry.path().map_err(TaskError::at("read", archive))?;
            let name = name.to_string_lossy().into_owned();
            if let Some(target) = entry.link_name().map_err(TaskError::at("read", archive))? {
                let directory = Path::new(&name).parent().unwrap_or(Path::new(""));
                let target = normal(&directory.join(target));
                links.insert(name, target.to_string_lossy().into_owned());
                continue;
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(TaskError::at("read", archive))?;
            documents.insert(name, bytes);
        }
        let document = |name: &str| {
            let name = links.get(name).map_or(name, String::as_str);
            let missing = || TaskError::new(format!("`{}` has no `{name}`", archive.display()));
            documents.get(name).ok_or_else(missing)
        };
        let manifest: Value = json(document("manifest.json")?)?;
        let manifest = &manifest[0];
        let config: Value = json(document(text(&manifest["Config"]))?)?;
        let mut image = Self {
            nodes: BTreeMap::new(),
            config,
            inodes: 0,
        };
        let diff_ids = image.diff_ids();
        for (layer, diff_id) in list(&manifest["Layers"]).iter().zip(diff_ids) {
            if !without.contains(&diff_id) {
                let layer =
                    uncompressed(document(text(layer))?).map_err(TaskError::at("decompress a layer of", archive))?;
                image.lay(&layer).map_err(TaskError::at("read a layer of", archive))?;
            }
        }
        Ok(image)
    }

    /// The layers' diff_ids, base first.
    pub(super) fn diff_ids(&self) -> Vec<String> {
        let ids = list(&self.config["rootfs"]["diff_ids"]);
        ids.iter().map(|id| text(id).to_owned()).collect()
    }

    fn lay(&mut self, layer: &[u8]) -> std::io::Result<()> {
        let entries = self.entries_of(layer)?;
        // A whiteout is about the layers below, wherever in its layer it stands.
        for entry in &entries {
            match entry.kind {
                Kind::Whiteout => self.remove(&entry.path, true),
                Kind::Opaque => self.remove(&entry.path, false),
                _ => {}
            }
        }
        for entry in entries {
            let node = match entry.kind {
                Kind::Plain => entry.node,
                Kind::HardLink(target) => {
                    let missing = || std::io::Error::other(format!("hard link to `{}`", target.display()));
                    self.nodes.get(&target).cloned().ok_or_else(missing)?
                }
                Kind::Whiteout | Kind::Opaque => continue,
            };
            if !node.is_dir {
                self.remove(&entry.path, true);
            }
            self.nodes.insert(entry.path, node);
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path, itself: bool) {
        self.nodes
            .retain(|known, _| !known.starts_with(path) || (!itself && known == path));
    }

    fn entries_of(&mut self, layer: &[u8]) -> std::io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut reader = tar::Archive::new(layer);
        for entry in reader.entries()? {
            let mut entry = entry?;
            let path = normal(&Path::new("/").join(entry.path()?));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
            let (path, kind) = match (name.strip_prefix(".wh."), entry.header().entry_type()) {
                (Some(".wh..opq"), _) => (parent, Kind::Opaque),
                (Some(gone), _) => (parent.join(gone), Kind::Whiteout),
                (None, tar::EntryType::Link) => {
                    let target = entry.link_name()?.unwrap_or_default();
                    (path, Kind::HardLink(normal(&Path::new("/").join(target))))
                }
                (None, _) => (path, Kind::Plain),
            };
            self.inodes += 1;
            let node = node(&mut entry, self.inodes)?;
            entries.push(Entry { path, kind, node });
        }
        Ok(entries)
    }

    /// The times of everything but directories, in seconds since 1970.
    pub(super) fn times(&self) -> BTreeMap<String, u64> {
        let files = self.nodes.iter().filter(|(_, node)| !node.is_dir);
        files
            .map(|(path, node)| (shown(path.as_os_str().as_encoded_bytes()), node.mtime))
            .collect()
    }

    /// When the image and each step of its history were made.
    pub(super) fn created(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        lines.insert("created image".to_owned(), text(&self.config["created"]).to_owned());
        for (number, step) in list(&self.config["history"]).iter().enumerate() {
            lines.insert(format!("created {number:02}"), text(&step["created"]).to_owned());
        }
        lines
    }

    /// One line an entry, by path.
    pub(super) fn entries(&self) -> BTreeMap<String, String> {
        let mut first: BTreeMap<usize, &Path> = BTreeMap::new();
        let mut lines = BTreeMap::new();
        for (path, node) in &self.nodes {
            let mut line = node.shown.clone();
            let other = *first.entry(node.inode).or_insert(path);
            if other != path {
                line.push_str(&format!(", the same file as {}", other.display()));
            }
            lines.insert(shown(path.as_os_str().as_encoded_bytes()), line);
        }
        lines
    }

    /// The values of the config and the history that an image of the same Dockerfile has, whoever built it.
    pub(super) fn config(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        for key in ["architecture", "os", "variant", "author"] {
            if let Some(value) = self.config.get(key) {
                lines.insert(format!("config {key}"), value.to_string());
            }
        }
        let config = self.config["config"].as_object();
        for (key, value) in config.into_iter().flatten() {
            let empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(values) => values.is_empty(),
                Value::Object(values) => values.is_empty(),
                _ => false,
            };
            if !empty {
                lines.insert(format!("config {key}"), value.to_string());
            }
        }
        for (number, step) in list(&self.config["history"]).iter().enumerate() {
            let layer = if step["empty_layer"] == true {
                "no layer"
            } else {
                "a layer"
            };
            let line = format!("{layer} by {:?}", without_go(text(&step["created_by"])));
            lines.insert(format!("history {number:02}"), line);
        }
        lines
    }
}

fn node(entry: &mut tar::Entry<'_, &[u8]>, inode: usize) -> std::io::Result<Node> {
    use tar::EntryType as Type;
    let mut attributes = BTreeMap::new();
    let (mut uid, mut gid) = (entry.header().uid()?, entry.header().gid()?);
    let mut mtime = entry.header().mtime()?;
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let value = extension.value_bytes();
        let number = || {
            String::from_utf8_lossy(value)
                .split('.')
                .next()
                .and_then(|n| n.parse().ok())
        };
        match extension.key_bytes() {
            b"uid" => uid = number().unwrap_or(uid),
            b"gid" => gid = number().unwrap_or(gid),
            b"mtime" => mtime = number().unwrap_or(mtime),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    attributes.insert(shown(name), shown(value));
                }
            }
        }
    }
    let header = entry.header();
    let kind = header.entry_type();
    let device = || -> std::io::Result<String> {
        let (major, minor) = (header.device_major()?, header.device_minor()?);
        Ok(format!("{}:{}", major.unwrap_or(0), minor.unwrap_or(0)))
    };
    let mode = header.mode()? & 0o7777;
    let what = match kind {
        Type::Directory => format!("dir {mode:04o} {uid}:{gid}"),
        Type::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            format!("link {uid}:{gid} -> {}", shown(&target))
        }
        Type::Char => format!("character device {} {mode:04o} {uid}:{gid}", device()?),
        Type::Block => format!("block device {} {mode:04o} {uid}:{gid}", device()?),
        Type::Fifo => format!("pipe {mode:04o} {uid}:{gid}"),
        _ => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            format!("file {mode:04o} {uid}:{gid} {}", content(&bytes))
        }
    };
    let shown = attributes
        .iter()
        .fold(what, |line, (name, value)| format!("{line}, {name}={value}"));
    Ok(Node {
        shown,
        mtime,
        is_dir: kind == Type::Directory,
        inode,
    })
}

fn content(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    if bytes.len() <= SHOWN {
        return format!("\"{}\"", shown(bytes));
    }
    // The hash only tells apart what two builders made a moment ago.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes {:016x}", bytes.len(), hasher.finish())
}

/// Bytes as ASCII, with escapes for the rest.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A path without `.`, `..` and a trailing slash.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// Takes out what the oracle prints as structures of its language: newer versions print lists, and roadstead the words.
fn without_go(created_by: &str) -> &str {
    ["EXPOSE", "HEALTHCHECK"]
        .into_iter()
        .find(|keyword| created_by.starts_with(keyword))
        .unwrap_or(created_by)
}

/// Docker writes layers as they are, roadstead as the registry gets them.
fn uncompressed(layer: &[u8]) -> std::io::Result<std::borrow::Cow<'_, [u8]>> {
    if !layer.starts_with(&[0x1f, 0x8b]) {
        return Ok(layer.into());
    }
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(layer).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|error| TaskError::new(format!("malformed JSON in an archive: {error}")))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            if matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink) {
                header.set_size(0);
                builder.append_link(&mut header, path, text).unwrap();
            } else {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn layers_are_laid_upon_each_other() {
        use tar::EntryType as T;
        let mut image = Image {
            nodes: BTreeMap::new(),
            config: Value::Null,
            inodes: 0,
        };
        let below = [
            ("d/", T::Directory, ""),
            ("d/a", T::Regular, "1"),
            ("d/b", T::Link, "d/a"),
            ("e/", T::Directory, ""),
            ("e/x", T::Regular, "2"),
            ("f", T::Regular, "3"),
        ];
        image.lay(&layer(&below)).unwrap();
        let above = [
            ("e/new", T::Regular, "4"),
            ("e/.wh..wh..opq", T::Regular, ""),
            (".wh.f", T::Regular, ""),
            ("d", T::Symlink, "e"),
        ];
        assert_eq!(image.entries()["/d/b"], "file 0644 0:0 \"1\", the same file as /d/a");
        image.lay(&layer(&above)).unwrap();
        let entries = image.entries();
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["/d", "/e", "/e/new"]);
        assert_eq!(entries["/d"], "link 0:0 -> e");
        assert_eq!(entries["/e/new"], "file 0644 0:0 \"4\"");
    }
}
