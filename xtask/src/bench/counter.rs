//! A TCP proxy on 127.0.0.1 that counts what passes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Result, TaskError};

const BUFFER_BYTES: usize = 256 * 1024;

/// What passed, headers of HTTP included.
#[derive(Debug, Default)]
struct Passed {
    up: AtomicU64,
    down: AtomicU64,
    ended: AtomicBool,
}

/// A proxy before a server; it takes no more connections when this value ends.
#[derive(Debug)]
pub(super) struct Counter {
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
    passed: Arc<Passed>,
}

impl Counter {
    /// Starts before the server on this port of 127.0.0.1.
    pub(super) fn start(server: u16) -> Result<Self> {
        let failed = |error: std::io::Error| TaskError::new(format!("cannot listen: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let passed = Arc::new(Passed::default());
        let counts = Arc::clone(&passed);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if counts.ended.load(Ordering::Relaxed) {
                    return;
                }
                // A connection that cannot be made ends at once, which the client reports.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                    connect(&client, &server, &counts);
                }
            }
        });
        Ok(Self { port, passed })
    }

    /// Bytes that came from the server, and that went to it.
    pub(super) fn down_and_up(&self) -> (u64, u64) {
        (
            self.passed.down.load(Ordering::Relaxed),
            self.passed.up.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.passed.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Passes bytes on in both directions, by a thread each.
fn connect(client: &TcpStream, server: &TcpStream, passed: &Arc<Passed>) {
    let ends = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let (Some((from_client, to_server)), Some((to_client, from_server))) = (ends(), ends()) else {
        return;
    };
    let counts = Arc::clone(passed);
    std::thread::spawn(move || pass(from_client, to_server, &counts.up));
    let counts = Arc::clone(passed);
    std::thread::spawn(move || pass(from_server, to_client, &counts.down));
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        count.fetch_add(u64::try_from(length).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    // The other end may have gone, which is what this tells.
    drop(to.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_counted() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let counter = Counter::start(server.local_addr().unwrap().port()).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", counter.port)).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        served.write_all(b"no").unwrap();
        drop(served);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "no");
        assert_eq!(counter.down_and_up(), (2, 8));
    }
}
