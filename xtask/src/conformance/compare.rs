//! What two builders made of a case, line by line.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::tail;
use crate::error::Result;

use super::case::{Case, RUNS_AGAIN};
use super::image::Image;
use super::workshop::{Outcome, Workshop};

/// What roadstead takes for the time of everything that is younger, when SOURCE_DATE_EPOCH gives no other.
const DEFAULT_EPOCH: u64 = 315_532_801;

/// What came of a case.
#[derive(Debug)]
pub(super) enum Verdict {
    /// All is equal but what is meant to differ, with the reasons.
    Same { meant: Vec<String> },
    /// Lines that say what differs.
    Differs(Vec<String>),
    /// There is nothing to compare with.
    Skipped,
}

/// What came of a Dockerfile that nobody wrote.
#[derive(Debug)]
pub(super) enum Both {
    /// Both built the same image, or both failed.
    Same { built: bool },
    /// They differ as they are known to.
    Explained(&'static str),
    /// Lines that say what differs.
    Differs(Vec<String>),
}

/// Finds out whether one failed for a reason that is known.
fn explained(dockerfile: &str, ours: &Outcome, theirs: &Outcome) -> Option<&'static str> {
    if theirs.archive.is_some() {
        let printed = ours.printed();
        let unknown = printed.contains("no user `") || printed.contains("no group `");
        return unknown.then_some(
            "--chown with a name the image does not know is an error, as the reference says; docker takes root",
        );
    }
    let printed = theirs.printed();
    let lost = printed.contains("lstat ") && printed.contains("/buildkit-mount") && printed.contains("no such file");
    if lost {
        // Where nothing of that name is there at all, or another COPY wants something of it, it is no error.
        return Some("docker's client did not send the directory of a wildcard without a match");
    }
    // `COPY dir dir/* /x/` with a dead link below: docker wants to digest what the link names.
    let (_, rest) = printed.split_once("failed to calculate checksum of ref")?;
    let path = rest.split('"').nth(1)?.trim_start_matches('/');
    let asked_for = dockerfile.contains(path);
    (!asked_for).then_some("docker could not digest a dead link below a wildcard")
}

/// Compares the outcomes of a Dockerfile of which it is not known whether it can be built.
pub(super) fn both(dockerfile: &str, ours: &Outcome, theirs: &Outcome, since: u64) -> Result<Both> {
    let (our, their) = match (&ours.archive, &theirs.archive) {
        (Some(our), Some(their)) => (our, their),
        (None, None) if ours.status.code() == Some(1) => return Ok(Both::Same { built: false }),
        // Built, and not saved: there is nothing to compare.
        (_, None) if theirs.status.success() => return Ok(Both::Same { built: false }),
        (our, _) => {
            if let Some(why) = explained(dockerfile, ours, theirs) {
                return Ok(Both::Explained(why));
            }
            let who = if our.is_some() { "docker" } else { "roadstead" };
            let printed = if our.is_some() {
                theirs.printed()
            } else {
                ours.printed()
            };
            return Ok(Both::Differs(vec![format!("only {who} failed:\n{}", tail(&printed))]));
        }
    };
    let none = BTreeSet::new();
    let (our, their) = (Image::read(our, &none)?, Image::read(their, &none)?);
    let differences = differences(&our, &their, since, DEFAULT_EPOCH);
    Ok(match differences.is_empty() {
        true => Both::Same { built: true },
        false => Both::Differs(differences.into_iter().map(|(_, line)| line).collect()),
    })
}

/// Compares the outcomes of a case. Files older than `since` have their times compared too.
pub(super) fn judge(
    workshop: &Workshop,
    case: &Case,
    ours: &Outcome,
    theirs: Option<&Outcome>,
    since: u64,
) -> Result<Verdict> {
    if let Some(wanted) = &case.fails {
        return Ok(failure(case, wanted, ours, theirs));
    }
    let Some(archive) = &ours.archive else {
        return Ok(Verdict::Differs(vec![format!(
            "roadstead failed ({}):\n{}",
            ours.status,
            tail(&ours.printed())
        )]));
    };
    if let Some(tree) = &case.tree {
        return by_hand(case, &Image::read(archive, &base_layers(workshop, archive)?)?, tree);
    }
    let Some(theirs) = theirs else {
        return Ok(Verdict::Skipped);
    };
    let Some(other) = &theirs.archive else {
        return Ok(Verdict::Differs(vec![format!(
            "docker failed ({}), roadstead did not:\n{}",
            theirs.status,
            tail(&theirs.printed())
        )]));
    };
    let none = BTreeSet::new();
    let (ours, theirs) = (Image::read(archive, &none)?, Image::read(other, &none)?);
    Ok(sorted_out(case, differences(&ours, &theirs, since, epoch(case))))
}

fn failure(case: &Case, wanted: &[String], ours: &Outcome, theirs: Option<&Outcome>) -> Verdict {
    let mut lines = Vec::new();
    let printed = ours.printed();
    if ours.status.success() {
        lines.push("roadstead built what must fail".to_owned());
    } else if ours.status.code().is_none_or(|code| code > 2) {
        lines.push(format!("roadstead ended with {}:\n{}", ours.status, tail(&printed)));
    }
    for text in wanted.iter().filter(|text| !printed.contains(text.as_str())) {
        lines.push(format!("roadstead does not say `{text}`:\n{}", tail(&printed)));
    }
    let mut meant = Vec::new();
    if theirs.is_some_and(|theirs| theirs.status.success()) {
        match case.reason("docker builds it") {
            Some(reason) => meant.push(format!("docker builds it: {reason}")),
            None => lines.push("docker builds it".to_owned()),
        }
    }
    match lines.is_empty() {
        true => Verdict::Same { meant },
        false => Verdict::Differs(lines),
    }
}

/// The diff_ids of the bases that the image stands on.
fn base_layers(workshop: &Workshop, archive: &std::path::Path) -> Result<BTreeSet<String>> {
    let own = Image::read(archive, &BTreeSet::new())?.diff_ids();
    let bases = ["busybox", "furnished", "configured", "triggers"];
    let below = bases.iter().filter_map(|name| workshop.base(name)).map(Image::diff_ids);
    Ok(below.filter(|base| own.starts_with(base)).flatten().collect())
}

fn by_hand(case: &Case, image: &Image, tree: &[String]) -> Result<Verdict> {
    let got: Vec<String> = image
        .entries()
        .into_iter()
        .map(|(path, what)| format!("{path} {what}"))
        .collect();
    let mut lines = Vec::new();
    lines.extend(
        tree.iter()
            .filter(|line| !got.contains(line))
            .map(|line| format!("missing: {line}")),
    );
    lines.extend(
        got.iter()
            .filter(|line| !tree.contains(line))
            .map(|line| format!("not expected: {line}")),
    );
    let mut config = image.config();
    config.extend(image.created());
    for line in &case.config {
        if !config.iter().any(|(key, value)| *line == format!("{key} {value}")) {
            lines.push(format!("missing: {line}"));
        }
    }
    if !lines.is_empty() && !case.config.is_empty() {
        lines.extend(
            config
                .iter()
                .map(|(key, value)| format!("the config has: {key} {value}")),
        );
    }
    Ok(match lines.is_empty() {
        true => Verdict::Same { meant: Vec::new() },
        false => Verdict::Differs(lines),
    })
}

/// The time that the flags of a case ask for.
fn epoch(case: &Case) -> u64 {
    let given = case.flags.iter().find_map(|flag| flag.split_once("SOURCE_DATE_EPOCH="));
    given
        .and_then(|(_, seconds)| seconds.parse().ok())
        .unwrap_or(DEFAULT_EPOCH)
}

fn differences(ours: &Image, theirs: &Image, since: u64, epoch: u64) -> Vec<(String, String)> {
    let mut differences = differing(&ours.entries(), &theirs.entries());
    differences.extend(differing(&ours.config(), &theirs.config()));
    let our_times = ours.times();
    for (path, their) in theirs.times() {
        // What the build made has the time of the build there, and the epoch here.
        let wanted = if their < since { their.min(epoch) } else { epoch };
        let our = our_times.get(&path).copied().unwrap_or(wanted);
        // A file of the base keeps its time in both.
        if our != wanted && our != their {
            let line = format!("time of {path}\n          docker    {their}\n          roadstead {our}, not {wanted}");
            differences.push((format!("time of {path}"), line));
        }
    }
    differences
}

/// Pairs of what differs and a line that says how.
fn differing(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let none = "nothing".to_owned();
    keys.into_iter()
        .filter(|key| !is_same(ours.get(*key), theirs.get(*key)))
        .map(|key| {
            let (our, their) = (ours.get(key).unwrap_or(&none), theirs.get(key).unwrap_or(&none));
            (
                key.clone(),
                format!("{key}\n          docker    {their}\n          roadstead {our}"),
            )
        })
        .collect()
}

/// An instruction that changes no file gets an empty layer there, and none here; in newer versions than the oracle the history has
/// the ARGs of the stage below as well, and each once.
fn is_same(ours: Option<&String>, theirs: Option<&String>) -> bool {
    if ours == theirs {
        return true;
    }
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return false;
    };
    let by = |line: &str| line.split_once(" layer by ").map(|(_, by)| by.to_owned());
    let (Some(our), Some(their)) = (by(ours), by(theirs)) else {
        return false;
    };
    let without_args = |by: &str| match by.strip_prefix("\"RUN |") {
        Some(rest) => rest.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned()),
        None => by.strip_prefix("\"RUN ").unwrap_or(by).to_owned(),
    };
    let is_run = our.starts_with("\"RUN ") && their.starts_with("\"RUN ");
    let same_layer = ours.starts_with("no") || theirs.starts_with("a ");
    let (our_words, their_words) = (without_args(&our), without_args(&their));
    let same_command = our_words.ends_with(&their_words) || their_words.ends_with(&our_words);
    same_layer && (our == their || (is_run && same_command))
}

fn sorted_out(case: &Case, differences: Vec<(String, String)>) -> Verdict {
    let (mut meant, mut lines) = (Vec::new(), Vec::new());
    for (what, line) in differences {
        match case.reason(&what) {
            Some(reason) => meant.push(format!("{what}: {reason}")),
            None => lines.push(line),
        }
    }
    // A difference that is meant and not there is a mistake in the case.
    for (pattern, _) in case.unlike.iter().filter(|(pattern, _)| pattern != RUNS_AGAIN) {
        let start = pattern.strip_suffix('*').unwrap_or(pattern);
        if !meant.iter().any(|line| line.starts_with(start)) {
            lines.push(format!("`{pattern}` is said to differ, and does not"));
        }
    }
    match lines.is_empty() {
        true => Verdict::Same { meant },
        false => Verdict::Differs(lines),
    }
}
