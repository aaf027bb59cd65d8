//! W1 in the cage, where nothing can be mounted, beside W1 outside; and what a call costs that the supervisor looks at.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cage::{Cage, Kind};
use crate::command::{capture, logged, program, read_lossy};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::server::Registry;
use crate::workspace::{make, make_empty, write};

use super::builders::Workshop;
use super::memory::{self, Peak};
use super::options::Options;
use super::{report, seeds, workload};

/// W1 in the cage takes at most so many times what it takes outside.
const TARGET: f64 = 1.3;
const STEPS: [&str; 3] = ["cold", "one file edited", "nothing changed"];
/// Calls with a path in one RUN.
const CALLS: u32 = 200_000;

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    let context = workshop.turns.join("w1");
    workload::make_w1(&context)?;
    let seed = seeds::debian(workshop)?;
    let docker = Docker::start_with(
        &workshop.directory,
        &workshop.turns.join("cage-docker"),
        &[&workshop.turns],
    )?;
    let cage = Cage::start(&docker, &workshop.directory, &workshop.turns, Kind::Plain)?;
    cage.install(Some(&workshop.roadstead))?;
    let outside = |command: &Command| copy(command);
    let inside = |command: &Command| cage.inside(command);
    let places: [Place<'_>; 2] = [
        ("outside", "namespaces", workshop.roadstead.clone(), &outside),
        ("in the cage", "chroot", cage.roadstead(), &inside),
    ];
    let mut times = [const { [Vec::new(), Vec::new(), Vec::new()] }; 2];
    let mut calls = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        for (at, place) in places.iter().enumerate() {
            let turn = Turn::new(workshop, &seed, place, &format!("caged-{round}-{at}"))?;
            turn.w1(&context, &mut times[at])?;
            calls[at].push(turn.calls()?);
        }
    }
    let peaks = [("namespaces", "outside"), ("chroot", "as in the cage")]
        .map(|(sandbox, name)| Ok((name, peak(workshop, &seed, &context, sandbox)?)));
    let peaks = peaks.into_iter().collect::<Result<Vec<(&str, Peak)>>>()?;
    Ok(section(&times, &calls, &peaks))
}

/// A name, the sandbox, the binary, and what turns a command into one there.
type Place<'a> = (&'a str, &'a str, std::path::PathBuf, &'a dyn Fn(&Command) -> Command);

/// The same command once more.
fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}

/// Builds of one place with nothing cached, and a registry of its own.
struct Turn<'a> {
    place: &'a Place<'a>,
    directory: std::path::PathBuf,
    registry: Registry,
}

impl<'a> Turn<'a> {
    fn new(workshop: &Workshop, seed: &Path, place: &'a Place<'a>, name: &str) -> Result<Self> {
        let directory = workshop.turns.join(name);
        let home = directory.join("registry");
        make(&home)?;
        capture(
            program("cp")
                .args(["--archive", "--link"])
                .arg(seed)
                .arg(home.join("data")),
        )?;
        Ok(Self {
            place,
            registry: Registry::start_with_data(&home, None)?,
            directory,
        })
    }

    fn command(&self, context: &Path) -> Command {
        let (_, sandbox, binary, take) = self.place;
        let mut command = program(binary);
        Workshop::settle(&mut command, &self.directory.join("data"));
        command.args(["build", "--progress", "plain", "--push", "--sandbox", sandbox]);
        command
            .arg("--build-arg")
            .arg(format!("BASE={}/{}", self.registry.host(), seeds::DEBIAN))
            .arg("--tag")
            .arg(format!("{}/result:1", self.registry.host()))
            .arg(context);
        take(&command)
    }

    fn build(&self, context: &Path) -> Result<Duration> {
        let mut command = self.command(context);
        capture(&mut program("sync"))?;
        let start = Instant::now();
        logged(&mut command, &self.directory.join("build.log"))?;
        Ok(start.elapsed())
    }

    fn w1(&self, context: &Path, times: &mut [Vec<Duration>; 3]) -> Result<()> {
        for (at, name) in STEPS.iter().enumerate() {
            match at {
                0 => workload::restore(context)?,
                1 => workload::edit(context)?,
                _ => {}
            }
            let time = self.build(context)?;
            println!("w1 {}, {name}: {:.2} s", self.place.0, time.as_secs_f64());
            times[at].push(time);
        }
        Ok(())
    }

    /// What one call with a path takes in a RUN.
    fn calls(&self) -> Result<Duration> {
        let context = self.directory.join("calls");
        make_empty(&context)?;
        let text = format!(
            "ARG BASE\nFROM $BASE\nRUN date +%s%N; i=0; while [ $i -lt {CALLS} ]; do [ -e /etc/passwd ]; i=$((i+1)); done; date +%s%N\n"
        );
        write(&context.join("Dockerfile"), &text)?;
        self.build(&context)?;
        let log = read_lossy(&self.directory.join("build.log"));
        let stamps: Vec<u64> = log
            .lines()
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .filter(|stamp| *stamp > 1_000_000_000_000_000_000)
            .collect();
        let [begun, ended] = stamps[..] else {
            return Err(TaskError::new(format!("the command told no times:\n{log}")));
        };
        Ok(Duration::from_nanos(ended.saturating_sub(begun)) / CALLS)
    }
}

/// W1, cold, with an eye on its memory. Outside in both sandboxes: within a container the processes cannot be followed.
fn peak(workshop: &Workshop, seed: &Path, context: &Path, sandbox: &str) -> Result<Peak> {
    workload::restore(context)?;
    let place: Place<'_> = ("outside", sandbox, workshop.roadstead.clone(), &copy);
    let turn = Turn::new(workshop, seed, &place, &format!("caged-memory-{sandbox}"))?;
    let log = turn.directory.join("build.log");
    let file = std::fs::File::create(&log).map_err(TaskError::at("write", &log))?;
    let same = file.try_clone().map_err(TaskError::at("write", &log))?;
    memory::watch(turn.command(context).stdout(file).stderr(same))
}

fn section(times: &[[Vec<Duration>; 3]; 2], calls: &[Vec<Duration>; 2], peaks: &[(&str, Peak)]) -> String {
    let mut text = "W1 with the chroot sandbox in a container with Docker's defaults (no mount, no namespace), beside the same build with\n\
                    namespaces outside, each with a registry and data of its own.\n\n| W1 | outside | in the cage | target |\n|---|---|---|---|\n"
        .to_owned();
    for (at, name) in STEPS.iter().enumerate() {
        let (outside, inside) = (&times[0][at], &times[1][at]);
        let ratio = report::median(inside).as_secs_f64() / report::median(outside).as_secs_f64();
        let target = report::verdict(&format!("{TARGET}×"), ratio <= TARGET);
        let cells = (report::cell(outside, None), report::cell(inside, Some(outside)));
        text.push_str(&format!("| {name} | {} | {} | {target} |\n", cells.0, cells.1));
    }
    let micro = |times: &[Duration]| format!("{:.1} µs", report::median(times).as_secs_f64() * 1e6);
    text.push_str(&format!(
        "\nOne turn of a shell's loop with `[ -e /etc/passwd ]`, {CALLS} of them in one RUN: {} outside, {} in the cage, where the\n\
         supervisor looks at the path.\n\n| memory, W1 cold | process tree | largest process |\n|---|---|---|\n",
        micro(&calls[0]),
        micro(&calls[1])
    ));
    for (name, peak) in peaks {
        text.push_str(&format!("| {name} | {} |\n", report::peak(*peak)));
    }
    text
}
