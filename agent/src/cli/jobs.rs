//! `roadstead jobs`: what a queue knows of its jobs.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{print, queue_failed, runtime};
use crate::config::Config;
use crate::error::CliError;
use crate::queue::{self, JobState, Queue};

/// Arguments of `roadstead jobs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The queue: `sqlite:FILE` or `sqs://HOST/ACCOUNT/NAME`.
    #[arg(long, value_name = "URL", default_value_t = queue::default_url(), global = true)]
    queue: String,
    /// Where logs, artifacts and records are; the data directory's `jobs` when not given.
    #[arg(long, value_name = "DIR", global = true)]
    results: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All jobs, the oldest first.
    List,
    /// One job with its phases.
    Show { id: String },
    /// The log of a job's last attempt.
    Logs { id: String },
}

pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    let config = Config::load()?;
    runtime()?.block_on(async {
        let opened = queue::open_existing(&args.queue, args.results.as_deref(), config.ca_bundle.as_deref()).await;
        show(&*opened.map_err(queue_failed)?, args).await
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn show(queue: &dyn Queue, args: &Args) -> Result<(), CliError> {
    match &args.command {
        Command::List => {
            let states = queue.list().await.map_err(queue_failed)?;
            if args.json {
                return print_json(&Value::Array(states.iter().map(document).collect()));
            }
            let mut table = format!("{:<36}  {:<11}  {:>8}  {}\n", "ID", "STATUS", "ATTEMPTS", "SOURCE");
            for state in &states {
                let line = format!(
                    "{:<36}  {:<11}  {:>8}  {}\n",
                    // The name of a job that cannot be read may be anything.
                    state.id.escape_debug().to_string(),
                    state.state.word(),
                    state.attempts,
                    source(state).as_deref().unwrap_or("(unreadable)")
                );
                table.push_str(&line);
            }
            print(&table)
        }
        Command::Show { id } => {
            let state = queue.find(id).await.map_err(queue_failed)?;
            if args.json {
                return print_json(&document(&state));
            }
            print(&text(&state))
        }
        Command::Logs { id } => {
            let log = queue.log(id).await.map_err(queue_failed)?;
            if args.json {
                return print_json(&json!({"id": id, "log": String::from_utf8_lossy(&log)}));
            }
            use std::io::Write as _;
            std::io::stdout().write_all(&log).map_err(CliError::failed)
        }
    }
}

fn print_json(value: &Value) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(CliError::failed)?;
    print(&format!("{text}\n"))
}

/// Where the job's files come from, without credentials; `None` when its document cannot be read.
fn source(state: &JobState) -> Option<String> {
    let job = state.job.as_ref()?;
    Some(crate::source::git::without_credentials(&job.source.location).0)
}

fn document(state: &JobState) -> Value {
    json!({
        "id": state.id,
        "projectName": state.job.as_ref().map(|job| &job.project_name),
        "source": source(state),
        "status": state.state.word(),
        "attempts": state.attempts,
        "agent": state.agent,
        "artifacts": state.artifacts,
        "record": state.record,
    })
}

fn text(state: &JobState) -> String {
    let mut text = format!("id:        {}\n", state.id.escape_debug());
    text.push_str(&format!("status:    {}\n", state.state.word()));
    text.push_str(&format!(
        "source:    {}\n",
        source(state).as_deref().unwrap_or("(unreadable)")
    ));
    text.push_str(&format!("attempts:  {}\n", state.attempts));
    if let Some(agent) = &state.agent {
        text.push_str(&format!("agent:     {agent}\n"));
    }
    let Some(record) = &state.record else { return text };
    if let Some(artifacts) = &state.artifacts {
        text.push_str(&format!("artifacts: {}\n", artifacts.display()));
    }
    for image in &record.pushed_images {
        let tag = image.tag.as_deref().unwrap_or("-");
        text.push_str(&format!("pushed:    {}:{tag} {}\n", image.name, image.digest));
    }
    for phase in &record.phases {
        let context = phase
            .contexts
            .first()
            .map(|context| context.message.as_str())
            .unwrap_or_default();
        let line = format!(
            "{:<17} {:<11} {:>5} s  {context}",
            phase.phase_type, phase.phase_status, phase.duration_in_seconds
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
