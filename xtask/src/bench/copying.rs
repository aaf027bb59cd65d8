//! Copying images: one large layer and many small ones, to and from real registries, beside `skopeo copy`.
//!
//! Debian 12's registry and skopeo hash more slowly than the network of this machine moves bytes, so that of the registry
//! bounds every push; those of Debian 13 use the processor's instructions for SHA-256.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{capture, logged, program};
use crate::error::{Result, TaskError};
use crate::server::Registry;
use crate::workspace::{make, make_empty, write};

use super::memory::{self, Peak};
use super::report;

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    name: &'static str,
    layers: u64,
    layer_bytes: u64,
}

const CASES: [Case; 2] = [
    Case {
        name: "1 layer of 4 GiB",
        layers: 1,
        layer_bytes: 4 << 30,
    },
    Case {
        name: "200 layers of 1 MiB",
        layers: 200,
        layer_bytes: 1 << 20,
    },
];
const DIRECTIONS: [&str; 2] = ["pull", "push"];
/// Who copies, ours first.
const TOOLS: [&str; 3] = ["roadstead", "skopeo of Debian 12", "skopeo of Debian 13"];
const REGISTRIES: [&str; 2] = ["Debian 12", "Debian 13"];

/// One row of the table.
#[derive(Debug)]
struct Row {
    registry: &'static str,
    case: Case,
    direction: &'static str,
    /// For each tool, a time a round.
    times: [Vec<Duration>; 3],
    peak: Peak,
}

/// Everything the copies need.
struct Bench<'a> {
    directory: &'a Path,
    roadstead: &'a Path,
    trixie: PathBuf,
}

/// Measures; gives the section of the report.
pub(super) fn run(directory: &Path, roadstead: &Path, rounds: usize) -> Result<String> {
    let directory = directory.join("copying");
    make(&directory)?;
    let bench = Bench {
        trixie: trixie(&directory)?,
        directory: &directory,
        roadstead,
    };
    let mut rows = Vec::new();
    for case in CASES {
        let seed = bench.seed(case)?;
        for registry in REGISTRIES {
            rows.extend(bench.measure(registry, case, &seed, rounds)?);
        }
    }
    Ok(section(&rows, &bench.versions()?))
}

/// Programs of Debian 13, in a root that nothing is started in: their loader runs them where the machine's files are.
fn trixie(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("trixie");
    if !root.exists() {
        println!("fetching registry and skopeo of Debian 13");
        let part = directory.join("trixie.part");
        if part.exists() {
            std::fs::remove_dir_all(&part).map_err(TaskError::at("remove", &part))?;
        }
        let mut mmdebstrap = program("mmdebstrap");
        mmdebstrap
            .args(["--variant=minbase", "--include=docker-registry,skopeo", "trixie"])
            .arg(&part);
        logged(&mut mmdebstrap, &directory.join("trixie.log"))?;
        std::fs::rename(&part, &root).map_err(TaskError::at("rename", &part))?;
    }
    Ok(root)
}

impl Bench<'_> {
    /// A program of Debian 13.
    fn newer(&self, name: &str) -> Command {
        let mut command = program(self.trixie.join("lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(self.trixie.join("usr/lib/x86_64-linux-gnu"))
            .arg(self.trixie.join("usr/bin").join(name));
        command
    }

    fn registry_program(&self, registry: &str) -> Command {
        match registry {
            "Debian 12" => program("docker-registry"),
            _ => self.newer("docker-registry"),
        }
    }

    fn versions(&self) -> Result<Vec<String>> {
        let last = |command: &mut Command| {
            let text = capture(command)?;
            Ok(text.split_whitespace().last().unwrap_or_default().to_owned())
        };
        Ok(vec![
            format!(
                "skopeo {} and {}",
                last(program("skopeo").arg("--version"))?,
                last(self.newer("skopeo").arg("--version"))?
            ),
            format!(
                "docker-registry {} and {}",
                last(self.registry_program("Debian 12").arg("--version"))?,
                last(self.registry_program("Debian 13").arg("--version"))?
            ),
        ])
    }

    fn roadstead(&self, data: &Path) -> Command {
        let mut command = program(self.roadstead);
        command
            .env("ROADSTEAD_DATA", data)
            .env("ROADSTEAD_CONFIG", self.directory.join("none"))
            .env("DOCKER_CONFIG", self.directory.join("none"));
        command
    }

    /// The data of a registry that holds the image, of bytes that cannot be compressed.
    fn seed(&self, case: Case) -> Result<PathBuf> {
        let home = self.directory.join(format!("seed-{}", case.layers));
        let data = home.join("data");
        if home.join("done").exists() {
            return Ok(data);
        }
        println!("making an image of {}", case.name);
        make_empty(&home)?;
        let context = home.join("context");
        make(&context)?;
        let mut dockerfile = "FROM scratch\n".to_owned();
        for layer in 0..case.layers {
            let fill = "head -c \"$1\" /dev/urandom > \"$2\"";
            let file = context.join(format!("f{layer}"));
            capture(
                program("sh")
                    .args(["-c", fill, "sh", &case.layer_bytes.to_string()])
                    .arg(&file),
            )?;
            // A layer on its own: nothing below it need be unpacked.
            dockerfile.push_str(&format!("COPY --link f{layer} /\n"));
        }
        write(&context.join("Dockerfile"), &dockerfile)?;
        let registry = Registry::start(&home, None)?;
        let name = format!("{}/app:1", registry.host());
        let mut build = self.roadstead(&home.join("store"));
        build
            .args(["build", "--progress", "plain", "--push", "-t", &name])
            .arg(&context);
        logged(&mut build, &home.join("build.log"))?;
        for spent in [&context, &home.join("store")] {
            std::fs::remove_dir_all(spent).map_err(TaskError::at("remove", spent))?;
        }
        write(&home.join("done"), "")?;
        Ok(data)
    }

    /// Lets the tools take turns at pulling from one registry and pushing to fresh ones.
    fn measure(&self, registry: &'static str, case: Case, seed: &Path, rounds: usize) -> Result<Vec<Row>> {
        let mut rows = DIRECTIONS.map(|direction| Row {
            registry,
            case,
            direction,
            times: [Vec::new(), Vec::new(), Vec::new()],
            peak: Peak::default(),
        });
        let work = self.directory.join("work");
        make_empty(&work)?;
        let full = work.join("full");
        make(&full)?;
        std::os::unix::fs::symlink(seed, full.join("data")).map_err(TaskError::at("link", seed))?;
        let full = Registry::start_program(&full, None, self.registry_program(registry))?;
        let from = format!("{}/app:1", full.host());
        // The image as each tool has it on disk; the pull that makes it is not counted.
        for tool in TOOLS {
            logged(&mut self.pull(tool, &work.join("kept"), &from)?, &work.join("log"))?;
        }
        for round in 0..rounds {
            for (at, tool) in TOOLS.into_iter().enumerate() {
                let fresh = work.join(format!("pull-{round}-{at}"));
                let (time, peak) = timed(&mut self.pull(tool, &fresh, &from)?, &work)?;
                rows[0].note(at, time, peak);
                std::fs::remove_dir_all(&fresh).map_err(TaskError::at("remove", &fresh))?;

                let empty = work.join(format!("push-{round}-{at}"));
                make(&empty)?;
                let target = Registry::start_with_program(&empty, self.registry_program(registry))?;
                let to = format!("{}/app:1", target.host());
                let (time, peak) = timed(&mut self.push(tool, &work.join("kept"), &from, &to), &work)?;
                rows[1].note(at, time, peak);
                drop(target);
                std::fs::remove_dir_all(&empty).map_err(TaskError::at("remove", &empty))?;
                let [pull, push] =
                    [0, 1].map(|row: usize| rows[row].times[at].last().map_or(0.0, Duration::as_secs_f64));
                println!(
                    "{registry}, {}, round {}, {tool}: pull {pull:.2} s, push {push:.2} s",
                    case.name,
                    round + 1
                );
            }
        }
        drop(full);
        std::fs::remove_dir_all(&work).map_err(TaskError::at("remove", &work))?;
        Ok(rows.into())
    }

    fn skopeo(&self, tool: &str) -> Command {
        match tool {
            "skopeo of Debian 12" => program("skopeo"),
            _ => self.newer("skopeo"),
        }
    }

    fn pull(&self, tool: &str, directory: &Path, from: &str) -> Result<Command> {
        make(directory)?;
        if tool == TOOLS[0] {
            let mut command = self.roadstead(&directory.join("store"));
            command.args(["image", "pull", "--quiet", from]);
            return Ok(command);
        }
        let mut command = self.skopeo(tool);
        command.args(["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{from}")]);
        command.arg(format!("oci:{}:app", directory.join("layout").display()));
        Ok(command)
    }

    fn push(&self, tool: &str, directory: &Path, name: &str, to: &str) -> Command {
        if tool == TOOLS[0] {
            let mut command = self.roadstead(&directory.join("store"));
            command.args(["image", "push", "--quiet", name, to]);
            return command;
        }
        let mut command = self.skopeo(tool);
        command.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        command
            .arg(format!("oci:{}:app", directory.join("layout").display()))
            .arg(format!("docker://{to}"));
        command
    }
}

fn timed(command: &mut Command, work: &Path) -> Result<(Duration, Peak)> {
    // What was written before must not be waited for in this one.
    capture(&mut program("sync"))?;
    let log = work.join("log");
    let file = std::fs::File::create(&log).map_err(TaskError::at("write", &log))?;
    let copy = file.try_clone().map_err(TaskError::at("write", &log))?;
    let start = Instant::now();
    let peak = memory::watch(command.stdout(file).stderr(copy))?;
    Ok((start.elapsed(), peak))
}

impl Row {
    fn note(&mut self, tool: usize, time: Duration, peak: Peak) {
        self.times[tool].push(time);
        if tool == 0 {
            self.peak.process_kib = self.peak.process_kib.max(peak.process_kib);
            self.peak.tree_kib = self.peak.tree_kib.max(peak.tree_kib);
        }
    }

    fn line(&self) -> String {
        let [ours, older, newer] = &self.times;
        let peer = |times: &[Duration]| {
            let ratio = report::median(times).as_secs_f64() / report::median(ours).as_secs_f64();
            format!("{}: **{ratio:.2}×**", report::cell(times, None))
        };
        format!(
            "| {}, {} | {} | {} | {} | {} | {} |\n",
            self.direction,
            self.case.name,
            self.registry,
            report::cell(ours, None),
            peer(older),
            peer(newer),
            report::mib(self.peak.process_kib),
        )
    }
}

fn section(rows: &[Row], versions: &[String]) -> String {
    let lines: String = rows.iter().map(Row::line).collect();
    format!(
        "`roadstead image pull` and `push` beside `skopeo copy` to and from an OCI layout, of bytes that cannot be compressed. Behind\n\
         a peer's time, how many times ours it is. *Memory*: the largest resident size of roadstead.\n\n\
         | | registry of | roadstead | skopeo of Debian 12 | skopeo of Debian 13 | memory |\n|---|---|---|---|---|---|\n{lines}\n\
         - Each push goes to an empty registry of its own. Tools and registries take turns within a round.\n\
         - Everything runs on one machine of two cores, the registry too: in a push it hashes and writes all bytes on one core, so\n  \
           that no client can be faster than it is. Debian 12's registry hashes without the processor's SHA-256 instructions.\n{}",
        versions
            .iter()
            .map(|version| format!("- {version}\n"))
            .collect::<String>()
    )
}
