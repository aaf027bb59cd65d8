//! The three builders, each driven as its users drive it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{capture, logged, program};
use crate::error::{Result, TaskError};
use crate::server::Registry;
use crate::workspace::make_empty;

use super::oracle::Docker;

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

/// What the builders work with.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) directory: PathBuf,
    pub(super) roadstead: PathBuf,
    pub(super) docker: Option<Docker>,
}

/// One build: what of, and where the result goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) context: &'a Path,
    pub(super) registry: &'a Registry,
}

impl Order<'_> {
    fn name(self) -> String {
        format!("{}/result:1", self.registry.host())
    }

    /// The build argument of W1; W4 takes no notice of it.
    fn base(self) -> String {
        format!("BASE={}/debian:w1", self.registry.host())
    }
}

impl Workshop {
    fn docker(&self) -> Result<&Docker> {
        self.docker
            .as_ref()
            .ok_or_else(|| TaskError::new("docker was not started"))
    }

    /// Makes a builder's next build a cold one.
    pub(super) fn forget(&self, builder: Builder) -> Result<()> {
        match builder {
            Builder::Roadstead => make_empty(&self.directory.join("data")),
            Builder::BuildKit => self.docker()?.forget(),
            Builder::Buildah => make_empty(&self.directory.join("containers")),
        }
    }

    /// Prepares `roadstead build` with the push.
    pub(super) fn roadstead(&self, order: Order<'_>) -> Command {
        let mut command = program(&self.roadstead);
        command
            .env("ROADSTEAD_DATA", self.directory.join("data"))
            .env("ROADSTEAD_CONFIG", self.directory.join("config"))
            .env("DOCKER_CONFIG", self.directory.join("config"))
            .args([
                "build",
                "--progress",
                "plain",
                "--push",
                "--build-arg",
                &order.base(),
                "-t",
                &order.name(),
            ])
            .arg(order.context);
        command
    }

    fn commands(&self, builder: Builder, order: Order<'_>) -> Result<Vec<Command>> {
        Ok(match builder {
            Builder::Roadstead => vec![self.roadstead(order)],
            Builder::BuildKit => {
                let mut command = self.docker()?.client();
                command.args(["buildx", "build", "--progress", "plain", "--network", "host", "--push"]);
                command
                    .args(["--build-arg", &order.base(), "-t", &order.name()])
                    .arg(order.context);
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
                    .args(["--build-arg", &order.base(), "-t", &order.name()])
                    .arg(order.context);
                let mut push = self.buildah();
                push.args(["push", "--tls-verify=false", &order.name()]);
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
    pub(super) fn build(&self, builder: Builder, order: Order<'_>) -> Result<Duration> {
        let log = self.directory.join(format!("{}.log", builder.name()));
        let mut commands = self.commands(builder, order)?;
        // What an earlier build left to be written must not be waited for in this one.
        capture(&mut program("sync"))?;
        let start = Instant::now();
        for command in &mut commands {
            logged(command, &log)?;
        }
        let time = start.elapsed();
        let (status, tags) = crate::http::get(order.registry.port, "/v2/result/tags/list")?;
        if status != 200 || !tags.contains("\"1\"") {
            return Err(TaskError::new(format!(
                "{} pushed nothing: {status} {tags}",
                builder.name()
            )));
        }
        Ok(time)
    }
}
