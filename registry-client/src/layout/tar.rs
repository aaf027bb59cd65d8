//! Where the members of an image archive lie: headers are read, data is passed over, nothing is unpacked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use tar::{EntryType, Header};

use crate::error::{RegistryError, Result};
use crate::files::FileSection;
use crate::store::writer::create_temporary;

const BLOCK: u64 = 512;
/// No image has nearly as many; each costs memory.
const MEMBERS_LIMIT: u64 = 1_000_000;
/// Longest name of a member that can be looked up. Names in archives of images have less than half.
const NAME_LIMIT: usize = 255;
/// Largest extension header. Some hundred bytes are usual.
const EXTENSION_LIMIT: u64 = 1024 * 1024;
/// Room that an archive may take which must be decompressed, or comes through a pipe.
const SPOOL_LIMIT: u64 = 64 * 1024 * 1024 * 1024;

/// First bytes of compressed files, and what compressed them.
const COMPRESSIONS: [(&[u8], &str); 5] = [
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (b"BZh", "bzip2"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
];

/// Tells by the first bytes what compressed a file.
pub(super) fn compression(start: &[u8]) -> Option<&'static str> {
    let found = COMPRESSIONS.iter().find(|(magic, _)| start.starts_with(magic));
    found.map(|(_, name)| *name)
}

#[derive(Clone, Debug)]
enum Member {
    File {
        start: u64,
        length: u64,
    },
    /// Name of the member meant, from the archive's top; `None` when it leads out of the archive.
    Link(Option<String>),
    /// There are two of this name, and readers differ in which one they take.
    Twice,
}

/// The members of an archive.
#[derive(Debug)]
pub(super) struct TarIndex {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<String, Member>,
}

impl TarIndex {
    /// Opens an archive; one that is compressed by gzip, or no regular file, goes into a temporary file without a name.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| RegistryError::io("read", path, error);
        let mut file = File::open(path).map_err(|error| RegistryError::io("open", path, error))?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(RegistryError::layout(path, "it is a directory, and no archive"));
        }
        if !kind.is_file() {
            file = spool(path, file)?;
        }
        let mut start = [0; 6];
        let length = file.metadata().map_err(failed)?.len().min(6);
        let start = &mut start[..usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(start, 0).map_err(failed)?;
        match compression(start) {
            None => {}
            Some("gzip") => file = spool(path, MultiGzDecoder::new(io::BufReader::new(file)))?,
            Some(other) => {
                let reason = format!("it is compressed by {other}; decompress it first");
                return Err(RegistryError::layout(path, reason));
            }
        }
        let length = file.metadata().map_err(failed)?.len();
        let mut scan = Scan {
            path,
            file: &file,
            length,
            position: 0,
        };
        let members = scan.members()?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            members,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a member; a link is followed once, within the archive.
    pub(super) fn section(&self, name: &str) -> Result<Option<FileSection>> {
        let refused = |why: &str| RegistryError::layout(&self.path, format!("member `{name}` in it {why}"));
        let member = match self.members.get(name) {
            Some(Member::Link(target)) => {
                let target = target.as_ref().and_then(|target| self.members.get(target));
                Some(target.ok_or_else(|| refused("is a link to nothing in the archive"))?)
            }
            other => other,
        };
        match member {
            None => Ok(None),
            Some(Member::Twice) => Err(refused("is there twice")),
            Some(Member::Link(_)) => Err(refused("is a link to a link")),
            Some(Member::File { start, length }) => {
                let section = FileSection::part(Arc::clone(&self.file), &self.path, *start, *length);
                Ok(Some(section))
            }
        }
    }
}

/// Copies an archive that cannot be read at any place into a temporary file that goes with its last reader.
fn spool(path: &Path, content: impl Read) -> Result<File> {
    let dir = std::env::temp_dir();
    let (temporary, mut file) = create_temporary(&dir)?;
    drop(temporary);
    let copied = io::copy(&mut content.take(SPOOL_LIMIT + 1), &mut file);
    let copied = copied.map_err(|error| RegistryError::io("decompress or copy to a temporary file", path, error))?;
    if copied > SPOOL_LIMIT {
        let reason = format!("decompressed, it is larger than {SPOOL_LIMIT} bytes");
        return Err(RegistryError::layout(path, reason));
    }
    // What came through a pipe may have to be decompressed, too.
    file.rewind().map_err(|error| RegistryError::io("read", path, error))?;
    Ok(file)
}

/// What extension headers say about the member behind them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

struct Scan<'a> {
    path: &'a Path,
    file: &'a File,
    length: u64,
    position: u64,
}

impl Scan<'_> {
    fn refuse(&self, reason: &str) -> RegistryError {
        RegistryError::layout(self.path, format!("{reason} at byte {}", self.position))
    }

    fn members(&mut self) -> Result<HashMap<String, Member>> {
        let mut members = HashMap::new();
        let mut extensions = Extensions::default();
        for _ in 0..MEMBERS_LIMIT {
            let Some(header) = self.header()? else {
                return Ok(members);
            };
            let size = header.entry_size().map_err(|_| self.refuse("a member has no size"))?;
            match header.entry_type() {
                EntryType::XHeader => self.read_pax(size, &mut extensions)?,
                EntryType::GNULongName => extensions.name = Some(self.read_long(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.read_long(size)?),
                EntryType::XGlobalHeader => self.skip(size)?,
                EntryType::GNUSparse => return Err(self.refuse("it has a sparse member")),
                kind => self.add(&header, kind, std::mem::take(&mut extensions), size, &mut members)?,
            }
        }
        Err(self.refuse("it has too many members"))
    }

    /// Reads the next header; `None` at the end, which is an empty block or the end of the file.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.position == self.length {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.read(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let outside = bytes[..148].iter().chain(&bytes[156..]);
        let sum = outside.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(self.refuse("it is no tar archive, or damaged"));
        }
        self.position += BLOCK;
        Ok(Some(header))
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        if self.length - self.position < bytes.len() as u64 {
            return Err(self.refuse("it is no tar archive, or cut off"));
        }
        let read = self.file.read_exact_at(bytes, self.position);
        read.map_err(|error| RegistryError::io("read", self.path, error))
    }

    /// Goes on behind data of this size. An archive that ends within the data is cut off; the padding may be missing.
    fn skip(&mut self, size: u64) -> Result<()> {
        if size > self.length - self.position {
            return Err(self.refuse("it is cut off"));
        }
        let padded = size.div_ceil(BLOCK).saturating_mul(BLOCK);
        self.position = self.position.saturating_add(padded).min(self.length);
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_LIMIT {
            return Err(self.refuse("an extension header is larger than 1 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read(&mut bytes)?;
        self.skip(size)?;
        Ok(bytes)
    }

    fn read_long(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut bytes = self.extension(size)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }

    /// Records are `length key=value` and a new line; the value may hold anything.
    fn read_pax(&mut self, size: u64, extensions: &mut Extensions) -> Result<()> {
        let bytes = self.extension(size)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && rest[0] != 0 {
            let (key, value, after) = pax_record(rest).ok_or_else(|| self.refuse("an extension header is damaged"))?;
            match key {
                b"path" => extensions.name = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    extensions.size = Some(size.ok_or_else(|| self.refuse("an extension header is damaged"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(self.refuse("it has a sparse member")),
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }

    fn add(
        &mut self,
        header: &Header,
        kind: EntryType,
        extensions: Extensions,
        size: u64,
        members: &mut HashMap<String, Member>,
    ) -> Result<()> {
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        let size = extensions.size.unwrap_or(size);
        let start = self.position;
        let name = extensions.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions
            .link
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let link = link.unwrap_or_default();
        // Links have no data, whatever their headers say; so do other readers take it.
        if !matches!(kind, EntryType::Link | EntryType::Symlink) {
            self.skip(size)?;
        }
        let Some(name) = normalise("", &name) else {
            return Ok(());
        };
        let member = match kind {
            _ if is_file => Member::File { start, length: size },
            EntryType::Link => Member::Link(normalise("", &link)),
            EntryType::Symlink => Member::Link(normalise(parent(&name), &link)),
            _ => return Ok(()),
        };
        members
            .entry(name)
            .and_modify(|known| *known = Member::Twice)
            .or_insert(member);
        Ok(())
    }
}

fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Makes the one spelling of a path from a member's folder; `None` when it leads out of the archive, or is too long to be
/// looked up.
pub(super) fn normalise(from: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok().filter(|path| path.len() <= NAME_LIMIT)?;
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let name = parts.join("/");
    (!name.is_empty()).then_some(name)
}
