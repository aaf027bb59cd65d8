//! The root a command gets: the stage's files, and in their places /dev, /proc, /sys and what is mounted.

use super::fixtures::{Fixtures, Report, real_directory};
use crate::beneath::{Dir, Owner, kind};
use crate::sandbox::SandboxError;
use crate::sandbox::plan::{DEVICE_LINKS, MOUNT_POINT_DIRS, Mount, Plan};
use crate::sandbox::supervisor::Secret;
use crate::sandbox::supervisor::lent::Lent;
use rustix::fs::{FileType, Mode, OFlags, makedev};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The device nodes of a container: name, and number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const SHARED_MODE: u32 = 0o1777;

/// A root with everything in place.
#[derive(Debug)]
pub(super) struct Prepared {
    fixtures: Fixtures,
    secrets: Vec<Secret>,
    lent: Vec<Lent>,
    /// Directories with a bound on what they hold, in bytes.
    bounded: Vec<(Dir, u64, PathBuf)>,
}

impl Prepared {
    pub(super) fn new(plan: &Plan) -> Result<Self, SandboxError> {
        let mut prepared = Self {
            fixtures: Fixtures::new(&plan.rootfs, &plan.aside)?,
            secrets: Vec::new(),
            lent: Vec::new(),
            bounded: Vec::new(),
        };
        match prepared.fill(plan) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                // The first error counts.
                drop(prepared.fixtures.take_back());
                Err(error)
            }
        }
    }

    fn fill(&mut self, plan: &Plan) -> Result<(), SandboxError> {
        let own = Dir::open(&plan.aside)?;
        for name in MOUNT_POINT_DIRS {
            real_directory(&plan.rootfs, name)?;
            own.create_dir(OsStr::new(name), 0o755)?;
        }
        fill_dev(&own.plain_dir(Path::new("dev"))?)?;
        for name in MOUNT_POINT_DIRS {
            self.fixtures.put(&plan.aside.join(name), Path::new(name), false)?;
        }
        for (number, mount) in plan.mounts.iter().enumerate() {
            self.mount(plan, &own, number, mount)?;
        }
        self.fixtures.ready()
    }

    fn mount(&mut self, plan: &Plan, own: &Dir, number: usize, mount: &Mount) -> Result<(), SandboxError> {
        let name = format!("mount-{number}");
        let (name, path) = (OsStr::new(&name), plan.aside.join(&name));
        match mount {
            Mount::Lend {
                source,
                target,
                directory,
                stays,
                writable,
            } => {
                self.fixtures.put(source, target, *stays)?;
                let handle = self.fixtures.last()?;
                let file = target.file_name().filter(|_| !directory).map(OsStr::to_owned);
                self.lent.extend(handle.map(|handle| Lent {
                    handle,
                    writable: *writable,
                    file,
                }));
                Ok(())
            }
            Mount::Tmpfs { target, size, mode } => {
                let there = Dir::open(&plan.rootfs)?.follow(target)?;
                let mode = there
                    .filter(|stat| kind(stat).is_dir())
                    .map_or(*mode, |stat| stat.st_mode & 0o7777);
                own.create_dir(name, mode)?;
                let dir = own.plain_dir(Path::new(name))?;
                self.bounded.extend(size.map(|size| (dir, size, target.clone())));
                self.fixtures.put(&path, target, false)
            }
            Mount::Secret {
                content,
                target,
                owner,
                mode,
            } => {
                drop(own.create_file(name)?);
                let (uid, gid) = *owner;
                own.set_owner(name, Owner { uid, gid })?;
                own.set_mode(name, *mode)?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let stand = rustix::fs::openat(own.descriptor(), name, flags, Mode::empty())
                    .map_err(|e| SandboxError::system("open a secret's place", e))?;
                self.secrets.push(Secret::new(&stand, content)?);
                self.fixtures.put(&path, target, false)
            }
            Mount::Bind { target, .. } => Err(SandboxError::Setup(format!(
                "nothing can be mounted on `{}` here",
                target.display()
            ))),
        }
    }

    /// The secrets, and what is lent, for whoever answers for them.
    pub(super) fn answered_for(&mut self) -> (Vec<Secret>, Vec<Lent>) {
        (std::mem::take(&mut self.secrets), std::mem::take(&mut self.lent))
    }

    /// Takes back everything that was put in place, when no process of the command is left.
    pub(super) fn take_back(self) -> Result<Report, SandboxError> {
        let over = self.bounded.iter().find_map(|(dir, size, target)| {
            let held = held(dir, Path::new(""));
            (held > *size).then(|| {
                format!(
                    "`{}` holds {held} bytes, more than its size of {size}",
                    target.display()
                )
            })
        });
        let report = self.fixtures.take_back()?;
        match over {
            // On a file system of that size the command would have failed.
            Some(reason) => Err(SandboxError::Setup(reason)),
            None => Ok(report),
        }
    }
}

/// What a command reads of what is mounted for it.
pub(super) fn mounts(plan: &Plan) -> Vec<(String, &'static str)> {
    let kind = |mount: &Mount| match mount {
        Mount::Tmpfs { .. } | Mount::Secret { .. } => "tmpfs",
        _ => "overlay",
    };
    let of = |mount: &Mount| (mount.target().0.to_string_lossy().into_owned(), kind(mount));
    plan.mounts.iter().map(of).collect()
}

/// Makes the files of /dev.
fn fill_dev(dev: &Dir) -> Result<(), SandboxError> {
    for (name, major, minor) in DEVICES {
        dev.create_node(
            OsStr::new(name),
            FileType::CharacterDevice,
            0o666,
            makedev(major, minor),
        )?;
    }
    for (name, target) in DEVICE_LINKS {
        dev.create_link(OsStr::new(name), OsStr::new(target))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", SHARED_MODE), ("mqueue", SHARED_MODE)] {
        dev.create_dir(OsStr::new(name), mode)?;
    }
    rustix::fs::openat(dev.descriptor(), "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
        .map_err(|e| SandboxError::system("use a device node below the data directory (is it mounted nodev?)", e))
}

/// Bytes that the files of a directory hold. What cannot be read counts nothing.
fn held(root: &Dir, path: &Path) -> u64 {
    let Ok(dir) = root.plain_dir(path) else { return 0 };
    let names = dir.names().unwrap_or_default().into_iter();
    let of = |name: std::ffi::OsString| match dir.metadata(&name) {
        Ok(Some(stat)) if kind(&stat).is_dir() => held(root, &path.join(&name)),
        Ok(Some(stat)) => stat.st_blocks.cast_unsigned() * 512,
        _ => 0,
    };
    names.map(of).sum()
}
