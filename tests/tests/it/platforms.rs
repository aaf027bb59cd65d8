//! Several platforms in one build, and an index over them.

use crate::binary::roadstead;
use crate::registry::Registry;
use crate::site::{Outcome, Site};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The first stage runs on this machine, once; the second runs nothing.
const TEXT: &str = "FROM --platform=$BUILDPLATFORM base AS tools\nRUN echo once && echo made > /made\n\
    FROM scratch\nARG TARGETPLATFORM TARGETARCH\nLABEL platform=$TARGETPLATFORM\nCOPY --from=tools /made /made\nCOPY file-$TARGETARCH /file\n";
const BOTH: &str = "linux/amd64,linux/arm64";

fn site() -> Site {
    let site = Site::new();
    site.file("file-amd64", "amd")
        .file("file-arm64", "arm")
        .dockerfile(TEXT);
    site
}

fn skopeo(arguments: &[&str]) -> Value {
    let output = Command::new("skopeo")
        .args(arguments)
        .output()
        .expect("skopeo is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn tar_names(path: &Path) -> Vec<String> {
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

#[test]
fn an_index_is_pushed_whole_and_read_by_others() {
    let (registry, site) = (Registry::start(), site());
    let name = format!("{}/app:1", registry.host());
    let (iid, metadata) = (site.out("iid"), site.out("metadata"));
    let files = [
        "--iidfile",
        iid.to_str().unwrap(),
        "--metadata-file",
        metadata.to_str().unwrap(),
    ];
    let built = site
        .build(&[&["--platform", BOTH, "--push", "-t", &name][..], &files].concat())
        .good();
    assert_eq!(
        built.said().iter().filter(|line| **line == "once").count(),
        1,
        "{}",
        built.log
    );
    for shown in [
        "[linux/amd64 stage-1 2/3] COPY",
        "[linux/arm64 stage-1 3/3] COPY file-$TARGETARCH /file",
    ] {
        assert!(built.log.contains(shown), "{shown}: {}", built.log);
    }
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let entries = raw["manifests"].as_array().unwrap();
    let architectures: Vec<_> = entries
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    for architecture in architectures {
        let config = skopeo(&[
            "inspect",
            "--config",
            "--tls-verify=false",
            "--override-arch",
            architecture,
            &format!("docker://{name}"),
        ]);
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["config"]["Labels"]["platform"], format!("linux/{architecture}"));
    }
    // buildx tells the index's digest where there is no one config.
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(iid).unwrap(), digest);
    assert_eq!(metadata["containerimage.config.digest"], Value::Null);
    assert_eq!(metadata["image.name"], name);
    assert_eq!(
        metadata["containerimage.descriptor"]["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    // The same inputs, elsewhere and in a repeated flag, are the same index.
    let again = site.with_fresh_data();
    let archive = again.out("both.tar");
    let output = format!("type=oci,dest={}", archive.display());
    again
        .build(&[
            "--platform",
            "linux/amd64",
            "--platform",
            "linux/arm64",
            "-t",
            "again",
            "-o",
            &output,
        ])
        .good();
    assert_eq!(again.digest_of("again"), digest);
    let raw_again = skopeo(&["inspect", "--raw", &format!("oci-archive:{}", archive.display())]);
    assert_eq!(raw_again, raw);
    // Other builds stand on either image.
    let there = Site::empty();
    there.dockerfile(&format!("FROM {name}\nCOPY Dockerfile /d\n"));
    let out = there.out("arm");
    there
        .build(&[
            "--platform",
            "linux/arm64",
            "-o",
            &format!("type=local,dest={}", out.display()),
        ])
        .good();
    assert_eq!(std::fs::read_to_string(out.join("file")).unwrap(), "arm");
}

#[test]
fn files_of_platforms_lie_apart() {
    let site = site();
    let (dir, file) = (site.out("dir"), site.out("x.tar"));
    let tar = format!("type=tar,dest={}", file.display());
    site.build(&["--platform", BOTH, "-o", dir.to_str().unwrap(), "-o", &tar])
        .good();
    assert_eq!(std::fs::read_to_string(dir.join("linux_amd64/file")).unwrap(), "amd");
    assert_eq!(std::fs::read_to_string(dir.join("linux_arm64/file")).unwrap(), "arm");
    let names = tar_names(&file);
    assert_eq!(
        names,
        [
            "linux_amd64/",
            "linux_amd64/file",
            "linux_amd64/made",
            "linux_arm64/",
            "linux_arm64/file",
            "linux_arm64/made"
        ]
    );
    let log = site
        .build(&["--platform", BOTH, "-o", &format!("{tar},platform-split=false")])
        .bad(1);
    assert!(
        log.contains("cannot write `/file` of linux/arm64 over that of linux/amd64"),
        "{log}"
    );
    site.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY file-$TARGETARCH /d/\n");
    site.build(&["--platform", BOTH, "-o", &format!("{tar},platform-split=false")])
        .good();
    let names = tar_names(&file);
    assert!(
        names.contains(&"d/file-amd64".to_owned()) && names.contains(&"d/file-arm64".to_owned()),
        "{names:?}"
    );
    site.build(&["-o", &format!("{tar},platform-split=true"), "--platform", "linux/arm64"])
        .good();
    assert_eq!(tar_names(&file)[0], "linux_arm64/");
}

#[test]
fn a_command_for_a_foreign_processor_needs_an_interpreter() {
    let site = Site::new();
    site.dockerfile("FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n");
    let log = site.build(&["--platform", "linux/vax"]).bad(1);
    for part in [
        "Dockerfile:3",
        "for linux/vax on this machine",
        "hint: register an interpreter",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists() {
        let log = site.build(&["--platform", "linux/s390x"]).bad(1);
        assert!(
            log.contains("no interpreter for it is enabled in `/proc/sys/fs/binfmt_misc`"),
            "{log}"
        );
    }
    // Nothing else in a stage minds.
    site.dockerfile("FROM scratch\nCOPY Dockerfile /d/\nWORKDIR /w\nCMD [\"x\"]\n");
    site.build(&["--platform", "linux/s390x", "-t", "result"]).good();
    assert_eq!(site.image("result").document["architecture"], "s390x");
}

#[test]
fn a_stage_of_the_machine_s_platform_is_done_once() {
    let site = Site::new();
    site.file("a", "a").dockerfile(
        "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY a /tools/\nFROM scratch\nARG TARGETARCH\nCOPY --from=tools /tools/a /$TARGETARCH\n",
    );
    let outcome = site
        .build(&["--platform", "linux/amd64,linux/arm64,linux/arm/v7", "--no-cache"])
        .good();
    let copies = |text: &str| outcome.ran().iter().filter(|step| step.as_str() == text).count();
    assert_eq!(copies("COPY a /tools/"), 1, "{}", outcome.log);
    assert_eq!(copies("COPY --from=tools /tools/a /$TARGETARCH"), 3);
    assert!(
        ["tools 2/2", "->arm64 tools 2/2", "->arm/v7 tools 2/2"]
            .iter()
            .all(|part| outcome.log.contains(part)),
        "{}",
        outcome.log
    );
}

#[test]
fn an_index_of_one_and_what_docker_cannot_load() {
    let site = site();
    let one = ["--platform", "linux/amd64", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"];
    let outcome = site.build(&[&one[..], &["-t", "one"]].concat()).good();
    assert!(!outcome.log.contains("was not consumed"), "{}", outcome.log);
    let mut inspect = Command::new(roadstead());
    site.prepare(&mut inspect)
        .args(["image", "inspect", "store:one", "--raw"]);
    let raw = Outcome::of(inspect.output().unwrap()).good().stdout;
    let index: Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let docker = format!("type=docker,dest={}", site.out("x.tar").display());
    for arguments in [&one[..], &["--platform", BOTH]] {
        let log = site.build(&[arguments, &["-o", &docker]].concat()).bad(2);
        assert!(
            log.contains("does not currently support exporting manifest lists"),
            "{log}"
        );
    }
    let log = site
        .build(&["--platform", BOTH, "--build-arg", "BUILDKIT_MULTI_PLATFORM=0"])
        .bad(2);
    assert!(log.contains("BUILDKIT_MULTI_PLATFORM"), "{log}");
}
