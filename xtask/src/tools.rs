//! Programs of others that the tasks need: asked for by name, installed only when missing, and never silently.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{logged, program, run, succeeds};
use crate::error::{Result, TaskError};
use crate::workspace;

const MOTO_REQUIREMENTS: &str = include_str!("../moto-requirements.txt");
/// Debian's own: one of another origin may lack `venv`, and moves.
const PYTHON: &str = "/usr/bin/python3";

/// How to tell that a Debian package is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// A program on PATH, and the package that has it.
    Program(&'static str, &'static str),
    /// A file, and the package that has it.
    File(&'static str, &'static str),
    /// A package by its name.
    Package(&'static str),
    /// The parts of Python that make a virtual environment.
    PythonVenv,
}

impl Need {
    fn package(self) -> &'static str {
        match self {
            Self::Program(_, package) | Self::File(_, package) | Self::Package(package) => package,
            Self::PythonVenv => "python3-venv",
        }
    }

    fn is_met(self) -> bool {
        match self {
            Self::Program(name, _) => on_path(name),
            Self::File(path, _) => Path::new(path).exists(),
            Self::Package(name) => succeeds(program("dpkg-query").args(["--status", name])),
            Self::PythonVenv => succeeds(program(PYTHON).args(["-c", "import ensurepip, venv"])),
        }
    }
}

/// What the demo and the tests use besides Rust.
pub(crate) const COMMON: [Need; 5] = [
    Need::Program("docker-registry", "docker-registry"),
    Need::Program("git", "git"),
    Need::Program("newuidmap", "uidmap"),
    Need::File("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    Need::PythonVenv,
];

/// Tells whether a program is on PATH, or where Debian puts the programs of root.
fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.any(|directory| directory.join(name).is_file())
}

/// Installs the Debian packages that are missing, and says which.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package())
        .collect();
    if missing.is_empty() {
        println!("nothing to install from Debian");
        return Ok(());
    }
    println!("installing from Debian: {}", missing.join(" "));
    run(apt_get().args(["update", "--quiet", "--quiet"]))?;
    run(apt_get()
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(&missing))
}

fn apt_get() -> Command {
    let mut command = match workspace::is_root() {
        true => program("env"),
        false => program("sudo"),
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

/// Makes the virtual environment with moto, the AWS emulator, unless it is there; returns its directory of programs.
pub(crate) fn moto() -> Result<PathBuf> {
    let home = workspace::target().join("moto");
    let stamp = home.join("requirements.txt");
    // Written last, so that an installation that was broken off is made anew.
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == MOTO_REQUIREMENTS) {
        return Ok(home.join("bin"));
    }
    println!(
        "installing from PyPI, below `{}`: moto and what it stands on",
        home.display()
    );
    workspace::make_empty(&home)?;
    run(program(PYTHON).args(["-m", "venv"]).arg(&home))?;
    let wanted = home.join("wanted.txt");
    workspace::write(&wanted, MOTO_REQUIREMENTS)?;
    let mut pip = program(home.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--no-deps", "--requirement"])
        .arg(&wanted);
    logged(&mut pip, &home.join("pip.log"))?;
    std::fs::rename(&wanted, &stamp).map_err(TaskError::at("rename", &wanted))?;
    Ok(home.join("bin"))
}

/// PATH with a directory before it.
pub(crate) fn path_with(directory: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).map_err(|error| TaskError::new(format!("cannot extend PATH: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_told_apart() {
        assert!(Need::Program("sh", "dash").is_met());
        assert!(!Need::Program("no-such-program", "none").is_met());
        assert!(Need::File("/etc/passwd", "base-passwd").is_met());
        assert!(!Need::Package("no-such-package").is_met());
    }

    #[test]
    fn every_python_package_is_pinned() {
        let lines = MOTO_REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            assert!(
                line.split_once("==")
                    .is_some_and(|(name, version)| !name.is_empty() && !version.is_empty()),
                "{line}"
            );
        }
    }
}
