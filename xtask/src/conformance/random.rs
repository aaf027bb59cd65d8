//! The differential fuzzer: random Dockerfiles by both builders, and a difference made as small as it gets.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Result, TaskError};
use crate::workspace::make_empty;

use super::compare::{self, Both};
use super::generate::Parts;
use super::workshop::{Running, Workshop};

/// Runs `count` cases from a seed on; an error names the seeds that differ.
pub(super) fn run(workshop: &Workshop, count: u64, seed: u64) -> Result<()> {
    let start = Instant::now();
    let (mut built, mut failed, mut wrong) = (0, 0, Vec::new());
    let mut explained: BTreeMap<&str, u64> = BTreeMap::new();
    for number in seed..seed + count {
        let parts = Parts::draw(number);
        match both(workshop, &parts)? {
            Both::Same { built: true } => built += 1,
            Both::Same { built: false } => failed += 1,
            Both::Explained(why) => *explained.entry(why).or_default() += 1,
            Both::Differs(_) => {
                let small = shrink(workshop, parts)?;
                report(workshop, number, &small)?;
                wrong.push(number.to_string());
            }
        }
        if (number - seed) % 50 == 49 {
            println!(
                "{} of {count} in {:.0} s",
                number - seed + 1,
                start.elapsed().as_secs_f64()
            );
        }
    }
    for (why, number) in &explained {
        println!("{number} differ, explained: {why}");
    }
    println!(
        "{count} random Dockerfiles from seed {seed} on in {:.0} s: {built} gave the same image, {failed} failed by both, {} differ unexplained",
        start.elapsed().as_secs_f64(),
        wrong.len()
    );
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!("seeds that differ: {}", wrong.join(" ")))),
    }
}

fn both(workshop: &Workshop, parts: &Parts) -> Result<Both> {
    let case = parts.case("random/case");
    let directory = workshop.prepare(&case)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = now.map_or(0, |time| time.as_secs()).saturating_sub(60);
    let ours = workshop.start_roadstead(&case, &directory)?;
    let theirs = workshop
        .start_docker(&case, &directory)?
        .map(Running::end)
        .transpose()?;
    let mut theirs = theirs.ok_or_else(|| TaskError::new("random Dockerfiles need Docker to compare with"))?;
    let ours = ours.end()?;
    if ours.archive.is_some() {
        workshop.save(&case, &mut theirs)?;
    }
    let both = compare::both(&parts.lines.join("\n"), &ours, &theirs, since)?;
    if !matches!(both, Both::Differs(_)) {
        make_empty(&directory)?;
    }
    Ok(both)
}

/// Takes parts away as long as a difference is left.
fn shrink(workshop: &Workshop, mut parts: Parts) -> Result<Parts> {
    let mut at = parts.lines.len();
    while at > 0 {
        at -= 1;
        let mut fewer = parts.clone();
        fewer.lines.remove(at);
        if matches!(both(workshop, &fewer)?, Both::Differs(_)) {
            parts = fewer;
        }
    }
    let mut at = parts.context.len();
    while at > 0 {
        at -= 1;
        let mut fewer = parts.clone();
        fewer.context.remove(at);
        if matches!(both(workshop, &fewer)?, Both::Differs(_)) {
            parts = fewer;
        }
    }
    Ok(parts)
}

fn report(workshop: &Workshop, seed: u64, parts: &Parts) -> Result<()> {
    println!("DIFFERS seed {seed}");
    println!(
        "--- context\n{}\n--- Dockerfile\n{}",
        parts.context.join("\n"),
        parts.lines.join("\n")
    );
    if let Both::Differs(lines) = both(workshop, parts)? {
        lines.iter().for_each(|line| println!("    {line}"));
    }
    Ok(())
}
