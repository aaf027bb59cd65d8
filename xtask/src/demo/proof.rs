//! What others say of the pushed image, and of the machine after the job.

use std::path::PathBuf;

use serde_json::Value;

use crate::command::{capture, program, run};
use crate::error::{Result, TaskError};
use crate::workspace::{is_root, make_empty};

use super::job::{Image, json, string};
use super::site::{CA_BUNDLE, Site};

/// An image's files and configuration, as others unpacked them.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The root file system.
    pub(super) root: PathBuf,
    /// The image's configuration.
    pub(super) config: Value,
}

/// Reads the image with skopeo, compares digests, and unpacks it with umoci.
pub(super) fn read_back(site: &Site<'_>, image: &Image) -> Result<Unpacked> {
    let digest = string(&inspect(site, &image.name, false)?, "/Digest")?;
    println!("skopeo:           {digest}");
    println!("imageDetail.json: {}", image.digest);
    if digest != image.digest {
        return Err(TaskError::new("the digest in imageDetail.json is not the image's"));
    }
    let config = inspect(site, &image.name, true)?;

    let directory = site.path("image");
    make_empty(&directory)?;
    let layout = format!("oci:{}:demo", directory.join("layout").display());
    let name = format!("docker://{}", site.outside_name(&image.name)?);
    let mut skopeo = program("skopeo");
    skopeo.args([
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--src-creds",
        &site.login,
        &name,
        &layout,
    ]);
    run(&mut skopeo)?;
    let bundle = directory.join("bundle");
    let mut umoci = program("umoci");
    umoci
        .args(["unpack", "--image"])
        .arg(format!("{}:demo", directory.join("layout").display()));
    if !is_root() {
        umoci.arg("--rootless");
    }
    capture(umoci.arg(&bundle))?;
    println!("umoci unpacked it");
    Ok(Unpacked {
        root: bundle.join("rootfs"),
        config,
    })
}

/// Builds the same sources with nothing cached, and compares what was pushed.
pub(super) fn build_again(site: &Site<'_>, image: &Image) -> Result<()> {
    let data = site.path("data-again");
    make_empty(&data)?;
    let (repository, _) = image.name.rsplit_once(':').unwrap_or((&image.name, ""));
    let name = format!("{repository}:again");
    let mut build = site.roadstead();
    build
        .env("ROADSTEAD_DATA", &data)
        .args(["build", "--quiet", "--push", "-t", &name]);
    build.args(["--ca-bundle", CA_BUNDLE]).arg(site.path("source"));
    capture(&mut site.take(&mut build))?;
    let inspected = inspect(site, &name, false)?;
    let digest = string(&inspected, "/Digest")?;
    println!("first:  {}", image.digest);
    println!("second: {digest}");
    if digest != image.digest {
        return Err(TaskError::new("the same sources gave another image"));
    }
    std::fs::remove_dir_all(&data).map_err(TaskError::at("remove", &data))
}

/// What skopeo says of an image in the registry, or of its configuration.
fn inspect(site: &Site<'_>, image: &str, config: bool) -> Result<Value> {
    let mut skopeo = program("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--creds", &site.login]);
    if config {
        skopeo.arg("--config");
    }
    skopeo.arg(format!("docker://{}", site.outside_name(image)?));
    json(&capture(&mut skopeo)?, "what skopeo printed")
}

/// Fails when a mount, a process or a temporary directory of the build is still there.
pub(super) fn nothing_is_left(site: &Site<'_>) -> Result<()> {
    let directory = site.path("");
    let directory = directory.to_string_lossy();
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").map_err(|error| TaskError::new(format!("no mounts: {error}")))?;
    if let Some(line) = mounts.lines().find(|line| line.contains(&*directory)) {
        return Err(TaskError::new(format!("a mount is left: {line}")));
    }
    let servers = site.servers();
    let processes = std::fs::read_dir("/proc").map_err(|error| TaskError::new(format!("no processes: {error}")))?;
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*directory) && !servers.contains(&id) {
            return Err(TaskError::new(format!("process {id} is left: {line}")));
        }
    }
    println!("no mount and no process");
    Ok(())
}
