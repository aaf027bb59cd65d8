//! Sparse entries of archives: files whose holes the archive leaves out. GNU's old form has the places of the data in headers, its
//! newer forms in PAX records or before the data.
//!
//! Source: the manual of GNU tar, "Sparse Formats".

use std::io::{self, Read};

/// Most stretches of data in one file.
const MAX_STRETCHES: usize = 1 << 20;
/// Bytes of a block, of one place in a header, and of a number in it.
const BLOCK: usize = 512;
const PLACE: usize = 24;
const NUMBER: usize = 12;

/// Where the data of a sparse file lies, and how long the file is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sparse {
    /// Offset and length of each stretch, in order and apart.
    pub stretches: Vec<(u64, u64)>,
    /// Bytes of the whole file.
    pub size: u64,
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the places of a sparse file's data are malformed",
    )
}

impl Sparse {
    /// Takes a stretch. One of length 0 only marks the end.
    fn push(&mut self, offset: u64, length: u64) -> io::Result<()> {
        if self.stretches.len() == MAX_STRETCHES {
            return Err(damaged());
        }
        self.stretches.push((offset, length));
        Ok(())
    }

    /// Checks that the stretches are in order, apart and within the file, and that they are all the archive holds.
    pub(super) fn checked(self, stored: u64) -> io::Result<Self> {
        let mut end = 0u64;
        let mut total = 0u64;
        for (offset, length) in &self.stretches {
            let stop = offset.checked_add(*length).ok_or_else(damaged)?;
            if *offset < end || stop > self.size {
                return Err(damaged());
            }
            (end, total) = (stop, total + length);
        }
        if total == stored { Ok(self) } else { Err(damaged()) }
    }

    /// Reads GNU's old form: four places and the real size in the header, 21 more places in each block that follows.
    pub(super) fn old_gnu(header: &[u8; BLOCK], mut next: impl FnMut() -> io::Result<[u8; BLOCK]>) -> io::Result<Self> {
        let mut sparse = Self {
            size: octal(&header[483..495])?,
            ..Self::default()
        };
        sparse.places(&header[386..386 + 4 * PLACE])?;
        let mut more = header[482] != 0;
        while more {
            let block = next()?;
            sparse.places(&block[..21 * PLACE])?;
            more = block[504] != 0;
        }
        Ok(sparse)
    }

    fn places(&mut self, bytes: &[u8]) -> io::Result<()> {
        for place in bytes.chunks_exact(PLACE) {
            if place[0] == 0 {
                break;
            }
            self.push(octal(&place[..NUMBER])?, octal(&place[NUMBER..])?)?;
        }
        Ok(())
    }

    /// Reads the list of the forms 0.0 and 0.1: offsets and lengths in turns.
    pub(super) fn listed(numbers: &[u64], size: u64) -> io::Result<Self> {
        let mut sparse = Self {
            size,
            ..Self::default()
        };
        for pair in numbers.chunks(2) {
            let [offset, length] = pair else { return Err(damaged()) };
            sparse.push(*offset, *length)?;
        }
        Ok(sparse)
    }

    /// Reads form 1.0: the list stands before the data, a number a line, filled up to whole blocks. Gives also the bytes it took.
    pub(super) fn before_data(mut data: impl Read, size: u64) -> io::Result<(Self, u64)> {
        let mut taken = 0u64;
        let mut block = [0u8; BLOCK];
        let mut at = BLOCK;
        let mut number = || -> io::Result<u64> {
            let mut value = 0u64;
            loop {
                if at == BLOCK {
                    data.read_exact(&mut block)?;
                    (at, taken) = (0, taken + BLOCK as u64);
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'\n' => return Ok(value),
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        value = value
                            .checked_mul(10)
                            .and_then(|v| v.checked_add(digit))
                            .ok_or_else(damaged)?;
                    }
                    _ => return Err(damaged()),
                }
            }
        };
        let count = number()?;
        let mut sparse = Self {
            size,
            ..Self::default()
        };
        for _ in 0..count {
            let (offset, length) = (number()?, number()?);
            sparse.push(offset, length)?;
        }
        Ok((sparse, taken))
    }
}

/// Reads a number of a header: octal digits, or 256-based when the first bit is set.
fn octal(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let (low, high) = (field.len() - 8, &field[1..field.len() - 8]);
        if field[0] != 0x80 || high.iter().any(|byte| *byte != 0) {
            return Err(damaged());
        }
        return Ok(field[low..]
            .iter()
            .fold(0, |value, byte| (value << 8) | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).map_err(|_| damaged())?;
    let text = text.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_before_the_data() {
        let mut bytes = b"2\n0\n3\n100\n2\n".to_vec();
        bytes.resize(512, 0);
        bytes.extend(b"abcde");
        let (sparse, taken) = Sparse::before_data(&bytes[..], 200).unwrap();
        assert_eq!((sparse.stretches.as_slice(), taken), (&[(0, 3), (100, 2)][..], 512));
        assert_eq!(sparse.clone().checked(5).unwrap().size, 200);
        sparse.checked(6).unwrap_err();
        for bad in [&b"2\n0\n"[..], b"x\n", b"99999999999999999999999\n"] {
            Sparse::before_data(bad, 1).unwrap_err();
        }
    }

    #[test]
    fn what_overlaps_or_leaves_the_file_is_malformed() {
        for (numbers, size, stored) in [
            (&[0, 3, 2, 2][..], 10, 5),
            (&[8, 3], 10, 3),
            (&[u64::MAX, 2], 10, 2),
            (&[5, 1, 0, 1], 10, 2),
        ] {
            Sparse::listed(numbers, size).unwrap().checked(stored).unwrap_err();
        }
        Sparse::listed(&[1, 2, 3], 10).unwrap_err();
    }
}
