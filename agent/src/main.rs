//! `roadstead`: runs CI builds and makes container images without a daemon.
#![forbid(unsafe_code)]
// The registry client's futures nest deeper than the default.
#![recursion_limit = "512"]

mod artifacts;
mod buildspec;
mod cli;
mod config;
mod environment;
mod error;
mod interrupt;
mod job;
mod logs;
mod processes;
mod scratch;
mod shim;
mod source;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A RUN's process is this binary again: it needs a process without threads.
    if let Some(code) = roadstead_builder::sandbox::child_main() {
        return code;
    }
    cli::main()
}
