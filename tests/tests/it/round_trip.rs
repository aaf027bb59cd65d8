//! Everything that a file system holds comes back from a registry, in every compression.

use crate::binary::is_root;
use crate::registry::Registry;
use crate::site::Site;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

const TEXT: &str = "FROM base\nCOPY tree /tree\n\
    RUN mkdir -p /gone /opaque/old && touch /gone/x /opaque/old/y /removed && ln /tree/sparse /tree/hard && mknod /tree/null c 1 3 && mkfifo -m 640 /tree/pipe && chmod 4755 /tree/tool\n\
    RUN rm -rf /gone /removed /opaque && mkdir /opaque && touch /opaque/new\n";

/// A version 2 capability set: cap_net_bind_service, effective and permitted.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SPARSE: u64 = 8 << 20;

fn context(site: &Site) {
    let long = format!("tree/{}/{}", "d".repeat(180), "f".repeat(200));
    site.file(&long, "long").file("tree/tool", "x").file("tree/user", "y");
    let strange = site.context().join("tree").join(OsStr::from_bytes(b"no-\xff-text"));
    std::fs::write(strange, "strange").unwrap();
    let sparse = std::fs::File::create(site.context().join("tree/sparse")).unwrap();
    sparse.set_len(SPARSE).unwrap();
    sparse.write_all_at(b"end", SPARSE - 3).unwrap();
    for (path, name, value) in [
        ("tree/user", "user.note", &b"\0binary="[..]),
        ("tree/tool", "security.capability", &CAPABILITY),
    ] {
        rustix::fs::lsetxattr(site.context().join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    site.dockerfile(TEXT);
}

/// One entry of a tar, as far as the test looks at it.
struct Entry {
    kind: tar::EntryType,
    mode: u32,
    size: u64,
    link: Vec<u8>,
    device: (u32, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn entries(archive: &[u8]) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut xattrs = BTreeMap::new();
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
            }
        }
        let header = entry.header().clone();
        let number = |device: std::io::Result<Option<u32>>| device.ok().flatten().unwrap_or(0);
        let one = Entry {
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            size: entry.size(),
            link: entry
                .link_name_bytes()
                .map(|name| name.into_owned())
                .unwrap_or_default(),
            device: (number(header.device_major()), number(header.device_minor())),
            xattrs,
        };
        found.insert(entry.path_bytes().into_owned(), one);
    }
    found
}

fn manifest(site: &Site) -> Value {
    let path = site.digest_of("result").replace(':', "/");
    serde_json::from_slice(&std::fs::read(site.data().join("store/blobs").join(path)).unwrap()).unwrap()
}

#[test]
fn privileged_every_kind_of_file_survives_every_compression() {
    if !is_root("privileged_every_kind_of_file_survives_every_compression") {
        return;
    }
    let registry = Registry::start();
    let site = Site::new();
    context(&site);
    let mut archives = Vec::new();
    for (compression, media_type) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("uncompressed", "tar")] {
        let here = site.with_fresh_data();
        let name = format!("{}/{compression}:1", registry.host());
        let (direct, back) = (here.out("direct.tar"), here.out("back.tar"));
        let image = format!("type=image,compression={compression},force-compression=true");
        let push = format!("{image},name={name},push=true");
        let tar = format!("type=tar,dest={}", direct.display());
        here.build(&["-o", &push, "-o", &format!("{image},name=result"), "-o", &tar])
            .good();
        let manifest = manifest(&here);
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(
                layer["mediaType"],
                format!("application/vnd.oci.image.layer.v1.{media_type}")
            );
        }
        let there = Site::empty();
        there.dockerfile(&format!("FROM {name}\n"));
        there
            .build(&["-o", &format!("type=tar,dest={}", back.display())])
            .good();
        let direct = std::fs::read(direct).unwrap();
        assert!(
            direct == std::fs::read(back).unwrap(),
            "{compression}: another tree came back"
        );
        archives.push((manifest["config"].clone(), direct));
    }
    // A layer is its diff_id, whatever its compression: the configs are equal.
    assert!(archives.iter().all(|archive| *archive == archives[0]));
    let all = entries(&archives[0].1);
    let entry = |path: &[u8]| {
        all.get(path)
            .unwrap_or_else(|| panic!("no {}", String::from_utf8_lossy(path)))
    };
    assert_eq!(entry(b"tree/tool").xattrs["security.capability"], CAPABILITY);
    assert_eq!(entry(b"tree/tool").mode & 0o7777, 0o4755);
    assert_eq!(entry(b"tree/user").xattrs["user.note"], b"\0binary=");
    assert_eq!(entry(b"tree/no-\xff-text").size, 7);
    assert_eq!(
        entry(format!("tree/{}/{}", "d".repeat(180), "f".repeat(200)).as_bytes()).size,
        4
    );
    assert_eq!(entry(b"tree/hard").size, SPARSE);
    assert_eq!(entry(b"tree/sparse").link, b"tree/hard");
    assert_eq!(
        (entry(b"tree/null").kind, entry(b"tree/null").device),
        (tar::EntryType::Char, (1, 3))
    );
    assert_eq!(entry(b"tree/pipe").kind, tar::EntryType::Fifo);
    assert!(all.contains_key(&b"opaque/new"[..]));
    for gone in [&b"gone/"[..], b"gone", b"removed", b"opaque/old/", b"opaque/old"] {
        assert!(!all.contains_key(gone), "{}", String::from_utf8_lossy(gone));
    }
}
