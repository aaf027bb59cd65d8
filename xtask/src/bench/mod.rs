//! `cargo xtask bench`: how long builds take beside other builders, and how much memory.

mod builders;
mod copying;
mod memory;
mod report;
mod workload;

use std::path::{Path, PathBuf};

use crate::command::{capture, logged, program};
use crate::error::{Result, TaskError};
use crate::server::Registry;
use crate::tools::{self, Need};
use crate::workspace::{self, is_root, make, make_empty, root, target, write};

use crate::oracle::Docker;
use builders::{Builder, Workshop};
use report::{Figures, SITUATIONS, Times};

const NEEDS: [Need; 4] = [
    Need::Program("docker-registry", "docker-registry"),
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Program("buildah", "buildah"),
    Need::Program("skopeo", "skopeo"),
];
/// Everything that can be asked for by `--only`.
const PARTS: [&str; 6] = ["roadstead", "buildkit", "buildah", "memory", "large", "copy"];
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
    if options.parts == ["copy"] {
        return copy_only(&roadstead, options.rounds);
    }
    let workshop = workshop(roadstead)?;
    let mut figures = Figures {
        load: load()?,
        versions: versions(&workshop, &options)?,
        ..Figures::default()
    };
    let context = workshop.directory.join("w1");
    workload::make_w1(&context)?;
    figures.times = rounds(&workshop, &options, &context)?;
    if options.has("memory") {
        figures.w1_peak = Some(workshop.turn(Builder::Roadstead, "memory")?.watch(&context)?.1);
    }
    if options.has("large") {
        let context = workshop.directory.join("w4");
        workload::make_w4(&context)?;
        figures.w4 = Some(workshop.turn(Builder::Roadstead, "large")?.watch(&context)?);
    }
    if options.has("copy") {
        figures.copying = Some(copying::run(&workshop.directory, &workshop.roadstead, options.rounds)?);
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
    std::fs::remove_dir_all(&workshop.turns).map_err(TaskError::at("remove", &workshop.turns))
}

/// Measures copies alone, which have a section of their own in the page.
fn copy_only(roadstead: &Path, rounds: usize) -> Result<()> {
    let section = copying::run(&target().join("bench"), roadstead, rounds)?;
    println!("\n{section}");
    let path = root().join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).map_err(TaskError::at("read", &path))?;
    write(&path, &report::replace_section(&page, report::COPYING, &section))?;
    println!("written to docs/benchmarks.md");
    Ok(())
}

fn workshop(roadstead: PathBuf) -> Result<Workshop> {
    let directory = target().join("bench");
    let turns = directory.join("turns");
    if turns.exists() {
        println!("removing what a broken bench has left; ext4 is slower for some minutes now");
    }
    make_empty(&turns)?;
    let seed = seed(&directory, &roadstead)?;
    Ok(Workshop {
        directory,
        turns,
        roadstead,
        seed,
    })
}

/// Lets the builders take turns.
fn rounds(workshop: &Workshop, options: &Options, context: &Path) -> Result<Vec<Times>> {
    let builders = Builder::ALL.into_iter().filter(|builder| options.has(builder.name()));
    let mut all: Vec<Times> = builders
        .map(|builder| Times {
            builder,
            situations: Default::default(),
        })
        .collect();
    for round in 1..=options.rounds {
        for times in &mut all {
            workload::restore(context)?;
            let turn = workshop.turn(times.builder, &round.to_string())?;
            for (at, situation) in SITUATIONS.iter().enumerate() {
                if *situation == "one file edited" {
                    workload::edit(context)?;
                }
                let time = turn.build(context)?;
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

/// Makes the base once: Debian 12 by mmdebstrap, in a registry's directory that each turn gets a copy of.
fn seed(directory: &Path, roadstead: &Path) -> Result<PathBuf> {
    let seed = directory.join("seed");
    let context = directory.join("base");
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
        logged(&mut mmdebstrap, &directory.join("base.log"))?;
        std::fs::rename(&part, &archive).map_err(TaskError::at("rename", &part))?;
    }
    make_empty(&seed)?;
    let registry = Registry::start(&seed, None)?;
    let mut command = program(roadstead);
    command
        .env("ROADSTEAD_DATA", directory.join("seed-data"))
        .env("ROADSTEAD_CONFIG", directory.join("none"))
        .env("DOCKER_CONFIG", directory.join("none"))
        .args([
            "build",
            "--progress",
            "plain",
            "--push",
            "-t",
            &format!("{}/debian:w1", registry.host()),
        ])
        .arg(&context);
    logged(&mut command, &directory.join("seed.log"))?;
    Ok(seed.join("data"))
}

fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").map_err(TaskError::at("read", Path::new("/proc/loadavg")))?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn versions(workshop: &Workshop, options: &Options) -> Result<Vec<String>> {
    let mut versions = vec![capture(program("buildah").arg("--version"))?.trim().to_owned()];
    if options.has("buildkit") {
        versions.push(Docker::start(&workshop.directory, &workshop.turns.join("version"))?.version()?);
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
        assert_eq!((defaults.rounds, defaults.parts.len()), (3, 6));
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
