//! `cargo xtask demo`: the main job from one end to the other, on this machine alone.

mod agent_image;
mod base;
mod job;
mod proof;
mod service;
mod site;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cage::{Cage, Kind};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::tools::{self, Need};
use crate::workspace;

pub(crate) use base::node_packages;

const NEEDS: [Need; 4] = [
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Program("npm", "npm"),
    Need::Program("skopeo", "skopeo"),
    Need::Program("umoci", "umoci"),
];

/// The steps done and how long each took.
#[derive(Debug)]
struct Steps {
    start: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n==> {name}");
        let start = Instant::now();
        let result = step().map_err(|error| TaskError::new(format!("{name}: {error}")))?;
        self.done.push((name, start.elapsed()));
        Ok(result)
    }

    fn report(&self) {
        println!();
        for (name, time) in &self.done {
            println!("{:>7.1} s  {name}", time.as_secs_f64());
        }
        println!("{:>7.1} s  in all", self.start.elapsed().as_secs_f64());
    }
}

/// Runs the demo; an error says in which step it ended. With `caged`, roadstead runs in a container with Docker's defaults, where nothing
/// can be mounted and no namespace made.
pub(crate) fn run(binary: Option<PathBuf>, caged: bool) -> Result<()> {
    let _lock = workspace::lock("demo")?;
    if !caged {
        return in_place(binary, None);
    }
    tools::install(&NEEDS)?;
    let work = workspace::target().join("demo-cage");
    workspace::make_empty(&work)?;
    let shared = workspace::target().join("bench");
    for directory in [&shared, &site::directory()] {
        workspace::make(directory)?;
    }
    let docker = Docker::start_with(&shared, &work, &[&site::directory()])?;
    let cage = Cage::start(&docker, &shared, &site::directory(), Kind::Plain)?;
    in_place(binary, Some(&cage))
}

fn in_place(binary: Option<PathBuf>, cage: Option<&Cage<'_>>) -> Result<()> {
    let mut steps = Steps {
        start: Instant::now(),
        done: Vec::new(),
    };
    let moto = steps.run("install what is missing", || {
        tools::install(&[&tools::COMMON[..], &NEEDS].concat())?;
        tools::moto()
    })?;
    let is_static = binary.is_none();
    let binary = match binary {
        Some(binary) => std::path::absolute(&binary).map_err(TaskError::at("resolve", &binary))?,
        None => steps.run("build roadstead, static", || workspace::build_static("dev"))?,
    };
    let binary = match cage {
        Some(cage) => {
            cage.install(Some(&binary))?;
            cage.roadstead()
        }
        None => binary,
    };
    let site = steps.run("start a registry, and moto in place of AWS", || {
        site::Site::start(binary, cage, &moto)
    })?;
    match is_static {
        true => steps.run("make roadstead's own image", || agent_image::make(&site))?,
        false => println!(
            "\nSKIPPED: roadstead's own image, which stands on nothing and so needs a static binary: run this without --binary"
        ),
    }
    steps.run("make the base image from Debian packages", || base::make_image(&site))?;
    let job = steps.run("submit the example, and let an agent run it", || {
        job::run_example(&site)
    })?;
    let image = steps.run("pin the image", || job::pin(&site, &job))?;
    let unpacked = steps.run("read the image back with skopeo and umoci", || {
        proof::read_back(&site, &image)
    })?;
    steps.run("build the same sources again, with nothing cached", || {
        proof::build_again(&site, &image)
    })?;
    steps.run("start the service from the pushed image", || {
        service::ask(&site, &unpacked)
    })?;
    steps.run("look for what is left behind", || proof::nothing_is_left(&site))?;
    drop(site);
    steps.report();
    println!("demo: all good");
    Ok(())
}
