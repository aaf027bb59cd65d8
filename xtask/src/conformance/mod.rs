//! `cargo xtask conformance`: Dockerfiles built by roadstead and by Docker with BuildKit, root file systems and configs compared.
//!
//! The cases lie in `tests/conformance`. Where Docker's BuildKit is older than a feature, the expected tree is written by hand from
//! the specification.

mod caches;
mod caged;
mod case;
mod compare;
mod digests;
mod generate;
mod image;
mod options;
mod random;
#[cfg(test)]
mod table;
mod workshop;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::draw::Draw;
use crate::error::{Result, TaskError};
use crate::oracle;
use crate::tools::{self, Need};
use crate::workspace::{self, make, make_empty, root};

use case::Case;
use compare::{Verdict, judge};
use options::Options;
use workshop::Workshop;

const NEEDS: [Need; 9] = [
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Package("busybox-static"),
    Need::Program("git", "git"),
    Need::Program("setfattr", "attr"),
    Need::Program("newuidmap", "uidmap"),
    Need::Program("setcap", "libcap2-bin"),
    Need::Program("zstd", "zstd"),
    Need::Program("xz", "xz-utils"),
    Need::Program("bzip2", "bzip2"),
];

/// Runs what was asked for; an error tells how many cases differ.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let _lock = workspace::lock("conformance")?;
    tools::install(&NEEDS)?;
    let roadstead = match &options.binary {
        Some(binary) => std::path::absolute(binary).map_err(TaskError::at("find", binary))?,
        None => workspace::build_product("dev")?,
    };
    let cases = chosen(&options)?;
    let directory = workspace::target().join("conformance");
    make_empty(&directory)?;
    let shared = workspace::target().join("bench");
    make(&shared)?;
    let with_docker = oracle::is_possible();
    if !with_docker {
        println!(
            "SKIPPED: no comparison with Docker, which needs root and mounts here; only cases with trees by hand are run"
        );
    }
    let workshop = Workshop::open(&directory, &shared, roadstead, with_docker)?;
    println!("oracle: {}", workshop.oracle()?);
    if options.random.is_some() && !with_docker {
        println!("SKIPPED: random Dockerfiles need Docker to compare with");
        return Ok(());
    }
    if options.digests {
        return digests::run(&workshop, &cases, &directory);
    }
    if options.caches {
        return caches::run(&workshop, &cases, &directory);
    }
    if let Some(kind) = options.cage {
        return caged::run(&workshop, &cases, &shared, kind, options.binary.as_deref());
    }
    if let Some(count) = options.random {
        return random::run(&workshop, count, options.seed);
    }
    compare_all(&workshop, &cases)
}

fn chosen(options: &Options) -> Result<Vec<Case>> {
    let mut cases = case::read_all(&root().join("tests/conformance"))?;
    if let Some(only) = &options.only {
        cases.retain(|case| only.split(',').any(|part| case.name.contains(part)));
    }
    if let Some(sample) = options.sample {
        let mut draw = Draw::new(options.seed);
        while cases.len() > sample {
            cases.remove(draw.below(cases.len()));
        }
    }
    if cases.is_empty() {
        return Err(TaskError::new("there is no such case"));
    }
    Ok(cases)
}

fn compare_all(workshop: &Workshop, cases: &[Case]) -> Result<()> {
    let start = Instant::now();
    let (mut compared, mut by_hand, mut meant, mut wrong) = (0, 0, 0, Vec::new());
    for case in cases {
        match verdict(workshop, case)? {
            Verdict::Skipped => println!("SKIPPED {}: no oracle", case.name),
            Verdict::Same { meant: reasons } => {
                println!("same    {}", case.name);
                for reason in &reasons {
                    println!("        meant: {reason}");
                }
                meant += usize::from(!reasons.is_empty());
                by_hand += usize::from(case.is_by_hand());
                compared += 1;
            }
            Verdict::Differs(lines) => {
                println!("DIFFERS {}", case.name);
                lines.iter().for_each(|line| println!("        {line}"));
                wrong.push(case.name.as_str());
            }
        }
    }
    println!(
        "{} cases in {:.0} s: {compared} same ({by_hand} beside a tree by hand, {meant} with differences that are meant), {} not",
        cases.len(),
        start.elapsed().as_secs_f64(),
        wrong.len()
    );
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!("cases that differ: {}", wrong.join(" ")))),
    }
}

/// Builds a case by both, side by side.
fn verdict(workshop: &Workshop, case: &Case) -> Result<Verdict> {
    let directory = workshop.prepare(case)?;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let ours = workshop.start_roadstead(case, &directory)?;
    let theirs = match case.is_by_hand() {
        true => None,
        false => workshop.start_docker(case, &directory)?,
    };
    let ours = ours.end()?;
    let mut theirs = theirs.map(workshop::Running::end).transpose()?;
    if let Some(theirs) = &mut theirs {
        // Every build that fails would look like one that must.
        if ["Cannot connect to the Docker daemon", "error reading from server: EOF"]
            .iter()
            .any(|text| theirs.printed().contains(text))
        {
            return Err(TaskError::new(format!(
                "the oracle's daemon ended with {}: give this case a tree",
                case.name
            )));
        }
        workshop.save(case, theirs)?;
    }
    // A file of the context may be as old as the clock's last second.
    let verdict = judge(workshop, case, &ours, theirs.as_ref(), since.saturating_sub(60))?;
    if matches!(verdict, Verdict::Same { .. } | Verdict::Skipped) {
        make_empty(&directory)?;
    }
    Ok(verdict)
}
