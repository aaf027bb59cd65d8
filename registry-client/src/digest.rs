//! Content digests: `sha256:` and 64 hex digits.
//!
//! SHA-256 stays behind this module, so that the implementation can be exchanged in one place.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::{RegistryError, Result};

const ALGORITHM: &str = "sha256";
const HEX_LENGTH: usize = 64;

/// Names content by its SHA-256. Displays as `sha256:<64 lower-case hex digits>`.
///
/// The hex part is checked when the value is made, so it is always safe as a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    hex: Box<str>,
}

impl Digest {
    /// Hashes a byte slice.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a raw SHA-256 value.
    #[must_use]
    pub fn from_sha256(raw: [u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(HEX_LENGTH);
        for byte in raw {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        Self {
            hex: hex.into_boxed_str(),
        }
    }

    /// Returns the hex digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns the algorithm's name, today always `sha256`.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        ALGORITHM
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self> {
        let reject = |reason| RegistryError::InvalidDigest {
            text: shorten(text),
            reason,
        };
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| reject("no algorithm in front of a colon"))?;
        if algorithm != ALGORITHM {
            return Err(reject("only sha256 is supported"));
        }
        if hex.len() != HEX_LENGTH || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(reject("a sha256 has 64 lower-case hex digits"));
        }
        Ok(Self { hex: hex.into() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Shortens hostile text so that a message stays readable.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 200;
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match clean.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// Hashes and counts what is written through it.
pub struct DigestWriter<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W> fmt::Debug for DigestWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestWriter")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<W: io::Write> DigestWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            written: 0,
        }
    }

    /// Returns how many bytes have passed.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns the inner writer, the digest and the number of bytes. Does not flush.
    pub fn finish(self) -> (W, Digest, u64) {
        (
            self.inner,
            Digest::from_sha256(self.hash.finalize().into()),
            self.written,
        )
    }
}

impl<W: io::Write> io::Write for DigestWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const OF_ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_the_standard_vector() {
        assert_eq!(Digest::of(b"abc").to_string(), OF_ABC);
        assert_eq!(OF_ABC.parse::<Digest>().unwrap(), Digest::of(b"abc"));
    }

    #[test]
    fn writer_counts_and_hashes_what_passed() {
        let mut writer = DigestWriter::new(Vec::new());
        writer.write_all(b"a").unwrap();
        writer.write_all(b"bc").unwrap();
        let (bytes, digest, count) = writer.finish();
        assert_eq!(
            (bytes.as_slice(), digest.to_string().as_str(), count),
            (b"abc".as_slice(), OF_ABC, 3)
        );
    }

    #[test]
    fn refuses_what_is_not_a_sha256() {
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:ba78",
            "md5:900150983cd24fb0d6963f7d28e17f72",
            "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
            "sha256:../../../../../../../../../../../../../../../../../../etc/passwd0000",
        ] {
            let error = text.parse::<Digest>().unwrap_err();
            assert!(matches!(error, RegistryError::InvalidDigest { .. }), "{text}");
        }
    }

    #[test]
    fn long_hostile_text_is_shortened_in_the_message() {
        let message = "x\u{1b}[31m".repeat(1000).parse::<Digest>().unwrap_err().to_string();
        assert!(message.len() < 400 && !message.contains('\u{1b}'), "{message}");
    }
}
