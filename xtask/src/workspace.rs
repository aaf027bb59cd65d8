//! Where the workspace and its products are, and cargo itself.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{program, run};
use crate::error::{Result, TaskError};

/// The folder of the root `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The folder of everything made: `target`, unless cargo was told of another one.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Prepares the cargo that runs this task, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the product and returns its path.
pub(crate) fn build_product(profile: &str) -> Result<PathBuf> {
    run(cargo().args(["build", "--locked", "--package", "roadstead", "--profile", profile]))?;
    made(&target(), profile)
}

/// Builds the product so that it needs no file of the system it runs on, and returns its path.
pub(crate) fn build_static(profile: &str) -> Result<PathBuf> {
    // Only with a target that is named are the flags kept from build scripts and procedural macros, which can't be static.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo();
    build.args([
        "build",
        "--locked",
        "--package",
        "roadstead",
        "--profile",
        profile,
        "--target",
        &triple,
    ]);
    run(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    made(&target().join(triple), profile)
}

fn made(target: &Path, profile: &str) -> Result<PathBuf> {
    let directory = if profile == "dev" { "debug" } else { profile };
    let path = target.join(directory).join("roadstead");
    if path.is_file() {
        Ok(path)
    } else {
        Err(TaskError::new(format!("cargo made no `{}`", path.display())))
    }
}

/// Makes a directory and those above it.
pub(crate) fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(TaskError::at("make", directory))
}

/// Makes a directory that holds nothing, whatever it held before.
pub(crate) fn make_empty(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(TaskError::at("remove", directory)(error));
        }
        _ => {}
    }
    make(directory)
}

/// Keeps others of the same task out while the file lives.
pub(crate) fn lock(task: &str) -> Result<File> {
    make(&target())?;
    let path = target().join(format!("{task}.lock"));
    let file = File::create(&path).map_err(TaskError::at("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TaskError::new(format!(
            "another {task} is running, says `{}`",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(TaskError::at("lock", &path)(error)),
    }
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(TaskError::at("write", path))
}

/// Copies a directory without the modules npm may have put there.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    make(to)?;
    for entry in std::fs::read_dir(from).map_err(TaskError::at("read", from))? {
        let entry = entry.map_err(TaskError::at("read", from))?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type().map_err(TaskError::at("read", &entry.path()))?;
        if kind.is_file() {
            std::fs::copy(entry.path(), &target).map_err(TaskError::at("copy", &entry.path()))?;
        } else if kind.is_dir() && entry.file_name() != "node_modules" {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
