//! One job, from its source directory to its record.

pub(crate) mod output;
mod process;
mod variables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use roadstead_proto::job::Job;
use roadstead_proto::record::{Phase, PhaseContext, Record, Status};

pub(crate) use process::{ProcessArgs, main as process_main};

use crate::artifacts;
use crate::buildspec::phases::{PhaseEnd, Running, run_phases};
use crate::buildspec::shell::{Shell, ShellError};
use crate::buildspec::{Buildspec, Diagnostic, PhaseName};
use crate::client::Network;
use crate::error::{FileError, chain};
use crate::interrupt::Interrupt;
use crate::job::output::Output;
use crate::logs::{Log, Secrets};
use crate::processes;
use crate::scratch::Scratch;
use crate::source::git;

/// Where the buildspec is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BuildspecSource {
    /// A file; a relative path is below the source directory.
    File(PathBuf),
    /// The whole text, given with the job.
    Inline(String),
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The source directory, which is also where the first command starts.
    pub(crate) source: PathBuf,
    pub(crate) buildspec: BuildspecSource,
    /// Variables that go before those of the buildspec.
    pub(crate) environment: Vec<(String, String)>,
    /// Where artifacts are copied to.
    pub(crate) artifacts: PathBuf,
    pub(crate) project: String,
    /// Names the build: the second half of `CODEBUILD_BUILD_ID`.
    pub(crate) build: String,
    pub(crate) number: u64,
    pub(crate) initiator: String,
    /// The revision asked for.
    pub(crate) source_version: Option<String>,
    /// The repository, without credentials.
    pub(crate) repository: Option<String>,
    /// Certificates that registry clients of the job trust besides the system's.
    pub(crate) network: Network,
    /// A private directory for the run's temporary files; one of its own when not given.
    pub(crate) scratch: Option<PathBuf>,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) record: Record,
    /// Set when the buildspec was at fault, for the exit status and the caret.
    pub(crate) diagnostic: Option<Diagnostic>,
}

/// Why a job could not be run to an end; the build itself failing is not an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error("cannot prepare for the commands' output")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Shim(#[from] crate::shim::ShimError),
}

fn empty_record(id: String, build_status: Status, start: Timestamp) -> Record {
    Record {
        id,
        build_status,
        start_time: start.to_string(),
        end_time: None,
        resolved_source_version: None,
        phases: Vec::new(),
        exported_environment_variables: BTreeMap::new(),
        pushed_images: Vec::new(),
        artifacts: Vec::new(),
    }
}

/// The record of a job that could not be run: the machinery is at fault.
pub(crate) fn fault(job: &Job, message: &str) -> Record {
    fault_of(format!("{}:{}", job.project_name, job.id), message)
}

/// The record of a job of which no more is known than its name.
pub(crate) fn fault_of(id: String, message: &str) -> Record {
    let now = Timestamp::now();
    let mut record = empty_record(id, Status::Fault, now);
    record.end_time = Some(now.to_string());
    record.phases.push(Phase {
        phase_type: "PROVISIONING".to_owned(),
        phase_status: Status::Fault,
        start_time: now.to_string(),
        duration_in_seconds: 0,
        contexts: vec![PhaseContext {
            status_code: String::new(),
            message: message.to_owned(),
        }],
    });
    record
}

/// Runs a job. Whatever it started has ended, and whatever it made for itself is gone, when this returns.
pub(crate) async fn run(
    request: &Request,
    log: &Log,
    secrets: &Secrets,
    interrupt: &mut Interrupt,
) -> Result<Finished, JobError> {
    processes::adopt_orphans();
    let scratch = match &request.scratch {
        Some(directory) => Scratch::below(directory)?,
        None => Scratch::new()?,
    };
    let start = Timestamp::now();
    let build = Build {
        request,
        log,
        secrets,
        scratch: &scratch,
    };
    let result = build.run(start, interrupt).await;
    processes::end_descendants();
    drop(scratch);
    result
}

struct Build<'a> {
    request: &'a Request,
    log: &'a Log,
    secrets: &'a Secrets,
    scratch: &'a Scratch,
}

impl Build<'_> {
    async fn run(&self, start: Timestamp, interrupt: &mut Interrupt) -> Result<Finished, JobError> {
        let (request, log) = (self.request, self.log);
        let mut record = empty_record(format!("{}:{}", request.project, request.build), Status::Failed, start);
        log.line(&format!("Running on Roadstead {}", env!("CARGO_PKG_VERSION")));
        let download = Running::begin("DOWNLOAD_SOURCE");
        log.line("Phase is DOWNLOAD_SOURCE");
        log.line(&format!("CODEBUILD_SRC_DIR={}", request.source.display()));
        let spec = match self.buildspec() {
            Ok(spec) => spec,
            Err(diagnostic) => {
                let end = PhaseEnd::Failed {
                    code: "YAML_FILE_ERROR",
                    message: diagnostic.message.clone(),
                };
                record.phases.push(download.end(&end, log));
                record.end_time = Some(Timestamp::now().to_string());
                return Ok(Finished {
                    record,
                    diagnostic: Some(diagnostic),
                });
            }
        };
        record.resolved_source_version = git::head(&request.source).await;
        self.announce(&spec, record.resolved_source_version.is_some());
        record.phases.push(download.end(&PhaseEnd::Succeeded, log));
        self.phases_and_artifacts(&spec, record, start, interrupt).await
    }

    async fn phases_and_artifacts(
        &self,
        spec: &Buildspec,
        mut record: Record,
        start: Timestamp,
        interrupt: &mut Interrupt,
    ) -> Result<Finished, JobError> {
        let (request, log) = (self.request, self.log);
        let mut output = Output::new(log.clone()).map_err(JobError::Output)?;
        let server = crate::shim::Server::start(self.scratch, self.secrets, &request.network)?;
        let given = variables::Given {
            request,
            spec,
            start,
            resolved_source_version: record.resolved_source_version.as_deref(),
            shims: server.environment(),
        };
        let environment = variables::assemble(&given, self.secrets);
        let state = self.scratch.directory("shell")?;
        let mut shell = Shell::new(spec.shell, spec.version, &state, &request.source, &environment)?;
        let outcome = run_phases(spec, &mut shell, &mut output, interrupt, log).await?;
        record.build_status = outcome.status;
        record.phases.extend(outcome.phases);
        if interrupt.signal().is_none() {
            let exported = shell.exported(&spec.exported_variables).await?;
            record.exported_environment_variables = exported
                .into_iter()
                .map(|(name, value)| (name, log.mask(&value)))
                .collect();
        }
        // Background jobs end here: an artifact must not change while it is copied.
        record.pushed_images = server.stop().await;
        processes::end_descendants();
        if outcome.upload {
            self.upload(spec, &shell, &server, &mut record, interrupt).await?;
        }
        record.end_time = Some(Timestamp::now().to_string());
        Ok(Finished {
            record,
            diagnostic: None,
        })
    }

    /// Reads the buildspec and logs where it is.
    fn buildspec(&self) -> Result<Buildspec, Diagnostic> {
        let (name, text) = match &self.request.buildspec {
            BuildspecSource::Inline(text) => ("buildspec.yml (inline)".to_owned(), text.clone()),
            BuildspecSource::File(path) => {
                let place = self.request.source.join(path);
                let name = path.display().to_string();
                (name.clone(), read_buildspec(&name, &place)?)
            }
        };
        let spec = Buildspec::parse(&name, &text)?;
        self.log.line(&format!("YAML location is {name}"));
        Ok(spec)
    }

    /// The log's lines between the buildspec's location and the end of DOWNLOAD_SOURCE.
    fn announce(&self, spec: &Buildspec, versioned: bool) {
        let log = self.log;
        for warning in &spec.warnings {
            log.line(warning);
        }
        for name in PhaseName::ALL {
            let phase = spec.phase(name);
            if phase.written && phase.commands.is_empty() {
                log.line(&format!("No commands found for phase name: {}", name.key()));
            }
        }
        log.line("Processing environment variables");
        if spec.runtime_versions {
            log.line("Skipping install of runtimes. Runtime version selection is not supported by this build image");
        } else {
            log.line("No runtime version selected in buildspec.");
        }
        if !versioned {
            log.line("CODEBUILD_RESOLVED_SOURCE_VERSION is not set: the source is no git work tree with a commit");
        }
        log.line(&format!("Moving to directory {}", self.request.source.display()));
        log.line("Cache is not defined in the buildspec");
        log.line("Skip cache due to: no paths specified to be cached");
        log.line("Registering with agent");
        log.line(&format!("Phases found in YAML: {}", spec.phases_written()));
        for name in PhaseName::ALL {
            let phase = spec.phase(name);
            if phase.written {
                log.line(&format!(" {}: {} commands", name.title(), phase.commands.len()));
            }
        }
    }

    /// UPLOAD_ARTIFACTS.
    async fn upload(
        &self,
        spec: &Buildspec,
        shell: &Shell,
        server: &crate::shim::Server,
        record: &mut Record,
        interrupt: &Interrupt,
    ) -> Result<(), JobError> {
        let log = self.log;
        let running = Running::begin("UPLOAD_ARTIFACTS");
        let mut end = PhaseEnd::Succeeded;
        if let Some(wanted) = &spec.artifacts {
            if let Some(name) = &wanted.name {
                let name = String::from_utf8_lossy(&shell.expand(name).await?).into_owned();
                log.line(&format!("Artifact name: {name}"));
            }
            let destination = &self.request.artifacts;
            match artifacts::keep(wanted, &self.request.source, destination, log) {
                Ok(paths) => {
                    record.artifacts = paths;
                    if let Err(reason) = server.check_deploy_files(destination, record).await {
                        end = PhaseEnd::Failed {
                            code: "CLIENT_ERROR",
                            message: reason,
                        };
                    }
                }
                Err(error) => {
                    end = PhaseEnd::Failed {
                        code: "CLIENT_ERROR",
                        message: chain(&error),
                    }
                }
            }
        }
        if interrupt.signal().is_some() {
            end = if interrupt.timed_out() {
                PhaseEnd::TimedOut
            } else {
                PhaseEnd::Stopped
            };
        }
        record.phases.push(running.end(&end, log));
        if end != PhaseEnd::Succeeded {
            record.build_status = end.status();
        }
        Ok(())
    }
}

fn read_buildspec(name: &str, place: &Path) -> Result<String, Diagnostic> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;

    let limit = 4 * 1024 * 1024;
    let mut bytes = Vec::new();
    // Non-blocking: to open a pipe that nobody writes to would take for ever.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let read = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(place)
        .and_then(|file| {
            // A directory opens well and fails to be read; a device would be read for ever.
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("not a file"));
            }
            file.take(limit).read_to_end(&mut bytes)
        });
    match read {
        Ok(_) => String::from_utf8(bytes).map_err(|_| Diagnostic::of_file(name, "the buildspec is not UTF-8")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Diagnostic::of_file(name, "YAML file does not exist"))
        }
        Err(error) => Err(Diagnostic::of_file(name, format!("cannot read the buildspec: {error}"))),
    }
}
