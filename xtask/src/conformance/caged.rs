//! Each case built outside and in a cage, where nothing can be mounted: the same images, and the same refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use crate::cage::{Cage, Kind, Place};
use crate::command::{program, tail};
use crate::error::{Result, TaskError};
use crate::workspace::make_empty;

use super::case::Case;
use super::image::Image;
use super::workshop::{Outcome, Running, Workshop, sha256};

/// What came of a case.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Image or refusal is the same.
    Same,
    /// Files and config are the same, in other bytes.
    SameFiles,
    /// All is equal but what is meant to differ, with the reasons.
    Meant(Vec<String>),
    /// Lines that say what differs.
    Differs(Vec<String>),
}

/// What is the same for all cases.
struct Sides<'a> {
    workshop: &'a Workshop,
    outside: Side<'a>,
    inside: Side<'a>,
}

/// A place, and the binary there.
#[derive(Debug, Clone, Copy)]
struct Side<'a> {
    at: Place<'a>,
    binary: &'a Path,
}

/// Builds each case on both sides; an error names those that differ.
pub(super) fn run(
    workshop: &Workshop,
    cases: &[Case],
    shared: &Path,
    kind: Kind,
    asked_for: Option<&Path>,
) -> Result<()> {
    let Some(docker) = workshop.docker() else {
        println!("SKIPPED: a cage needs Docker, which needs root and mounts here");
        return Ok(());
    };
    let cage = Cage::start(docker, shared, &workshop.cases(), kind)?;
    cage.install(asked_for)?;
    let there = cage.roadstead();
    let sides = Sides {
        workshop,
        outside: Side {
            at: Place::Outside,
            binary: workshop.binary(),
        },
        inside: Side {
            at: Place::Inside(&cage),
            binary: &there,
        },
    };
    let start = Instant::now();
    let (mut same, mut files, mut meant, mut wrong) = (0, Vec::new(), Vec::new(), Vec::new());
    for case in cases {
        let place = workshop.prepare(case)?;
        let verdict = sides.verdict(case, &place)?;
        if !matches!(verdict, Verdict::Differs(_)) {
            make_empty(&place)?;
        }
        show(case, &verdict);
        match verdict {
            Verdict::Same => same += 1,
            Verdict::SameFiles => files.push(case.name.as_str()),
            Verdict::Meant(reasons) => meant.extend(reasons.iter().map(|reason| format!("{}: {reason}", case.name))),
            Verdict::Differs(_) => wrong.push(case.name.as_str()),
        }
    }
    println!(
        "{} cases in {:.0} s, outside and in a cage ({}): {same} same",
        cases.len(),
        start.elapsed().as_secs_f64(),
        kind.name()
    );
    list("same files in other bytes", &files);
    list("meant to differ", &meant);
    list("not the same", &wrong);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!(
            "cases that differ in a cage: {}",
            wrong.join(" ")
        ))),
    }
}

fn show(case: &Case, verdict: &Verdict) {
    let (word, lines, before) = match verdict {
        Verdict::Same => ("same      ", &[][..], ""),
        Verdict::SameFiles => ("same files", &[][..], ""),
        Verdict::Meant(reasons) => ("same      ", &reasons[..], "meant: "),
        Verdict::Differs(lines) => ("DIFFERS   ", &lines[..], ""),
    };
    println!("{word} {}", case.name);
    for line in lines {
        println!("           {before}{line}");
    }
}

fn list(title: &str, names: &[impl std::fmt::Display]) {
    if !names.is_empty() {
        println!("{title}, {}:", names.len());
        names.iter().for_each(|name| println!("  {name}"));
    }
}

impl Sides<'_> {
    /// Builds a case on both sides, at once.
    fn verdict(&self, case: &Case, place: &Path) -> Result<Verdict> {
        let outside = self.start(self.outside, case, place, "oci")?;
        let inside = self.start(self.inside, case, place, "oci")?;
        let (outside, inside) = (outside.end()?, inside.end()?);
        let differences = match (&outside.archive, &inside.archive) {
            (Some(one), Some(other)) if sha256(one)? == sha256(other)? => Vec::new(),
            (Some(_), Some(_)) => {
                let one = self.image(self.outside, case, place)?;
                let differences = differences(&one, &self.image(self.inside, case, place)?);
                // What is meant and not there is a mistake in the case.
                if differences.is_empty() && case.cage.is_empty() {
                    return Ok(Verdict::SameFiles);
                }
                differences
            }
            (None, None) => refusals(case, [&outside, &inside], place),
            (Some(_), None) => vec![("build".to_owned(), failed("in the cage", &inside))],
            (None, Some(_)) => vec![("build outside".to_owned(), failed("outside", &outside))],
        };
        Ok(sorted_out(case, differences))
    }

    /// Starts the build of one side. The data directory is made anew for the layout, and warm for what is asked for after it.
    fn start(&self, side: Side<'_>, case: &Case, place: &Path, kind: &str) -> Result<Running> {
        let name = side.at.name();
        let data = match kind {
            "oci" => self.workshop.fresh_data(place, name)?,
            _ => place.join(name),
        };
        let build = program(side.binary);
        let (build, archive) = self.workshop.to_archive(case, &data, kind, build, &side.at.flags());
        Running::start(side.at.take(build), place, &format!("{name}-{kind}"), archive)
    }

    /// The image of a case that was built, in a form that can be read.
    fn image(&self, side: Side<'_>, case: &Case, place: &Path) -> Result<Image> {
        let outcome = self.start(side, case, place, "docker")?.end()?;
        let lost = || TaskError::new(format!("{}: {}", case.name, failed("for an archive", &outcome)));
        Image::read(outcome.archive.as_ref().ok_or_else(lost)?, &BTreeSet::new())
    }
}

fn failed(which: &str, outcome: &Outcome) -> String {
    format!(
        "only the build {which} failed ({}):\n{}",
        outcome.status,
        tail(&outcome.printed())
    )
}

/// Pairs of what differs between two images and a line that says how.
fn differences(outside: &Image, inside: &Image) -> Vec<(String, String)> {
    let times = |image: &Image| {
        let times = image.times().into_iter();
        times
            .map(|(path, time)| (format!("time of {path}"), time.to_string()))
            .collect()
    };
    let mut found = between(&outside.entries(), &inside.entries());
    found.extend(between(&outside.config(), &inside.config()));
    found.extend(between(&outside.created(), &inside.created()));
    found.extend(between(&times(outside), &times(inside)));
    found
}

fn between(outside: &BTreeMap<String, String>, inside: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let keys: BTreeSet<&String> = outside.keys().chain(inside.keys()).collect();
    let shown = |map: &BTreeMap<String, String>, key| map.get(key).map_or("nothing", String::as_str).to_owned();
    keys.into_iter()
        .filter(|key| outside.get(*key) != inside.get(*key))
        .map(|key| {
            let (one, other) = (shown(outside, key), shown(inside, key));
            (
                key.clone(),
                format!("{key}\n             outside  {one}\n             in cage  {other}"),
            )
        })
        .collect()
}

/// What differs between two builds that failed: both must say the same, and what the case wants.
fn refusals(case: &Case, outcomes: [&Outcome; 2], place: &Path) -> Vec<(String, String)> {
    let printed = outcomes.map(Outcome::printed);
    let mut found = Vec::new();
    let Some(wanted) = &case.fails else {
        return vec![(
            "build".to_owned(),
            format!("both builds failed:\n{}", tail(&printed[1])),
        )];
    };
    if outcomes[0].status.code() != outcomes[1].status.code() {
        let line = format!(
            "exit status: {} outside, {} in the cage",
            outcomes[0].status, outcomes[1].status
        );
        found.push(("status".to_owned(), line));
    }
    for text in wanted.iter().filter(|text| !printed[1].contains(text.as_str())) {
        let line = format!("in the cage it does not say `{text}`:\n{}", tail(&printed[1]));
        found.push(("message".to_owned(), line));
    }
    let [outside, inside] = [(&printed[0], "data-outside"), (&printed[1], "data-in-cage")]
        .map(|(printed, name)| message(printed, &place.join(name)));
    if found.is_empty() && outside != inside {
        let line = format!("message\n-- outside\n{outside}\n-- in the cage\n{inside}");
        found.push(("message".to_owned(), line));
    }
    found
}

/// A build's error message, without the name of its data directory.
fn message(printed: &str, data: &Path) -> String {
    let is_first = |line: &&str| line.starts_with("ERROR: ") || line.starts_with("error: ");
    let lines: Vec<&str> = printed.lines().skip_while(|line| !is_first(line)).collect();
    let text = lines.join("\n").replace(&*data.to_string_lossy(), "DATA");
    without_scratch(&text)
}

/// Cuts the names of a build's temporary directories, which are others every time.
fn without_scratch(text: &str) -> String {
    let mut parts = text.split("DATA/tmp/");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let below = part.splitn(3, '/').nth(2).unwrap_or_default();
        format!("{text}SCRATCH/{below}")
    })
}

fn sorted_out(case: &Case, differences: Vec<(String, String)>) -> Verdict {
    let (mut meant, mut lines, mut found) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (what, line) in differences {
        match case.cage_reason(&what) {
            Some(reason) => {
                meant.push(format!("{what}: {reason}"));
                found.insert(reason.to_owned());
            }
            None => lines.push(line),
        }
    }
    for (pattern, reason) in &case.cage {
        if !found.contains(reason) {
            lines.push(format!("`{pattern}` is said to differ in a cage, and does not"));
        }
    }
    match (lines.is_empty(), meant.is_empty()) {
        (false, _) => Verdict::Differs(lines),
        (true, false) => Verdict::Meant(meant),
        (true, true) => Verdict::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_told_from_what_is_not() {
        let mut case = Case::default();
        let differing = |key: &str| vec![(key.to_owned(), format!("{key} differs"))];
        assert_eq!(sorted_out(&case, Vec::new()), Verdict::Same);
        assert_eq!(
            sorted_out(&case, differing("/a")),
            Verdict::Differs(vec!["/a differs".to_owned()])
        );
        case.cage.push(("/a".to_owned(), "why".to_owned()));
        assert_eq!(
            sorted_out(&case, differing("/a")),
            Verdict::Meant(vec!["/a: why".to_owned()])
        );
        assert!(matches!(sorted_out(&case, Vec::new()), Verdict::Differs(_)));
    }

    #[test]
    fn scratch_directories_have_no_name() {
        let text = "cannot write `DATA/tmp/build-1-0/root-4/x/d` of `DATA/y`";
        assert_eq!(without_scratch(text), "cannot write `SCRATCH/x/d` of `DATA/y`");
        assert_eq!(without_scratch("plain"), "plain");
    }

    #[test]
    fn maps_are_compared_by_key() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let found = between(&map(&[("/a", "1"), ("/b", "2")]), &map(&[("/a", "1"), ("/c", "3")]));
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["/b", "/c"]);
    }

    #[test]
    fn messages_do_not_tell_the_data_directories_apart() {
        let printed = "#1 x\nERROR: cannot read `/c/outside/y`\n  --> Dockerfile:1\n";
        let want = "ERROR: cannot read `DATA/y`\n  --> Dockerfile:1";
        assert_eq!(message(printed, Path::new("/c/outside")), want);
    }
}
