//! A build context that lies on S3, against the emulator.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::services::{self, Service};
use crate::workspace::Workspace;

/// Puts a bucket or an object there.
fn put(moto: &Service, path: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", moto.port)).unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        moto.port,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{path}: {answer}");
}

#[test]
fn a_context_on_s3() {
    let mut workspace = Workspace::new();
    let moto = services::moto();
    services::use_moto(&mut workspace, &moto);
    workspace.write("context/Dockerfile", "FROM scratch\nCOPY file /file\n");
    workspace.write("context/file", "from the bucket\n");
    let archive = workspace.path("context.tar.gz");
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(workspace.path("context"))
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    put(&moto, "/sources", b"");
    put(
        &moto,
        "/sources/apps/one%20two.tar.gz",
        &std::fs::read(&archive).unwrap(),
    );

    let out = format!("type=local,dest={}", workspace.path("out").display());
    let done = workspace.roadstead(&["build", "-o", &out, "s3://sources/apps/one two.tar.gz"]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert_eq!(workspace.read("out/file"), "from the bucket\n");

    let done = workspace.roadstead(&["build", "s3://sources/apps/none.tar.gz"]);
    assert_eq!(done.status, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("status 404"), "{}", done.stderr);
    assert!(
        !done.stderr.contains("X-Amz-Signature=") || done.stderr.contains("X-Amz-Signature=REDACTED"),
        "{}",
        done.stderr
    );
    let done = workspace.roadstead(&["build", "s3://sources"]);
    assert_eq!(done.status, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("expected s3://BUCKET/KEY"), "{}", done.stderr);
}

#[test]
fn a_cache_on_s3_is_all_that_a_fresh_machine_needs() {
    let mut workspace = Workspace::new();
    let moto = services::moto();
    services::use_moto(&mut workspace, &moto);
    put(&moto, "/caches", b"");
    std::fs::create_dir_all(workspace.path("context")).unwrap();
    std::fs::copy("/usr/bin/busybox", workspace.path("context/busybox")).expect("busybox-static is needed");
    workspace.write(
        "context/Dockerfile",
        "FROM scratch AS build\nCOPY busybox /bin/busybox\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n\
         RUN --mount=type=cache,target=/cache echo kept > /cache/kept; echo made > /made\nFROM scratch\nCOPY --from=build /made /\n",
    );
    let place = "type=s3,bucket=caches,prefix=team/,name=app;app-main";
    let to = format!("{place},mode=max,mounts=true");
    let context = workspace.path("context").display().to_string();
    let build = |workspace: &mut Workspace, data: &str, more: &[&str]| {
        workspace.set("ROADSTEAD_DATA", &workspace.path(data).display().to_string());
        let image = workspace.path(&format!("{data}-image")).display().to_string();
        let done = workspace.roadstead(&[&["build", "-t", "app", "--iidfile", &image], more, &[&context]].concat());
        assert_eq!(done.status, Some(0), "{}", done.stderr);
        (workspace.read(&format!("{data}-image")), done.stderr)
    };
    let (first, _) = build(&mut workspace, "one", &["--cache-to", &to]);
    let (second, log) = build(&mut workspace, "two", &["--cache-from", &place.replace("app;", "")]);
    assert_eq!(first, second);
    assert_eq!(log.matches(" CACHED").count(), 3, "{log}");
    // What the build needs as files comes from the bucket, too.
    workspace.write(
        "context/Dockerfile",
        &workspace.read("context/Dockerfile").replace("/made /", "/made /again"),
    );
    let (_, log) = build(&mut workspace, "three", &["--cache-from", place]);
    assert_eq!(log.matches(" CACHED").count(), 2, "{log}");
    // Cache mounts come from there only when that was asked for.
    workspace.write(
        "context/Dockerfile",
        &workspace.read("context/Dockerfile").replace(
            "echo kept > /cache/kept; echo made > /made",
            "ls /cache; echo made > /made",
        ),
    );
    let listed = |log: &str| log.lines().any(|line| line.ends_with(" kept"));
    let (_, log) = build(&mut workspace, "without", &["--cache-from", place]);
    assert!(!listed(&log), "{log}");
    let (_, log) = build(
        &mut workspace,
        "with",
        &["--cache-from", &format!("{place},mounts=true")],
    );
    assert!(listed(&log), "{log}");

    workspace.set("ROADSTEAD_DATA", &workspace.path("four").display().to_string());
    let none = "type=s3,bucket=caches,name=none,secret_access_key=hush-hush,access_key_id=k";
    let done = workspace.roadstead(&["build", "--cache-from", none, &context]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("none is not there"), "{}", done.stderr);
    assert!(!done.stderr.contains("hush-hush") && !done.stderr.contains("a-secret-access-key"));
    let done = workspace.roadstead(&["build", "--cache-to", "type=s3,bucket=nothing", &context]);
    assert_eq!(done.status, Some(1), "{}", done.stderr);
    assert!(
        done.stderr.contains("exporting cache to s3://nothing"),
        "{}",
        done.stderr
    );
}
