//! Bounds of one layer or archive: what unpacks without end must not fill the disk.

use std::io::{self, Read};

/// How large a layer or an archive may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its files.
    pub bytes: u64,
    /// Entries of any kind.
    pub files: u64,
}

impl Default for Limits {
    /// Ten times the largest images seen; a gzip bomb of 100 MiB gives 100 GiB.
    fn default() -> Self {
        Self {
            bytes: 100 << 30,
            files: 20_000_000,
        }
    }
}

impl Limits {
    /// No bounds, for what has been bounded before.
    pub const NONE: Self = Self {
        bytes: u64::MAX,
        files: u64::MAX,
    };

    /// Bounds a stream of headers, names and padding besides the files: a tar can go on without a single file.
    pub(super) fn stream<R: Read>(&self, input: R) -> Bounded<R> {
        Bounded {
            input,
            left: self.bytes.saturating_mul(2).saturating_add(SLACK),
            limit: self.bytes,
        }
    }
}

/// Bytes of a tar that even the smallest limit leaves for what is not content.
const SLACK: u64 = 16 << 20;

/// Tells which bound was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Too many bytes.
    #[error("more than {0} bytes")]
    Bytes(u64),
    /// Too many entries.
    #[error("more than {0} files")]
    Files(u64),
}

impl Exceeded {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let flag = match self {
            Self::Bytes(_) => "--max-layer-size",
            Self::Files(_) => "--max-files",
        };
        format!("raise the limit by `{flag}` if it is meant to be this large")
    }
}

/// Counts what a layer or an archive holds.
#[derive(Debug)]
pub struct Counter {
    limits: Limits,
    bytes: u64,
    files: u64,
}

impl Counter {
    /// Begins at nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            files: 0,
        }
    }

    /// Counts an entry with `bytes` of content.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn add(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.files > self.limits.files {
            return Err(Exceeded::Files(self.limits.files));
        }
        if self.bytes > self.limits.bytes {
            return Err(Exceeded::Bytes(self.limits.bytes));
        }
        Ok(())
    }
}

/// A stream that fails, rather than ends, behind its bound: an end would look like a damaged archive.
#[derive(Debug)]
pub struct Bounded<R> {
    input: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other(Exceeded::Bytes(self.limit)))?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_that_fits_is_taken() {
        let limits = Limits { bytes: 10, files: 2 };
        let mut counter = Counter::new(limits);
        counter.add(10).unwrap();
        counter.add(0).unwrap();
        assert_eq!(counter.add(0).unwrap_err().to_string(), "more than 2 files");
        let error = Counter::new(limits).add(11).unwrap_err();
        assert_eq!(error.to_string(), "more than 10 bytes");
        assert!(error.hint().contains("--max-layer-size"));
        assert_eq!(Counter::new(Limits::NONE).add(u64::MAX), Ok(()));
    }

    #[test]
    fn streams_fail_behind_their_bound() {
        let limits = Limits { bytes: 1, files: 1 };
        let whole = SLACK + 2;
        assert_eq!(
            io::copy(&mut limits.stream(io::repeat(0).take(whole)), &mut io::sink()).unwrap(),
            whole
        );
        let error = io::copy(&mut limits.stream(io::repeat(0)), &mut io::sink()).unwrap_err();
        assert!(error.get_ref().unwrap().is::<Exceeded>());
    }
}
