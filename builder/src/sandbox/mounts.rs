//! Overlay mounts in the builder's own mount namespace.

use super::SandboxError;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The kernel takes one page of options.
const MAX_OPTIONS: usize = 4095;

/// Mounts an overlay on `target`.
///
/// `lowers` are uppermost first, absolute or relative to `base` (relative names keep the option string short enough for 127 layers).
/// `upper` is the pair of upper and work directory; without it the mount is read-only and needs two lowers.
///
/// # Errors
/// When the options exceed a page or the kernel refuses the mount.
pub fn mount_overlay(
    base: &Path,
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    target: &Path,
) -> Result<(), SandboxError> {
    let mut options = b"userxattr,lowerdir=".to_vec();
    for (at, lower) in lowers.iter().enumerate() {
        if at > 0 {
            options.push(b':');
        }
        escape(lower, &mut options);
    }
    if let Some((upper, work)) = upper {
        options.extend_from_slice(b",upperdir=");
        escape(upper, &mut options);
        options.extend_from_slice(b",workdir=");
        escape(work, &mut options);
        // The result is read back by us and thrown away on any error: the overlay need not sync it.
        options.extend_from_slice(b",volatile");
    }
    if options.len() > MAX_OPTIONS {
        return Err(SandboxError::Unavailable(format!(
            "{} layers are more than one overlay mount can name",
            lowers.len()
        )));
    }
    // Relative lowers need a working directory, which belongs to the thread only after unshare(CLONE_FS).
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| mount_in_own_directory(base, &options, target));
        mounting
            .join()
            .unwrap_or_else(|_| Err(SandboxError::Setup("the mounting thread ended early".into())))
    })
}

fn mount_in_own_directory(base: &Path, options: &[u8], target: &Path) -> Result<(), SandboxError> {
    let failed = |e| SandboxError::system(format!("mount an overlay on `{}`", target.display()), e);
    // SAFETY: only CLONE_FS is unshared: this thread gets its own working directory and umask, no memory or file table is touched.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.map_err(failed)?;
    rustix::process::chdir(base).map_err(failed)?;
    let mount = |options: &[u8]| {
        let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        rustix::mount::mount(
            "overlay",
            target,
            "overlay",
            MountFlags::NODEV,
            Some(options.as_c_str()),
        )
    };
    match mount(options) {
        Err(rustix::io::Errno::INVAL) if options.ends_with(b",volatile") => {
            // Kernels before 5.10 do not know `volatile`.
            mount(options.strip_suffix(b",volatile").unwrap_or(options)).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// Writes a path as an overlay option takes it.
fn escape(path: &Path, out: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b'\\' | b',') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// A file system in memory that only the builder may enter, for secrets: nothing of them comes onto a disk, and it is gone with the
/// builder, however that ends.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
}

impl Memory {
    /// Mounts one on a new directory.
    ///
    /// # Errors
    /// When something stands there, or the kernel refuses the mount.
    pub fn mount(path: &Path) -> Result<Self, SandboxError> {
        let failed = |e| SandboxError::system(format!("mount memory on `{}`", path.display()), e);
        std::fs::create_dir(path).map_err(failed)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(c"mode=700")).map_err(|e| failed(e.into()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

/// Detaches a mount. It is gone with the namespace in any case, so failure is no error.
pub fn unmount(target: &Path) {
    let _gone = rustix::mount::unmount(target, UnmountFlags::DETACH);
}
