//! As much of HTTP as is needed to ask a server on this machine.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::{Result, TaskError};

const LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Asks a server on 127.0.0.1 for a path; returns the status and the body.
///
/// HTTP/1.0, so the body ends with the connection and comes in no chunks.
pub(crate) fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let failed = |error: std::io::Error| TaskError::new(format!("cannot get http://127.0.0.1:{port}{path}: {error}"));
    let mut stream =
        TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(2)).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").map_err(failed)?;
    let mut bytes = Vec::new();
    stream.take(LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    parse(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| TaskError::new(format!("http://127.0.0.1:{port}{path} gave what is no HTTP answer")))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.get(..3)?;
    Some((status.parse().ok()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = "HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nnothing\r\n\r\nhere";
        assert_eq!(parse(answer), Some((404, "nothing\r\n\r\nhere".to_owned())));
        for broken in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 \r\n\r\n", "SSH-2.0\r\n\r\n"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
