//! How large layers and archives may be: bombs are refused before they fill the disk.

use crate::handmade::{Entry, layer, put};
use crate::site::{Site, files_below};
use std::io::Write as _;

/// Bytes of all files below the data directory.
fn size(site: &Site) -> u64 {
    files_below(&site.data())
        .iter()
        .map(|path| std::fs::symlink_metadata(path).unwrap())
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

/// A file of zeros, much smaller when compressed.
fn bomb() -> Vec<u8> {
    layer(&[Entry::file("zeros", &"\0".repeat(30 << 20))])
}

#[test]
fn layers_that_unpack_too_large_are_refused() {
    let site = Site::new();
    put(
        &site.data().join("store"),
        "docker.io/library/evil:latest",
        &[bomb()],
        |_| {},
    );
    let many: Vec<Entry> = (0..40).map(|n| Entry::file(&format!("f{n}"), "")).collect();
    put(
        &site.data().join("store"),
        "docker.io/library/many:latest",
        &[layer(&many)],
        |_| {},
    );
    for (base, flag, limit, enough, want) in [
        ("evil", "--max-layer-size", "20m", "50m", "more than 20971520 bytes"),
        ("many", "--max-files", "39", "40", "more than 39 files"),
    ] {
        site.dockerfile(&format!("FROM {base}\nCOPY Dockerfile /x\n"));
        let log = site.build(&["-t", "result", flag, limit]).bad(1);
        assert!(
            log.contains("cannot unpack layer sha256:") && log.contains(want),
            "{log}"
        );
        let hint = format!("hint: raise the limit by `{flag}`");
        assert!(log.contains(&hint) && log.contains(">>> COPY"), "{log}");
        let names = std::fs::read_to_string(site.data().join("store/index.json")).unwrap();
        assert!(!names.contains("result"), "{names}");
        site.build(&[flag, enough]).good();
    }
}

#[test]
fn compressed_bombs_are_stopped_early() {
    let site = Site::new();
    let zeros = bomb();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    site.file("bomb.tar.gz", gzip.finish().unwrap());
    site.file("bomb.tar.zst", zstd::encode_all(&zeros[..], 3).unwrap());
    let before = size(&site);
    for archive in ["bomb.tar.gz", "bomb.tar.zst"] {
        site.dockerfile(&format!("FROM scratch\nADD {archive} /d/\n"));
        let log = site.build(&["-t", "result", "--max-layer-size=20m"]).bad(1);
        let want = format!("cannot unpack `{archive}`: the archive unpacks to more than 20971520 bytes");
        assert!(log.contains(&want) && log.contains(">>> ADD"), "{log}");
        // The attempt has left nothing of a file that is larger than the limit.
        assert!(size(&site) < before + (1 << 20), "{archive}");
        // As a context it is the same.
        let path = site.context().join(archive);
        let output = site
            .prepare(&mut std::process::Command::new(crate::binary::roadstead()))
            .args(["build", "--max-layer-size=20m"])
            .arg(&path)
            .output();
        let log = crate::site::Outcome::of(output.unwrap()).bad(1);
        assert!(log.contains("more than 20971520 bytes"), "{log}");
        site.assert_clean();
    }
}

#[test]
fn layers_that_are_written_have_the_same_limits() {
    let site = Site::new();
    site.file("big", "x".repeat(200_000))
        .file("tree/a", "")
        .file("tree/b", "");
    for (text, flag, limit, want) in [
        (
            "FROM scratch\nCOPY big /\n",
            "--max-layer-size",
            "100k",
            "more than 102400 bytes",
        ),
        ("FROM scratch\nCOPY tree /t/\n", "--max-files", "2", "more than 2 files"),
        (
            "FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=30 2>/dev/null\n",
            "--max-layer-size",
            "20m",
            "more than 20971520 bytes",
        ),
    ] {
        site.dockerfile(text);
        let log = site.build(&["-t", "result", flag, limit]).bad(1);
        assert!(
            log.contains(&format!("the layer holds {want}")) && log.contains("hint: raise the limit"),
            "{log}"
        );
        assert!(log.contains(">>> "), "{log}");
    }
    site.build(&["--max-layer-size", "30m"]).good();
}
