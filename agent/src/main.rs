//! `roadstead`: runs CI builds and makes container images without a daemon.
#![forbid(unsafe_code)]

mod artifacts;
#[cfg(feature = "sqs")]
mod aws;
mod buildspec;
mod cli;
mod config;
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
    // The builder's sandbox re-executes this binary: its hook `roadstead_builder::sandbox::child_main()` belongs here, before
    // any thread exists.
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
