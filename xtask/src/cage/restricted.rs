//! Uid 1000 without capabilities, as in a restricted pod: what runs no command is built, byte for byte, and what runs one is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::command::{capture, program, read_lossy, tail};
use crate::error::{Result, TaskError};
use crate::workspace::{make, make_empty, write};

use super::place::Place;
use super::site::Site;

/// Files of several owners and modes, onto a base of which no file is needed, and onto one of which some are.
const COPIES: &str = "\
FROM debian AS tools
FROM debian
COPY --chown=1234:50 --chmod=0640 file /of/another/
COPY --from=tools /etc/passwd /etc/passwd-of-a-stage
WORKDIR /work
COPY . ./
ENV A=b
";
const COMMAND: &str = "FROM debian\nRUN true\n";
/// What the refusal must speak of.
const SAID: &str = "cannot run commands here";

/// Builds both; an error tells what is not as it should be.
pub(super) fn run(site: &Site, at: Place<'_>) -> Result<()> {
    let place = site.directory.join("restricted");
    make_empty(&place)?;
    let digests = [build(site, Place::Outside, &place)?, build(site, at, &place)?];
    if digests[0] != digests[1] {
        return Err(TaskError::new(format!(
            "other images: {} outside, {} restricted",
            digests[0], digests[1]
        )));
    }
    println!("ok      copies: {}", digests[0]);
    let log = place.join("command.log");
    match command(site, at, &place, "command", COMMAND)? {
        true => Err(TaskError::new("a command was run without any privilege")),
        false if read_lossy(&log).contains(SAID) => {
            println!("ok      a command is refused:\n{}", tail(&read_lossy(&log)));
            Ok(())
        }
        false => Err(TaskError::new(format!(
            "not refused as it should be:\n{}",
            tail(&read_lossy(&log))
        ))),
    }
}

/// Builds what only copies; gives the layout's digest.
fn build(site: &Site, at: Place<'_>, place: &Path) -> Result<String> {
    let name = at.name();
    if !command(site, at, place, name, COPIES)? {
        let log = read_lossy(&place.join(name).with_extension("log"));
        return Err(TaskError::new(format!("the copies failed {name}:\n{}", tail(&log))));
    }
    let digest = capture(program("sha256sum").arg(place.join(name).join("image.tar")))?;
    Ok(digest.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Builds a Dockerfile in a directory that is everybody's; gives whether it went well.
fn command(site: &Site, at: Place<'_>, place: &Path, name: &str, dockerfile: &str) -> Result<bool> {
    let home = place.join(name);
    let context = home.join("context");
    make(&context)?;
    write(&context.join("Dockerfile"), dockerfile)?;
    write(&context.join("file"), "text\n")?;
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).map_err(TaskError::at("open", &home))?;
    let data = home.join("data");
    site.fresh_data(at, &data)?;
    let mut build = site.roadstead(at, &data);
    build.args([
        "build",
        "--progress",
        "plain",
        "--output",
        "type=oci,dest=image.tar",
        "context",
    ]);
    build.current_dir(&home);
    let output = at.take(build).output();
    let output = output.map_err(|error| TaskError::new(format!("cannot start a build: {error}")))?;
    let log = home.with_extension("log");
    std::fs::write(&log, &output.stderr).map_err(TaskError::at("write", &log))?;
    Ok(output.status.success())
}
