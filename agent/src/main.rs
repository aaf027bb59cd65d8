//! `roadstead`: runs CI builds and makes container images without a daemon.
#![forbid(unsafe_code)]
// The registry client's futures nest deeper than the default.
#![recursion_limit = "512"]

mod artifacts;
#[cfg(feature = "sqs")]
mod aws;
mod buildspec;
mod cli;
mod client;
mod config;
mod data_directory;
mod environment;
mod error;
mod interrupt;
mod job;
mod logs;
mod notices;
mod processes;
mod queue;
mod scratch;
mod shim;
mod source;
#[cfg(test)]
#[cfg(feature = "sqs")]
mod test_moto;
mod worker;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A RUN's process is this binary again: it needs a process without threads.
    if let Some(code) = roadstead_builder::sandbox::child_main() {
        return code;
    }
    notices::show();
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    if shim::NAMES.contains(&name) {
        return shim::main(name);
    }
    cli::main()
}
