//! `roadstead agent`: takes jobs from a queue.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{queue_failed, runtime};
use crate::config::Config;
use crate::data_directory;
use crate::error::{CliError, Kind};
use crate::interrupt::Interrupt;
use crate::processes;
use crate::queue;
use crate::worker::{self, Options};

/// Arguments of `roadstead agent`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The queue: `sqlite:FILE` or `sqs://HOST/ACCOUNT/NAME`.
    #[arg(long, value_name = "URL", default_value_t = queue::default_url())]
    queue: String,
    /// End after one job; waits for one when there is none yet.
    #[arg(long)]
    once: bool,
    /// Seconds a job stays this agent's without a sign of life.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=43_000))]
    lease: u64,
    /// Where logs, artifacts and records go; the data directory's `jobs` when not given.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The agent's name; host and process when not given.
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    let config = Config::load()?;
    let options = Options {
        name: args.name.clone().unwrap_or_else(default_name),
        once: args.once,
        lease: Duration::from_secs(args.lease),
    };
    // Jobs are read from there, and what they build is kept there.
    data_directory::open().map_err(data_directory::failed)?;
    processes::adopt_orphans();
    // The worker is the runtime's main future, so job processes are children of the main thread, whose end is the agent's.
    runtime()?.block_on(async {
        let mut interrupt = Interrupt::listen().map_err(CliError::failed)?;
        let opened = queue::open(&args.queue, args.results.as_deref(), config.ca_bundle.as_deref()).await;
        let queue = opened.map_err(queue_failed)?;
        let given_back = worker::work(queue, &options, &mut interrupt)
            .await
            .map_err(CliError::failed)?;
        match interrupt.insisted().filter(|_| given_back) {
            Some(signal) => {
                let mut error = CliError::failed("the agent was stopped while a job ran; the job is back on its queue");
                error.kind = Kind::Signal(signal);
                Err(error)
            }
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
