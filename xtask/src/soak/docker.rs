//! Whether Docker takes what `roadstead image` writes: its archives by `docker load`, what it pushed by `docker pull`.

use std::path::Path;

use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::server::Registry;
use crate::workspace::{self, make, make_empty, write};

/// Saves, loads, pushes and pulls an image, and lets Docker run it.
pub(super) fn run() -> Result<()> {
    let roadstead = workspace::build_product("dev")?;
    let shared = workspace::target().join("bench");
    let directory = workspace::target().join("soak-docker");
    make(&shared)?;
    make_empty(&directory)?;
    let context = directory.join("context");
    make(&context)?;
    let busybox = Path::new("/usr/bin/busybox");
    std::fs::copy(busybox, context.join("busybox")).map_err(TaskError::at("copy", busybox))?;
    write(
        &context.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nCMD [\"/bin/busybox\", \"echo\", \"hello from the archive\"]\n",
    )?;
    let registry = Registry::start(&directory, None)?;
    let name = format!("{}/app:1", registry.host());
    let run = |arguments: &[&str]| {
        let mut command = program(&roadstead);
        command
            .env("ROADSTEAD_DATA", directory.join("data"))
            .env("ROADSTEAD_CONFIG", directory.join("none"))
            .env("DOCKER_CONFIG", directory.join("none"));
        capture(command.args(arguments))
    };
    let id = run(&["build", "--quiet", "-t", &name, &context.to_string_lossy()])?;
    let archive = directory.join("image.tar");
    run(&["image", "save", "-o", &archive.to_string_lossy(), &name])?;
    run(&["image", "push", "--quiet", &name])?;

    let docker = Docker::start(&shared, &directory.join("docker"))?;
    let client = |arguments: &[&str]| capture(docker.client().args(arguments));
    let loaded = client(&["load", "--input", &archive.to_string_lossy()])?;
    check(&loaded, &format!("Loaded image: {name}"))?;
    check(&client(&["image", "inspect", "--format", "{{.Id}}", &name])?, &id)?;
    check(
        &client(&["run", "--rm", "--network=host", &name])?,
        "hello from the archive",
    )?;
    client(&["rmi", &name])?;
    client(&["pull", "--quiet", &name])?;
    check(&client(&["image", "inspect", "--format", "{{.Id}}", &name])?, &id)?;

    // The other way round: what docker saves is what we load.
    let saved = directory.join("saved.tar");
    client(&["save", "--output", &saved.to_string_lossy(), &name])?;
    run(&["image", "rm", &name])?;
    check(
        &run(&["image", "load", "-i", &saved.to_string_lossy()])?,
        &format!("Loaded image: {name}"),
    )?;
    println!("docker loaded, ran and pulled {name}, and what it saved was loaded");
    Ok(())
}

fn check(printed: &str, wanted: &str) -> Result<()> {
    if printed.contains(wanted.trim()) {
        return Ok(());
    }
    Err(TaskError::new(format!(
        "expected `{}`, and got:\n{printed}",
        wanted.trim()
    )))
}
