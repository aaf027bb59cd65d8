//! An archive digested while it is unpacked.

use roadstead_registry_client::{Digest, DigestWriter};
use std::io::{self, Read, Write as _};

/// Digests what is read through it.
#[derive(Debug)]
pub(crate) struct DigestReader<R> {
    input: R,
    digest: DigestWriter<io::Sink>,
}

impl<R: Read> DigestReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            digest: DigestWriter::new(io::sink()),
        }
    }

    /// Reads what is left, and gives the digest of the whole.
    ///
    /// # Errors
    /// When reading fails.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.digest.finish().1)
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.digest.write_all(buffer.get(..n).unwrap_or_default())?;
        Ok(n)
    }
}
