//! A file that is written once, from front to end, and then made durable.
//!
//! What goes through the page cache is copied there, and copied out of it again when the file is made durable; on a machine
//! of few cores that takes longer than the device does. The beginning of a file goes that way nevertheless, for most files
//! are small and read again at once. The rest of a large one goes straight to the device (`O_DIRECT`, open(2)).

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Where a file begins to be a large one. A multiple of every size that is written or read at once.
pub(crate) const CACHED: u64 = 128 * 1024 * 1024;
const CACHED_BUFFER: usize = 128 * 1024;
const DIRECT_BUFFER: usize = 1024 * 1024;
/// Memory and positions of direct writes are multiples of this; devices of larger blocks are not in use.
pub(crate) const BLOCK: usize = 4096;

/// Gathers writes into full buffers, so that positions and sizes stay multiples of a block up to the file's end.
pub(crate) struct ContentFile {
    file: File,
    way: Way,
    buffer: Buffer,
    /// Bytes in the file, without those in the buffer.
    written: u64,
    /// Where the file begins to be a large one.
    cached: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the page cache, until the file is a large one.
    Cached,
    /// Straight to the device.
    Direct,
    /// Through the page cache to the end: the file system has no other way.
    CachedOnly,
}

impl ContentFile {
    pub(crate) fn new(file: File) -> Self {
        Self::with_cached(file, CACHED)
    }

    fn with_cached(file: File, cached: u64) -> Self {
        Self {
            file,
            way: Way::Cached,
            buffer: Buffer::new(CACHED_BUFFER),
            written: 0,
            cached,
        }
    }

    /// Bytes that lie in the file.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes the rest out, and returns the file. It is not durable yet.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        self.leave_direct()?;
        self.file.write_all(self.buffer.filled())?;
        Ok(self.file)
    }

    /// Makes room in a full buffer.
    fn empty(&mut self) -> io::Result<()> {
        let mut done = 0;
        while done < self.buffer.filled().len() {
            match self.file.write(&self.buffer.filled()[done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    done += count;
                    // The rest of a write that was cut short is no direct write any more.
                    if !done.is_multiple_of(BLOCK) {
                        self.leave_direct()?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Direct writes were agreed to, but not of this shape.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.way == Way::Direct => {
                    self.leave_direct()?;
                }
                Err(error) => return Err(error),
            }
        }
        self.written += done as u64;
        self.buffer.clear();
        if self.way == Way::Cached && self.written >= self.cached {
            self.enter_direct()?;
        }
        Ok(())
    }

    fn enter_direct(&mut self) -> io::Result<()> {
        let flags = fcntl_getfl(&self.file)?;
        self.way = match fcntl_setfl(&self.file, flags | OFlags::DIRECT) {
            Ok(()) => Way::Direct,
            Err(_) => Way::CachedOnly,
        };
        if self.way == Way::Direct {
            self.buffer = Buffer::new(DIRECT_BUFFER);
        }
        Ok(())
    }

    fn leave_direct(&mut self) -> io::Result<()> {
        if self.way == Way::Direct {
            let flags = fcntl_getfl(&self.file)?;
            fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
            self.way = Way::CachedOnly;
        }
        Ok(())
    }
}

impl Write for ContentFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.buffer.take(bytes);
        if self.buffer.is_full() {
            self.empty()?;
        }
        Ok(taken)
    }

    /// What is in the buffer stays there: a file that is not finished is of no use to anybody.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory that begins at a multiple of a block.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        let memory = vec![0; size + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self {
            memory,
            start,
            filled: 0,
        }
    }

    fn size(&self) -> usize {
        self.memory.len() - BLOCK
    }

    fn is_full(&self) -> bool {
        self.filled == self.size()
    }

    /// Takes as much as there is room for.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.size() - self.filled);
        let from = self.start + self.filled;
        self.memory[from..from + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        count
    }

    fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.filled]
    }

    fn clear(&mut self) {
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    const SMALL: u64 = CACHED_BUFFER as u64;

    fn content(size: usize) -> Vec<u8> {
        (0..=250u8).cycle().take(size).collect()
    }

    fn written(name: &str, size: usize, piece: usize) -> (Vec<u8>, Way) {
        let dir = TestDir::new(name);
        let path = dir.path().join("file");
        let mut file = ContentFile::with_cached(File::create(&path).unwrap(), SMALL);
        for piece in content(size).chunks(piece) {
            file.write_all(piece).unwrap();
        }
        let way = file.way;
        let flags = fcntl_getfl(file.finish().unwrap()).unwrap();
        assert!(
            !flags.contains(OFlags::DIRECT),
            "the file's end is written through the page cache"
        );
        (std::fs::read(&path).unwrap(), way)
    }

    #[test]
    fn what_is_written_is_read_whatever_its_size_and_pieces() {
        let sizes = [
            0,
            1,
            CACHED_BUFFER,
            CACHED_BUFFER + 1,
            3 * DIRECT_BUFFER + CACHED_BUFFER,
            5_000_001,
        ];
        for size in sizes {
            for piece in [1000, 4096, 300_000] {
                let (read, _) = written("content-file", size, piece);
                assert!(read == content(size), "{size} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_small_file_stays_in_the_page_cache() {
        assert_eq!(written("content-small", CACHED_BUFFER - 1, 1000).1, Way::Cached);
        assert_ne!(written("content-large", CACHED_BUFFER, 1000).1, Way::Cached);
    }

    #[test]
    fn a_device_that_takes_no_such_write_gets_the_rest_another_way() {
        let dir = TestDir::new("content-refused");
        let path = dir.path().join("file");
        let mut file = ContentFile::with_cached(File::create(&path).unwrap(), SMALL);
        file.write_all(&content(CACHED_BUFFER)).unwrap();
        if file.way == Way::Direct {
            // Off by one: no file system writes from there.
            file.buffer.start = if file.buffer.start == 0 {
                1
            } else {
                file.buffer.start - 1
            };
            file.write_all(&content(DIRECT_BUFFER)).unwrap();
            assert_eq!(file.way, Way::CachedOnly);
            file.finish().unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), SMALL + DIRECT_BUFFER as u64);
        }
    }
}
