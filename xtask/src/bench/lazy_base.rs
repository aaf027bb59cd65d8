//! W2: files copied onto a large base that lies in the registry already, with an eye on what moves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::workspace::{make_empty, write};

use super::builders::{Builder, Recipe, Workshop};
use super::options::Options;
use super::{race, report, seeds};

const BASE: &str = "large/base:1";
const LAYERS: u64 = 4;
const LAYER_BYTES: u64 = 250_000_000;
/// Bytes both ways that documents, requests and a layer of one small file take at most. More is a part of the base.
const OVERHEAD_BYTES: u64 = 1_000_000;
/// Names of the Dockerfiles, and what is copied by which instruction.
const FILES: [(&str, &str); 2] = [("link", "COPY --link"), ("copy", "COPY")];
const NO_LINK: &str = "has no `COPY --link` before 1.31";

/// What one builder did with one Dockerfile.
#[derive(Debug, Default)]
struct Figures {
    times: Vec<Duration>,
    /// The most that moved in a round.
    down: u64,
    up: u64,
}

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    workshop.need_disk(12)?;
    let seed = seed(workshop)?;
    let context = workshop.turns.join("w2");
    make_empty(&context)?;
    write(&context.join("app"), "the program\n")?;
    let mut lines = String::new();
    for (file, instruction) in FILES {
        write(
            &context.join(file),
            &format!("ARG BASE\nFROM ${{BASE}}\n{instruction} app /app\nCMD [\"/app\"]\n"),
        )?;
        let recipe = Recipe {
            context: &context,
            file,
            base: BASE,
            tag: "1",
        };
        lines.push_str(&measure(workshop, options, &recipe, instruction, &seed)?);
    }
    let home = workshop.turns.join("seed-large");
    std::fs::remove_dir_all(&home).map_err(TaskError::at("remove", &home))?;
    Ok(format!(
        "One small file copied onto a base of 1 GB in four layers (bytes that cannot be compressed), pushed to another repository\n\
         of the registry the base lies in. *Down* and *up*: all bytes between builder and registry, those of HTTP included, counted by\n\
         a proxy between them; the most of any round.\n\n\
         | | builder | time | down | up |\n|---|---|---|---|---|\n{lines}\n\
         - Target: no byte of the base moves, where `COPY --link` makes its files needless. It counts as met below {} both ways.\n\
         - dockerd's own image store wants each base whole, whatever the Dockerfile does; BuildKit with containerd's store was not measured.\n",
        report::bytes(OVERHEAD_BYTES)
    ))
}

fn seed(workshop: &Workshop) -> Result<PathBuf> {
    println!("w2: making a base of 1 GB");
    let context = workshop.turns.join("w2-base");
    make_empty(&context)?;
    let mut dockerfile = "FROM scratch\n".to_owned();
    for layer in 0..LAYERS {
        let fill = "head -c \"$1\" /dev/urandom > \"$2\"";
        let mut shell = program("sh");
        shell.args(["-c", fill, "sh", &LAYER_BYTES.to_string()]);
        capture(shell.arg(context.join(format!("f{layer}"))))?;
        dockerfile.push_str(&format!("COPY --link f{layer} /\n"));
    }
    write(&context.join("Dockerfile"), &dockerfile)?;
    let seed = seeds::push(workshop, "large", &context, BASE)?;
    std::fs::remove_dir_all(&context).map_err(TaskError::at("remove", &context))?;
    Ok(seed)
}

/// Lets the builders take turns; gives a line of the table for each.
fn measure(
    workshop: &Workshop,
    options: &Options,
    recipe: &Recipe<'_>,
    instruction: &str,
    seed: &Path,
) -> Result<String> {
    let mut all: Vec<(Builder, Figures)> = options
        .builders
        .iter()
        .map(|builder| (*builder, Figures::default()))
        .collect();
    for round in 1..=options.rounds {
        for (builder, figures) in all.iter_mut().filter(|(builder, _)| can(*builder, recipe)) {
            let mut turn = workshop.turn(*builder, &format!("w2-{}-{round}", recipe.file), Some(seed))?;
            turn.count()?;
            let time = turn.build(recipe)?;
            let (down, up) = turn.down_and_up();
            race::say("w2", round, *builder, instruction, time);
            println!("    {} down, {} up", report::bytes(down), report::bytes(up));
            figures.times.push(time);
            figures.down = figures.down.max(down);
            figures.up = figures.up.max(up);
            turn.remove()?;
        }
    }
    let reference = all.iter().find(|(builder, _)| *builder == Builder::BuildKit);
    let reference = reference.map(|(_, figures)| &*figures.times);
    Ok(all
        .iter()
        .map(|(builder, figures)| figures.line(*builder, recipe, instruction, reference))
        .collect())
}

fn can(builder: Builder, recipe: &Recipe<'_>) -> bool {
    builder != Builder::Buildah || recipe.file != FILES[0].0
}

impl Figures {
    fn line(&self, builder: Builder, recipe: &Recipe<'_>, instruction: &str, reference: Option<&[Duration]>) -> String {
        if !can(builder, recipe) {
            return format!("| `{instruction}` | {} | {NO_LINK} | | |\n", builder.name());
        }
        let reference = reference.filter(|_| builder != Builder::BuildKit);
        let verdict = match builder == Builder::Roadstead && recipe.file == FILES[0].0 {
            true => report::verdict("nothing of the base", self.down + self.up < OVERHEAD_BYTES),
            false => String::new(),
        };
        format!(
            "| `{instruction}` | {} | {} | {}{verdict} | {} |\n",
            builder.name(),
            report::cell(&self.times, reference),
            report::bytes(self.down),
            report::bytes(self.up)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_what_moved() {
        let recipe = Recipe {
            context: Path::new("/"),
            file: "link",
            base: BASE,
            tag: "1",
        };
        let figures = Figures {
            times: vec![Duration::from_secs(1)],
            down: 20_000,
            up: 3_000,
        };
        assert_eq!(
            figures.line(Builder::Roadstead, &recipe, "COPY --link", None),
            "| `COPY --link` | roadstead | **1.00** s (1.00–1.00) | 20 kB (target nothing of the base: met) | 3000 B |\n"
        );
        assert_eq!(
            figures.line(Builder::Buildah, &recipe, "COPY --link", None),
            format!("| `COPY --link` | buildah | {NO_LINK} | | |\n")
        );
    }
}
