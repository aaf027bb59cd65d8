//! A proxy in front of a real server that injects faults and remembers what was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

/// What becomes of a request.
pub(crate) enum Action {
    /// It goes to the real server.
    Forward,
    /// It goes there, and the answer breaks off after some bytes of its body.
    Cut(u64),
    /// It goes there, and the answer gets another status.
    Status(&'static str),
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
}

impl Proxy {
    /// Starts a proxy before a port. Its thread ends with the process.
    pub(crate) fn start(upstream: u16, rule: impl Fn(&Head) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, rule): (_, Arc<Rule>) = (Arc::clone(&seen), Arc::new(rule));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (log, rule) = (Arc::clone(&log), Arc::clone(&rule));
                // A client that goes away early is part of some tests.
                std::thread::spawn(move || serve(client, upstream, &log, &rule).ok());
            }
        });
        Self { port, seen }
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

fn serve(client: TcpStream, upstream: u16, log: &Mutex<Vec<Head>>, rule: &Arc<Rule>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let Some(mut head) = read_head(&mut reader)? else {
        return Ok(());
    };
    let length: u64 = head
        .header("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if head.header("content-type").is_some_and(|kind| kind.contains("form")) {
        head.body = String::from_utf8_lossy(&body).into_owned();
    }
    log.lock().unwrap().push(head.clone());
    let mut client = client;
    match rule(&head) {
        Action::Close => {}
        Action::Answer(answer, bytes) => {
            write!(
                client,
                "{answer}Content-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            )?;
            client.write_all(&bytes)?;
        }
        Action::Forward => forward(&head, &body, upstream, client.try_clone()?, None, u64::MAX)?,
        Action::Status(status) => forward(&head, &body, upstream, client.try_clone()?, Some(status), u64::MAX)?,
        Action::Cut(bytes) => forward(&head, &body, upstream, client.try_clone()?, None, bytes)?,
    }
    client.shutdown(Shutdown::Both)
}

fn read_head(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<Head>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => {
                return Ok(Some(Head {
                    method,
                    target,
                    headers,
                    body: String::new(),
                }));
            }
        }
    }
}

/// One request a connection: the server then closes after its answer, and the client never reuses a broken one.
fn forward(
    head: &Head,
    body: &[u8],
    upstream: u16,
    mut client: TcpStream,
    status: Option<&str>,
    limit: u64,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    write!(
        server,
        "{} {} HTTP/1.1\r\nConnection: close\r\n",
        head.method, head.target
    )?;
    for (name, value) in head
        .headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("connection"))
    {
        write!(server, "{name}: {value}\r\n")?;
    }
    server.write_all(b"\r\n")?;
    server.write_all(body)?;
    let mut reader = BufReader::new(server);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match status {
        Some(status) => write!(client, "HTTP/1.1 {status}\r\n")?,
        None => client.write_all(line.as_bytes())?,
    }
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
        client.write_all(line.as_bytes())?;
    }
    std::io::copy(&mut reader.take(limit), &mut client)?;
    Ok(())
}
