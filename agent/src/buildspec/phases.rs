//! The phase machine: which phase follows which, and what the log says about it.

use jiff::Timestamp;
use roadstead_proto::record::{Phase, PhaseContext, Status};

use super::shell::{Ended, Shell, ShellError, status_text};
use super::{Buildspec, OnFailure, PhaseName, PhaseSpec};
use crate::interrupt::Interrupt;
use crate::job::output::Output;
use crate::logs::Log;

/// How a phase ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PhaseEnd {
    Succeeded,
    Failed { code: &'static str, message: String },
    Stopped,
    TimedOut,
}

impl PhaseEnd {
    pub(crate) const fn status(&self) -> Status {
        match self {
            Self::Succeeded => Status::Succeeded,
            Self::Failed { .. } => Status::Failed,
            Self::Stopped => Status::Stopped,
            Self::TimedOut => Status::TimedOut,
        }
    }

    fn interrupted(interrupt: &Interrupt) -> Self {
        if interrupt.timed_out() {
            Self::TimedOut
        } else {
            Self::Stopped
        }
    }
}

/// A phase that is running.
#[derive(Debug)]
pub(crate) struct Running {
    title: &'static str,
    start: Timestamp,
}

impl Running {
    /// Begins a phase that the runner itself goes through, without a log line.
    pub(crate) fn begin(title: &'static str) -> Self {
        Self {
            title,
            start: Timestamp::now(),
        }
    }

    /// Begins a phase, and says so.
    pub(crate) fn enter(title: &'static str, log: &Log) -> Self {
        log.line(&format!("Entering phase {title}"));
        Self::begin(title)
    }

    /// Ends the phase with CodeBuild's two lines and gives its record.
    pub(crate) fn end(self, end: &PhaseEnd, log: &Log) -> Phase {
        let (status_code, message) = match end {
            PhaseEnd::Failed { code, message } => ((*code).to_owned(), log.mask(message)),
            _ => (String::new(), String::new()),
        };
        let status = end.status();
        log.line(&format!("Phase complete: {} State: {status}", self.title));
        log.line(&format!("Phase context status code: {status_code} Message: {message}"));
        let seconds = Timestamp::now().as_second().saturating_sub(self.start.as_second());
        Phase {
            phase_type: self.title.to_owned(),
            phase_status: status,
            start_time: self.start.to_string(),
            duration_in_seconds: u64::try_from(seconds).unwrap_or(0),
            contexts: vec![PhaseContext { status_code, message }],
        }
    }
}

/// What the phases came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) phases: Vec<Phase>,
    pub(crate) status: Status,
    /// Whether UPLOAD_ARTIFACTS comes next.
    pub(crate) upload: bool,
}

/// Runs the user's phases in order.
///
/// After a failed BUILD, POST_BUILD still runs; after a failed INSTALL or PRE_BUILD nothing does. `on-failure: CONTINUE`
/// goes on as if the phase had succeeded, which is what it is written for (tools that exit non-zero on findings): the phase
/// is FAILED in log and record, the build is not. `ABORT` ends the build there, artifacts included.
pub(crate) async fn run_phases(
    spec: &Buildspec,
    shell: &mut Shell,
    output: &mut Output,
    interrupt: &mut Interrupt,
    log: &Log,
) -> Result<Outcome, ShellError> {
    let mut outcome = Outcome {
        phases: Vec::new(),
        status: Status::Succeeded,
        upload: true,
    };
    for name in PhaseName::ALL {
        let written = spec.phase(name);
        let running = Running::enter(name.title(), log);
        let end = run_phase(written, shell, output, interrupt, log).await?;
        outcome.phases.push(running.end(&end, log));
        match end {
            PhaseEnd::Succeeded => {}
            PhaseEnd::Stopped | PhaseEnd::TimedOut => {
                outcome.status = end.status();
                outcome.upload = false;
                break;
            }
            PhaseEnd::Failed { .. } if written.on_failure == OnFailure::Continue => {}
            PhaseEnd::Failed { .. } => {
                outcome.status = Status::Failed;
                shell.set("CODEBUILD_BUILD_SUCCEEDING", "0")?;
                let goes_on = matches!(name, PhaseName::Build | PhaseName::PostBuild);
                if written.on_failure == OnFailure::Abort || !goes_on {
                    outcome.upload = false;
                    break;
                }
            }
        }
    }
    Ok(outcome)
}

/// Runs a phase's commands up to the first that fails, then its finally block, which runs in any case.
async fn run_phase(
    phase: &PhaseSpec,
    shell: &mut Shell,
    output: &mut Output,
    interrupt: &mut Interrupt,
    log: &Log,
) -> Result<PhaseEnd, ShellError> {
    let mut result = PhaseEnd::Succeeded;
    for block in [&phase.commands, &phase.finally] {
        for command in block {
            if interrupt.signal().is_some() {
                return Ok(PhaseEnd::interrupted(interrupt));
            }
            let end = run_command(command, shell, output, interrupt, log).await?;
            match end {
                PhaseEnd::Succeeded => continue,
                PhaseEnd::Failed { .. } if result == PhaseEnd::Succeeded => result = end,
                PhaseEnd::Failed { .. } => {}
                PhaseEnd::Stopped | PhaseEnd::TimedOut => return Ok(end),
            }
            break;
        }
    }
    Ok(result)
}

async fn run_command(
    command: &str,
    shell: &mut Shell,
    output: &mut Output,
    interrupt: &mut Interrupt,
    log: &Log,
) -> Result<PhaseEnd, ShellError> {
    // A block scalar ends in a line feed that is no part of what is said.
    let shown = command.trim_end_matches('\n');
    log.hide_passwords_of(shown);
    log.line(&format!("Running command {shown}"));
    let ended = shell.run(command, output, interrupt).await?;
    log.end_output();
    let Ended::Exited(status) = ended else {
        return Ok(PhaseEnd::interrupted(interrupt));
    };
    if status.success() {
        return Ok(PhaseEnd::Succeeded);
    }
    let reason = status_text(status);
    log.line(&format!("Command did not exit successfully {shown} {reason}"));
    let message = format!("Error while executing command: {shown}. Reason: {reason}");
    Ok(PhaseEnd::Failed {
        code: "COMMAND_EXECUTION_ERROR",
        message,
    })
}
