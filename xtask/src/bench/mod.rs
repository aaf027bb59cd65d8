//! `cargo xtask bench`: how long builds take beside other builders, and how much memory.

pub(crate) mod builders;
mod caged;
mod copying;
mod counter;
mod growth;
mod large_file;
mod lazy_base;
mod limits;
mod machine;
mod memory;
mod npm;
mod options;
mod page;
mod peaks;
mod project;
mod race;
mod report;
pub(crate) mod seeds;
mod small_files;
mod stages;
mod startup;
pub(crate) mod workload;

use std::path::PathBuf;

use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::tools::{self, Need};
use crate::workspace::{self, is_root, make, make_empty, root, target, write};

use builders::Workshop;
use options::{Options, PARTS};
use page::Page;

const NEEDS: [Need; 6] = [
    Need::Program("docker-registry", "docker-registry"),
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Program("buildah", "buildah"),
    Need::Program("skopeo", "skopeo"),
    Need::Program("openssl", "openssl"),
    Need::Program("npm", "npm"),
];

const INTRODUCTION: &str = "\
# Benchmarks

Made by `cargo xtask bench`; each section tells what measured it. Run it to get the figures of your machine.

- A time is the median (least–most) of the rounds; behind it, its ratio to BuildKit's median, and behind roadstead's the target.
- The builders take turns within each round. A turn has new directories, and a registry of its own that holds the base and nothing
  else. Small files are deleted only at the end, since ext4 makes files slowly for minutes after many were deleted.
- Every time has the push in it, to a registry on the same machine. BuildKit's daemon is up before the clock starts, since it is where
  it is used; roadstead and buildah have none. It is the BuildKit within dockerd, with dockerd's own image store: with that of
  containerd, or in a daemon of its own, it may do otherwise.";

/// Measures what is asked for, and puts each section into `docs/benchmarks.md` as soon as it is there.
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
    let workshop = workshop(roadstead)?;
    put("Machine", &machine::section(&workshop, &options)?)?;
    // A part that fails, for want of a network or disk, costs the others nothing.
    let mut failures = Vec::new();
    for part in &options.parts {
        if let Err(error) = section(part, &workshop, &options) {
            println!("{part} failed");
            failures.push(format!("{part}: {error}"));
        }
    }
    if !failures.is_empty() {
        return Err(TaskError::new(failures.join("\n\n")));
    }
    std::fs::remove_dir_all(&workshop.turns).map_err(TaskError::at("remove", &workshop.turns))
}

fn section(part: &str, workshop: &Workshop, options: &Options) -> Result<()> {
    let origin = origin(part, options)?;
    let text = measure(part, workshop, options)?;
    put(heading(part), &format!("{origin}\n\n{text}"))
}

fn measure(part: &str, workshop: &Workshop, options: &Options) -> Result<String> {
    match part {
        "w1" => project::run(workshop, options),
        "w2" => lazy_base::run(workshop, options),
        "w3" => small_files::run(workshop, options),
        "w4" => large_file::run(workshop, options),
        "w5" => stages::run(workshop, options),
        "w6" => npm::run(workshop, options),
        "cage" => caged::run(workshop, options),
        "memory" => peaks::run(workshop),
        "startup" => startup::run(workshop),
        "growth" => growth::run(workshop),
        "limits" => limits::run(workshop),
        _ => copying::run(&workshop.directory, &workshop.roadstead, options.rounds),
    }
}

/// The heading of a part's section. All have one but the machine's, which is no part.
fn heading(part: &str) -> &'static str {
    let headings = page::HEADINGS.into_iter().filter(|heading| *heading != "Machine");
    let mut both = PARTS.into_iter().zip(headings);
    both.find(|(name, _)| *name == part)
        .map_or("Other", |(_, heading)| heading)
}

/// Says what makes a section, and how busy the machine is before.
fn origin(part: &str, options: &Options) -> Result<String> {
    let date = capture(program("date").args(["--utc", "+%Y-%m-%d"]))?;
    Ok(format!(
        "`{}` on {}, {}; load average before: {}.",
        options.command(part),
        date.trim(),
        machine::measured(options)?,
        machine::load()?
    ))
}

/// Shows a section and puts it into the page.
fn put(heading: &str, text: &str) -> Result<()> {
    println!("\n## {heading}\n\n{text}");
    make(&root().join("docs"))?;
    let path = root().join("docs/benchmarks.md");
    let old = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.map_err(TaskError::at("read", &path))?,
    };
    let mut page = Page::parse(&old);
    page.introduce(INTRODUCTION);
    page.put(heading, text);
    write(&path, &page.text())
}

fn workshop(roadstead: PathBuf) -> Result<Workshop> {
    let directory = target().join("bench");
    let turns = directory.join("turns");
    if turns.exists() {
        println!("removing what a broken bench has left; ext4 is slower for some minutes now");
    }
    make_empty(&turns)?;
    Ok(Workshop {
        directory,
        turns,
        roadstead,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_heading() {
        assert_eq!(heading("w1"), "W1: a middling project");
        assert_eq!(heading("limits"), "Limits of the machine");
        assert_eq!(heading("copy"), "Copying images");
        assert_eq!(PARTS.len() + 1, page::HEADINGS.len());
    }
}
