//! The keys of `--output`, annotations, and the metadata file.

use crate::binary::roadstead;
use crate::image::Image;
use crate::registry::Registry;
use crate::site::{Outcome, Site};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn site() -> Site {
    let site = Site::new();
    site.file("big", vec![b'x'; 3 << 20])
        .dockerfile("FROM base\nCOPY big /\nRUN echo running && seq 1 100000 > /numbers\n");
    site
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn media_types(image: &Image) -> Vec<String> {
    let layers = image.manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| {
            layer["mediaType"]
                .as_str()
                .unwrap()
                .rsplit('.')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn a_compression_runs_no_step_again_and_gives_the_same_bytes() {
    let site = site();
    site.build(&["-t", "gzip"]).good();
    let base = site.image("base").layers.len();
    for (flags, own) in [
        (&["--compression", "zstd"][..], "tar+zstd"),
        (&["--compression", "zstd", "--compression-level", "9"], "tar+zstd"),
        (&["-o", "type=image,compression=uncompressed"], "tar"),
        (&["--compression-level=9"], "tar+gzip"),
    ] {
        let outcome = site.build(&[flags, &["-t", "other"]].concat()).good();
        assert_eq!(outcome.ran(), [""; 0], "{}", outcome.log);
        let (first, other) = (site.image("gzip"), site.image("other"));
        assert_eq!(first.document, other.document);
        assert_ne!(first.digest, other.digest);
        let types = media_types(&other);
        assert!(
            types[..base].iter().all(|kind| kind == "tar+gzip") && types[base..].iter().all(|kind| kind == own),
            "{types:?}"
        );
        // Made at once and with one thread it is the same.
        let fresh = site.with_fresh_data();
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(roadstead());
        fresh
            .prepare(&mut command)
            .arg("build")
            .args(flags)
            .args(["-t", "other"])
            .arg(fresh.context());
        Outcome::of(command.output().unwrap()).good();
        assert_eq!(fresh.image("other").digest, other.digest, "{flags:?}");
    }
    // The first compression is still known.
    site.build(&["-t", "again"]).good();
    assert_eq!(site.image("again").digest, site.image("gzip").digest);
    // Base layers follow when they must.
    site.build(&[
        "-t",
        "forced",
        "-o",
        "type=image,compression=zstd,force-compression=true",
    ])
    .good();
    assert!(media_types(&site.image("forced")).iter().all(|kind| kind == "tar+zstd"));
    for (flags, want) in [
        (&["--compression=estargz"][..], "estargz"),
        (&["--compression=gzip", "--compression-level=10"], "between 0 and 9"),
        (
            &["--compression=zstd", "-o", "type=image,oci-mediatypes=false"],
            "no media type for zstd",
        ),
    ] {
        let log = site.build(flags).bad(2);
        assert!(log.contains(want), "{log}");
    }
}

#[test]
fn two_outputs_of_one_build_have_forms_of_their_own() {
    let site = site();
    let (archive, layout) = (site.out("x.tar"), site.out("layout"));
    let outputs = [
        format!("type=oci,dest={},compression=zstd", archive.display()),
        format!(
            "type=oci,dest={},tar=false,compression=uncompressed,\"name=x:1,y:2\"",
            layout.display()
        ),
    ];
    let outcome = site.build(&["-o", &outputs[0], "-o", &outputs[1]]).good();
    assert_eq!(outcome.said().iter().filter(|line| **line == "running").count(), 1);
    let index = json_of(&layout.join("index.json"));
    let tags: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["annotations"]["org.opencontainers.image.ref.name"])
        .collect();
    assert_eq!(tags, ["1", "2"]);
    let image = Image::read(&layout, "1");
    assert_eq!(media_types(&image).last().unwrap(), "tar");
    let unpacked = site.out("unpacked");
    let umoci = Command::new("umoci")
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:2", layout.display()))
        .arg(&unpacked)
        .output()
        .expect("umoci is needed");
    assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));
    assert_eq!(std::fs::metadata(unpacked.join("rootfs/big")).unwrap().len(), 3 << 20);
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("dir:{}", site.out("dir").display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

#[test]
fn docker_s_media_types() {
    let (registry, site) = (Registry::start(), site());
    let name = format!("{}/app:1", registry.host());
    let push = format!("type=registry,name={name},oci-mediatypes=false");
    site.build(&["-o", &push, "-o", "type=image,name=result,oci-mediatypes=false"])
        .good();
    let manifest = site.image("result").manifest;
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.docker.container.image.v1+json"
    );
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    }
    let inspected = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
        .output()
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&inspected.stdout).unwrap(), manifest);
}

#[test]
fn annotations_are_where_they_were_asked_for() {
    let site = Site::new();
    site.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    site.build(&["-t", "under", "--annotation", "of=base"]).good();
    assert_eq!(site.image("under").manifest["annotations"], json!({ "of": "base" }));
    // A base's annotations are the base's.
    site.dockerfile("FROM under\nCOPY Dockerfile /again\n");
    site.build(&["-t", "result"]).good();
    assert_eq!(site.image("result").manifest["annotations"], Value::Null);
    site.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let layout = site.out("layout");
    let output = format!(
        "type=oci,dest={},tar=false,annotation-manifest-descriptor[linux/arm64].only=arm",
        layout.display()
    );
    let annotations = [
        "z=1",
        "a=2",
        "manifest[linux/arm64]:a=3",
        "index,index-descriptor:org.x=both",
    ];
    let mut arguments = vec!["--platform", "linux/amd64,linux/arm64", "-o", &output];
    arguments.extend(annotations.iter().flat_map(|text| ["--annotation", *text]));
    site.build(&arguments).good();
    let entry = json_of(&layout.join("index.json"))["manifests"][0].clone();
    assert_eq!(entry["annotations"]["org.x"], "both");
    let blob = |digest: &Value| json_of(&layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/")));
    let index = blob(&entry["digest"]);
    assert_eq!(index["annotations"], json!({ "org.x": "both" }));
    assert_eq!(index["manifests"][0]["annotations"], Value::Null);
    assert_eq!(index["manifests"][1]["annotations"], json!({ "only": "arm" }));
    assert_eq!(
        blob(&index["manifests"][0]["digest"])["annotations"],
        json!({ "a": "2", "z": "1" })
    );
    assert_eq!(
        blob(&index["manifests"][1]["digest"])["annotations"],
        json!({ "a": "3", "z": "1" })
    );
    for (flags, want) in [
        (&["--annotation", "index:a=b"][..], "no index"),
        (
            &["--annotation", "manifest[linux/s390x]:a=b"],
            "nothing is built for linux/s390x",
        ),
        (&["--annotation", "layer:a=b"], "unknown annotation type `layer`"),
        (
            &["--annotation", "a=b", "-o", "type=image,oci-mediatypes=false"],
            "oci-mediatypes=false",
        ),
        (&["--annotation", "a=b", "-o", "out"], "no output is one"),
    ] {
        let log = site.build(flags).bad(2);
        assert!(log.contains(want), "{log}");
    }
}

#[test]
fn the_metadata_file_is_buildx_s() {
    let site = site();
    let (file, iid) = (site.out("metadata.json"), site.out("iid"));
    let flags = [
        "--metadata-file",
        file.to_str().unwrap(),
        "--iidfile",
        iid.to_str().unwrap(),
    ];
    site.build(&[&flags[..], &["-t", "result", "-t", "other:2"]].concat())
        .good();
    let image = site.image("result");
    let config = image.manifest["config"]["digest"].clone();
    let metadata = json_of(&file);
    assert_eq!(metadata["containerimage.digest"], image.digest);
    assert_eq!(metadata["containerimage.config.digest"], config);
    assert_eq!(std::fs::read_to_string(&iid).unwrap(), config.as_str().unwrap());
    assert_eq!(
        metadata["image.name"],
        "docker.io/library/result:latest,docker.io/library/other:2"
    );
    let descriptor = &metadata["containerimage.descriptor"];
    assert_eq!(descriptor["digest"], image.digest);
    assert_eq!(descriptor["platform"]["os"], "linux");
    // A build that fails leaves it as it was; one of files only tells of no image.
    site.dockerfile("FROM base\nRUN false\n");
    site.build(&flags).bad(1);
    assert_eq!(json_of(&file), metadata);
    site.dockerfile("FROM base\n");
    site.build(&[&flags[..], &["-o", site.out("dir").to_str().unwrap()]].concat())
        .good();
    assert_eq!(json_of(&file), json!({}));
}

#[test]
fn names_of_an_image() {
    let (registry, site) = (Registry::start(), site());
    let name = format!("{}/app", registry.host());
    let metadata = site.out("metadata.json");
    let output = format!("type=image,name={name},push=true,push-by-digest=true,name-canonical=true,unpack=true");
    site.build(&["-o", &output, "--metadata-file", metadata.to_str().unwrap()])
        .good();
    let digest = json_of(&metadata)["containerimage.digest"].as_str().unwrap().to_owned();
    let inspect = |name: &str| {
        let inspected = Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
            .output();
        inspected.unwrap().status.success()
    };
    assert!(inspect(&format!("{name}@{digest}")) && !inspect(&format!("{name}:latest")));
    let index = std::fs::read_to_string(site.data().join("store/index.json")).unwrap();
    assert!(index.contains(&format!("{name}@{digest}")), "{index}");
    let log = site
        .build(&["-o", "type=registry,push-by-digest=true", "-t", &format!("{name}:1")])
        .bad(2);
    assert!(log.contains("can't push tagged ref"), "{log}");
    // Not named here.
    site.build(&["-o", &format!("type=registry,name={name}:2,store=false")])
        .good();
    assert!(inspect(&format!("{name}:2")));
    let index = std::fs::read_to_string(site.data().join("store/index.json")).unwrap();
    assert!(!index.contains(&format!("{name}:2")), "{index}");
}

#[test]
fn a_directory_is_filled_or_replaced() {
    let site = Site::new();
    site.file("a/one", "1").dockerfile("FROM scratch\nCOPY a /a\n");
    let out = site.out("dir");
    std::fs::create_dir_all(out.join("a/old")).unwrap();
    std::fs::write(out.join("mine"), "x").unwrap();
    let copy = format!("type=local,dest={},mode=copy", out.display());
    site.build(&["-o", &copy]).good();
    assert!(out.join("mine").exists() && out.join("a/one").exists());
    site.build(&["-o", &copy.replace("copy", "delete")]).good();
    assert!(!out.join("mine").exists() && !out.join("a/old").exists() && out.join("a/one").exists());
    let context = format!("type=local,dest={},mode=delete", site.dir().display());
    let log = site.build(&["-o", &context]).bad(2);
    assert!(
        log.contains("mode=delete") && site.context().join("a/one").exists(),
        "{log}"
    );
}

#[test]
fn times_of_files_follow_the_epoch() {
    let site = Site::new();
    site.dockerfile("FROM scratch\nCOPY Dockerfile /under\n");
    site.build(&["-t", "under", "--build-arg", "SOURCE_DATE_EPOCH=1500000000"])
        .good();
    site.dockerfile("ARG SOURCE_DATE_EPOCH=1600000000\nFROM under\nCOPY Dockerfile /over\n");
    let times = |epoch: &str| {
        let file = site.out("x.tar");
        let output = format!("type=tar,dest={}", file.display());
        site.build(&["-o", &output, "--build-arg", &format!("SOURCE_DATE_EPOCH={epoch}")])
            .good();
        let bytes = std::fs::read(file).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().header().mtime().unwrap())
            .collect::<Vec<_>>()
    };
    // Over, then under. Without an epoch the image's own times stay.
    assert_eq!(times(""), [315_532_801, 1_500_000_000]);
    assert_eq!(times("1400000000"), [1_400_000_000, 1_400_000_000]);
    // A directory of this machine has no time of its own; an archive has that of its newest entry.
    assert_eq!(times("context"), [315_532_801, 1_500_000_000]);
    site.build(&["-t", "global"]).good();
    assert_eq!(site.image("global").document["created"], "2020-09-13T12:26:40Z");
    let archive = site.out("context.tar");
    let packed = Command::new("tar")
        .args(["--mtime=@1234567890", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(site.context())
        .arg("Dockerfile")
        .status()
        .unwrap();
    assert!(packed.success());
    let mut command = Command::new(roadstead());
    site.prepare(&mut command)
        .args(["build", "-t", "result", "--build-arg", "SOURCE_DATE_EPOCH=context"])
        .arg(&archive);
    Outcome::of(command.output().unwrap()).good();
    assert_eq!(site.image("result").document["created"], "2009-02-13T23:31:30Z");
    site.dockerfile("FROM scratch AS one\nCOPY Dockerfile /\n");
    let log = site.build(&["--build-arg", "SOURCE_DATE_EPOCH=one"]).bad(1);
    assert!(log.contains("time of a stage"), "{log}");
}
