//! The section on memory.

use crate::error::Result;

use super::builders::{Builder, Workshop};
use super::{large_file, project, report, seeds, workload};

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop) -> Result<String> {
    let seed = seeds::debian(workshop)?;
    let context = workshop.turns.join("w1");
    workload::make_w1(&context)?;
    let turn = workshop.turn(Builder::Roadstead, "memory-w1", Some(&seed))?;
    let (_, middling) = turn.watch(&project::recipe(&context))?;

    let context = large_file::make_context(workshop, 1)?;
    let turn = workshop.turn(Builder::Roadstead, "memory-w4", None)?;
    let (time, large) = turn.watch(&large_file::recipe(&context))?;
    turn.remove()?;
    large_file::remove_context(&context)?;
    let lines = format!(
        "| W1, cold | {} |\n| W4, but a file of 1 GiB, in {} s | {} |\n",
        report::peak(middling),
        report::seconds(time),
        report::peak(large)
    );
    println!("{lines}");
    Ok(format!(
        "| roadstead | process tree | largest process |\n|---|---|---|\n{lines}\n\
         *Process tree*: the largest sum, over roadstead and all of its children, of each one's share of memory (PSS in\n\
         `/proc`), looked at every 20 ms; the commands of RUN are in it. *Largest process*: the largest resident size the kernel\n\
         recorded for one process, shared pages included. In runs of their own, so that looking takes no time from the figures\n\
         above. Larger ones are in *How cost grows*.\n"
    ))
}
