//! Parts of files as streams: a blob of the store, a member of an archive.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::sync::mpsc;

use crate::copy::BlobStream;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::store::{BLOCK, CACHED};

/// Memory of a stream is this times the queue, and what its reader holds.
const PIECE_SIZE: u64 = 256 * 1024;
const QUEUE: usize = 4;
/// The same for what comes straight from the device.
const DIRECT_PIECE_SIZE: u64 = 512 * 1024;

/// A part of a file. Several may share one file.
#[derive(Clone, Debug)]
pub(crate) struct FileSection {
    file: Arc<File>,
    /// For messages.
    path: PathBuf,
    start: u64,
    length: u64,
}

impl FileSection {
    /// Means a whole file.
    pub(crate) fn whole(file: File, path: &Path) -> Result<Self> {
        let meta = file
            .metadata()
            .map_err(|error| RegistryError::io("read", path, error))?;
        Ok(Self::part(Arc::new(file), path, 0, meta.len()))
    }

    /// Means a part, which must lie within the file.
    pub(crate) fn part(file: Arc<File>, path: &Path, start: u64, length: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            start,
            length,
        }
    }

    /// Makes sure that the part is as long as its descriptor says.
    pub(crate) fn expect_size(&self, descriptor: &Descriptor, what: impl Fn() -> String) -> Result<()> {
        if self.length == descriptor.size {
            return Ok(());
        }
        Err(RegistryError::SizeMismatch {
            what: what(),
            expected: descriptor.size,
            actual: self.length,
        })
    }

    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns where the part begins.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Reads bytes of the part from `position` on, which must lie within it.
    pub(crate) fn read_at(&self, position: u64, piece: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(piece, self.start + position)
            .map_err(|error| RegistryError::io("read", &self.path, error))
    }

    /// Reads a small part whole; `None` when it is larger than `limit` bytes.
    pub(crate) fn read_small(&self, limit: u64) -> Result<Option<Bytes>> {
        if self.length > limit {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        self.read_at(0, &mut bytes)?;
        Ok(Some(bytes.into()))
    }

    /// Reads the part on a thread of its own, a few pieces ahead.
    pub(crate) fn stream(self) -> BlobStream<'static> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut reader = Reader::new(self);
        // Not awaited: it ends with the part, or when nobody receives any more.
        drop(tokio::task::spawn_blocking(move || {
            while let Some(piece) = reader.next().transpose() {
                let is_last = piece.is_err();
                if sender.blocking_send(piece).is_err() || is_last {
                    return;
                }
            }
        }));
        Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        }))
    }

    fn piece(&self, position: u64, length: usize) -> Result<Bytes> {
        let mut piece = vec![0; length];
        self.read_at(position, &mut piece)?;
        Ok(piece.into())
    }

    /// Opens the file again, past the page cache; `None` where that cannot be.
    fn open_direct(&self) -> Option<File> {
        if !self.start.is_multiple_of(BLOCK as u64) {
            return None;
        }
        let flags = OFlags::DIRECT.bits().cast_signed();
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        File::options().read(true).custom_flags(flags).open(path).ok()
    }
}

/// Reads a part from its beginning on.
#[derive(Debug)]
pub(crate) struct Reader {
    section: FileSection,
    position: u64,
    /// The same file, past the page cache.
    direct: Option<File>,
}

impl Reader {
    pub(crate) fn new(section: FileSection) -> Self {
        Self {
            section,
            position: 0,
            direct: None,
        }
    }

    /// Has the part end later: its file has grown.
    pub(crate) fn grow(&mut self, length: u64) {
        self.section.length = length;
    }

    /// How much was read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads on; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        let (position, left) = (self.position, self.section.length.saturating_sub(self.position));
        if left == 0 {
            return Ok(None);
        }
        // What was written straight to the device is not in the page cache, and need not go there.
        if position == CACHED {
            self.direct = self.section.open_direct();
        }
        let size = if self.direct.is_some() {
            DIRECT_PIECE_SIZE
        } else {
            PIECE_SIZE
        };
        let length = usize::try_from(size.min(left)).unwrap_or(usize::MAX);
        let piece = match &self.direct {
            Some(file) => read_direct(file, self.section.start + position, length)
                .or_else(|_| self.section.piece(position, length)),
            None => self.section.piece(position, length),
        }?;
        self.position += length as u64;
        Ok(Some(piece))
    }
}

/// Reads whole blocks into memory that begins at a multiple of a block, as `O_DIRECT` wants it.
fn read_direct(file: &File, position: u64, length: usize) -> io::Result<Bytes> {
    let mut memory = vec![0; length.next_multiple_of(BLOCK) + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
    let end = start + length.next_multiple_of(BLOCK);
    let read = file.read_at(&mut memory[start..end], position)?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(memory).slice(start..start + length))
}

/// For the end of a thread that was to work for us: a panic in it, or the runtime's shutdown.
pub(crate) fn stopped(_: tokio::task::JoinError) -> RegistryError {
    RegistryError::Stopped {
        operation: "work on a file",
    }
}
