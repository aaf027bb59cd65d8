//! Contexts that are no directories, named contexts, and what ADD fetches: above all what a hostile one may not do.

use crate::site::{Outcome, Site};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

/// Builds with `context` in place of the site's own, and with standard input.
fn build_from(site: &Site, arguments: &[&str], context: &str, stdin: Option<&[u8]>) -> Outcome {
    let mut command = std::process::Command::new(crate::binary::roadstead());
    site.prepare(&mut command).arg("build").args(arguments).arg(context);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    if let Some(bytes) = stdin {
        // A build that fails early does not read it all.
        drop(pipe.write_all(bytes));
    }
    drop(pipe);
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    site.assert_clean();
    outcome
}

fn archive(entries: &[(&str, &str)]) -> tar::Builder<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(5);
        header.set_gid(6);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder
}

#[test]
fn standard_input_is_a_dockerfile_or_an_archive() {
    let site = Site::new();
    let outcome = build_from(&site, &["-t", "result"], "-", Some(b"FROM base\nRUN echo text > /x\n"));
    outcome.good();
    assert_eq!(site.image("result").text("x"), "text\n");
    let log = build_from(&site, &[], "-", Some(b"FROM base\nCOPY f /\n")).bad(1);
    assert!(log.contains("`f` not found"), "{log}");
    let log = build_from(&site, &[], "-", Some(b"FROM base\nNOPE\n")).bad(1);
    assert!(log.contains("--> standard input:2:1"), "{log}");
    let log = build_from(&site, &["-f", "-"], "-", Some(b"FROM base\n")).bad(2);
    assert!(log.contains("cannot both be standard input"), "{log}");

    let files = [
        ("Dockerfile", "FROM base\nCOPY d /d\n"),
        ("other/file", "FROM base\nCOPY d /e\n"),
        ("d/f", "1"),
    ];
    let bytes = archive(&files).into_inner().unwrap();
    build_from(&site, &["-t", "result"], "-", Some(&bytes)).good();
    assert_eq!(site.image("result").list("d"), "d 755 0:0 d\nf 644 5:6 d/f = 1\n");
    build_from(&site, &["-t", "result", "-f", "other/file"], "-", Some(&bytes)).good();
    assert!(site.image("result").has("e/f"));
    // The same as a file, compressed.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&bytes).unwrap();
    site.file("context.bin", packed.finish().unwrap());
    let path = site.context().join("context.bin");
    build_from(&site, &["-t", "result"], path.to_str().unwrap(), None).good();
    assert!(site.image("result").has("d/f"));
    let log = build_from(&site, &[], "/no/such/context", None).bad(2);
    assert!(
        log.contains("is no directory") && log.contains("hint: a context is"),
        "{log}"
    );
}

#[test]
fn an_archive_s_links_lead_nowhere() {
    let site = Site::new();
    std::fs::write(site.dir().join("secret"), "FROM hunter2\n").unwrap();
    let link = |path: &str, target: &std::path::Path, more: &[(&str, &str)]| {
        let mut builder = archive(more);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, path, target).unwrap();
        builder.into_inner().unwrap()
    };
    let outside = site.dir().join("secret");
    for (path, arguments) in [("Dockerfile", &[][..]), ("sub", &["-f", "sub"])] {
        let log = build_from(&site, arguments, "-", Some(&link(path, &outside, &[]))).bad(2);
        assert!(
            log.contains("cannot read Dockerfile") && !log.contains("hunter2"),
            "{log}"
        );
    }
    let log = build_from(
        &site,
        &["-f", "../../../../../../etc/hostname"],
        "-",
        Some(&link("x", &outside, &[])),
    )
    .bad(2);
    assert!(log.contains("the context has no such file"), "{log}");
    let dockerfile = [("Dockerfile", "FROM base\nCOPY out/secret /\n")];
    let bytes = link("out", site.dir(), &dockerfile);
    let log = build_from(&site, &[], "-", Some(&bytes)).bad(1);
    assert!(
        log.contains("`out/secret` not found") && !log.contains("hunter2"),
        "{log}"
    );

    let mut builder = archive(&[]);
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.as_mut_bytes()[..9].copy_from_slice(b"../../out");
    header.set_cksum();
    builder.append(&header, &b"x"[..]).unwrap();
    let log = build_from(&site, &[], "-", Some(&builder.into_inner().unwrap())).bad(1);
    assert!(log.contains("has `..` in its path"), "{log}");
}

/// A server that answers each path once it is asked for, and keeps what it was asked.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gives the whole response to a path.
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answer, &kept);
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, answer: &impl Fn(&str) -> String, asked: &Mutex<Vec<String>>) {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(request);
    drop(stream.write_all(answer(&path).as_bytes()));
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_login_goes_to_its_host_alone() {
    let site = Site::new();
    let other = Server::start(|_| ok("elsewhere"));
    let place = other.address.replace("127.0.0.1", "localhost");
    let server = Server::start(move |path| {
        match path {
        "/moved" => format!("HTTP/1.1 302 Found\r\nLocation: http://{place}/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        "/metadata" => "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        _ => ok("here"),
    }
    });
    let url = format!("http://{}", server.address);
    std::fs::write(site.dir().join("token"), "hunter2").unwrap();
    let secret = format!(
        "id=HTTP_AUTH_TOKEN_{},src={}",
        server.address,
        site.dir().join("token").display()
    );
    site.dockerfile(&format!("FROM base\nADD {url}/plain /a\nADD {url}/moved /b\n"));
    let log = site.build(&["-t", "result", "--secret", &secret]).good().log;
    let image = site.image("result");
    assert_eq!(
        (image.text("a").as_str(), image.text("b").as_str()),
        ("here", "elsewhere")
    );
    let with_login = |asked: &[String]| asked.iter().filter(|text| text.contains("Bearer hunter2")).count();
    let (here, there) = (server.asked(), other.asked());
    assert_eq!((with_login(&here), here.len()), (2, 2), "{here:?}");
    assert_eq!((with_login(&there), there.len()), (0, 1), "{there:?}");
    assert!(!log.contains("hunter2"), "{log}");

    let log = site.error_of(&format!("FROM base\nADD {url}/metadata /a\n"));
    assert!(log.contains("169.254.169.254 is a private address"), "{log}");
    site.dockerfile(&format!("FROM base\nADD {url}/x?signature=hunter2 /a\n"));
    let log = site.build(&["--offline"]).bad(1);
    assert!(log.contains("offline") && log.contains(&server.address), "{log}");
}

#[test]
fn what_has_a_checksum_is_fetched_once() {
    use sha2::Digest as _;
    let site = Site::new();
    let server = Server::start(|_| ok("content"));
    let hex: String = sha2::Sha256::digest(b"content")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let url = format!("http://{}/file", server.address);
    site.dockerfile(&format!("FROM base\nADD --checksum=sha256:{hex} {url} /a\n"));
    site.build(&["-t", "result"]).good();
    assert_eq!(server.asked().len(), 1);
    let ran = site.build(&["-t", "result"]).good().ran();
    assert!(ran.is_empty() && server.asked().is_empty(), "{ran:?}");
    // Without one the server is asked each time, and the step is known by what came.
    site.dockerfile(&format!("FROM base\nADD {url} /b\n"));
    site.build(&["-t", "result"]).good();
    let ran = site.build(&["-t", "result"]).good().ran();
    assert!(ran.is_empty() && server.asked().len() == 2, "{ran:?}");
}

#[test]
fn named_contexts_of_layouts() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN echo layout > /x\nENV FROM_LAYOUT=1\n");
    let (archive, layout) = (site.out("layout.tar"), site.out("layout"));
    site.build(&["-o", &format!("type=oci,dest={}", archive.display())])
        .good();
    std::fs::create_dir(&layout).unwrap();
    let unpacked = std::process::Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout)
        .status();
    assert!(unpacked.unwrap().success());
    let other = Site::empty();
    let context = format!("one=oci-layout://{}", layout.display());
    other.dockerfile("FROM one\nRUN echo $FROM_LAYOUT > /y\n");
    other.build(&["-t", "result", "--build-context", &context]).good();
    assert_eq!(other.image("result").text("y"), "1\n");
    assert_eq!(other.image("result").text("x"), "layout\n");
    for (context, want) in [
        ("one", "expected NAME=VALUE"),
        ("one=oci-layout:///nowhere", "/nowhere"),
        ("one=target:x", "belongs to bake"),
        ("one=docker-image://UP:x:y", "UP:x:y"),
    ] {
        let outcome = other.build(&["--build-context", context]);
        assert!(
            outcome.status != Some(0) && outcome.log.contains(want),
            "{context}: {}",
            outcome.log
        );
    }
}
