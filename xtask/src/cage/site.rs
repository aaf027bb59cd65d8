//! What builds in a cage need besides it: a daemon, a base image, an SSH agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{capture, logged, program};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::server::Server;
use crate::workspace::{self, make, make_empty, root, write};

use super::container::{CA_BUNDLE, Cage, Kind};
use super::place::Place;

/// Everything that lasts over all builds.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) docker: Docker,
    /// What is made once and kept.
    pub(crate) shared: PathBuf,
    /// What a cage sees.
    pub(crate) directory: PathBuf,
    /// The binary outside.
    pub(crate) roadstead: PathBuf,
    _agent: Server,
}

impl Site {
    /// Starts everything below `target/NAME`, with the binary that was asked for or one made now.
    pub(crate) fn open(name: &str, binary: Option<&Path>) -> Result<Self> {
        let home = workspace::target().join(name);
        let directory = home.join("work");
        make_empty(&home)?;
        make(&directory)?;
        let shared = workspace::target().join("bench");
        make(&shared)?;
        let roadstead = match binary {
            Some(binary) => std::path::absolute(binary).map_err(TaskError::at("find", binary))?,
            None => workspace::build_product("dev")?,
        };
        let site = Self {
            docker: Docker::start_with(&shared, &home.join("docker"), &[&directory])?,
            _agent: start_agent(&directory)?,
            shared,
            directory,
            roadstead,
        };
        site.make_base()?;
        Ok(site)
    }

    /// Starts a cage with roadstead in it.
    pub(crate) fn cage(&self, kind: Kind, binary: Option<&Path>) -> Result<Cage<'_>> {
        let cage = Cage::start(&self.docker, &self.shared, &self.directory, kind)?;
        cage.install(binary)?;
        Ok(cage)
    }

    /// Makes the archive of `debian`.
    fn make_base(&self) -> Result<()> {
        let base = crate::bench::seeds::debian_archive(&self.shared)?;
        let context = base.parent().unwrap_or(&base);
        write(&context.join("Dockerfile"), "FROM scratch\nADD base.tar /\n")?;
        let data = self.directory.with_file_name("base-data");
        let mut build = program(&self.roadstead);
        build.args(["build", "--progress", "plain", "--tag", "debian", "--output"]);
        build.arg(format!("type=docker,dest={}", self.base().display()));
        let none = data.join("none");
        build.env("ROADSTEAD_DATA", &data).env("ROADSTEAD_CONFIG", none);
        logged(build.arg(context), &data.with_extension("log"))?;
        std::fs::remove_dir_all(&data).map_err(TaskError::at("remove", &data))
    }

    fn base(&self) -> PathBuf {
        self.directory.join("debian.tar")
    }

    fn agent(&self) -> PathBuf {
        agent(&self.directory)
    }

    /// Puts a context of `tests/cage` where a cage sees it; gives the directory above the context.
    pub(crate) fn context(&self, name: &str) -> Result<PathBuf> {
        let place = self.directory.join(name);
        make_empty(&place)?;
        workspace::copy(&root().join("tests/cage").join(name), &place.join("context"))?;
        Ok(place)
    }

    /// Prepares roadstead, to be run at a place, with this data.
    pub(crate) fn roadstead(&self, at: Place<'_>, data: &Path) -> Command {
        let mut command = match at {
            Place::Outside => program(&self.roadstead),
            Place::Inside(cage) => program(cage.roadstead()),
        };
        let none = self.directory.join("none");
        command.env("ROADSTEAD_DATA", data).env("ROADSTEAD_CONFIG", &none);
        command.env("DOCKER_CONFIG", &none).env("NO_COLOR", "1");
        command
    }

    /// Makes a data directory that holds `debian` and nothing else.
    pub(crate) fn fresh_data(&self, at: Place<'_>, data: &Path) -> Result<()> {
        let mut remove = program("rm");
        remove.arg("-rf").arg(data);
        capture(&mut at.take(remove))?;
        let mut load = self.roadstead(at, data);
        load.args(["image", "load", "-i"]).arg(self.base());
        capture(&mut at.take(load)).map(drop)
    }

    /// Prepares the build of a context that lies in `place`, with the flags beside its Dockerfile.
    pub(crate) fn build(&self, at: Place<'_>, place: &Path, data: &Path, tag: &str) -> Result<Command> {
        let mut build = self.roadstead(at, data);
        build.current_dir(place);
        build.args(["build", "--progress", "plain", "--ca-bundle", CA_BUNDLE, "--tag", tag]);
        build.args(at.flags());
        let flags = place.join("context/flags");
        if flags.exists() {
            let text = std::fs::read_to_string(&flags).map_err(TaskError::at("read", &flags))?;
            build.args(text.replace("@AGENT@", &self.agent().to_string_lossy()).lines());
        }
        build.arg("context");
        Ok(build)
    }
}

fn agent(directory: &Path) -> PathBuf {
    directory.join("agent.sock")
}

/// Starts an SSH agent with one key.
fn start_agent(directory: &Path) -> Result<Server> {
    let (socket, key) = (agent(directory), directory.with_file_name("key"));
    let mut server = Server::start(
        "ssh-agent",
        program("ssh-agent").arg("-D").arg("-a").arg(&socket),
        &directory.with_file_name("agent.log"),
    )?;
    server.wait_for(|_| socket.exists().then_some(()))?;
    capture(
        program("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key),
    )?;
    capture(program("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket))?;
    Ok(server)
}
