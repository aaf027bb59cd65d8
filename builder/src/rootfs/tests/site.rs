//! A store, layers in both forms, and files written down.

use crate::beneath::{Dir, kind};
use crate::layer::compression::Compression;
use crate::layer::tar::{EntryHeader, TarWriter};
use crate::layer::write::Layer;
use crate::rootfs::overlay::{ChainId, Layers, RootForm};
use roadstead_registry_client::Store;
use rustix::fs::FileType;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Time that all times are clamped to: what is changed now looks the same whenever that is.
pub(super) const EPOCH: i64 = 1000;

pub(super) struct Site {
    base: PathBuf,
    pub(super) store: Store,
}

impl Site {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("roadstead-trees-{}-{number}", std::process::id()));
        let store = Store::open(&base.join("store")).unwrap();
        Self { base, store }
    }

    /// One in memory.
    pub(super) fn on_ramfs() -> Self {
        let site = Self::new();
        let layers = site.base.join(format!("{:?}", RootForm::Directories));
        std::fs::create_dir(&layers).unwrap();
        rustix::mount::mount("ramfs", &layers, "ramfs", rustix::mount::MountFlags::empty(), None).unwrap();
        site
    }

    /// Layers in a form, each with directories of its own.
    pub(super) fn layers(&self, form: RootForm) -> Layers {
        let base = self.base.join(format!("{form:?}"));
        Layers::open(&base.join("layers"), &base.join("tmp"))
            .unwrap()
            .in_form(form)
    }

    /// Stores a layer.
    pub(super) fn layer(&self, write: impl FnOnce(&mut TarWriter<&mut dyn Write>)) -> Layer {
        let mut bytes: Vec<u8> = Vec::new();
        let mut tar = TarWriter::new(&mut bytes as &mut dyn Write);
        write(&mut tar);
        tar.finish().unwrap();
        self.store_tar(&bytes)
    }

    pub(super) fn store_tar(&self, bytes: &[u8]) -> Layer {
        let mut writer = self.store.writer().unwrap();
        writer.write_all(bytes).unwrap();
        let (digest, size) = writer.commit().unwrap();
        let media_type = Compression::Uncompressed.media_type();
        Layer {
            diff_id: digest.clone(),
            descriptor: roadstead_registry_client::Descriptor::new(media_type, digest, size),
        }
    }

    /// Unpacks a stack in a form; gives its chain.
    pub(super) fn unpack(&self, layers: &Layers, stack: &[Layer]) -> Vec<ChainId> {
        let chain = ChainId::stack(stack.iter().map(|layer| &layer.diff_id));
        for (at, layer) in stack.iter().enumerate() {
            layers.unpack(&self.store, &chain[..=at], layer).unwrap();
        }
        chain
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        crate::sandbox::unmount(&self.base.join(format!("{:?}", RootForm::Directories)));
        drop(std::fs::remove_dir_all(&self.base));
    }
}

/// One entry, as a line: `d a/b`, `f a/b = content`, `l a/b > target`, `h a/b > first name`, `p a/b`, `o a` (opaque), `w a/b` (whiteout);
/// behind `@`, mode and owner.
pub(super) fn append(tar: &mut TarWriter<&mut dyn Write>, line: &str) {
    let (line, looks) = line.split_once(" @ ").unwrap_or((line, "755 0"));
    let (mode, owner) = looks.split_once(' ').unwrap();
    let (kind, rest) = line.split_once(' ').unwrap();
    let (path, value) = rest
        .split_once(" = ")
        .or_else(|| rest.split_once(" > "))
        .unwrap_or((rest, ""));
    let path = Path::new(path);
    let path = match kind {
        "o" => path.join(".wh..wh..opq"),
        "w" => path.with_file_name(format!(".wh.{}", path.file_name().unwrap().to_str().unwrap())),
        _ => path.to_owned(),
    };
    let target = Path::new(value);
    let xattrs = [("user.from".into(), mode.as_bytes().to_vec())];
    let owner = owner.parse().unwrap();
    let content = if kind == "f" { value.as_bytes() } else { b"" };
    let header = EntryHeader {
        path: &path,
        file_type: match kind {
            "d" => FileType::Directory,
            "l" => FileType::Symlink,
            "p" => FileType::Fifo,
            _ => FileType::RegularFile,
        },
        mode: u32::from_str_radix(mode, 8).unwrap(),
        uid: owner,
        gid: owner,
        size: content.len() as u64,
        mtime: 7,
        device: 0,
        target: (kind == "l").then_some(value.as_bytes()),
        hard_link: (kind == "h").then_some(target),
        xattrs: if looks == "755 0" { &[] } else { &xattrs },
    };
    tar.append(&header, &mut &*content).unwrap();
}

/// Writes down everything below a directory, times clamped.
pub(super) fn listing(path: &Path) -> String {
    let root = Dir::open(path).unwrap();
    let (mut out, mut names) = (String::new(), HashMap::new());
    list(&root, Path::new(""), &mut names, &mut out);
    out
}

fn list(root: &Dir, path: &Path, names: &mut HashMap<(u64, u64), PathBuf>, out: &mut String) {
    let dir = root.plain_dir(path).unwrap();
    for name in dir.names().unwrap() {
        let (full, stat) = (path.join(&name), dir.metadata(&name).unwrap().unwrap());
        let file_type = kind(&stat);
        let mtime = stat.st_mtime.min(EPOCH);
        write!(out, "{} {:o} ", full.display(), stat.st_mode).unwrap();
        write!(out, "{}:{} {mtime} {}", stat.st_uid, stat.st_gid, stat.st_rdev).unwrap();
        if file_type != FileType::Directory && stat.st_nlink > 1 {
            // A second name that is hidden still counts in the number of links.
            match names.entry((stat.st_dev, stat.st_ino)) {
                Entry::Occupied(first) => write!(out, " is {}", first.get().display()).unwrap(),
                Entry::Vacant(place) => drop(place.insert(full.clone())),
            }
        }
        if file_type == FileType::Symlink {
            write!(out, " > {}", dir.read_link(&name).unwrap().display()).unwrap();
        } else {
            write!(out, " {:?}", dir.xattrs(&name).unwrap()).unwrap();
        }
        if file_type == FileType::RegularFile {
            let mut content = String::new();
            dir.open_file(&name).unwrap().read_to_string(&mut content).unwrap();
            write!(out, " = {content}").unwrap();
        }
        out.push('\n');
        if file_type == FileType::Directory {
            list(root, &full, names, out);
        }
    }
}

/// Tells whether the tests may mount; says which one is skipped when they may not.
pub(super) fn may_mount(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}
