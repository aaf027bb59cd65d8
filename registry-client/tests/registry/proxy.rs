//! A proxy in front of a real server that injects faults and remembers what was asked.

use std::io::{BufRead as _, BufReader, Cursor, ErrorKind, Read, Result, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http::{Body, Framing, Headers, Passage, end};

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Headers,
    /// What a form holds; empty for other requests.
    pub(crate) body: String,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// It goes to the real server.
    Forward,
    /// It goes there, and breaks off after some bytes of its body.
    CutRequest(u64),
    /// It goes there with a bit of one byte of its body turned over.
    FlipRequest(u64),
    /// It goes there, and the answer gets lost.
    Lose,
    /// It goes there, and the answer breaks off after some bytes of its body.
    Cut(u64),
    /// It goes there, and after some bytes of the answer's body comes nothing for a while, and then the end.
    Stall(u64, Duration),
    /// It goes there, and the answer's body has some bytes only, and a length that says so.
    Shorten(u64),
    /// It goes there, and a bit of one byte of the answer's body is turned over.
    Flip(u64),
    /// It goes there, and the answer gets another status.
    Status(&'static str),
    /// It goes there, and the answer gets another status, and a header in place of its own.
    Rewrite(&'static str, (&'static str, &'static str)),
    /// It is answered here: status line and headers, body.
    Answer(String, Vec<u8>),
    /// The connection is closed at once.
    Close,
}

impl Action {
    pub(crate) fn answer(status: &str, headers: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(format!("HTTP/1.1 {status}\r\n{headers}"), body.into())
    }
}

type Rule = dyn Fn(&Head) -> Action + Send + Sync;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Head>>>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts a proxy before a port. It takes connections until it is dropped.
    pub(crate) fn start(upstream: u16, rule: impl Fn(&Head) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, rule): (_, Arc<Rule>) = (Arc::clone(&seen), Arc::new(rule));
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (log, rule) = (Arc::clone(&log), Arc::clone(&rule));
                // A client that goes away early is part of some tests.
                std::thread::spawn(move || serve(client, upstream, &log, &rule).ok());
            }
        });
        Self { port, seen, is_over }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Lists the requests of a method whose target has a part.
    pub(crate) fn seen(&self, method: &str, part: &str) -> Vec<Head> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|head| head.is(method, part))
            .cloned()
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The thread looks at it when it is woken; one that cannot be woken ends with the process.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Serves one request. One a connection: the server then closes after its answer, and the client never reuses a broken one.
fn serve(mut client: TcpStream, upstream: u16, log: &Mutex<Vec<Head>>, rule: &Arc<Rule>) -> Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let Some(mut head) = read_head(&mut reader)? else {
        return Ok(());
    };
    let framing = head.headers.framing(Framing::Length(0));
    let mut body: Box<dyn Read> = Box::new(Body::new(reader, framing));
    if head.header("content-type").is_some_and(|kind| kind.contains("form")) {
        let mut form = Vec::new();
        body.read_to_end(&mut form)?;
        head.body = String::from_utf8_lossy(&form).into_owned();
        body = Box::new(Cursor::new(form));
    }
    log.lock().unwrap().push(head.clone());
    match rule(&head) {
        Action::Close => {}
        Action::Answer(answer, bytes) => {
            // A client that is still sending might not read an answer before the connection's end.
            std::io::copy(&mut body, &mut std::io::sink())?;
            let length = bytes.len();
            write!(client, "{answer}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
            client.write_all(&bytes)?;
        }
        action => {
            let server = TcpStream::connect(("127.0.0.1", upstream))?;
            if ask(&head, &mut body, framing, &server, &action)? {
                answer(&head, server, &mut client, &action)?;
            }
        }
    }
    client.shutdown(Shutdown::Both)
}

fn read_head(reader: &mut impl std::io::BufRead) -> Result<Option<Head>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    Ok(Some(Head {
        method,
        target,
        headers: Headers::read(reader)?,
        body: String::new(),
    }))
}

/// Sends a request to the real server; tells whether an answer is to be waited for.
fn ask(head: &Head, body: &mut impl Read, framing: Framing, mut server: &TcpStream, action: &Action) -> Result<bool> {
    let mut headers = head.headers.clone();
    headers.set("Connection", "close");
    write!(server, "{} {} HTTP/1.1\r\n", head.method, head.target)?;
    headers.write(&mut server)?;
    let passage = match action {
        Action::CutRequest(bytes) => Passage::up_to(*bytes),
        Action::FlipRequest(byte) => Passage {
            flip: Some(*byte),
            ..Passage::WHOLE
        },
        _ => Passage::WHOLE,
    };
    match passage.pass(body, &mut server, framing) {
        // A server that refuses a request need not read all of it: its answer says more than the broken pipe.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(true),
        passed => passed,
    }
}

/// Passes the real server's answer on.
fn answer(head: &Head, server: TcpStream, client: &mut TcpStream, action: &Action) -> Result<()> {
    let mut reader = BufReader::new(server);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = Headers::read(&mut reader)?;
    let is_empty = head.method == "HEAD" || [" 204", " 304"].iter().any(|status| line.contains(status));
    let framing = match is_empty {
        true => Framing::Length(0),
        false => headers.framing(Framing::UntilClose),
    };
    let mut passage = Passage::WHOLE;
    match action {
        Action::Lose => return Ok(()),
        Action::Cut(bytes) | Action::Stall(bytes, _) => passage.limit = *bytes,
        Action::Flip(byte) => passage.flip = Some(*byte),
        Action::Status(status) => line = format!("HTTP/1.1 {status}\r\n"),
        Action::Rewrite(status, (name, value)) => {
            line = format!("HTTP/1.1 {status}\r\n");
            headers.set(name, value);
        }
        Action::Shorten(bytes) => {
            passage.limit = *bytes;
            if let Framing::Length(length) = framing
                && !is_empty
            {
                headers.set("Content-Length", &length.min(*bytes).to_string());
            }
        }
        Action::Forward | Action::CutRequest(_) | Action::FlipRequest(_) | Action::Answer(..) | Action::Close => {}
    }
    headers.set("Connection", "close");
    client.write_all(line.as_bytes())?;
    headers.write(client)?;
    let is_whole = passage.pass(&mut Body::new(reader, framing), client, framing)?;
    match action {
        Action::Stall(_, time) => std::thread::sleep(*time),
        Action::Shorten(_) if !is_whole => end(client, framing)?,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Setup, noise};
    use crate::servers::Server;
    use roadstead_registry_client::{Descriptor, NoProgress, media_type};

    #[tokio::test]
    async fn an_upload_in_chunks_reaches_the_server() {
        let server = Server::registry();
        let proxy = Proxy::start(server.port, |_| Action::Forward);
        let bytes = noise(90, 300_000);
        let layer = Descriptor::of(media_type::OCI_LAYER_TAR, &bytes);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let opened = http.post(format!("http://{}/v2/app/blobs/uploads/", proxy.host()));
        let opened = opened.header("content-length", "0").send().await.unwrap();
        let place = opened.headers()["location"].to_str().unwrap().to_owned();
        let pieces: Vec<Result<Vec<u8>>> = bytes.chunks(70_000).map(|piece| Ok(piece.to_vec())).collect();
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let place = format!("{place}&digest={}", layer.digest);
        let ended = http.put(place).body(stream).send().await.unwrap();
        assert_eq!(ended.status(), 201);
        let sent = proxy.seen("PUT", "/uploads/");
        assert_eq!(sent[0].header("transfer-encoding"), Some("chunked"));

        let setup = Setup::new();
        let name = format!("{}/app", server.host()).parse().unwrap();
        setup
            .client
            .fetch_blob(&name, &layer, &setup.store, &NoProgress)
            .await
            .unwrap();
        assert_eq!(setup.store.read_blob(&layer.digest, 300_000).unwrap(), bytes);
    }
}
