//! Compression in fixed-size blocks on several threads: bytes that never depend on the number of threads, bounded memory.
//!
//! Gzip is one member, which is all that some readers look at. Zstandard is a frame a block: every reader takes frames one after the other.

use super::compression::Compression;
use super::deflate::make_joinable;
use flate2::Crc;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Input bytes of a block of gzip. Changing it changes every layer's digest.
pub(super) const BLOCK: usize = 1 << 20;
/// The same of zstd, which looks further back.
pub(super) const ZSTD_BLOCK: usize = 2 << 20;
/// Input of all blocks under way, in bytes.
const IN_FLIGHT: usize = 24 << 20;

struct Job {
    input: Vec<u8>,
    output: SyncSender<(Vec<u8>, Vec<u8>)>,
}

type Pending = Receiver<(Vec<u8>, Vec<u8>)>;

/// Compresses what is written and passes it on to `W`.
#[derive(Debug)]
pub enum Compressor<W: Write> {
    /// As it is.
    Plain(W),
    /// In blocks.
    Blocks(Box<Blocks<W>>),
}

impl<W: Write> Compressor<W> {
    /// Begins with `threads` workers.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(out: W, compression: Compression, threads: usize) -> io::Result<Self> {
        Ok(match compression {
            Compression::Uncompressed => Self::Plain(out),
            Compression::Gzip(level) => Self::Blocks(Box::new(Blocks::new(out, Codec::Gzip(level), threads)?)),
            Compression::Zstd(level) => {
                // The high levels keep tens of MiB a thread.
                let threads = if level > 16 { threads.min(2) } else { threads };
                Self::Blocks(Box::new(Blocks::new(out, Codec::Zstd(level), threads)?))
            }
        })
    }

    /// Writes what is left; gives `W` back.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Blocks(blocks) => blocks.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Blocks(blocks) => blocks.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What makes blocks smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Gzip(i32),
    Zstd(i32),
}

impl Codec {
    fn block(self) -> usize {
        match self {
            Self::Gzip(_) => BLOCK,
            Self::Zstd(_) => ZSTD_BLOCK,
        }
    }
}

/// Blocks on their way through the workers, and on in order.
#[derive(Debug)]
pub struct Blocks<W: Write> {
    out: W,
    codec: Codec,
    block: Vec<u8>,
    spare: Vec<Vec<u8>>,
    pending: VecDeque<Pending>,
    most: usize,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    crc: Crc,
    length: u32,
    /// Whether a block was sent: an empty archive is a frame, too.
    begun: bool,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("input", &self.input.len())
            .finish_non_exhaustive()
    }
}

impl<W: Write> Blocks<W> {
    fn new(mut out: W, codec: Codec, threads: usize) -> io::Result<Self> {
        if let Codec::Gzip(_) = codec {
            // No name, no time, operating system unknown: nothing of the machine.
            out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        }
        let threads = threads.max(1);
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || work(&queue, codec))
            })
            .collect();
        Ok(Self {
            out,
            codec,
            block: Vec::with_capacity(codec.block()),
            spare: Vec::new(),
            pending: VecDeque::new(),
            most: (threads * 2).min(IN_FLIGHT / codec.block()),
            jobs: Some(jobs),
            workers,
            crc: Crc::new(),
            length: 0,
            begun: false,
        })
    }

    fn dispatch(&mut self) -> io::Result<()> {
        let next = self
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(self.codec.block()));
        let input = std::mem::replace(&mut self.block, next);
        let (output, result) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(lost)?;
        jobs.send(Job { input, output }).map_err(|_| lost())?;
        self.begun = true;
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

    fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || (!self.begun && matches!(self.codec, Codec::Zstd(_))) {
            self.dispatch()?;
        }
        while !self.pending.is_empty() {
            self.collect()?;
        }
        drop(self.jobs.take());
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| lost())?;
        }
        if let Codec::Gzip(_) = self.codec {
            // An empty last block, then CRC and length.
            self.out.write_all(&[0x03, 0x00])?;
            self.out.write_all(&self.crc.sum().to_le_bytes())?;
            self.out.write_all(&self.length.to_le_bytes())?;
        }
        Ok(self.out)
    }
}

fn lost() -> io::Error {
    io::Error::other("a compression thread ended early")
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(self.codec.block() - self.block.len());
        let (now, _) = bytes.split_at(take);
        if let Codec::Gzip(_) = self.codec {
            self.crc.update(now);
        }
        // The trailer holds the length modulo 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "take is at most one block")]
        let counted = take as u32;
        self.length = self.length.wrapping_add(counted);
        self.block.extend_from_slice(now);
        if self.block.len() == self.codec.block() {
            self.dispatch()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>, codec: Codec) {
    let Some(mut worker) = Worker::new(codec) else { return };
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok(Job { input, output }) = job else { return };
        let Some(compressed) = worker.compress(&input) else {
            return;
        };
        // The writer may have given up; then nobody wants the block.
        drop(output.send((input, compressed)));
    }
}

/// The state that one thread keeps from block to block.
enum Worker {
    Gzip(Box<libdeflater::Compressor>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Worker {
    fn new(codec: Codec) -> Option<Self> {
        Some(match codec {
            Codec::Gzip(level) => {
                let level = libdeflater::CompressionLvl::new(level).ok()?;
                Self::Gzip(Box::new(libdeflater::Compressor::new(level)))
            }
            Codec::Zstd(level) => Self::Zstd(zstd::bulk::Compressor::new(level).ok()?),
        })
    }

    fn compress(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Gzip(deflate) => compress_block(deflate, input),
            Self::Zstd(frame) => frame.compress(input).ok(),
        }
    }
}

/// Deflates one block by itself and ends it on a byte boundary.
fn compress_block(deflate: &mut libdeflater::Compressor, input: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; deflate.deflate_compress_bound(input.len())];
    let size = deflate.deflate_compress(input, &mut out).ok()?;
    out.truncate(size);
    make_joinable(&mut out)?;
    Some(out)
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

    fn compress(bytes: &[u8], compression: Compression, threads: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression, threads).unwrap();
        compressor.write_all(bytes).unwrap();
        compressor.finish().unwrap()
    }

    #[test]
    fn gzip_is_one_member_at_every_size() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let bytes = sample(size);
            for level in [0, 1, 3, 9] {
                let packed = compress(&bytes, Compression::Gzip(level), 2);
                let mut out = Vec::new();
                // GzDecoder reads one member only.
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out).unwrap();
                assert!(out == bytes, "size {size}, level {level}");
            }
        }
    }

    #[test]
    fn zstd_comes_back_at_every_size() {
        for size in [0, 1, ZSTD_BLOCK, ZSTD_BLOCK + 1, 2 * ZSTD_BLOCK + 17] {
            let bytes = sample(size);
            for level in [1, 3] {
                let packed = compress(&bytes, Compression::Zstd(level), 2);
                assert!(
                    zstd::decode_all(&packed[..]).unwrap() == bytes,
                    "size {size}, level {level}"
                );
                assert!(!packed.is_empty());
            }
        }
    }

    #[test]
    fn bytes_do_not_depend_on_threads() {
        let bytes = sample(3 * ZSTD_BLOCK + 3);
        for compression in [
            Compression::default(),
            Compression::Zstd(3),
            Compression::Zstd(9),
            Compression::Uncompressed,
        ] {
            let one = compress(&bytes, compression, 1);
            assert!(one == compress(&bytes, compression, 2), "{compression}");
            assert!(one == compress(&bytes, compression, 7), "{compression}");
        }
    }
}
