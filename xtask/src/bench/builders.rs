//! The three builders, each driven as its users drive it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{capture, logged, program};
use crate::error::{Result, TaskError};
use crate::http;
use crate::server::Registry;
use crate::workspace::make;

use super::memory::{self, Peak};
use crate::oracle::Docker;

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builder {
    Roadstead,
    BuildKit,
    Buildah,
}

impl Builder {
    /// Who takes part, in the order of their turns.
    pub(super) const ALL: [Self; 3] = [Self::Roadstead, Self::BuildKit, Self::Buildah];

    /// The name in the report and on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Roadstead => "roadstead",
            Self::BuildKit => "buildkit",
            Self::Buildah => "buildah",
        }
    }
}

/// What lasts over all turns.
#[derive(Debug)]
pub(super) struct Workshop {
    /// What is made once and kept: the base, Docker's root.
    pub(super) directory: PathBuf,
    /// What the turns write. It goes only when all is measured: ext4 looks at each file deleted in the last minutes before it
    /// makes one, so that a turn would pay for the files of the turn before it.
    pub(super) turns: PathBuf,
    /// The binary that is measured.
    pub(super) roadstead: PathBuf,
    /// The data of a registry that holds the base.
    pub(super) seed: PathBuf,
}

/// A builder's turn: with nothing cached, and a registry of its own.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    workshop: &'a Workshop,
    builder: Builder,
    directory: PathBuf,
    registry: Registry,
    docker: Option<Docker>,
}

impl Workshop {
    /// Prepares a turn of this name.
    pub(super) fn turn(&self, builder: Builder, name: &str) -> Result<Turn<'_>> {
        let directory = self.turns.join(format!("{}-{name}", builder.name()));
        make(&directory.join("registry"))?;
        capture(
            program("cp")
                .arg("--archive")
                .arg(&self.seed)
                .arg(directory.join("registry/data")),
        )?;
        let registry = Registry::start_with_data(&directory.join("registry"), None)?;
        let docker = match builder {
            Builder::BuildKit => {
                let docker = Docker::start(&self.directory, &directory.join("docker"))?;
                docker.warm_up(&directory.join("warm-up"))?;
                Some(docker)
            }
            Builder::Roadstead | Builder::Buildah => None,
        };
        Ok(Turn {
            workshop: self,
            builder,
            directory,
            registry,
            docker,
        })
    }
}

impl Turn<'_> {
    fn name(&self) -> String {
        format!("{}/result:1", self.registry.host())
    }

    /// The build argument of W1; W4 takes no notice of it.
    fn base(&self) -> String {
        format!("BASE={}/debian:w1", self.registry.host())
    }

    /// Prepares `roadstead build` with the push.
    pub(super) fn roadstead(&self, context: &Path) -> Command {
        let mut command = program(&self.workshop.roadstead);
        command
            .env("ROADSTEAD_DATA", self.directory.join("data"))
            .env("ROADSTEAD_CONFIG", self.directory.join("none"))
            .env("DOCKER_CONFIG", self.directory.join("none"))
            .args([
                "build",
                "--progress",
                "plain",
                "--push",
                "--build-arg",
                &self.base(),
                "-t",
                &self.name(),
            ])
            .arg(context);
        command
    }

    fn commands(&self, context: &Path) -> Result<Vec<Command>> {
        Ok(match self.builder {
            Builder::Roadstead => vec![self.roadstead(context)],
            Builder::BuildKit => {
                let docker = self
                    .docker
                    .as_ref()
                    .ok_or_else(|| TaskError::new("docker was not started"))?;
                let mut command = docker.client();
                command.args(["buildx", "build", "--progress", "plain", "--network", "host", "--push"]);
                command
                    .args(["--build-arg", &self.base(), "-t", &self.name()])
                    .arg(context);
                vec![command]
            }
            Builder::Buildah => {
                let mut build = self.buildah();
                build.args([
                    "bud",
                    "--layers",
                    "--isolation",
                    "chroot",
                    "--network",
                    "host",
                    "--tls-verify=false",
                ]);
                build
                    .args(["--build-arg", &self.base(), "-t", &self.name()])
                    .arg(context);
                let mut push = self.buildah();
                push.args(["push", "--tls-verify=false", &self.name()]);
                vec![build, push]
            }
        })
    }

    /// `buildah` with a store of its own. The mounts it leaves end with its mount namespace.
    fn buildah(&self) -> Command {
        let store = self.directory.join("containers");
        let mut command = program("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "buildah",
            "--storage-driver",
            "overlay",
        ]);
        command
            .arg("--root")
            .arg(store.join("root"))
            .arg("--runroot")
            .arg(store.join("run"));
        command.env_remove("DOCKER_CONFIG");
        command
    }

    /// Builds and pushes, and tells how long it took.
    pub(super) fn build(&self, context: &Path) -> Result<Duration> {
        let log = self.directory.join("build.log");
        let mut commands = self.commands(context)?;
        // What an earlier build left to be written must not be waited for in this one.
        capture(&mut program("sync"))?;
        let start = Instant::now();
        for command in &mut commands {
            logged(command, &log)?;
        }
        let time = start.elapsed();
        self.check_pushed()?;
        Ok(time)
    }

    /// A build by roadstead with an eye on its memory.
    pub(super) fn watch(&self, context: &Path) -> Result<(Duration, Peak)> {
        let log = self.directory.join("build.log");
        let file = std::fs::File::create(&log).map_err(TaskError::at("write", &log))?;
        let copy = file.try_clone().map_err(TaskError::at("write", &log))?;
        let start = Instant::now();
        let peak = memory::watch(self.roadstead(context).stdout(file).stderr(copy))?;
        let time = start.elapsed();
        self.check_pushed()?;
        Ok((time, peak))
    }

    fn check_pushed(&self) -> Result<()> {
        let (status, tags) = http::get(self.registry.port, "/v2/result/tags/list")?;
        if status == 200 && tags.contains("\"1\"") {
            return Ok(());
        }
        Err(TaskError::new(format!(
            "{} pushed nothing: {status} {tags}",
            self.builder.name()
        )))
    }
}
