use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::logs::Secrets;
use crate::scratch::Scratch;

fn tree() -> (Scratch, PathBuf) {
    let scratch = Scratch::new().unwrap();
    let source = scratch.path().canonicalize().unwrap().join("src");
    for (path, text) in [
        ("imagedefinitions.json", "[]"),
        ("dist/a.js", "a"),
        ("dist/sub/b.js", "b"),
        ("dist/sub/.hid", "h"),
        ("my-1/c", "c"),
    ] {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (scratch, source)
}

fn artifacts(files: &[&str]) -> Artifacts {
    Artifacts {
        files: files.iter().map(|&file| file.to_owned()).collect(),
        ..Artifacts::default()
    }
}

fn keep_in(source: &Path, artifacts: &Artifacts) -> Result<Vec<String>, ArtifactsError> {
    let log = Log::new(Secrets::default(), Box::new(std::io::sink()));
    keep(artifacts, source, &source.join("artifacts"), &log)
}

#[test]
fn patterns_mean_what_codebuild_documents() {
    let (_scratch, source) = tree();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["imagedefinitions.json"], &["imagedefinitions.json"]),
        (&["./dist/*"], &["dist/a.js"]),
        (&["dist/**/*"], &["dist/a.js", "dist/sub/.hid", "dist/sub/b.js"]),
        (&["missing", "dist/a.js"], &["dist/a.js"]),
        (&["**/*.js"], &["dist/a.js", "dist/sub/b.js"]),
        (
            &["**/*"],
            &[
                "dist/a.js",
                "dist/sub/.hid",
                "dist/sub/b.js",
                "imagedefinitions.json",
                "my-1/c",
            ],
        ),
    ];
    for (files, expected) in cases {
        // Twice: what the first run copied is no source of the second.
        for _ in 0..2 {
            assert_eq!(keep_in(&source, &artifacts(files)).unwrap(), expected, "{files:?}");
        }
        assert!(fs::read_dir(source.join("artifacts")).unwrap().count() > 0);
        fs::remove_dir_all(source.join("artifacts")).unwrap();
    }
}

#[test]
fn base_directory_exclude_and_flattening() {
    let (_scratch, source) = tree();
    let mut wanted = artifacts(&["**/*"]);
    wanted.base_directory = Some("dist/".into());
    wanted.exclude_paths = vec!["**/.*".into()];
    assert_eq!(keep_in(&source, &wanted).unwrap(), ["a.js", "sub/b.js"]);
    wanted.discard_paths = true;
    assert_eq!(keep_in(&source, &wanted).unwrap(), ["a.js", "b.js"]);
    wanted.base_directory = Some("my-*".into());
    assert_eq!(keep_in(&source, &wanted).unwrap(), ["c"]);
    wanted.base_directory = Some("nothing".into());
    assert!(matches!(
        keep_in(&source, &wanted),
        Err(ArtifactsError::NoBaseDirectory(_))
    ));
}

#[test]
fn names_that_collide_are_an_error() {
    let (_scratch, source) = tree();
    fs::write(source.join("my-1/a.js"), "other").unwrap();
    let mut wanted = artifacts(&["**/a.js"]);
    wanted.discard_paths = true;
    assert!(matches!(keep_in(&source, &wanted), Err(ArtifactsError::SameName(name)) if name == "a.js"));
}

#[test]
fn nothing_outside_is_read_or_written() {
    let (scratch, source) = tree();
    let secret = scratch.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "k").unwrap();
    symlink(&secret, source.join("out")).unwrap();
    symlink(secret.join("key"), source.join("key")).unwrap();
    symlink("dist/a.js", source.join("inside")).unwrap();
    for files in [
        &["../secret/key"][..],
        &["out/key"],
        &["key"],
        &["/etc/passwd"],
        &["dist"],
    ] {
        assert!(
            matches!(keep_in(&source, &artifacts(files)), Err(ArtifactsError::NoMatch)),
            "{files:?}"
        );
    }
    let mut outside = artifacts(&["key"]);
    for base in ["../secret", "out", "/etc"] {
        outside.base_directory = Some(base.into());
        assert!(keep_in(&source, &outside).is_err(), "{base}");
    }
    assert_eq!(keep_in(&source, &artifacts(&["inside"])).unwrap(), ["inside"]);
    assert_eq!(fs::read(source.join("artifacts/inside")).unwrap(), b"a");
    // A link where the artifacts go does not lead the copy astray.
    symlink(&secret, source.join("artifacts/dist")).unwrap();
    assert!(matches!(
        keep_in(&source, &artifacts(&["dist/a.js"])),
        Err(ArtifactsError::LinkInTheWay(_))
    ));
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
}

#[test]
fn a_base_directory_may_be_a_link_inside_the_source() {
    let (scratch, source) = tree();
    symlink("dist/sub", source.join("current")).unwrap();
    symlink(scratch.path(), source.join("out")).unwrap();
    let with_base = |base: &str| Artifacts {
        base_directory: Some(base.to_owned()),
        ..artifacts(&["**/*"])
    };
    assert_eq!(keep_in(&source, &with_base("current")).unwrap(), [".hid", "b.js"]);
    assert!(matches!(
        keep_in(&source, &with_base("out")),
        Err(ArtifactsError::NoBaseDirectory(_))
    ));
}
