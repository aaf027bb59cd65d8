//! Gzip in fixed-size blocks on several threads: one member, bytes that never depend on the number of threads, bounded memory.

use flate2::{Compress, Compression, Crc, FlushCompress};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Input bytes a block. Changing it changes every layer's digest: it is part of [`COMPRESSOR`].
const BLOCK: usize = 512 << 10;

/// Deflate level. `docs/benchmarks.md` has the measurement behind it.
const LEVEL: u32 = 3;

/// Names the compressor, its blocks and its level, for cache keys: other bytes come out when any of them changes.
pub const COMPRESSOR: &str = "gzip/zlib-rs/level-3/block-512k/1";

struct Job {
    input: Vec<u8>,
    output: SyncSender<(Vec<u8>, Vec<u8>)>,
}

type Pending = Receiver<(Vec<u8>, Vec<u8>)>;

/// Compresses what is written and passes it on to `W` in order.
#[derive(Debug)]
pub struct Gzip<W: Write> {
    out: W,
    block: Vec<u8>,
    spare: Vec<Vec<u8>>,
    pending: VecDeque<Pending>,
    most: usize,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    crc: Crc,
    length: u32,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("input", &self.input.len())
            .finish_non_exhaustive()
    }
}

impl<W: Write> Gzip<W> {
    /// Begins a gzip member with `threads` workers.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(mut out: W, threads: usize) -> io::Result<Self> {
        // No name, no time, operating system unknown: nothing of the machine.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        let threads = threads.max(1);
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || work(&queue))
            })
            .collect();
        Ok(Self {
            out,
            block: Vec::with_capacity(BLOCK),
            spare: Vec::new(),
            pending: VecDeque::new(),
            most: threads * 2,
            jobs: Some(jobs),
            workers,
            crc: Crc::new(),
            length: 0,
        })
    }

    fn dispatch(&mut self) -> io::Result<()> {
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
        let input = std::mem::replace(&mut self.block, next);
        let (output, result) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(lost)?;
        jobs.send(Job { input, output }).map_err(|_| lost())?;
        self.pending.push_back(result);
        if self.pending.len() > self.most {
            self.collect()
        } else {
            Ok(())
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        let Some(pending) = self.pending.pop_front() else {
            return Ok(());
        };
        let (mut input, output) = pending.recv().map_err(|_| lost())?;
        self.out.write_all(&output)?;
        input.clear();
        self.spare.push(input);
        Ok(())
    }

    /// Writes what is left and the trailer; gives `W` back.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.dispatch()?;
        }
        while !self.pending.is_empty() {
            self.collect()?;
        }
        drop(self.jobs.take());
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| lost())?;
        }
        // An empty last block, then CRC and length.
        self.out.write_all(&[0x03, 0x00])?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.length.to_le_bytes())?;
        Ok(self.out)
    }
}

fn lost() -> io::Error {
    io::Error::other("a compression thread ended early")
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(BLOCK - self.block.len());
        let (now, _) = bytes.split_at(take);
        self.crc.update(now);
        // The trailer holds the length modulo 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "take is at most one block")]
        let counted = take as u32;
        self.length = self.length.wrapping_add(counted);
        self.block.extend_from_slice(now);
        if self.block.len() == BLOCK {
            self.dispatch()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok(Job { input, output }) = job else { return };
        let Some(compressed) = compress_block(&mut deflate, &input) else {
            return;
        };
        // The writer may have given up; then nobody wants the block.
        drop(output.send((input, compressed)));
    }
}

/// Deflates one block by itself and ends it on a byte boundary (sync flush).
fn compress_block(deflate: &mut Compress, input: &[u8]) -> Option<Vec<u8>> {
    deflate.reset();
    let mut out = Vec::with_capacity(input.len() / 2 + 4096);
    loop {
        let read = usize::try_from(deflate.total_in()).ok()?;
        let room = out.capacity() - out.len();
        deflate
            .compress_vec(input.get(read..)?, &mut out, FlushCompress::Sync)
            .ok()?;
        let consumed = usize::try_from(deflate.total_in()).ok()? == input.len();
        // Room left over after all input is taken means that the flush is complete.
        if consumed && out.len() < out.capacity() && room > 0 {
            return Some(out);
        }
        out.reserve(input.len() / 4 + 4096);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn sample(size: usize) -> Vec<u8> {
        let mut state = 7u32;
        (0..size)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 3 == 0 { state.to_be_bytes()[0] } else { b'x' }
            })
            .collect()
    }

    fn compress(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new(), threads).unwrap();
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn round_trip_in_one_member_at_every_size() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let bytes = sample(size);
            let packed = compress(&bytes, 2);
            let mut out = Vec::new();
            // GzDecoder reads one member only.
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out).unwrap();
            assert!(out == bytes, "size {size}");
        }
    }

    #[test]
    fn bytes_do_not_depend_on_threads() {
        let bytes = sample(5 * BLOCK + 3);
        assert!(compress(&bytes, 1) == compress(&bytes, 2));
        assert!(compress(&bytes, 1) == compress(&bytes, 7));
    }
}
