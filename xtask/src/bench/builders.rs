//! The three builders, each driven as its users drive it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{capture, logged, program, read_lossy, tail};
use crate::error::{Result, TaskError};
use crate::http;
use crate::server::Registry;
use crate::workspace::make;

use super::counter::Counter;
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
pub(crate) struct Workshop {
    /// What is made once and kept: the base, Docker's root.
    pub(crate) directory: PathBuf,
    /// What the turns write. It goes only when all is measured: ext4 looks at each file deleted in the last minutes before it
    /// makes one, so that a turn would pay for the files of the turn before it. Turns with few large files go at once.
    pub(crate) turns: PathBuf,
    /// The binary that is measured.
    pub(crate) roadstead: PathBuf,
}

/// What is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe<'a> {
    pub(super) context: &'a Path,
    /// The Dockerfile in the context.
    pub(super) file: &'a str,
    /// The image in the turn's registry that the build argument BASE names.
    pub(super) base: &'a str,
    pub(super) tag: &'a str,
}

/// A builder's turn: with nothing cached, and a registry of its own.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    workshop: &'a Workshop,
    builder: Builder,
    directory: PathBuf,
    docker: Option<Docker>,
    counter: Option<Counter>,
    registry: Registry,
}

impl Workshop {
    /// Prepares a turn of this name, with a registry that holds what the seed holds.
    pub(super) fn turn(&self, builder: Builder, name: &str, seed: Option<&Path>) -> Result<Turn<'_>> {
        let directory = self.turns.join(format!("{}-{name}", builder.name()));
        let home = directory.join("registry");
        make(&home)?;
        let registry = match seed {
            Some(seed) => {
                // The registry replaces files and does not change them, so what is large need not be there twice.
                let mut copy = program("cp");
                capture(copy.args(["--archive", "--link"]).arg(seed).arg(home.join("data")))?;
                Registry::start_with_data(&home, None)?
            }
            None => Registry::start(&home, None)?,
        };
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
            docker,
            counter: None,
            registry,
        })
    }

    /// Prepares roadstead with data of its own and no settings.
    pub(crate) fn roadstead(&self, data: &Path) -> Command {
        let mut command = program(&self.roadstead);
        Self::settle(&mut command, data);
        command
    }

    /// Gives a command that becomes roadstead data of its own and no settings.
    pub(super) fn settle(command: &mut Command, data: &Path) {
        let none = data.join("no-settings");
        command
            .env("ROADSTEAD_DATA", data)
            .env("ROADSTEAD_CONFIG", &none)
            .env("DOCKER_CONFIG", &none);
    }

    /// Makes sure of free disk, which a full one would only show in the middle of a turn.
    pub(super) fn need_disk(&self, gib: u64) -> Result<()> {
        let mut df = program("df");
        let text = capture(df.args(["--output=avail", "--block-size=1G"]).arg(&self.turns))?;
        match text.lines().last().and_then(|line| line.trim().parse::<u64>().ok()) {
            Some(free) if free < gib => Err(TaskError::new(format!(
                "this wants {gib} GiB of free disk below `{}`, where {free} are",
                self.turns.display()
            ))),
            _ => Ok(()),
        }
    }
}

impl Turn<'_> {
    /// Counts, from now on, what passes between builder and registry.
    pub(super) fn count(&mut self) -> Result<()> {
        self.counter = Some(Counter::start(self.registry.port)?);
        Ok(())
    }

    /// Bytes that came from the registry and that went to it, when they are counted.
    pub(super) fn down_and_up(&self) -> (u64, u64) {
        self.counter.as_ref().map_or((0, 0), Counter::down_and_up)
    }

    /// The registry as the builder sees it.
    fn host(&self) -> String {
        let port = self.counter.as_ref().map_or(self.registry.port, |counter| counter.port);
        format!("127.0.0.1:{port}")
    }

    /// The arguments that all builders take in the same way.
    fn common(&self, command: &mut Command, recipe: &Recipe<'_>) {
        command
            .arg("--build-arg")
            .arg(format!("BASE={}/{}", self.host(), recipe.base))
            .arg("--file")
            .arg(recipe.context.join(recipe.file))
            .arg("--tag")
            .arg(self.name(recipe))
            .arg(recipe.context);
    }

    fn name(&self, recipe: &Recipe<'_>) -> String {
        format!("{}/result:{}", self.host(), recipe.tag)
    }

    /// Prepares `roadstead build` with the push.
    fn roadstead(&self, recipe: &Recipe<'_>) -> Command {
        let mut command = self.workshop.roadstead(&self.directory.join("data"));
        command.args(["build", "--progress", "plain", "--push"]);
        self.common(&mut command, recipe);
        command
    }

    fn commands(&self, recipe: &Recipe<'_>) -> Result<Vec<Command>> {
        Ok(match self.builder {
            Builder::Roadstead => vec![self.roadstead(recipe)],
            Builder::BuildKit => {
                let docker = self
                    .docker
                    .as_ref()
                    .ok_or_else(|| TaskError::new("docker was not started"))?;
                let mut command = docker.client();
                command.args(["buildx", "build", "--progress", "plain", "--network", "host", "--push"]);
                self.common(&mut command, recipe);
                vec![command]
            }
            Builder::Buildah => {
                let mut build = self.buildah()?;
                build.args(["bud", "--layers", "--jobs", "0", "--isolation", "chroot"]);
                build.args(["--network", "host", "--tls-verify=false"]);
                self.common(&mut build, recipe);
                let mut push = self.buildah()?;
                push.args(["push", "--tls-verify=false", &self.name(recipe)]);
                vec![build, push]
            }
        })
    }

    /// `buildah` with a store of its own, and cache mounts of its own, which it keeps below TMPDIR. The mounts it leaves end
    /// with its mount namespace.
    fn buildah(&self) -> Result<Command> {
        let store = self.directory.join("containers");
        let temporary = self.directory.join("tmp");
        make(&temporary)?;
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
        command.env_remove("DOCKER_CONFIG").env("TMPDIR", temporary);
        Ok(command)
    }

    /// Builds and pushes, and tells how long it took.
    pub(super) fn build(&self, recipe: &Recipe<'_>) -> Result<Duration> {
        let log = self.directory.join("build.log");
        let mut commands = self.commands(recipe)?;
        // What an earlier build left to be written must not be waited for in this one.
        capture(&mut program("sync"))?;
        let start = Instant::now();
        for command in &mut commands {
            logged(command, &log)?;
        }
        let time = start.elapsed();
        self.check_pushed(recipe)?;
        Ok(time)
    }

    /// A build by roadstead with an eye on its memory.
    pub(super) fn watch(&self, recipe: &Recipe<'_>) -> Result<(Duration, Peak)> {
        let log = self.directory.join("build.log");
        let file = std::fs::File::create(&log).map_err(TaskError::at("write", &log))?;
        let copy = file.try_clone().map_err(TaskError::at("write", &log))?;
        capture(&mut program("sync"))?;
        let start = Instant::now();
        let peak = memory::watch(self.roadstead(recipe).stdout(file).stderr(copy));
        let time = start.elapsed();
        let peak = peak.map_err(|error| TaskError::new(format!("{error}\n\n{}", tail(&read_lossy(&log)))))?;
        self.check_pushed(recipe)?;
        Ok((time, peak))
    }

    /// Ends what the turn started, and removes what it wrote.
    pub(super) fn remove(self) -> Result<()> {
        let directory = self.directory.clone();
        drop(self);
        std::fs::remove_dir_all(&directory).map_err(TaskError::at("remove", &directory))
    }

    fn check_pushed(&self, recipe: &Recipe<'_>) -> Result<()> {
        let (status, tags) = http::get(self.registry.port, "/v2/result/tags/list")?;
        if status == 200 && tags.contains(&format!("\"{}\"", recipe.tag)) {
            return Ok(());
        }
        Err(TaskError::new(format!(
            "{} pushed nothing: {status} {tags}",
            self.builder.name()
        )))
    }
}
