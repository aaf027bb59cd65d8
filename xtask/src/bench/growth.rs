//! How time and memory of roadstead grow with what is built.

use std::time::Duration;

use crate::error::Result;

use super::builders::{Builder, Workshop};
use super::memory::Peak;
use super::{large_file, report, seeds, small_files};

const FILES: [u64; 3] = [10_000, 100_000, 1_000_000];
const GIB: [u64; 3] = [1, 4, 8];
/// A ratio up to this, between the cost of the largest and that of the smallest, is taken for none.
const TOLERANCE: f64 = 1.25;

/// What one size cost.
#[derive(Debug, Clone, Copy)]
struct Point {
    units: u64,
    time: Duration,
    peak: Peak,
}

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop) -> Result<String> {
    let large = GIB
        .into_iter()
        .map(|gib| large_file(workshop, gib))
        .collect::<Result<Vec<_>>>()?;
    let small = FILES
        .into_iter()
        .map(|files| small_files(workshop, files))
        .collect::<Result<Vec<_>>>()?;
    Ok(format!(
        "roadstead alone, one run of each size, with the push. *Process tree*: as in *Memory*.\n\n\
         | | time | time per unit | process tree | largest process |\n|---|---|---|---|---|\n{}{}\n- {}\n- {}\n",
        lines("W3", "files", "ms per 1,000", 1e6, &small),
        lines("W4", "GiB", "s per GiB", 1.0, &large),
        summary("W3", &small),
        summary("W4", &large),
    ))
}

fn large_file(workshop: &Workshop, gib: u64) -> Result<Point> {
    workshop.need_disk(gib * 3 + 4)?;
    let context = large_file::make_context(workshop, gib)?;
    let turn = workshop.turn(Builder::Roadstead, &format!("w4-{gib}-growth"), None)?;
    let (time, peak) = turn.watch(&large_file::recipe(&context))?;
    turn.remove()?;
    large_file::remove_context(&context)?;
    println!("growth, {gib} GiB: {:.2} s, {peak:?}", time.as_secs_f64());
    Ok(Point { units: gib, time, peak })
}

fn small_files(workshop: &Workshop, files: u64) -> Result<Point> {
    let context = small_files::make_context(workshop, files)?;
    let seed = seeds::debian(workshop)?;
    // It stays until the end: ext4 would be slower for what comes next.
    let turn = workshop.turn(Builder::Roadstead, &format!("w3-{files}-growth"), Some(&seed))?;
    let [warm_up, build] = small_files::recipes(&context);
    turn.build(&warm_up)?;
    let (time, peak) = turn.watch(&build)?;
    println!("growth, {files} files: {:.2} s, {peak:?}", time.as_secs_f64());
    Ok(Point {
        units: files,
        time,
        peak,
    })
}

impl Point {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn seconds_per_unit(&self) -> f64 {
        self.time.as_secs_f64() / self.units as f64
    }
}

/// A line for each size; `factor` makes the unit shown of seconds per unit.
fn lines(name: &str, unit: &str, shown: &str, factor: f64, points: &[Point]) -> String {
    points
        .iter()
        .map(|point| {
            format!(
                "| {name}, {} {unit} | {} s | {:.2} {shown} | {} |\n",
                point.units,
                report::seconds(point.time),
                point.seconds_per_unit() * factor,
                report::peak(point.peak)
            )
        })
        .collect()
}

/// Says whether time is linear and memory flat, by the largest beside the smallest.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn summary(name: &str, points: &[Point]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let units = last.units / first.units.max(1);
    let time = last.seconds_per_unit() / first.seconds_per_unit();
    let memory = last.peak.tree_kib as f64 / first.peak.tree_kib.max(1) as f64;
    let time_is = if time <= TOLERANCE {
        "linear or better"
    } else {
        "more than linear"
    };
    let memory_is = if memory <= TOLERANCE { "flat" } else { "growing" };
    format!(
        "{name}, {units} times as much: {time:.2} times the time per unit, so time is {time_is}; {memory:.2} times the memory, so memory \
         is {memory_is}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(units: u64, seconds: u64, tree_kib: u64) -> Point {
        Point {
            units,
            time: Duration::from_secs(seconds),
            peak: Peak {
                tree_kib,
                process_kib: 1024,
            },
        }
    }

    #[test]
    fn growth_is_told_by_figures() {
        let points = [point(10, 1, 10_240), point(100, 12, 20_480)];
        assert_eq!(
            lines("W3", "files", "ms per 1,000", 1e6, &points[..1]),
            "| W3, 10 files | 1.00 s | 100000.00 ms per 1,000 | 10 MiB (target ≤ 128 MiB: met) | 1 MiB |\n"
        );
        assert_eq!(
            summary("W3", &points),
            "W3, 10 times as much: 1.20 times the time per unit, so time is linear or better; 2.00 times the memory, so memory is growing."
        );
    }
}
