//! What others say of the pushed image, and of the machine after the job.

use std::path::PathBuf;

use serde_json::Value;

use crate::command::{capture, program, run};
use crate::error::{Result, TaskError};
use crate::workspace::{is_root, make_empty};

use super::job::{Image, json, string};
use super::site::Site;

/// An image's files and configuration, as others unpacked them.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The root file system.
    pub(super) root: PathBuf,
    /// The image's configuration.
    pub(super) config: Value,
}

/// Reads the image with skopeo, compares digests, and unpacks it with umoci.
pub(super) fn read_back(site: &Site, image: &Image) -> Result<Unpacked> {
    let name = format!("docker://{}", site.outside_name(&image.name)?);
    let skopeo = |verb: &str| {
        let mut skopeo = program("skopeo");
        skopeo.arg(verb);
        skopeo
    };
    let access = ["--tls-verify=false", "--creds", &site.login];
    let inspected = json(
        &capture(skopeo("inspect").args(access).arg(&name))?,
        "what skopeo printed",
    )?;
    let digest = string(&inspected, "/Digest")?;
    println!("skopeo:           {digest}");
    println!("imageDetail.json: {}", image.digest);
    if digest != image.digest {
        return Err(TaskError::new("the digest in imageDetail.json is not the image's"));
    }
    let config = json(
        &capture(skopeo("inspect").arg("--config").args(access).arg(&name))?,
        "the configuration",
    )?;

    let directory = site.path("image");
    make_empty(&directory)?;
    let layout = format!("oci:{}:demo", directory.join("layout").display());
    run(skopeo("copy").args([
        "--quiet",
        "--src-tls-verify=false",
        "--src-creds",
        &site.login,
        &name,
        &layout,
    ]))?;
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

/// Fails when a mount, a process or a temporary directory of the build is still there.
pub(super) fn nothing_is_left(site: &Site) -> Result<()> {
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
