//! `cargo xtask`: the tasks of development, with nothing but the standard library and JSON, so that it compiles in seconds.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to a person at a terminal"
)]

mod bench;
mod cage;
mod command;
mod conformance;
mod demo;
mod draw;
mod error;
mod http;
mod oracle;
mod server;
mod soak;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use error::{Result, TaskError};

const USAGE: &str = "usage: cargo xtask demo [--cage] [--binary FILE]
       cargo xtask test
       cargo xtask bench [--rounds N] [--only PART,...] [--binary FILE]
       cargo xtask conformance [--only NAME,...] [--sample N] [--random N] [--seed N] [--digests|--caches|--cage|--cage-ptrace]
                           [--binary FILE]
       cargo xtask cage [--only NAME,...] [--ptrace|--restricted] [--hostile] [--no-compare|--outside] [--overlay] [--short]
                  [--binary FILE]
       cargo xtask soak [--seed N] [--rounds N] [--only PART,...]

demo   makes an image from the example by way of a queue, an agent and a registry, and starts it;
       with --binary, by a roadstead that was built before; with --cage, by one in a container with Docker's defaults
test   formatting, lints and all tests
bench  times beside BuildKit and buildah, and memory, to docs/benchmarks.md; parts: w1 to w6, memory, startup, growth, limits,
       copy, cage, and as a choice of builders: roadstead, buildkit, buildah
conformance
       the cases of tests/conformance by roadstead and by Docker with BuildKit, images compared; with --random, random
       Dockerfiles in their place; with --digests, each built twice by roadstead, with one thread and with all;
       with --caches, each built cold, and again out of every kind of cache; with --cage, each built outside and in a container
       with Docker's defaults, where nothing can be mounted
cage   the contexts of tests/cage, whose commands are those of real projects, built in such a container, and outside to compare the
       times; with --ptrace, the container has that capability; with --overlay, the data lies on its own root; with --hostile, a
       program that tries to get out; with --restricted, what can be built as uid 1000 without any capability; with --short, a part
       of all that in minutes
soak   the long forms of tests that draw their cases; a seed repeats them; parts: chaos, kill,
       corrupt, together, killed-builds, killed-w1, killed-cage, docker";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo"] => demo::run(None, false),
        ["demo", "--cage"] => demo::run(None, true),
        ["demo", "--binary", binary] => demo::run(Some(binary.into()), false),
        ["demo", "--cage", "--binary", binary] => demo::run(Some(binary.into()), true),
        ["bench", options @ ..] => bench::run(options),
        ["conformance", options @ ..] => conformance::run(options),
        ["cage", options @ ..] => cage::run(options),
        ["soak", options @ ..] => soak::run(options),
        ["test"] => test::run_all(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(TaskError::new(format!("no such task\n\n{USAGE}"))),
    }
}
