//! `cargo xtask cage`: builds where nothing can be mounted and no namespace made, as in a container with Docker's defaults.

mod container;
mod endpoint;
mod hostile;
mod options;
mod orphans;
mod place;
mod residents;
mod runs;
mod site;

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
    let site = Site::open("cage", options.binary.as_deref())?;
    if options.outside {
        if options.hostile {
            return hostile::run_all(&site, Place::Outside);
        }
        return runs::run(&site, &[Place::Outside], &names, false);
    }
    let cage = site.cage(options.kind, options.binary.as_deref())?;
    if options.hostile {
        return hostile::run_all(&site, Place::Inside(&cage));
    }
    let places = match options.compare {
        true => vec![Place::Outside, Place::Inside(&cage)],
        false => vec![Place::Inside(&cage)],
    };
    runs::run(&site, &places, &names, options.overlay)
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
