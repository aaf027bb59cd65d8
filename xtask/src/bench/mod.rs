//! `cargo xtask bench`: how long builds take beside other builders, and how much memory.

mod builders;
mod memory;
mod oracle;
mod report;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{capture, logged, program};
use crate::error::{Result, TaskError};
use crate::server::Registry;
use crate::tools::{self, Need};
use crate::workspace::{self, is_root, make, make_empty, root, target, write};

use builders::{Builder, Order, Workshop};
use memory::Peak;
use oracle::Docker;
use report::{Figures, SITUATIONS, Times};

const NEEDS: [Need; 3] = [
    Need::Program("docker-registry", "docker-registry"),
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Program("buildah", "buildah"),
];
/// Everything that can be asked for by `--only`.
const PARTS: [&str; 5] = ["roadstead", "buildkit", "buildah", "memory", "large"];
const DEFAULT_ROUNDS: usize = 3;

/// What the person at the terminal asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    rounds: usize,
    parts: Vec<&'static str>,
    binary: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            rounds: DEFAULT_ROUNDS,
            parts: PARTS.to_vec(),
            binary: None,
        };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            let value = rest
                .next()
                .ok_or_else(|| TaskError::new(format!("`{option}` is no option with a value")))?;
            match *option {
                "--rounds" => {
                    let rounds = value.parse().ok().filter(|rounds| (1..=100).contains(rounds));
                    options.rounds = rounds.ok_or_else(|| TaskError::new("`--rounds` takes a number from 1 to 100"))?;
                }
                "--only" => options.parts = value.split(',').map(part).collect::<Result<_>>()?,
                "--binary" => options.binary = Some(PathBuf::from(value)),
                _ => return Err(TaskError::new(format!("bench knows no option `{option}`"))),
            }
        }
        Ok(options)
    }

    fn has(&self, name: &str) -> bool {
        self.parts.contains(&name)
    }
}

fn part(name: &str) -> Result<&'static str> {
    let found = PARTS.iter().find(|part| **part == name);
    found
        .copied()
        .ok_or_else(|| TaskError::new(format!("there is no part `{name}`, only {}", PARTS.join(", "))))
}

/// Measures, prints the figures and writes them to `docs/benchmarks.md` when all parts were asked for.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let _lock = workspace::lock("bench")?;
    if !is_root() {
        return Err(TaskError::new(
            "dockerd, with which builds are compared, wants root: run this as root",
        ));
    }
    tools::install(&NEEDS)?;
    let roadstead = match &options.binary {
        Some(binary) => std::path::absolute(binary).map_err(TaskError::at("resolve", binary))?,
        None => workspace::build_product("release")?,
    };
    let directory = target().join("bench");
    make(&directory.join("config"))?;
    let docker = options.has("buildkit").then(|| Docker::start(&directory)).transpose()?;
    let workshop = Workshop {
        directory,
        roadstead,
        docker,
    };
    let mut figures = Figures {
        load: load()?,
        versions: versions(&workshop)?,
        ..Figures::default()
    };
    let seed = seed(&workshop)?;
    let context = workshop.directory.join("w1");
    workload::make_w1(&context)?;
    figures.times = rounds(&workshop, &options, &context, &seed)?;
    if options.has("memory") {
        let (time, peak) = watched(&workshop, &context, &seed)?;
        println!("W1 watched: {:.2} s, {peak:?}", time.as_secs_f64());
        figures.w1_peak = Some(peak);
    }
    if options.has("large") {
        let context = workshop.directory.join("w4");
        workload::make_w4(&context)?;
        figures.w4 = Some(watched(&workshop, &context, &seed)?);
    }
    println!("\n{}\n{}", figures.table(), figures.memory());
    if options.parts.len() == PARTS.len() {
        make(&root().join("docs"))?;
        let command = ["cargo xtask bench"]
            .iter()
            .chain(arguments)
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        write(
            &root().join("docs/benchmarks.md"),
            &figures.page(&command, options.rounds)?,
        )?;
        println!("written to docs/benchmarks.md");
    }
    Ok(())
}

/// Lets the builders take turns.
fn rounds(workshop: &Workshop, options: &Options, context: &Path, seed: &Path) -> Result<Vec<Times>> {
    let builders = Builder::ALL.into_iter().filter(|builder| options.has(builder.name()));
    let mut all: Vec<Times> = builders
        .map(|builder| Times {
            builder,
            situations: Default::default(),
        })
        .collect();
    for round in 1..=options.rounds {
        for times in &mut all {
            let registry = registry_of(workshop, seed)?;
            let order = Order {
                context,
                registry: &registry,
            };
            workload::restore(context)?;
            workshop.forget(times.builder)?;
            for (at, situation) in SITUATIONS.iter().enumerate() {
                if *situation == "one file edited" {
                    workload::edit(context)?;
                }
                let time = workshop.build(times.builder, order)?;
                println!(
                    "round {round}, {}, {situation}: {:.2} s",
                    times.builder.name(),
                    time.as_secs_f64()
                );
                times.situations[at].push(time);
            }
        }
    }
    workload::restore(context)?;
    Ok(all)
}

/// A cold build by roadstead with an eye on its memory.
fn watched(workshop: &Workshop, context: &Path, seed: &Path) -> Result<(Duration, Peak)> {
    let registry = registry_of(workshop, seed)?;
    workshop.forget(Builder::Roadstead)?;
    let log = workshop.directory.join("watched.log");
    let file = std::fs::File::create(&log).map_err(TaskError::at("write", &log))?;
    let copy = file.try_clone().map_err(TaskError::at("write", &log))?;
    let mut command = workshop.roadstead(Order {
        context,
        registry: &registry,
    });
    let start = Instant::now();
    let peak = memory::watch(command.stdout(file).stderr(copy))?;
    Ok((start.elapsed(), peak))
}

/// Makes the base once: Debian 12 by mmdebstrap, in a registry's directory that each turn gets a copy of.
fn seed(workshop: &Workshop) -> Result<PathBuf> {
    let seed = workshop.directory.join("seed");
    let context = workshop.directory.join("base");
    let archive = context.join("base.tar");
    if !archive.exists() {
        println!("making the base from Debian's packages");
        make_empty(&context)?;
        write(&context.join("Dockerfile"), "FROM scratch\nADD base.tar /\n")?;
        let part = context.join("part.tar");
        let mut mmdebstrap = program("mmdebstrap");
        mmdebstrap
            .args(["--variant=minbase", "--mode=root", "--skip=output/dev", "bookworm"])
            .arg(&part);
        logged(&mut mmdebstrap, &workshop.directory.join("base.log"))?;
        std::fs::rename(&part, &archive).map_err(TaskError::at("rename", &part))?;
    }
    make_empty(&seed)?;
    let registry = Registry::start(&seed, None)?;
    let mut command = program(&workshop.roadstead);
    command
        .env("ROADSTEAD_DATA", workshop.directory.join("seed-data"))
        .env("ROADSTEAD_CONFIG", workshop.directory.join("config"))
        .env("DOCKER_CONFIG", workshop.directory.join("config"))
        .args([
            "build",
            "--progress",
            "plain",
            "--push",
            "-t",
            &format!("{}/debian:w1", registry.host()),
        ])
        .arg(&context);
    logged(&mut command, &workshop.directory.join("seed.log"))?;
    Ok(seed)
}

/// A registry with the base and nothing else.
fn registry_of(workshop: &Workshop, seed: &Path) -> Result<Registry> {
    let directory = workshop.directory.join("registry");
    make_empty(&directory)?;
    capture(program("cp").arg("--archive").arg(seed.join("data")).arg(&directory))?;
    Registry::start_with_data(&directory, None)
}

fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").map_err(TaskError::at("read", Path::new("/proc/loadavg")))?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn versions(workshop: &Workshop) -> Result<Vec<String>> {
    let mut versions = vec![capture(program("buildah").arg("--version"))?.trim().to_owned()];
    if let Some(docker) = &workshop.docker {
        versions.push(docker.version()?);
    }
    let registry = capture(program("docker-registry").arg("--version"))?;
    let version = registry.split_whitespace().last().unwrap_or_default();
    versions.push(format!("docker-registry {version}"));
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_mistakes() {
        let defaults = Options::parse(&[]).unwrap();
        assert_eq!((defaults.rounds, defaults.parts.len()), (3, 5));
        let options = Options::parse(&["--only", "buildkit,large", "--rounds", "7"]).unwrap();
        assert_eq!((options.rounds, &*options.parts), (7, &["buildkit", "large"][..]));
        for wrong in [
            &["--rounds", "0"][..],
            &["--rounds"],
            &["--only", "kaniko"],
            &["--fast", "1"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
