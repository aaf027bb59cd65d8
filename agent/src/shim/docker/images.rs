//! `docker images`.

use std::io;

use clap::Parser;
use jiff::Timestamp;
use roadstead_registry_client::{Error, Reference, Store};

use super::select::Image;
use super::{or_exit, or_fail, parse};
use crate::shim::context::Context;
use crate::shim::pushed;
use crate::shim::session::Session;

/// List local images.
#[derive(Debug, Parser)]
struct Images {
    /// Taken and without effect: there are no intermediate images.
    #[arg(short, long)]
    all: bool,
    /// Print ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids.
    #[arg(long)]
    no_trunc: bool,
    /// Print digests as well.
    #[arg(long)]
    digests: bool,
    /// Only images of this name.
    name: Option<String>,
}

struct Row {
    name: Reference,
    id: String,
    digest: String,
    created: Option<Timestamp>,
    size: u64,
}

pub(super) async fn serve(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let images: Images = or_exit!(parse(session, "images", arguments).await?);
    let store = or_fail!(session, context.store());
    let only = match &images.name {
        Some(name) => Some(or_fail!(session, name.parse::<Reference>())),
        None => None,
    };
    let rows = or_fail!(session, rows(&store, only.as_ref()));
    let id = |row: &Row| {
        let hex = row.id.strip_prefix("sha256:").unwrap_or(&row.id);
        if images.no_trunc {
            row.id.clone()
        } else {
            hex.chars().take(12).collect()
        }
    };
    if images.quiet {
        let mut ids: Vec<String> = rows.iter().map(id).collect();
        ids.dedup();
        for id in ids {
            session.line(&id).await?;
        }
        return Ok(0);
    }
    let mut head = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if images.digests {
        head.insert(2, "DIGEST");
    }
    let mut table: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    let now = Timestamp::now();
    for row in &rows {
        let tag = row.name.tag().unwrap_or("<none>").to_owned();
        let created = row
            .created
            .map_or_else(|| "N/A".to_owned(), |created| format!("{} ago", age(now, created)));
        let mut cells = vec![row.name.without_tag().familiar(), tag, id(row), created, size(row.size)];
        if images.digests {
            cells.insert(2, row.digest.clone());
        }
        table.push(cells);
    }
    session.stdout(layout(&table).as_bytes()).await?;
    Ok(0)
}

/// The images, the newest first as docker has them.
fn rows(store: &Store, only: Option<&Reference>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (name, descriptor) in store.list()? {
        let matches =
            |only: &Reference| only.name() == name.name() && (only.tag().is_none() || only.tag() == name.tag());
        if !only.is_none_or(matches) {
            continue;
        }
        let image = Image::read(store, &descriptor)?;
        let created = image
            .config
            .raw()
            .get("created")
            .and_then(|created| created.as_str()?.parse().ok());
        let size = pushed::size_of(&image.manifest);
        rows.push(Row {
            name,
            id: image.id(),
            digest: descriptor.digest.to_string(),
            created,
            size,
        });
    }
    rows.sort_by(|one, other| (other.created, &one.id, &one.name).cmp(&(one.created, &other.id, &other.name)));
    Ok(rows)
}

/// Columns three spaces apart, as docker's tables are.
fn layout(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        table
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// How long ago, in docker's words.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3_600 => format!("{minutes} minutes"),
        3_600..7_200 => "About an hour".to_owned(),
        7_200..172_800 => format!("{hours} hours"),
        172_800..1_209_600 => format!("{days} days"),
        1_209_600..5_184_000 => format!("{} weeks", days / 7),
        5_184_000..63_072_000 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

/// Bytes in docker's decimal units with three digits that count.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let places = if unit == 0 || value >= 100.0 {
        0
    } else {
        usize::from(value < 10.0) + 1
    };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (1_234_000, "1.23MB"),
            (12_340_000, "12.3MB"),
            (1_100_000_000, "1.1GB"),
            (456_000_000, "456MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (seconds, text) in [
            (0, "Less than a second"),
            (45, "45 seconds"),
            (90, "About a minute"),
            (7_200, "2 hours"),
            (864_000, "10 days"),
            (1_209_600, "2 weeks"),
        ] {
            assert_eq!(age(at(2_000_000_000), at(2_000_000_000 - seconds)), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let table = [
            vec!["A".to_owned(), "B".to_owned()],
            vec!["long".to_owned(), "é".to_owned()],
        ];
        assert_eq!(layout(&table), "A      B\nlong   é\n");
    }
}
