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
#[cfg(all(test, feature = "sqs"))]
mod test_moto;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The builder's sandbox re-executes this binary: its hook `roadstead_builder::sandbox::child_main()` belongs here, before
    // any thread exists.
    notices::show();
    cli::main()
}
