//! The shims' protocol: a byte for the kind, four for the length, then the payload.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a payload at most. Arguments and environment of a process have at most about 2 MiB, and JSON may double them.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one piece of a stream.
pub(super) const PIECE_BYTES: usize = 32 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// From the shim, first: a [`Request`].
    Request = 0,
    /// From the shim: a piece of its stdin; an empty piece is the end.
    Stdin = 1,
    /// From the runner: asks for stdin. A shim reads it only then, since it may belong to others (`while read …; do`).
    SendStdin = 2,
    /// From the runner: output.
    Stdout = 3,
    /// From the runner: output.
    Stderr = 4,
    /// From the runner, last: the exit status in one byte.
    Exit = 5,
}

impl Kind {
    fn of(byte: u8) -> io::Result<Self> {
        let kinds = [
            Self::Request,
            Self::Stdin,
            Self::SendStdin,
            Self::Stdout,
            Self::Stderr,
            Self::Exit,
        ];
        let kind = kinds.get(usize::from(byte)).copied();
        kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown kind of frame"))
    }
}

/// What a shim was called with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The name it was called by.
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) directory: String,
    pub(super) environment: BTreeMap<String, String>,
}

/// A frame's bytes.
pub(super) fn encode(kind: Kind, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_BYTES);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "arguments and environment too large"))?;
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

fn decode_head(head: [u8; 5]) -> io::Result<(Kind, usize)> {
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "frame too large"))?;
    Ok((Kind::of(head[0])?, length))
}

/// Writes a frame.
pub(super) fn write(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    to.write_all(&encode(kind, payload)?)
}

/// Reads a frame.
pub(super) fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let (kind, length) = decode_head(head)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok((kind, payload))
}

/// Reads a frame without blocking the thread.
pub(super) async fn read_async(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let (kind, length) = decode_head(head)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_back(payload in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6) {
            let kind = Kind::of(kind).unwrap();
            let bytes = encode(kind, &payload).unwrap();
            prop_assert_eq!(read(&mut bytes.as_slice()).unwrap(), (kind, payload));
            for cut in 0..bytes.len() {
                prop_assert!(read(&mut &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_frame(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, payload)) = read(&mut bytes.as_slice()) {
                prop_assert!(payload.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_allocates_nothing() {
        read(&mut [0_u8, 255, 255, 255, 255].as_slice()).unwrap_err();
    }
}
