//! Reading ahead on a thread of its own: one decompresses while another one makes files of what it has given.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes passed on at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait to be read, at most.
const PIECES: usize = 8;

/// What another thread reads. Gives the bytes, and the failure, in their order.
#[derive(Debug)]
pub(crate) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
}

/// Does `work` with what is read from `input` meanwhile.
pub(crate) fn read_ahead<T>(input: impl Read + Send, work: impl FnOnce(Ahead) -> T) -> T {
    let (send, pieces) = sync_channel(PIECES);
    std::thread::scope(|scope| {
        scope.spawn(move || pass_on(input, &send));
        work(Ahead {
            pieces,
            piece: Vec::new(),
            taken: 0,
        })
    })
}

/// Reads until the end, a failure, or nobody wants to know more.
fn pass_on(mut input: impl Read, send: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = input.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_last = piece.len() < PIECE;
        // What was read before the failure comes first.
        if send.send(Ok(piece)).is_err() {
            return;
        }
        if let Err(error) = read {
            // Whoever has gone does not miss it.
            drop(send.send(Err(error)));
            return;
        }
        if is_last {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.taken) = (piece?, 0),
                // The other thread has given everything.
                Err(_) => return Ok(0),
            }
        }
        let n = (&self.piece[self.taken..]).read(buffer)?;
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, then fails.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.min(buffer.len());
            if n == 0 {
                return Err(io::Error::other("broken"));
            }
            buffer[..n].fill(7);
            self.0 -= n;
            Ok(n)
        }
    }

    #[test]
    fn everything_comes_and_then_the_failure() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            let read = read_ahead(&bytes[..], |mut ahead| {
                let mut read = Vec::new();
                ahead.read_to_end(&mut read).map(|_| read)
            });
            assert!(read.unwrap() == bytes, "{size}");
            let mut read = Vec::new();
            let result = read_ahead(Failing(size), |mut ahead| ahead.read_to_end(&mut read));
            assert_eq!((read.len(), result.unwrap_err().to_string().as_str()), (size, "broken"));
        }
    }

    #[test]
    fn who_stops_early_ends_the_other() {
        let first = read_ahead(io::repeat(1), |mut ahead| {
            let mut byte = [0];
            ahead.read_exact(&mut byte).map(|()| byte[0])
        });
        assert_eq!(first.unwrap(), 1);
    }
}
