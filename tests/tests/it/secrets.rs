//! No secret is anywhere but where it is meant to be: not in layers, documents, the data directory, logs, or other processes.

use crate::site::{Outcome, Site, files_below};
use crate::ssh;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// Values to look for, each with its base64 forms, as grep's patterns.
struct Needles(String);

impl Needles {
    fn new(values: &[&str]) -> Self {
        let mut patterns = Vec::new();
        for value in values {
            patterns.push((*value).to_owned());
            // Whatever stands before a value, it is encoded in one of three ways.
            for before in 0..3 {
                let encoded = base64(&[&vec![0; before], value.as_bytes()].concat());
                let begin = [0, 2, 3][before];
                let end = (before + value.len()) / 3 * 4;
                patterns.push(String::from_utf8(encoded[begin..end].to_vec()).unwrap());
            }
        }
        Self(patterns.join("\n"))
    }

    /// Gives what grep prints: nothing when nothing is found.
    fn grep(&self, options: &str, directory: Option<&Path>, bytes: &[u8]) -> String {
        let mut command = Command::new("grep");
        command.args([options, "-e", &self.0]).args(directory);
        let mut grep = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = grep.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // grep ends early when it has found something.
            scope.spawn(move || drop(stdin.write_all(bytes)));
            let output = grep.wait_with_output().unwrap();
            assert!(output.status.code() < Some(2));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    #[track_caller]
    fn assert_not_in(&self, bytes: &[u8], place: &str) {
        let found = self.grep("-aoF", None, bytes);
        assert!(found.is_empty(), "{found} is in {place}");
    }

    /// Looks through every file, and through what is compressed.
    #[track_caller]
    fn assert_not_below(&self, directory: &Path) {
        let files = files_below(directory);
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        self.assert_not_in(names.join("\n").as_bytes(), "the name of a file");
        let found = self.grep("-raoF", Some(directory), b"");
        assert!(found.is_empty(), "{found}");
        for file in files
            .iter()
            .filter(|file| file.to_str().unwrap().contains("/blobs/") && file.is_file())
        {
            let bytes = std::fs::read(file).unwrap();
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let mut plain = Vec::new();
                flate2::read::MultiGzDecoder::new(&bytes[..])
                    .read_to_end(&mut plain)
                    .unwrap();
                self.assert_not_in(&plain, &file.display().to_string());
            }
        }
    }
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0u32, |number, at| number << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        text.extend((0..=three.len()).map(|at| LETTERS[(number >> (18 - 6 * at)) as usize & 63]));
    }
    text
}

/// Fields of `/proc/PID/status` that tell whose process it is.
fn status(pid: &str) -> Option<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    Some(
        fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Looks at every process but those of the RUN itself, which are two pid namespaces below this one, and those that were given the
/// values by the caller: they are the caller's own.
fn assert_not_in_processes(needles: &Needles, callers: u32) -> usize {
    let depth = |fields: &BTreeMap<String, String>| fields["NSpid"].split('\t').count();
    let own = depth(&status("self").unwrap());
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let pid = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) || pid == callers.to_string() {
            continue;
        }
        if status(&pid).is_none_or(|fields| depth(&fields) >= own + 2) {
            continue;
        }
        for file in ["environ", "cmdline"] {
            if let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{file}")) {
                all.push((format!("/proc/{pid}/{file}"), bytes));
            }
        }
    }
    // One search for all: a program for each would take too long. It runs after all has been read, since its arguments hold the values.
    let together: Vec<u8> = all.iter().flat_map(|(_, bytes)| [bytes, &b"\n"[..]].concat()).collect();
    if !needles.grep("-aoF", None, &together).is_empty() {
        all.iter().for_each(|(name, bytes)| needles.assert_not_in(bytes, name));
    }
    all.len()
}

/// Answers GET: the file `/secret-file` to whoever has the token, 403 to all else.
fn server(token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let known = request.iter().any(|line| line.ends_with(&bearer));
            let answer = if known && request[0].contains("/secret-file") {
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nfetched"
            } else {
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            };
            drop((&stream).write_all(answer.as_bytes()));
        }
    });
    port
}

/// The secrets of one test. Those of another, which runs at the same time, are others.
struct Values {
    file: String,
    variable: String,
    proxy: String,
    http: String,
    git: String,
}

impl Values {
    fn new(test: &str) -> Self {
        let value = |what: &str| format!("Zq7-{test}-{}-the-{what}-secret", std::process::id());
        Self {
            file: value("file"),
            variable: value("variable"),
            proxy: value("proxy"),
            http: value("http"),
            git: value("git"),
        }
    }

    fn all(&self) -> Vec<&str> {
        vec![&self.file, &self.variable, &self.proxy, &self.http, &self.git]
    }
}

/// The command of a build that is given every kind of secret.
fn command(site: &Site, values: &Values, key: &Path, port: u16, arguments: &[&str]) -> Command {
    let file = site.dir().join("secret-file");
    std::fs::write(&file, &values.file).unwrap();
    let mut command = site.command(arguments);
    command
        .args(["--secret", &format!("id=file,src={}", file.display())])
        .args([
            "--secret",
            "id=variable,env=THE_VARIABLE",
            "--secret",
            "id=both,env=THE_VARIABLE",
        ])
        .args([
            "--secret",
            &format!("id=HTTP_AUTH_TOKEN_127.0.0.1:{port},env=THE_HTTP_TOKEN"),
        ])
        .args(["--secret", "id=GIT_AUTH_TOKEN,env=THE_GIT_TOKEN"])
        .args(["--ssh", &format!("default={}", key.display())])
        .args([
            "--build-arg",
            &format!("HTTP_PROXY=http://me:{}@127.0.0.1:9/", values.proxy),
        ])
        .args([
            "--build-arg",
            &format!("all_proxy=http://me:{}@127.0.0.1:9/", values.proxy),
        ])
        .env("THE_VARIABLE", &values.variable)
        .env("THE_HTTP_TOKEN", &values.http)
        .env("THE_GIT_TOKEN", &values.git);
    command
}

const MOUNTS: &str = "--mount=type=secret,id=file,uid=1000,required --mount=type=secret,id=variable,env=TOKEN,required \
    --mount=type=secret,id=both,env=BOTH,target=/tmp/both --mount=type=ssh,required";

#[test]
fn a_secret_is_nowhere_but_in_its_command() {
    let site = Site::new();
    let key = ssh::key(&site, "key", "");
    let private = std::fs::read_to_string(&key).unwrap();
    // The lines before it say what kind of key it is; the one in the middle is the key.
    let private = private.lines().nth(3).unwrap();
    let values = Values::new("success");
    let needles = Needles::new(&[values.all(), vec![private]].concat());
    let port = server(&values.http);
    let text = format!(
        "FROM base AS first\nADD http://127.0.0.1:{port}/secret-file /fetched\n\
         RUN {MOUNTS} test -n \"$TOKEN$HTTP_PROXY\" && test -s /run/secrets/file && cp /run/secrets/file /dev/shm/ && echo $TOKEN | wc -c > /length\n\
         FROM first AS second\nRUN {MOUNTS} echo ready && sleep SECONDS\nRUN env | grep -vi _proxy= > /environment; cat /run/secrets/* /tmp/both > /found 2>/dev/null; true\n\
         FROM first\nCOPY --from=second /environment /\nRUN {MOUNTS} touch /last\n"
    );
    for (progress, word) in [("plain", "ready"), ("rawjson", "cmVhZHkK")] {
        site.dockerfile(&text.replace("SECONDS", if progress == "plain" { "3" } else { "2" }));
        let log = site.out(progress);
        let stderr = std::fs::File::create(&log).unwrap();
        let mut build = command(&site, &values, &key, port, &["-t", "result", "--progress", progress]);
        let mut child = build.stderr(stderr).spawn().unwrap();
        let text = || std::fs::read_to_string(&log).unwrap();
        while !text().contains(&format!("{word}\n")) && !text().contains(word) {
            assert!(child.try_wait().unwrap().is_none(), "ended early: {}", text());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // While the command has them.
        assert!(assert_not_in_processes(&needles, child.id()) > 10);
        needles.assert_not_below(&site.data());
        assert!(child.wait().unwrap().success(), "{}", text());
        needles.assert_not_in(text().as_bytes(), progress);
        needles.assert_not_below(&site.data());
        site.assert_clean();
    }
    let image = site.image("result");
    assert_eq!(image.text("fetched"), "fetched");
    assert_eq!(image.text("length"), format!("{}\n", values.variable.len() + 1));
    let contents: Vec<u8> = image
        .tree
        .values()
        .flat_map(|node| [&node.content[..], b"\n"].concat())
        .collect();
    needles.assert_not_in(&contents, "a file of the image");
    needles.assert_not_in(image.document.to_string().as_bytes(), "the config");
    needles.assert_not_in(image.manifest.to_string().as_bytes(), "the manifest");
    // Another value is no other step.
    let mut build = command(
        &site,
        &values,
        &key,
        port,
        &["--build-arg", "HTTP_PROXY=http://127.0.0.1:10/"],
    );
    build.env("THE_VARIABLE", "another");
    assert_eq!(Outcome::of(build.output().unwrap()).good().ran(), [""; 0]);
}

#[test]
fn failures_do_not_tell_secrets() {
    let site = Site::new();
    let key = ssh::key(&site, "key", "");
    let values = Values::new("failure");
    let needles = Needles::new(&values.all());
    // A server that knows another token refuses this one.
    let port = server("other");
    for (text, want) in [
        (format!("FROM base\nRUN {MOUNTS} false\n"), "exit code: 1"),
        (
            format!("FROM base\nRUN {MOUNTS} [\"/no/such/program\"]\n"),
            "cannot run `/no/such/program`",
        ),
        (
            "FROM base\nRUN --mount=type=secret,id=variable,env=A --mount=type=secret,id=none,required true\n"
                .to_owned(),
            "`none` is required",
        ),
        (
            format!("FROM base\nADD http://127.0.0.1:{port}/secret-file /x\n"),
            "403",
        ),
        (
            format!("FROM base\nADD http://127.0.0.1:{port}/repository.git /x\n"),
            "403",
        ),
    ] {
        site.dockerfile(&text);
        for progress in ["plain", "rawjson"] {
            let output = command(&site, &values, &key, port, &["-t", "result", "--progress", progress]).output();
            let outcome = Outcome::of(output.unwrap());
            needles.assert_not_in(&outcome.stdout, "stdout");
            let log = outcome.bad(1);
            needles.assert_not_in(log.as_bytes(), "the log");
            assert!(progress != "plain" || log.contains(want), "{text}: {log}");
            needles.assert_not_below(&site.data());
            site.assert_clean();
        }
    }
}

#[test]
fn errors_about_names_do_not_tell_logins() {
    let site = Site::new();
    site.file("user.Dockerfile", "ARG BASE\nFROM $BASE\n")
        .file("copy.Dockerfile", "ARG BASE\nFROM base\nCOPY --from=$BASE /x /x\n")
        .dockerfile("FROM base\n");
    let name = "user:hunter2@host.invalid/x";
    let argument = format!("BASE={name}");
    let dockerfile = |file: &str| site.context().join(file).display().to_string();
    let (user, copy) = (dockerfile("user.Dockerfile"), dockerfile("copy.Dockerfile"));
    for arguments in [
        &["-t", name][..],
        &["-o", &format!("type=image,name={name}")],
        &["--cache-from", name],
        &["--cache-from", &format!("https://{name}")],
        &["--cache-to", &format!("type=registry,ref={name}")],
        &["--cache-to", "type=registry,ref=a/b,secret_access_key=hunter2"],
        &["--cache-to", "type=s3,bucket=b,SECRET_ACCESS_KEY=hunter2,x"],
        &["--build-context", &format!("x=docker-image://{name}")],
        &["--build-context", &format!("https://{name}")],
        &["-f", &user, "--build-arg", &argument],
        &["-f", &copy, "--build-arg", &argument],
    ] {
        let outcome = site.build(arguments);
        assert_ne!(outcome.status, Some(0), "{arguments:?}: {}", outcome.log);
        assert!(!outcome.log.contains("hunter2"), "{arguments:?}: {}", outcome.log);
    }
    for arguments in [
        &["image", "pull", name][..],
        &["image", "push", "base", name],
        &["image", "tag", "base", name],
        &["image", "copy", "store:base", name],
        &["image", "rm", name],
        &["build", ".", name],
    ] {
        let mut command = Command::new(crate::binary::roadstead());
        let outcome = Outcome::of(site.prepare(&mut command).args(arguments).output().unwrap());
        assert_ne!(outcome.status, Some(0), "{arguments:?}: {}", outcome.log);
        assert!(outcome.log.contains("host.invalid"), "{arguments:?}: {}", outcome.log);
        assert!(!outcome.log.contains("hunter2"), "{arguments:?}: {}", outcome.log);
    }
}

#[test]
fn build_arguments_are_no_secrets() {
    let site = Site::new();
    site.dockerfile("FROM base\nARG TOKEN\nRUN test -n \"$TOKEN\"\n");
    site.build(&["-t", "result", "--build-arg", "TOKEN=in-the-history"])
        .good();
    let document = site.image("result").document.to_string();
    // As with docker: what a RUN has as ARG is part of its history.
    assert!(document.contains("RUN |1 TOKEN=in-the-history "), "{document}");
}

#[test]
fn what_looks_for_secrets_finds_them() {
    let value = Values::new("search").file;
    let needles = Needles::new(&[&value]);
    assert_eq!(
        needles.grep("-aoF", None, format!("x{value}y").as_bytes()),
        format!("{value}\n")
    );
    for before in ["", "a", "ab", "abc", "user:"] {
        let encoded = base64(format!("{before}{value}:after").as_bytes());
        assert_ne!(needles.grep("-aoF", None, &encoded), "", "{before}");
    }
    assert_eq!(needles.grep("-aoF", None, b"nothing"), "");
    assert_eq!(base64(b"any carnal pleas"), b"YW55IGNhcm5hbCBwbGVhcw");
}
