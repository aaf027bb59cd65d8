//! `cargo xtask cage`: builds where nothing can be mounted and no namespace made, as in a container with Docker's defaults.

mod container;
mod endpoint;
mod hostile;
mod options;
mod orphans;
mod place;
mod residents;
mod restricted;
mod runs;
mod site;

use std::path::Path;

use crate::conformance;
use crate::error::{Result, TaskError};
use crate::oracle;
use crate::tools::{self, Need};
use crate::workspace;

pub(crate) use container::{Cage, Kind};
use options::Options;
pub(crate) use place::Place;
pub(crate) use site::Site;

const NEEDS: [Need; 3] = [
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Program("ssh-agent", "openssh-client"),
    Need::Program("gcc", "gcc"),
];

/// Contexts that need no time, and few packages.
const SHORT: [&str; 5] = ["shell", "user", "processes", "mounts", "orphans"];
/// Cases that are built in the cage in the short run.
const SAMPLE: &str = "25";
const SEED: &str = "20";

/// Runs what was asked for.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let names = chosen(&options)?;
    let _lock = workspace::lock("cage")?;
    tools::install(&NEEDS)?;
    if !oracle::is_possible() {
        println!("SKIPPED: a cage needs Docker, which needs root and mounts here");
        return Ok(());
    }
    if options.short {
        return short(options.binary.as_deref());
    }
    let site = Site::open("cage", options.binary.as_deref())?;
    if options.outside {
        return match options.hostile {
            true => hostile::run_all(&site, Place::Outside),
            false => runs::run(&site, &[Place::Outside], &names, false),
        };
    }
    let cage = site.cage(options.kind, options.binary.as_deref())?;
    let inside = Place::Inside(&cage);
    match (options.kind, options.hostile, options.compare) {
        (Kind::Restricted, ..) => restricted::run(&site, inside),
        (_, true, _) => hostile::run_all(&site, inside),
        (_, _, true) => runs::run(&site, &[Place::Outside, inside], &names, options.overlay),
        (_, _, false) => runs::run(&site, &[inside], &names, options.overlay),
    }
}

/// A part of all that is there, in minutes: for `cargo xtask test`.
fn short(binary: Option<&Path>) -> Result<()> {
    println!("==> builds in a cage");
    let site = Site::open("cage", binary)?;
    {
        let cage = site.cage(Kind::Plain, binary)?;
        let inside = Place::Inside(&cage);
        hostile::run_all(&site, inside)?;
        runs::run(&site, &[inside], &SHORT, false)?;
        // Once with the data on the cage's own root.
        runs::run(&site, &[inside], &SHORT[..1], true)?;
    }
    restricted::run(&site, Place::Inside(&site.cage(Kind::Restricted, binary)?))?;
    drop(site);
    println!("==> some conformance cases in a cage");
    let binary = binary.map(|binary| binary.to_string_lossy().into_owned());
    let mut arguments = vec!["--cage", "--sample", SAMPLE, "--seed", SEED];
    if let Some(binary) = &binary {
        arguments.extend(["--binary", binary]);
    }
    conformance::run(&arguments)
}

fn chosen(options: &Options) -> Result<Vec<&str>> {
    let Some(only) = &options.only else {
        return Ok(runs::NAMES.to_vec());
    };
    if let Some(wrong) = only.iter().find(|name| !runs::NAMES.contains(&name.as_str())) {
        let names = runs::NAMES.join(", ");
        return Err(TaskError::new(format!("there is no `{wrong}`, only {names}")));
    }
    Ok(only.iter().map(String::as_str).collect())
}
