//! The addresses where a cloud hands out credentials, on this machine's loopback interface, with a server that hands out a fake token.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::command::{program, succeeds};
use crate::error::{Result, TaskError};

/// Tasks of ECS, instances of EC2 by both protocols, pods of EKS.
const ADDRESSES: [&str; 4] = ["169.254.170.2", "169.254.169.254", "169.254.170.23", "fd00:ec2::254"];
const PORT: u16 = 80;

/// Addresses that are there as long as this value; the servers' threads end with the task.
#[derive(Debug)]
pub(super) struct Endpoints {
    added: Vec<String>,
}

impl Endpoints {
    /// Adds what can be added; without the first address there are none.
    pub(super) fn open(token: &str) -> Result<Option<Self>> {
        let mut endpoints = Self { added: Vec::new() };
        for address in ADDRESSES {
            let prefix = if address.contains(':') { 128 } else { 32 };
            let word = format!("{address}/{prefix}");
            if !succeeds(program("ip").args(["address", "add", &word, "dev", "lo"])) {
                continue;
            }
            endpoints.added.push(word);
            let failed = |error: std::io::Error| TaskError::new(format!("cannot serve {address}: {error}"));
            let address: IpAddr = address
                .parse()
                .map_err(|_| TaskError::new(format!("`{address}` is no address")))?;
            serve(TcpListener::bind((address, PORT)).map_err(failed)?, token.to_owned());
            answer(UdpSocket::bind((address, PORT)).map_err(failed)?, token.to_owned());
        }
        let is_there = endpoints
            .added
            .first()
            .is_some_and(|word| word.starts_with(ADDRESSES[0]));
        Ok(is_there.then_some(endpoints))
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        for word in &self.added {
            if !succeeds(program("ip").args(["address", "delete", word, "dev", "lo"])) {
                eprintln!("cannot take {word} from the loopback interface");
            }
        }
    }
}

fn serve(listener: TcpListener, token: String) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who asked may have gone; the next one is served all the same.
            let Ok(stream) = stream else { continue };
            if let Err(error) = hand_out(stream, &token) {
                eprintln!("the credential endpoint: {error}");
            }
        }
    });
}

fn hand_out(mut stream: TcpStream, token: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    // Whatever is asked for, it is the token.
    let asked = stream.read(&mut [0; 1024]);
    if asked.is_err() {
        return Ok(());
    }
    write!(stream, "HTTP/1.0 200 OK\r\n\r\n{{\"Token\": \"{token}\"}}\n")
}

fn answer(socket: UdpSocket, token: String) {
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            if let Err(error) = socket.send_to(token.as_bytes(), from) {
                eprintln!("the credential endpoint: {error}");
            }
        }
    });
}
