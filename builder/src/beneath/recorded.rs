//! The file calls where some of what they do is written down instead.

use super::ledger::{self, Born, Id, Line, Recording};
use super::{Dir, Owner, Result};
use rustix::fs::{self, AtFlags, FileType, RawMode, Stat, StatxFlags};
use std::ffi::OsStr;
use std::os::fd::AsFd;

impl Dir {
    fn records_everything(&self) -> bool {
        self.recording == Some(Recording::Everything)
    }

    /// What is on the disk.
    fn on_disk(&self, name: &OsStr) -> Result<Stat> {
        let flags = match name.is_empty() {
            true => AtFlags::EMPTY_PATH,
            false => AtFlags::SYMLINK_NOFOLLOW,
        };
        fs::statat(&self.fd, name, flags).map_err(self.error("stat", name))
    }

    /// Makes metadata of the file `name` of `at` say what is written of it.
    pub(super) fn as_recorded(&self, mut stat: Stat, at: impl AsFd, name: &OsStr) -> Stat {
        let Some(what) = self.recording else { return stat };
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        if what == Recording::Devices && !is_socket {
            return stat;
        }
        let mut line = ledger::line(id(&stat)).unwrap_or_default();
        // A later socket stands for nothing.
        line.node = line.node.filter(|(_, _, born)| is_socket && *born == born_at(at, name));
        line.show(what, &mut stat);
        stat
    }

    /// Forgets what was written of a file that had the inode of a new one. As with the kernel, the group is that of a directory that
    /// passes its own on.
    pub(super) fn note_new(&self, name: &OsStr) -> Result<()> {
        if !self.records_everything() {
            return Ok(());
        }
        let parent = self.metadata(OsStr::new(""))?;
        let gid = parent
            .filter(|stat| stat.st_mode & 0o2000 != 0)
            .map_or(0, |stat| stat.st_gid);
        let new = Line { gid, ..Line::default() };
        ledger::write(id(&self.on_disk(name)?), |line| *line = new);
        Ok(())
    }

    /// Makes a socket that stands for a device.
    pub(super) fn create_stand_in(&self, name: &OsStr, kind: FileType, device: u64) -> Result<()> {
        let failed = |e| self.error("create node", name)(e);
        fs::mknodat(&self.fd, name, FileType::Socket, ledger::permissions(0o600), 0).map_err(failed)?;
        self.note_new(name)?;
        let node = (ledger::kind_bits(kind), device, born_at(&self.fd, name));
        ledger::write(id(&self.on_disk(name)?), |line| line.node = Some(node));
        Ok(())
    }

    /// Gives the mode to set on the disk; the one that was meant is written down where it is another one.
    pub(super) fn mode_to_set(&self, name: &OsStr, mode: RawMode) -> Result<RawMode> {
        if !self.records_everything() {
            return Ok(mode);
        }
        let stat = self.on_disk(name)?;
        let real = ledger::mode_on_disk(mode, FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let written = u16::try_from(mode & 0o7777)
            .ok()
            .filter(|mode| RawMode::from(*mode) != real);
        ledger::write(id(&stat), |line| line.mode = written);
        Ok(real)
    }

    /// Writes an owner down, if that is what is done here.
    pub(super) fn writes_owner(&self, name: &OsStr, owner: Owner) -> Result<bool> {
        if self.records_everything() {
            ledger::write(id(&self.on_disk(name)?), |line| line.set_owner(owner));
        }
        Ok(self.records_everything())
    }

    /// Writes the capabilities of a program down, if that is what is done here.
    pub(super) fn writes_capability(&self, name: &OsStr, value: Option<&[u8]>) -> Result<bool> {
        if self.records_everything() {
            ledger::write(id(&self.on_disk(name)?), |line| line.capability = value.map(Box::from));
        }
        Ok(self.records_everything())
    }

    pub(super) fn written_capability(&self, name: &OsStr) -> Result<Option<Vec<u8>>> {
        if !self.records_everything() {
            return Ok(None);
        }
        let line = ledger::line(id(&self.on_disk(name)?));
        Ok(line.and_then(|line| line.capability).map(Vec::from))
    }
}

fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// When a file was made, or nothing where that is not known.
fn born_at(at: impl AsFd, name: &OsStr) -> Born {
    let flags = match name.is_empty() {
        true => AtFlags::EMPTY_PATH,
        false => AtFlags::SYMLINK_NOFOLLOW,
    };
    let born = fs::statx(at, name, flags, StatxFlags::BTIME).ok();
    let born = born.filter(|stat| StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME));
    born.map_or((0, 0), |stat| (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}
