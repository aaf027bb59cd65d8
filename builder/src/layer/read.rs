//! Tar entries out of hostile bytes, by Go's rules where readers differ, since Go programs read the same layers: PAX records beat the
//! header, links and directories have no content, whatever their size field says.

use super::sparse::Sparse;
use crate::beneath::{Xattr, kept_xattr};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use tar::{EntryType, Header};

/// Largest entry that can be counted; the caller's limits are lower.
const MAX_ENTRY: u64 = 1 << 62;

/// Largest block of PAX records or GNU long name read: Go's bound.
const MAX_SPECIAL: u64 = 1 << 20;

/// All such blocks before one entry.
const MAX_SPECIALS: u64 = 4 * MAX_SPECIAL;

/// One entry, its names and numbers resolved.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path as the archive has it.
    pub path: Vec<u8>,
    /// Target of a link; empty when there is none.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Bytes of content that follow.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// User id.
    pub uid: u64,
    /// Group id.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Extended attributes that belong in an image.
    pub xattrs: Vec<Xattr>,
    /// Where the content belongs, when the archive leaves out holes.
    pub sparse: Option<Sparse>,
}

/// Reads entries one after the other.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Content of the current entry not read yet, and the padding behind it.
    content: u64,
    padding: u64,
}

#[derive(Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<Xattr>,
    sparse: SparseRecords,
}

/// What PAX records say of a sparse file.
#[derive(Debug, Default)]
struct SparseRecords {
    major: u64,
    /// Offsets and lengths in turns (forms 0.0 and 0.1).
    numbers: Vec<u64>,
    size: Option<u64>,
    name: Option<Vec<u8>>,
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl<R: Read> TarReader<R> {
    /// Begins at the start of an uncompressed archive.
    pub fn new(input: R) -> Self {
        Self {
            input,
            content: 0,
            padding: 0,
        }
    }

    /// Skips what is left of the current entry and reads the next one; `None` at the end.
    ///
    /// # Errors
    /// Bytes that are no tar, and an archive cut short.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut overrides = Overrides::default();
        let mut special = 0u64;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header, 124..136, Header::entry_size)?;
            special = special.saturating_add(size);
            if special > MAX_SPECIALS && is_special(&header) {
                return Err(damaged("the names and attributes before an entry are too large"));
            }
            match header.entry_type() {
                EntryType::XHeader => overrides.pax(&self.special(size)?)?,
                EntryType::XGlobalHeader => drop(self.special(size)?),
                EntryType::GNULongName => overrides.path = Some(text(self.special(size)?)),
                EntryType::GNULongLink => overrides.link = Some(text(self.special(size)?)),
                EntryType::GNUSparse => {
                    let sparse = Sparse::old_gnu(header.as_bytes(), || {
                        let mut block = [0; 512];
                        self.input.read_exact(&mut block)?;
                        Ok(block)
                    })?;
                    let mut entry = self.entry(&header, size, overrides)?;
                    entry.sparse = Some(sparse.checked(entry.size)?);
                    return Ok(Some(entry));
                }
                _ => return self.entry(&header, size, overrides).map(Some),
            }
        }
    }

    /// The content of the current entry.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Gives the input back, to read what follows the end of the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let rest = self.content + self.padding;
        if io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())? != rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.content, self.padding) = (0, 0);
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < 512 {
            let n = self.input.read(&mut header.as_mut_bytes()[filled..])?;
            if n == 0 {
                // Some writers leave the end mark out.
                return if filled == 0 {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            filled += n;
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes().iter().enumerate();
        let sum: u32 = bytes
            .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum()? != sum {
            return Err(damaged("the checksum of an entry's header is wrong"));
        }
        Ok(Some(header))
    }

    fn special(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_SPECIAL {
            return Err(damaged(format!(
                "a name or attribute block of {size} bytes is too large"
            )));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn begin(&mut self, size: u64) {
        self.content = size;
        self.padding = (512 - size % 512) % 512;
    }

    fn entry(&mut self, header: &Header, header_size: u64, overrides: Overrides) -> io::Result<Entry> {
        let records = overrides.sparse;
        let path = records.name.clone().or(overrides.path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = overrides
            .link
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let mut kind = header.entry_type();
        if matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            kind = if path.ends_with(b"/") {
                EntryType::Directory
            } else {
                EntryType::Regular
            };
        }
        let size = if kind == EntryType::Regular {
            overrides.size.unwrap_or(header_size)
        } else {
            0
        };
        if size > MAX_ENTRY {
            return Err(damaged(format!("an entry of {size} bytes is too large")));
        }
        self.begin(size);
        let sparse = if kind == EntryType::Regular {
            self.sparse(records)?
        } else {
            None
        };
        let size = self.content;
        let is_device = matches!(kind, EntryType::Char | EntryType::Block);
        let device = if is_device {
            (
                header.device_major()?.unwrap_or_default(),
                header.device_minor()?.unwrap_or_default(),
            )
        } else {
            (0, 0)
        };
        let header_time = || {
            number(header, 136..148, Header::mtime)
                .ok()
                .and_then(|t| i64::try_from(t).ok())
        };
        Ok(Entry {
            path,
            link: link.unwrap_or_default(),
            kind,
            size,
            mode: number(header, 100..108, Header::mode)? & 0o7777,
            uid: overrides
                .uid
                .map_or_else(|| number(header, 108..116, Header::uid), Ok)?,
            gid: overrides
                .gid
                .map_or_else(|| number(header, 116..124, Header::gid), Ok)?,
            mtime: overrides.mtime.or_else(header_time).unwrap_or(0),
            device,
            xattrs: overrides.xattrs,
            sparse,
        })
    }

    /// Reads where the data of the entry just begun belongs, when PAX records say that it is sparse.
    fn sparse(&mut self, records: SparseRecords) -> io::Result<Option<Sparse>> {
        let Some(size) = records.size else { return Ok(None) };
        if size > MAX_ENTRY {
            return Err(damaged(format!("an entry of {size} bytes is too large")));
        }
        let sparse = if records.major == 1 {
            Sparse::before_data(self.content(), size)?.0
        } else {
            Sparse::listed(&records.numbers, size)?
        };
        sparse.checked(self.content).map(Some)
    }
}

/// Whether a header is about the entry that follows.
fn is_special(header: &Header) -> bool {
    use EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
    matches!(header.entry_type(), XHeader | XGlobalHeader | GNULongName | GNULongLink)
}

/// Reads a number of a header; a field left blank, as npm's packages have it, is zero.
fn number<T: Default>(header: &Header, field: Range<usize>, read: impl Fn(&Header) -> io::Result<T>) -> io::Result<T> {
    let blank = header
        .as_bytes()
        .get(field)
        .is_some_and(|bytes| bytes.iter().all(|b| matches!(b, 0 | b' ')));
    if blank { Ok(T::default()) } else { read(header) }
}

/// Cuts a GNU long name at its NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

impl Overrides {
    /// Takes over a block of `LENGTH key=value\n` records; values may hold any byte.
    fn pax(&mut self, mut block: &[u8]) -> io::Result<()> {
        let broken = || damaged("an attribute block is malformed");
        while !block.is_empty() {
            let space = block.iter().position(|b| *b == b' ').ok_or_else(broken)?;
            let digits = block
                .get(..space)
                .and_then(|d| std::str::from_utf8(d).ok())
                .ok_or_else(broken)?;
            let length: usize = digits.parse().map_err(|_| broken())?;
            let record = block
                .get(space + 1..length)
                .and_then(|r| r.strip_suffix(b"\n"))
                .ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            block = &block[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let broken = || {
            damaged(format!(
                "attribute `{}` of an entry is malformed",
                String::from_utf8_lossy(key)
            ))
        };
        let whole = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|v| v.parse::<u64>().ok())
                .ok_or_else(broken)
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(whole()?),
            b"uid" => self.uid = Some(whole()?),
            b"gid" => self.gid = Some(whole()?),
            b"mtime" => {
                let seconds = std::str::from_utf8(value).ok().and_then(|v| v.split('.').next());
                self.mtime = Some(seconds.and_then(|s| s.parse().ok()).ok_or_else(broken)?);
            }
            b"GNU.sparse.major" => self.sparse.major = whole()?,
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(whole()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(whole()?),
            b"GNU.sparse.map" => {
                let text = std::str::from_utf8(value).map_err(|_| broken())?;
                let numbers = text.split(',').map(|number| number.parse().map_err(|_| broken()));
                self.sparse.numbers = numbers.collect::<io::Result<_>>()?;
            }
            key => {
                let Some(name) = key.strip_prefix(b"SCHILY.xattr.").map(OsStr::from_bytes) else {
                    return Ok(());
                };
                if kept_xattr(name) && !name.as_bytes().contains(&0) {
                    self.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Reads no further than the current entry's end.
#[derive(Debug)]
pub struct Content<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.content).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.0.input.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.content -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_ends(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), kind in 0u8..128) {
            // A right checksum lets the bytes through to the parser.
            if bytes.len() >= 512 {
                bytes[156] = kind;
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[..512]);
                header.set_cksum();
                bytes[..512].copy_from_slice(header.as_bytes());
            }
            let mut reader = TarReader::new(&bytes[..]);
            let mut count = 0;
            while let Ok(Some(entry)) = reader.next_entry() {
                count += 1;
                prop_assert!(entry.mode <= 0o7777 && count < 10);
            }
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for block in [
            &b"9 a"[..],
            b"x a=b\n",
            b"6 ab\n\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"12 size=nine\n",
        ] {
            let mut overrides = Overrides::default();
            overrides.pax(block).unwrap_err();
        }
        let mut overrides = Overrides::default();
        overrides.pax(b"11 path=a\nb\n").unwrap_err();
        overrides.pax(b"12 path=a\nb\n").unwrap();
        assert_eq!(overrides.path.as_deref(), Some(&b"a\nb"[..]));
    }
}
