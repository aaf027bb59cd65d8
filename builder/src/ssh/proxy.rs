//! A socket for one command that passes requests on to an SSH agent. Source: draft-ietf-sshm-ssh-agent, section 3.

use super::{Agent, address};
use std::collections::HashMap;
use std::io::{self, Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest message, as with OpenSSH.
const MAX_MESSAGE: u32 = 256 << 10;
/// Most connections at once: each holds a thread and two descriptors of the builder.
const MAX_CONNECTIONS: usize = 64;
/// Time between attempts to accept when there is a shortage.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks for the public keys.
const REQUEST_IDENTITIES: u8 = 11;
/// Asks for a signature.
const SIGN_REQUEST: u8 = 13;
/// Answers what is refused: a message of one byte, `SSH_AGENT_FAILURE`.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// A listening socket, served until dropped. Whoever removes its directory removes the socket.
#[derive(Debug)]
pub struct Proxy {
    listener: UnixListener,
    open: Arc<Open>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on `socket`, which must not exist yet.
    ///
    /// # Errors
    /// When the socket or a thread cannot be made.
    pub fn listen(socket: &Path, agent: Agent) -> io::Result<Self> {
        let (_directory, address) = address(socket)?;
        let listener = UnixListener::bind(address)?;
        let open = Arc::new(Open::default());
        let (accepted, shared) = (listener.try_clone()?, Arc::clone(&open));
        let accepting = std::thread::Builder::new()
            .name("ssh-proxy".into())
            .spawn(move || accept(&accepted, &agent, &shared))?;
        Ok(Self {
            listener,
            open,
            accepting: Some(accepting),
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.open.close();
        // Wakes the accepting thread; a socket that cannot be shut down is one that no longer listens.
        let _gone = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            // It ends by itself; that it panicked would have been shown.
            drop(accepting.join());
        }
    }
}

/// The connections under way.
#[derive(Debug, Default)]
struct Open(Mutex<Streams>);

#[derive(Debug, Default)]
struct Streams {
    closed: bool,
    next: u64,
    /// Both ends of each connection, as far as there are two.
    ends: HashMap<u64, Vec<UnixStream>>,
}

impl Open {
    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection, so that it can be closed from outside. `None` when it may not be served.
    fn begin(&self, client: &UnixStream) -> Option<u64> {
        let client = client.try_clone().ok()?;
        let mut streams = self.streams();
        if streams.closed || streams.ends.len() >= MAX_CONNECTIONS {
            return None;
        }
        streams.next += 1;
        let number = streams.next;
        streams.ends.insert(number, vec![client]);
        Some(number)
    }

    /// Adds the connection's other end; tells whether it may still be served.
    fn add(&self, number: u64, agent: &UnixStream) -> bool {
        let Ok(agent) = agent.try_clone() else { return false };
        let mut streams = self.streams();
        let closed = streams.closed;
        if let Some(ends) = streams.ends.get_mut(&number) {
            ends.push(agent);
        }
        !closed
    }

    fn remove(&self, number: u64) {
        self.streams().ends.remove(&number);
    }

    fn close(&self) {
        let mut streams = self.streams();
        streams.closed = true;
        for stream in streams.ends.values().flatten() {
            // One that is closed already needs nothing.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn accept(listener: &UnixListener, agent: &Agent, open: &Arc<Open>) {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(_) if open.streams().closed => return,
            Err(_) => {
                // The builder has no descriptors left for the moment, or was interrupted.
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        let Some(number) = open.begin(&client) else { continue };
        let (agent, shared) = (agent.clone(), Arc::clone(open));
        let serving = std::thread::Builder::new().name("ssh-proxy".into()).spawn(move || {
            // How it ended is nobody's business: an agent that is gone looks to the command like one that hangs up.
            drop(agent.connect().and_then(|agent| {
                if shared.add(number, &agent) {
                    serve(&client, &agent)
                } else {
                    Ok(())
                }
            }));
            shared.remove(number);
        });
        if serving.is_err() {
            open.remove(number);
        }
    }
}

/// Passes requests on until either end closes.
fn serve(mut client: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    while let Some(request) = message(&mut client)? {
        // Keys are neither added nor removed by a command, nor is the agent locked; extensions could do anything.
        if !matches!(request.get(4), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        let Some(answer) = message(&mut agent)? else { break };
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Reads a message with its length; `None` at the end.
fn message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if let Err(e) = from.read_exact(&mut length) {
        return if e.kind() == io::ErrorKind::UnexpectedEof {
            Ok(None)
        } else {
            Err(e)
        };
    }
    let size = u32::from_be_bytes(length);
    if !(1..=MAX_MESSAGE).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    // Not made at its full size at once: nobody has sent that much yet.
    let read = from.take(u64::from(size)).read_to_end(&mut message)?;
    if u64::try_from(read).is_ok_and(|read| read == u64::from(size)) {
        Ok(Some(message))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// An agent that answers every request with the type of it, and says which ones it got.
    fn agent(dir: &Path) -> (Agent, std::sync::mpsc::Receiver<u8>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let listener = UnixListener::bind(dir.join("agent")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender) = (stream.unwrap(), sender.clone());
                std::thread::spawn(move || {
                    while let Ok(Some(request)) = message(&mut stream) {
                        sender.send(request[4]).unwrap();
                        stream.write_all(&[0, 0, 0, 2, 99, request[4]]).unwrap();
                    }
                });
            }
        });
        (Agent::at(dir.join("agent")).unwrap(), receiver)
    }

    fn directory(name: &str) -> PathBuf {
        // Longer than an address may be.
        let base = std::env::temp_dir().join(format!("roadstead-{name}-{}-{}", std::process::id(), "x".repeat(120)));
        std::fs::create_dir(&base).unwrap();
        base
    }

    #[test]
    fn only_lists_and_signatures_are_passed_on() {
        let base = std::env::temp_dir().join(format!("roadstead-ssh-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let (agent, seen) = agent(&base);
        let proxy = Proxy::listen(&base.join("proxy"), agent).unwrap();
        let mut client = UnixStream::connect(base.join("proxy")).unwrap();
        for kind in 0..=255u8 {
            client.write_all(&[0, 0, 0, 2, kind, 7]).unwrap();
            let answer = message(&mut client).unwrap().unwrap();
            if matches!(kind, REQUEST_IDENTITIES | SIGN_REQUEST) {
                assert_eq!(answer, [0, 0, 0, 2, 99, kind]);
                assert_eq!(seen.recv().unwrap(), kind);
            } else {
                assert_eq!(answer, FAILURE, "{kind}");
            }
        }
        seen.try_recv().unwrap_err();
        // Nothing is left once it is dropped: a connection that waits is closed.
        let waiting = UnixStream::connect(base.join("proxy")).unwrap();
        drop(proxy);
        assert_eq!((&waiting).read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        UnixStream::connect(base.join("proxy")).unwrap_err();
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn long_paths_and_bad_messages() {
        let base = directory("proxy");
        // Bound through the handle, as the proxy itself is.
        let (_held, short) = address(&base.join("agent")).unwrap();
        let listener = UnixListener::bind(short).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let agent = Agent::at(base.join("agent")).unwrap();
        let _proxy = Proxy::listen(&base.join("proxy"), agent).unwrap();
        for bad in [&[0, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff, 11], &[0, 4, 0, 1, 11]] {
            let (_held, short) = address(&base.join("proxy")).unwrap();
            let mut client = UnixStream::connect(short).unwrap();
            client.write_all(bad).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0, "{bad:?}");
        }
        Agent::at(base.join("nobody")).unwrap_err();
        std::fs::remove_dir_all(base).unwrap();
    }
}
