//! Figures as text: medians, ratios, targets, tables.

use std::time::Duration;

use super::builders::Builder;
use super::memory::Peak;

/// What we want to reach: at most this.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// A multiple of BuildKit's median.
    Ratio(f64),
    /// A time.
    Time(Duration),
}

/// Peak memory, whatever is built.
const MEMORY_TARGET_KIB: u64 = 128 * 1024;

/// A column of a table of times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) target: Option<Target>,
}

/// What one builder did.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) builder: Builder,
    /// For each column, a time a round.
    pub(super) times: Vec<Vec<Duration>>,
    /// Why there are none.
    pub(super) cannot: Option<String>,
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

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

/// Median, least and most, and the ratio to the median of the reference.
pub(super) fn cell(times: &[Duration], reference: Option<&[Duration]>) -> String {
    let (least, most) = (times.iter().min(), times.iter().max());
    let (Some(least), Some(most)) = (least, most) else {
        return "-".to_owned();
    };
    let ratio = reference.and_then(|reference| ratio(times, reference));
    format!(
        "**{}** s ({}–{}){}",
        seconds(median(times)),
        seconds(*least),
        seconds(*most),
        ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2}×"))
    )
}

fn ratio(times: &[Duration], reference: &[Duration]) -> Option<f64> {
    let (ours, theirs) = (median(times).as_secs_f64(), median(reference).as_secs_f64());
    (theirs > 0.0).then(|| ours / theirs)
}

/// Says what was to be reached, and whether it was.
pub(super) fn verdict(target: &str, met: bool) -> String {
    format!(" (target {target}: {})", if met { "met" } else { "**missed**" })
}

impl Target {
    fn verdict(self, times: &[Duration], reference: Option<&[Duration]>) -> String {
        match self {
            _ if times.is_empty() => String::new(),
            Self::Time(limit) => verdict(&format!("< {} s", seconds(limit)), median(times) < limit),
            Self::Ratio(limit) => reference
                .and_then(|reference| ratio(times, reference))
                .map_or_else(String::new, |ratio| verdict(&format!("≤ {limit:.2}×"), ratio <= limit)),
        }
    }
}

/// Times as a table, with the ratio to BuildKit's median, and behind ours the target.
pub(super) fn table(columns: &[Column], rows: &[Row]) -> String {
    let titles: String = columns.iter().map(|column| format!(" {} |", column.title)).collect();
    let mut table = format!("| builder |{titles}\n|---|{}\n", "---|".repeat(columns.len()));
    let reference = rows.iter().find(|row| row.builder == Builder::BuildKit);
    for row in rows {
        let reference = reference.filter(|reference| reference.builder != row.builder);
        let cells = columns.iter().enumerate().map(|(at, column)| {
            if let Some(reason) = &row.cannot {
                return format!(" {reason} |");
            }
            let times = row.times.get(at).map_or(&[][..], Vec::as_slice);
            let reference = reference.and_then(|reference| reference.times.get(at).map(Vec::as_slice));
            let target = column.target.filter(|_| row.builder == Builder::Roadstead);
            let verdict = target.map_or_else(String::new, |target| target.verdict(times, reference));
            format!(" {}{verdict} |", cell(times, reference))
        });
        table.push_str(&format!("| {} |{}\n", row.builder.name(), cells.collect::<String>()));
    }
    table
}

pub(super) fn mib(kib: u64) -> String {
    format!("{} MiB", kib.div_ceil(1024))
}

/// The memory of a process tree beside the target for it, and that of its largest process.
pub(super) fn peak(peak: Peak) -> String {
    let verdict = verdict(
        &format!("≤ {}", mib(MEMORY_TARGET_KIB)),
        peak.tree_kib <= MEMORY_TARGET_KIB,
    );
    format!("{}{verdict} | {}", mib(peak.tree_kib), mib(peak.process_kib))
}

/// A number of bytes in the unit that suits it.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn bytes(count: u64) -> String {
    let number = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..1_000_000 => format!("{:.0} kB", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.2} GB", number / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: &[u64]) -> Vec<Duration> {
        values.iter().map(|value| Duration::from_millis(*value)).collect()
    }

    #[test]
    fn medians() {
        assert_eq!(median(&times(&[3, 1, 2])), Duration::from_millis(2));
        assert_eq!(median(&times(&[4, 1, 2, 3])), Duration::from_micros(2_500));
        assert_eq!(median(&[]), Duration::ZERO);
    }

    #[test]
    fn a_table_has_ratios_and_targets() {
        let row = |builder, values: [u64; 2]| Row {
            builder,
            times: values.iter().map(|value| times(&[*value])).collect(),
            cannot: None,
        };
        let columns = [
            Column {
                title: "cold",
                target: Some(Target::Ratio(0.2)),
            },
            Column {
                title: "again",
                target: Some(Target::Time(Duration::from_millis(150))),
            },
        ];
        let rows = [
            row(Builder::Roadstead, [1_000, 130]),
            row(Builder::BuildKit, [4_000, 260]),
            Row {
                builder: Builder::Buildah,
                times: Vec::new(),
                cannot: Some("has no such flag".to_owned()),
            },
        ];
        assert_eq!(
            table(&columns, &rows),
            "| builder | cold | again |\n|---|---|---|\n\
             | roadstead | **1.00** s (1.00–1.00), 0.25× (target ≤ 0.20×: **missed**) | \
             **0.13** s (0.13–0.13), 0.50× (target < 0.15 s: met) |\n\
             | buildkit | **4.00** s (4.00–4.00) | **0.26** s (0.26–0.26) |\n\
             | buildah | has no such flag | has no such flag |\n"
        );
        // Without BuildKit there is no ratio, and nothing to be said about it.
        assert_eq!(
            table(&columns[..1], &rows[..1]),
            "| builder | cold |\n|---|---|\n| roadstead | **1.00** s (1.00–1.00) |\n"
        );
    }

    #[test]
    fn memory_and_bytes() {
        let figures = Peak {
            tree_kib: 20_000,
            process_kib: 10_241,
        };
        assert_eq!(peak(figures), "20 MiB (target ≤ 128 MiB: met) | 11 MiB");
        for (count, text) in [
            (1, "1 B"),
            (12_345, "12 kB"),
            (3_400_000, "3.4 MB"),
            (1_000_000_000, "1.00 GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
