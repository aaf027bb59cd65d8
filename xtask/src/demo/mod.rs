//! `cargo xtask demo`: the main job from one end to the other, on this machine alone.

mod base;
mod job;
mod proof;
mod service;
mod site;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Result, TaskError};
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

/// Runs the demo; an error says in which step it ended.
pub(crate) fn run(binary: Option<PathBuf>) -> Result<()> {
    let _lock = workspace::lock("demo")?;
    let mut steps = Steps {
        start: Instant::now(),
        done: Vec::new(),
    };
    let moto = steps.run("install what is missing", || {
        tools::install(&[&tools::COMMON[..], &NEEDS].concat())?;
        tools::moto()
    })?;
    let binary = match binary {
        Some(binary) => std::path::absolute(&binary).map_err(TaskError::at("resolve", &binary))?,
        None => steps.run("build roadstead", || workspace::build_product("dev"))?,
    };
    let site = steps.run("start a registry, and moto in place of AWS", || {
        site::Site::start(binary, &moto)
    })?;
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
