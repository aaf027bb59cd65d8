//! The shim itself: a short-lived process in the job that asks the runner and copies what comes back.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use roadstead_proto::record::PushedImage;

use super::aws;
use super::frame::{self, Kind, PIECE_BYTES, Request};
use crate::environment;

/// Runs as the shim `name`. What is neither served nor to be found elsewhere ends with status 1.
pub(crate) fn main(name: &str) -> ExitCode {
    let result = match name {
        // The daemon that buildspecs start by hand: there is none to start, and nothing waits for it.
        "dockerd" => return ExitCode::SUCCESS,
        "dockerd-entrypoint.sh" => return entrypoint(),
        "aws" => aws_main(),
        _ => call(name, None),
    };
    result.unwrap_or_else(|error| {
        complain(&format!("{name}: {error}"));
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stderr, reason = "the shim's own stderr is all it has")]
fn complain(text: &str) {
    eprintln!("{text}");
}

/// Runs what the entry point of CodeBuild's images would run once its daemon is up.
fn entrypoint() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        return ExitCode::SUCCESS;
    };
    let error = Command::new(&program).args(arguments).exec();
    complain(&format!(
        "dockerd-entrypoint.sh: cannot run `{}`: {error}",
        program.display()
    ));
    ExitCode::FAILURE
}

fn aws_main() -> io::Result<ExitCode> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let texts: Option<Vec<String>> = arguments.iter().map(|text| text.to_str().map(str::to_owned)).collect();
    if texts.is_some_and(|texts| aws::is_served(&texts)) {
        return call("aws", None);
    }
    if let Some(program) = next_on_path("aws") {
        return Err(Command::new(program).args(&arguments).exec());
    }
    if arguments.first().is_some_and(|first| first == "--version") {
        call("aws", None)
    } else {
        let shown: Vec<_> = arguments.iter().take(2).map(|text| text.to_string_lossy()).collect();
        let text = format!(
            "`aws {}` is not served by roadstead, and there is no other `aws` on PATH",
            shown.join(" ")
        );
        Err(io::Error::other(text))
    }
}

/// The next program of that name on PATH that is not this one.
fn next_on_path(name: &str) -> Option<PathBuf> {
    let own = Path::new("/proc/self/exe").canonicalize().ok();
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|program| {
            use std::os::unix::fs::PermissionsExt as _;
            let runs = std::fs::metadata(program)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
            runs && program.canonicalize().ok() != own
        })
}

fn connect() -> io::Result<UnixStream> {
    let socket = env::var_os(environment::SHIM_SOCKET).filter(|socket| !socket.is_empty());
    let socket = socket.ok_or_else(|| io::Error::other("works only inside a job of roadstead"))?;
    UnixStream::connect(socket).map_err(|error| io::Error::other(format!("the job's runner does not answer: {error}")))
}

fn request(program: &str) -> io::Result<Request> {
    let text = |text: OsString| {
        text.into_string()
            .map_err(|_| io::Error::other("an argument is not UTF-8"))
    };
    let directory = env::current_dir()?.into_os_string();
    Ok(Request {
        program: program.to_owned(),
        arguments: env::args_os().skip(1).map(text).collect::<io::Result<_>>()?,
        directory: directory
            .into_string()
            .map_err(|_| io::Error::other("the current directory is not UTF-8"))?,
        // A variable that is not UTF-8 cannot travel; no tool that is served here has one.
        environment: env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    })
}

/// Has the runner do it. Output goes to `collect` when given, else to stdout.
fn call(program: &str, mut collect: Option<&mut Vec<u8>>) -> io::Result<ExitCode> {
    let mut stream = connect()?;
    let request = serde_json::to_vec(&request(program)?).map_err(io::Error::other)?;
    frame::write(&mut stream, Kind::Request, &request)?;
    loop {
        let (kind, payload) = frame::read(&mut stream).map_err(|_| io::Error::other("the job's runner has gone"))?;
        match kind {
            Kind::Stdout => match &mut collect {
                Some(bytes) => bytes.extend_from_slice(&payload),
                None => {
                    let mut out = io::stdout();
                    out.write_all(&payload)?;
                    out.flush()?;
                }
            },
            Kind::Stderr => io::stderr().write_all(&payload)?,
            Kind::SendStdin => {
                let mut to = stream.try_clone()?;
                // Ends with the process; what fails here shows to the runner as the end of the stream.
                std::thread::spawn(move || drop(send_stdin(&mut to)));
            }
            Kind::Exit => return Ok(ExitCode::from(payload.first().copied().unwrap_or(1))),
            Kind::Request | Kind::Stdin => return Err(io::Error::other("the job's runner speaks another protocol")),
        }
    }
}

fn send_stdin(to: &mut UnixStream) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = io::stdin().read(&mut piece)?;
        frame::write(to, Kind::Stdin, &piece[..read])?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// What the surrounding job has pushed so far; `None` outside a job.
pub(crate) fn ask_pushed() -> Option<io::Result<Vec<PushedImage>>> {
    env::var_os(environment::SHIM_SOCKET).filter(|socket| !OsStr::is_empty(socket))?;
    let mut answer = Vec::new();
    let pushed = call("roadstead", Some(&mut answer));
    Some(pushed.and_then(|_| serde_json::from_slice(&answer).map_err(io::Error::other)))
}
