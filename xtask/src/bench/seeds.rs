//! The bases, pushed by roadstead into directories that registries get copies of.

use std::path::{Path, PathBuf};

use crate::command::{logged, program};
use crate::error::{Result, TaskError};
use crate::server::Registry;
use crate::workspace::{make_empty, write};

use super::builders::Workshop;

/// The base of W1, W3 and W5 in its registry.
pub(crate) const DEBIAN: &str = "debian:w1";

/// Debian 12 by mmdebstrap, made once.
pub(crate) fn debian_archive(directory: &Path) -> Result<PathBuf> {
    let context = directory.join("base");
    let archive = context.join("base.tar");
    if archive.exists() {
        return Ok(archive);
    }
    println!("making the base from Debian's packages");
    make_empty(&context)?;
    let part = context.join("part.tar");
    let mut mmdebstrap = program("mmdebstrap");
    mmdebstrap
        .args(["--variant=minbase", "--mode=root", "--skip=output/dev", "bookworm"])
        .arg(&part);
    logged(&mut mmdebstrap, &directory.join("base.log"))?;
    std::fs::rename(&part, &archive).map_err(TaskError::at("rename", &part))?;
    Ok(archive)
}

/// The data of a registry that holds [`DEBIAN`]. Made anew in each bench, by the binary that is measured.
pub(crate) fn debian(workshop: &Workshop) -> Result<PathBuf> {
    let data = workshop.turns.join("seed-debian/data");
    if data.exists() {
        return Ok(data);
    }
    let archive = debian_archive(&workshop.directory)?;
    let context = archive.parent().unwrap_or(&archive);
    write(&context.join("Dockerfile"), "FROM scratch\nADD base.tar /\n")?;
    push(workshop, "debian", context, DEBIAN)
}

/// Builds an image and pushes it to a registry; gives the registry's data.
pub(super) fn push(workshop: &Workshop, name: &str, context: &Path, image: &str) -> Result<PathBuf> {
    let home = workshop.turns.join(format!("seed-{name}"));
    make_empty(&home)?;
    let registry = Registry::start(&home, None)?;
    let store = home.join("store");
    let mut command = workshop.roadstead(&store);
    command
        .args(["build", "--progress", "plain", "--push", "--tag"])
        .arg(format!("{}/{image}", registry.host()))
        .arg(context);
    logged(&mut command, &home.join("build.log"))?;
    std::fs::remove_dir_all(&store).map_err(TaskError::at("remove", &store))?;
    Ok(home.join("data"))
}
