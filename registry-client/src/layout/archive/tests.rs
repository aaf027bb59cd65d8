use std::io::Write as _;
use std::path::PathBuf;

use ::tar::{EntryType, Header};
use proptest::prelude::*;

use super::*;
use crate::copy::{ImageSource as _, Selection, StoreTarget, copy};
use crate::error::RegistryError;
use crate::progress::NoProgress;
use crate::store::Store;
use crate::test_dir::TestDir;

/// Writes members as an archive; what a header says and what is there may differ.
#[derive(Default)]
struct Maker(Vec<u8>);

impl Maker {
    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    fn add(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.add(Self::header(EntryType::Regular, name, data.len() as u64), data)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, name, 0);
        header.set_link_name(target).unwrap();
        self.add(header, b"")
    }

    fn extension(self, kind: EntryType, data: &[u8]) -> Self {
        self.add(Self::header(kind, "extension", data.len() as u64), data)
    }

    fn write(&self, dir: &TestDir) -> PathBuf {
        let path = dir.path().join("archive.tar");
        std::fs::write(&path, &self.0).unwrap();
        path
    }
}

const LAYER: &[u8] = b"a layer, which nobody unpacks here";

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
    serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs })
        .to_string()
        .into_bytes()
}

fn list(layers: &[&str]) -> Vec<u8> {
    serde_json::json!([{ "Config": "config.json", "RepoTags": ["r.example/app:1"], "Layers": layers }])
        .to_string()
        .into_bytes()
}

async fn read(path: &Path) -> Result<(Descriptor, usize)> {
    let archive = ImageArchive::open(path, ArchiveKind::Docker).await?;
    let source = archive.image(None).await?;
    let dir = TestDir::new("archive-read");
    let store = Store::open(dir.path())?;
    let target = StoreTarget::named(&store, &"x".parse()?);
    let copied = copy(&source, &target, &Selection::All, &NoProgress).await?;
    let report = store.check(false)?;
    assert_eq!(report.findings, []);
    Ok((copied, usize::try_from(report.blobs).unwrap()))
}

#[tokio::test]
async fn what_docker_saved_in_its_old_form_is_read() {
    let dir = TestDir::new("saved");
    let plain = Maker::default()
        .file("config.json", &config(&[LAYER, LAYER]))
        .file("one/layer.tar", LAYER)
        // Docker writes a layer that comes twice once, and a link to it.
        .link(EntryType::Symlink, "two/layer.tar", "../one/layer.tar")
        .file("./manifest.json", &list(&["one/layer.tar", "two/layer.tar"]));
    let (image, blobs) = read(&plain.write(&dir)).await.unwrap();
    assert_eq!(blobs, 3);
    let archive = ImageArchive::open(&plain.write(&dir), ArchiveKind::Docker)
        .await
        .unwrap();
    assert_eq!(archive.names(), ["r.example/app:1"]);
    let again = archive
        .image(Some("r.example/app:1"))
        .await
        .unwrap()
        .root()
        .await
        .unwrap();
    assert_eq!(again.digest, image.digest);
    // Names may come in extension headers of either kind.
    for (kind, text) in [
        (EntryType::XHeader, &b"22 path=one/layer.tar\n"[..]),
        (EntryType::GNULongName, &b"one/layer.tar\0"[..]),
    ] {
        let long = Maker::default()
            .file("config.json", &config(&[LAYER]))
            .extension(kind, text)
            .file("something else", LAYER)
            .file("manifest.json", &list(&["one/layer.tar"]));
        read(&long.write(&dir)).await.unwrap();
    }
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let dir = TestDir::new("hostile-archive");
    let saved = || {
        Maker::default()
            .file("config.json", &config(&[LAYER]))
            .file("manifest.json", &list(&["layer.tar"]))
    };
    let with = |kind, target: &str| saved().link(kind, "layer.tar", target);
    let lying = |size: u64| saved().add(Maker::header(EntryType::Regular, "layer.tar", size), LAYER);
    let mut cut = saved().file("layer.tar", LAYER);
    cut.0.truncate(cut.0.len() - 600);
    let mut spoiled = saved().file("layer.tar", LAYER);
    spoiled.0[3] ^= 1;
    let many = b"[".repeat(100_000);
    for (what, maker, part) in [
        ("nothing", Maker::default(), "has no `manifest.json`"),
        ("text", Maker(b"no tar".repeat(200)), "no tar archive"),
        ("short", Maker(vec![b'x'; 100]), "no tar archive"),
        ("xz", Maker(b"\xfd7zXZ\0 and so on".to_vec()), "compressed by xz"),
        ("broken gzip", Maker(b"\x1f\x8b and so on".to_vec()), "decompress"),
        ("cut", cut, "cut off"),
        ("spoiled", spoiled, "damaged"),
        ("endless", lying(1 << 40), "cut off"),
        ("absent", saved(), "which is not there"),
        (
            "link out",
            with(EntryType::Symlink, "../../etc/passwd"),
            "link to nothing",
        ),
        (
            "link to the machine",
            with(EntryType::Symlink, "/etc/passwd"),
            "link to nothing",
        ),
        ("link to itself", with(EntryType::Link, "layer.tar"), "link to a link"),
        (
            "twice",
            saved().file("layer.tar", LAYER).file("layer.tar", b"other"),
            "is there twice",
        ),
        ("other layer", saved().file("layer.tar", b"other"), "has digest"),
        (
            "sparse",
            saved().add(Maker::header(EntryType::GNUSparse, "layer.tar", 0), b""),
            "sparse",
        ),
        (
            "large extension",
            saved().extension(EntryType::XHeader, &vec![b'1'; 2 << 20]),
            "larger than 1 MiB",
        ),
        (
            "bad extension",
            saved().extension(EntryType::XHeader, b"99 path=x\n"),
            "damaged",
        ),
        (
            "bad size",
            saved().extension(EntryType::XHeader, b"10 size=x\n"),
            "damaged",
        ),
        (
            "deep list",
            Maker::default().file("manifest.json", &many),
            "cannot be read",
        ),
        (
            "no list",
            Maker::default().file("manifest.json", b"{}"),
            "cannot be read",
        ),
        (
            "path out",
            Maker::default()
                .file("config.json", &config(&[LAYER]))
                .file("manifest.json", &list(&["../../x"])),
            "which is not there",
        ),
        (
            "fewer layers",
            Maker::default()
                .file("config.json", &config(&[LAYER, LAYER]))
                .file("l", LAYER)
                .file("manifest.json", &list(&["l"])),
            "1 layers, and its configuration lists 2",
        ),
    ] {
        let error = read(&maker.write(&dir)).await.expect_err(what).to_string();
        assert!(error.contains(part), "{what}: {error}");
    }
    let error = read(dir.path()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Layout { .. }), "{error}");
}

#[tokio::test]
async fn gzip_is_decompressed_and_a_layout_may_lack_nothing() {
    let dir = TestDir::new("gzip-archive");
    let saved = Maker::default()
        .file("config.json", &config(&[LAYER]))
        .file("layer.tar", LAYER)
        .file("manifest.json", &list(&["layer.tar"]));
    let path = dir.path().join("a.tar.gz");
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
    gzip.write_all(&saved.0).unwrap();
    gzip.finish().unwrap();
    read(&path).await.unwrap();
    for (members, part) in [
        (vec![("index.json", &b"{}"[..])], "no `oci-layout`"),
        (
            vec![
                ("oci-layout", &br#"{"imageLayoutVersion":"2.0.0"}"#[..]),
                ("index.json", b"{}"),
            ],
            "version 1",
        ),
        (
            vec![
                ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
                ("index.json", br#"{"schemaVersion":2,"manifests":[]}"#),
            ],
            "holds no image",
        ),
    ] {
        let maker = members
            .iter()
            .fold(Maker::default(), |maker, (name, data)| maker.file(name, data));
        let path = maker.write(&dir);
        let error = match ImageArchive::open(&path, ArchiveKind::Oci).await {
            Ok(archive) => archive.image(None).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(part), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn spoiled_archives_never_panic_and_never_give_other_bytes(
        at in 0_usize..4096, byte in any::<u8>(), cut in 0_usize..4096, noise in proptest::collection::vec(any::<u8>(), 0..1500)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let dir = TestDir::new("spoiled-archive");
        let good = Maker::default()
            .file("config.json", &config(&[LAYER]))
            .file("layer.tar", LAYER)
            .file("manifest.json", &list(&["layer.tar"]));
        let mut spoiled = good.0.clone();
        let length = spoiled.len();
        spoiled[at % length] = byte;
        spoiled.truncate(length - cut % length / 2);
        // `read` checks every blob against its digest.
        drop(runtime.block_on(read(&Maker(spoiled).write(&dir))));
        drop(runtime.block_on(read(&Maker(noise).write(&dir))));
    }
}
