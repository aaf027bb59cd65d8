//! Tar entries in one fixed spelling: ustar headers, PAX records where ustar has no room, nothing that depends on the machine.

use crate::beneath::Xattr;
use rustix::fs::{FileType, major, minor};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use tar::{EntryType, Header};

/// Describes one tar entry without its content.
#[derive(Debug, Clone)]
pub struct EntryHeader<'a> {
    /// Path inside the archive, relative.
    pub path: &'a Path,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Content bytes, for regular files.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Device number, for devices.
    pub device: u64,
    /// Target of a symbolic link.
    pub target: Option<&'a [u8]>,
    /// Path of an earlier entry that this one is a second name of.
    pub hard_link: Option<&'a Path>,
    /// Extended attributes, sorted.
    pub xattrs: &'a [Xattr],
}

/// Writes tar entries to `W`.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
}

/// What ustar's fields hold at most.
const USTAR_NAME: usize = 100;
const USTAR_SIZE: u64 = 0o77_777_777_777;
const USTAR_ID: u32 = 0o7_777_777;

impl<W: Write> TarWriter<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes one entry; `content` must give exactly `header.size` bytes for a regular file that is no hard link.
    ///
    /// # Errors
    /// When writing fails, or the content is shorter or longer than said (a file that changes while it is read).
    pub fn append(&mut self, header: &EntryHeader<'_>, content: &mut dyn Read) -> io::Result<()> {
        let mut name = header.path.as_os_str().as_bytes().to_vec();
        if header.file_type == FileType::Directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let link = header
            .hard_link
            .map(|p| p.as_os_str().as_bytes())
            .or(header.target)
            .unwrap_or_default();
        let has_content = header.file_type == FileType::RegularFile && header.hard_link.is_none();
        let size = if has_content { header.size } else { 0 };
        let records = pax_records(header, &name, link, size);
        if !records.is_empty() {
            let mut pax = Header::new_ustar();
            pax.set_entry_type(EntryType::XHeader);
            set_bytes(&mut pax.as_mut_bytes()[..USTAR_NAME], b"PaxHeaders.0/entry");
            pax.set_mode(0o644);
            self.block(&mut pax, 0, 0, records.len() as u64, 0)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut ustar = Header::new_ustar();
        ustar.set_entry_type(entry_type(header));
        set_bytes(&mut ustar.as_mut_bytes()[..USTAR_NAME], &name);
        set_bytes(&mut ustar.as_mut_bytes()[157..257], link);
        ustar.set_mode(header.mode & 0o7777);
        if matches!(header.file_type, FileType::CharacterDevice | FileType::BlockDevice) && header.hard_link.is_none() {
            ustar.set_device_major(major(header.device))?;
            ustar.set_device_minor(minor(header.device))?;
        }
        self.block(&mut ustar, header.uid, header.gid, size, header.mtime)?;
        if has_content {
            let copied = io::copy(&mut content.take(size), &mut self.out)?;
            if copied != size {
                return Err(io::Error::other(format!(
                    "`{}` shrank while it was read",
                    header.path.display()
                )));
            }
            self.pad(size)?;
        }
        Ok(())
    }

    /// Ends the archive with its two empty blocks.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 1024])?;
        Ok(self.out)
    }

    fn block(&mut self, header: &mut Header, uid: u32, gid: u32, size: u64, mtime: i64) -> io::Result<()> {
        header.set_uid(u64::from(if uid > USTAR_ID { 0 } else { uid }));
        header.set_gid(u64::from(if gid > USTAR_ID { 0 } else { gid }));
        header.set_size(if size > USTAR_SIZE { 0 } else { size });
        header.set_mtime(u64::try_from(mtime).unwrap_or(0).min(USTAR_SIZE));
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % 512).unwrap_or(0);
        if rest > 0 {
            self.out.write_all(&[0; 512][rest..])
        } else {
            Ok(())
        }
    }
}

fn set_bytes(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

fn entry_type(header: &EntryHeader<'_>) -> EntryType {
    if header.hard_link.is_some() {
        return EntryType::Link;
    }
    match header.file_type {
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        _ => EntryType::Regular,
    }
}

fn pax_records(header: &EntryHeader<'_>, name: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if name.len() > USTAR_NAME || !name.is_ascii() {
        record(&mut records, b"path", name);
    }
    if link.len() > USTAR_NAME || !link.is_ascii() {
        record(&mut records, b"linkpath", link);
    }
    if size > USTAR_SIZE {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    if header.uid > USTAR_ID {
        record(&mut records, b"uid", header.uid.to_string().as_bytes());
    }
    if header.gid > USTAR_ID {
        record(&mut records, b"gid", header.gid.to_string().as_bytes());
    }
    if header.mtime < 0 {
        record(&mut records, b"mtime", header.mtime.to_string().as_bytes());
    }
    for (name, value) in header.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_bytes()].concat(), value);
    }
    records
}

/// Appends `LENGTH key=value\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut total = rest + 1;
    while total != rest + total.to_string().len() {
        total = rest + total.to_string().len();
    }
    out.extend_from_slice(total.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn header(path: &Path) -> EntryHeader<'_> {
        EntryHeader {
            path,
            file_type: FileType::RegularFile,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: 5,
            device: 0,
            target: None,
            hard_link: None,
            xattrs: &[],
        }
    }

    #[test]
    fn read_back_by_the_tar_crate() {
        let long = "d/".repeat(80) + "file-\u{e9}";
        let xattrs = [(OsString::from("user.x"), b"v\n=".to_vec())];
        let mut writer = TarWriter::new(Vec::new());
        let entry = EntryHeader {
            xattrs: &xattrs,
            uid: 3_000_000,
            ..header(Path::new(&long))
        };
        writer.append(&entry, &mut &b"abc"[..]).unwrap();
        let dir = EntryHeader {
            file_type: FileType::Directory,
            ..header(Path::new("dir"))
        };
        writer.append(&dir, &mut io::empty()).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        // An independent reader finds the same names.
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().into_owned())
            .collect();
        assert_eq!(names, [Path::new(&long), Path::new("dir")]);
        let mut reader = super::super::read::TarReader::new(&bytes[..]);
        let first = reader.next_entry().unwrap().unwrap();
        assert_eq!((first.uid, first.gid, first.mtime, first.size), (3_000_000, 2, 5, 3));
        assert_eq!(first.xattrs, xattrs);
        let mut content = String::new();
        reader.content().read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"dir/");
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn short_content_is_an_error() {
        let mut writer = TarWriter::new(Vec::new());
        let error = writer.append(&header(Path::new("a")), &mut &b"ab"[..]).unwrap_err();
        assert!(error.to_string().contains("shrank"), "{error}");
    }

    #[test]
    fn record_length_counts_itself() {
        for size in 1..1200 {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; size]);
            let text = String::from_utf8(out.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), out.len());
        }
    }
}
