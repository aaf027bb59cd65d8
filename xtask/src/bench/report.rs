//! The figures as a table, and as `docs/benchmarks.md`.

use std::time::Duration;

use crate::command::{capture, program};
use crate::error::Result;
use crate::workspace::root;

use super::builders::Builder;
use super::memory::Peak;

/// Heading of the section on copying images.
pub(super) const COPYING: &str = "## Copying images";

/// Puts a section into a page in the place of the one of its heading, or at the end.
pub(super) fn replace_section(page: &str, heading: &str, text: &str) -> String {
    let (before, rest) = page.split_once(heading).unwrap_or((page, ""));
    let after = rest.find("\n## ").map_or("", |end| &rest[end + 1..]);
    let before = before.trim_end();
    format!("{before}\n\n{heading}\n\n{text}\n{after}")
}

/// The three ways in which W1 is built.
pub(super) const SITUATIONS: [&str; 3] = ["cold", "one file edited", "nothing changed"];

/// Times of one builder: for each situation, a time a round.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) builder: Builder,
    pub(super) situations: [Vec<Duration>; 3],
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) times: Vec<Times>,
    pub(super) w1_peak: Option<Peak>,
    pub(super) w4: Option<(Duration, Peak)>,
    /// The section on copying images.
    pub(super) copying: Option<String>,
    pub(super) versions: Vec<String>,
    pub(super) load: String,
}

pub(super) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => Duration::ZERO,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2,
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

pub(super) fn cell(times: &[Duration], reference: Option<&[Duration]>) -> String {
    let (least, most) = (times.iter().min(), times.iter().max());
    let (Some(least), Some(most)) = (least, most) else {
        return "-".to_owned();
    };
    let ratio = reference.filter(|reference| !reference.is_empty()).map(|reference| {
        format!(
            ", {:.2}×",
            median(times).as_secs_f64() / median(reference).as_secs_f64()
        )
    });
    format!(
        "**{}** s ({}–{}){}",
        seconds(median(times)),
        seconds(*least),
        seconds(*most),
        ratio.unwrap_or_default()
    )
}

pub(super) fn mib(kib: u64) -> String {
    format!("{} MiB", kib.div_ceil(1024))
}

impl Figures {
    /// The times as a table: median, least and most, and the ratio to BuildKit's median.
    pub(super) fn table(&self) -> String {
        let mut table = format!("| builder | {} |\n|---|---|---|---|\n", SITUATIONS.join(" | "));
        let reference = self.times.iter().find(|times| times.builder == Builder::BuildKit);
        for times in &self.times {
            let cells = (0..3).map(|at| {
                let reference = reference.filter(|reference| reference.builder != times.builder);
                cell(
                    &times.situations[at],
                    reference.map(|reference| &*reference.situations[at]),
                )
            });
            table.push_str(&format!(
                "| {} | {} |\n",
                times.builder.name(),
                cells.collect::<Vec<_>>().join(" | ")
            ));
        }
        table
    }

    /// The memory figures, a line each.
    pub(super) fn memory(&self) -> String {
        let mut text = String::new();
        let line =
            |name: &str, peak: Peak| format!("| {name} | {} | {} |\n", mib(peak.tree_kib), mib(peak.process_kib));
        if let Some(peak) = self.w1_peak {
            text.push_str(&line("W1, cold", peak));
        }
        if let Some((time, peak)) = self.w4 {
            text.push_str(&line(&format!("W4, a file of 1 GiB, in {} s", seconds(time)), peak));
        }
        match text.is_empty() {
            true => text,
            false => format!("| roadstead | process tree | largest process |\n|---|---|---|\n{text}"),
        }
    }

    /// The whole page.
    pub(super) fn page(&self, command: &str, rounds: usize) -> Result<String> {
        let date = capture(program("date").args(["--utc", "+%Y-%m-%d"]))?;
        let versions: String = self.versions.iter().map(|version| format!("- {version}\n")).collect();
        Ok(format!(
            "# Benchmarks\n\n\
             Made by `{command}` on {}, in {rounds} round{}. Run it to get the figures of your machine.\n\n\
             ## W1: a middling project\n\n\
             A Debian base of 170 MB, 5,000 source files (82.6 MB), two stages, three RUNs, and a push to a registry on the same\n\
             machine. Median (least–most), and the ratio of the medians to BuildKit's.\n\n{}\n\
             - *Cold*: nothing cached, the base comes from the registry. *One file edited*: a line appended to one of the sources.\n\
             - The builders take turns within each round. A turn has new directories, and a registry of its own that holds the base and\n  \
               nothing else. Nothing is deleted until the end, since ext4 makes files slowly for minutes after many were deleted.\n\
             - Every time has the push in it. BuildKit's daemon is up before the clock starts, since it is where it is used;\n  \
               roadstead and buildah have none.\n\n\
             ## Memory\n\n{}\n\
             *Process tree*: the largest sum, over roadstead and all of its children, of each one's share of memory (PSS in\n\
             `/proc`), looked at every 20 ms; the commands of RUN are in it. *Largest process*: the largest resident size the kernel\n\
             recorded for one process, shared pages included. In runs of their own, so that looking takes no time from the figures\n\
             above. W4 is `COPY` of a file of 1 GiB into an empty image, with the push.\n\n\
             {COPYING}\n\n{}\n\
             ## Machine\n\n{}{versions}",
            date.trim(),
            if rounds == 1 { "" } else { "s" },
            self.table(),
            self.memory(),
            self.copying.as_deref().unwrap_or("Not measured.\n"),
            machine(&self.load)?,
        ))
    }
}

fn machine(load: &str) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = capture(program("uname").arg("-r"))?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str, separator: char| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(separator));
        line.map_or_else(
            || "unknown".to_owned(),
            |(_, value)| value.trim().trim_matches('"').to_owned(),
        )
    };
    let commit = capture(
        program("git")
            .arg("-C")
            .arg(root())
            .args(["describe", "--always", "--dirty"]),
    )?;
    Ok(format!(
        "- {cores} cores ({}), memory {}\n- {}, Linux {}\n- load average before the first round: {load} (figures are noisy when it is not near 0)\n- roadstead at {}\n",
        value(&read("/proc/cpuinfo"), "model name", ':'),
        value(&read("/proc/meminfo"), "MemTotal", ':'),
        value(&read("/etc/os-release"), "PRETTY_NAME", '='),
        kernel.trim(),
        commit.trim(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_or_added() {
        let page = "# A\n\n## B\n\nold\n\n## C\n\nc\n";
        assert_eq!(
            replace_section(page, "## B", "new\n"),
            "# A\n\n## B\n\nnew\n\n## C\n\nc\n"
        );
        assert_eq!(replace_section("# A\n", "## B", "new\n"), "# A\n\n## B\n\nnew\n\n");
    }

    #[test]
    fn medians_and_ratios() {
        let times = |values: &[u64]| {
            values
                .iter()
                .map(|value| Duration::from_millis(*value))
                .collect::<Vec<_>>()
        };
        assert_eq!(median(&times(&[3, 1, 2])), Duration::from_millis(2));
        assert_eq!(median(&times(&[4, 1, 2, 3])), Duration::from_micros(2_500));
        let row = |builder, value| Times {
            builder,
            situations: [times(&[value]), times(&[value]), Vec::new()],
        };
        let figures = Figures {
            times: vec![row(Builder::Roadstead, 1_000), row(Builder::BuildKit, 4_000)],
            ..Figures::default()
        };
        assert_eq!(
            figures.table(),
            "| builder | cold | one file edited | nothing changed |\n|---|---|---|---|\n\
             | roadstead | **1.00** s (1.00–1.00), 0.25× | **1.00** s (1.00–1.00), 0.25× | - |\n\
             | buildkit | **4.00** s (4.00–4.00) | **4.00** s (4.00–4.00) | - |\n"
        );
        assert_eq!(figures.memory(), "");
    }
}
