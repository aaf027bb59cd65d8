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
