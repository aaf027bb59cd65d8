//! The image of the builder itself, made by roadstead from its static binary, as `examples/agent-image` describes.

use crate::command::{capture, program, run};
use crate::error::{Result, TaskError};
use crate::workspace::{make_empty, root};

use super::site::Site;

const NAME: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/roadstead:builder";

/// Makes the image, pushes it, and has a binary out of it tell its version.
pub(super) fn make(site: &Site<'_>) -> Result<()> {
    let context = site.path("agent-image");
    make_empty(&context)?;
    let dockerfile = root().join("examples/agent-image/Dockerfile");
    for (from, name) in [(&*dockerfile, "Dockerfile"), (site.binary(), "roadstead")] {
        std::fs::copy(from, context.join(name)).map_err(TaskError::at("copy", from))?;
    }
    let mut build = site.roadstead();
    build.args([
        "build",
        "--progress",
        "plain",
        "--target",
        "builder",
        "--push",
        "-t",
        NAME,
    ]);
    run(&mut site.take(build.arg(&context)))?;
    let out = site.path("agent-image-files");
    make_empty(&out)?;
    let mut files = site.roadstead();
    files.args(["build", "--quiet", "--target", "builder", "-o"]).arg(&out);
    capture(&mut site.take(files.arg(&context)))?;
    // Nothing else is in its root: no loader, no library.
    let mut version = program("chroot");
    if crate::workspace::is_root() {
        version.arg(&out).args(["/usr/local/bin/roadstead", "--version"]);
        print!("from scratch: {}", capture(&mut version)?);
    }
    Ok(())
}
