//! ADD of files and of local archives.

use crate::site::Site;
use std::io::Write as _;

/// An archive with a directory, a file and a link, owned by 5:6.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, mode, content) in [
        ("./", tar::EntryType::Directory, 0o700, ""),
        ("./d/", tar::EntryType::Directory, 0o751, ""),
        ("./d/f", tar::EntryType::Regular, 0o640, "content"),
        ("./l", tar::EntryType::Symlink, 0o777, ""),
        ("./implied/x", tar::EntryType::Regular, 0o4755, "x"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        if kind == tar::EntryType::Symlink {
            header.set_link_name("d/f").unwrap();
        }
        header.set_path(path).unwrap();
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

const UNPACKED: &str = "d 755 0:0 x\nd 751 5:6 x/d\nf 640 5:6 x/d/f = content\nd 755 0:0 x/implied\nf 4755 5:6 x/implied/x = x\nl 777 5:6 x/l -> d/f\n";

#[test]
fn archives_are_unpacked_whatever_their_name() {
    let site = Site::new();
    let plain = archive();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(&plain).unwrap();
    site.file("plain.tar", &plain)
        .file("no-such-ending", gzip.finish().unwrap())
        .file("a.txz", xz.finish().unwrap())
        .file("a.tbz", bzip.finish().unwrap())
        .file("a.zst", zstd::encode_all(&plain[..], 1).unwrap());
    let mut digests = Vec::new();
    for name in ["plain.tar", "no-such-ending", "a.txz", "a.tbz", "a.zst"] {
        let image = site.image_of(&format!("FROM base\nADD {name} /x\n"));
        assert_eq!(image.list("x"), UNPACKED, "{name}");
        digests.push(image.manifest["layers"].as_array().unwrap().last().unwrap()["digest"].clone());
    }
    assert!(
        digests.iter().all(|d| *d == digests[0]),
        "one content, one layer: {digests:?}"
    );
    // The archive's root entry says nothing about a directory that stands there.
    let image = site.image_of("FROM base\nRUN mkdir -m 711 /x\nADD plain.tar /x/\n");
    assert!(
        image.list("x").starts_with("d 711 0:0 x\nd 751 5:6 x/d\n"),
        "{}",
        image.list("x")
    );
    let image = site.image_of("FROM base\nADD --chown=app plain.tar /x/\n");
    assert!(
        image
            .list("x")
            .starts_with("d 755 1000:1000 x\nd 751 5:6 x/d\nf 640 5:6 x/d/f"),
        "{}",
        image.list("x")
    );
    assert_eq!(image.node("x/d/f").mtime, 1000);
}

#[test]
fn what_is_no_archive_is_copied() {
    let site = Site::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"just text").unwrap();
    site.file("text.tar", "I am text\n")
        .file("text.gz", gzip.finish().unwrap())
        .file("empty.tar.gz", "")
        .file("plain.tar", archive())
        .file("dir/in.tar", archive());
    site.file("short.gz", [0x1f, 0x8b, 8]);
    let image = site.image_of("FROM base\nADD text.tar text.gz empty.tar.gz short.gz /x/\nADD dir /y/\nCOPY plain.tar /z/\nADD text.tar /name\n");
    assert_eq!(image.text("x/text.tar"), "I am text\n");
    assert_eq!(image.node("x/text.gz").content[..2], [0x1f, 0x8b]);
    assert_eq!(image.node("x/empty.tar.gz").content, b"");
    // Only a source that is itself an archive is unpacked.
    assert_eq!(image.node("y/in.tar").content, archive());
    assert_eq!(image.node("z/plain.tar").content, archive());
    assert_eq!(image.text("name"), "I am text\n");
}

#[test]
fn damaged_and_hostile_archives_are_errors() {
    let site = Site::new();
    let outside = site.dir().join("escaped");
    let mut damaged = archive();
    damaged.truncate(1700);
    site.file("damaged.tar", &damaged);
    for (name, path, link) in [
        ("dots", "../../../../escaped", None),
        ("link", "out/escaped", Some(site.dir().to_path_buf())),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        if let Some(target) = link {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, "out", target).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o644);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        site.file(&format!("{name}.tar"), builder.into_inner().unwrap());
    }
    for name in ["damaged", "dots", "link"] {
        let log = site.error_of(&format!("FROM base\nADD {name}.tar /x/\n"));
        assert!(
            log.contains(&format!("cannot unpack `{name}.tar`")) && log.contains("   2 | >>> ADD"),
            "{log}"
        );
        assert!(!outside.exists());
    }
}
