//! `docker build`: `roadstead build` in a process of its own, in the caller's directory.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

use crate::environment;
use crate::processes;
use crate::shim::context::Context;
use crate::shim::pushed;
use crate::shim::session::Session;

/// Time a build has to take its mounts and files away when it is told to end.
const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn serve(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("roadstead").arg("build");
    // Nothing may be pushed once the runner is gone.
    command
        .args(["--runner", &std::process::id().to_string()])
        .args(&arguments);
    command
        .env_clear()
        .envs(&session.request.environment)
        .env(environment::JOB_LOGINS, context.docker_config());
    command.env_remove(environment::SHIM_SOCKET);
    // The machine's own settings, not what a command may have made of them.
    for variable in [
        environment::CONFIG,
        environment::DATA,
        environment::CACHE_SIZE,
        environment::DOCKER_CONFIG,
    ] {
        command.env_remove(variable);
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    let wants_stdin = arguments
        .iter()
        .any(|argument| argument == "-" || argument == "--file=-" || argument == "-f-");
    command.stdin(if wants_stdin { Stdio::piped() } else { Stdio::null() });
    command
        .current_dir(session.directory())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return session.fail(&format!("cannot start the build: {error}")).await,
    };
    let group = child.id();
    let mut stdin = child.stdin.take();
    if wants_stdin {
        session.ask_stdin().await?;
    }
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return session.fail("cannot read the output of the build").await;
    };
    let (mut out, mut err) = (vec![0; 32 * 1024], vec![0; 32 * 1024]);
    let (mut out_open, mut err_open) = (true, true);
    let mut gone = session.gone();
    while out_open || err_open {
        let write = tokio::select! {
            read = stdout.read(&mut out), if out_open => {
                let read = read?;
                out_open = read > 0;
                session.stdout(&out[..read]).await
            }
            read = stderr.read(&mut err), if err_open => {
                let read = read?;
                err_open = read > 0;
                session.stderr(&err[..read]).await
            }
            piece = session.next_stdin(), if stdin.is_some() => {
                feed(&mut stdin, piece).await;
                Ok(())
            }
            () = gone.wait() => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if write.is_err() {
            end(&mut child, group).await;
            return Ok(1);
        }
    }
    let status = child.wait().await?;
    if status.success() {
        note_pushed(context, &arguments);
    }
    Ok(exit_code(status))
}

/// The status docker would end with: it tells a mistake of its caller's by 1, as it does a failed build.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    match u8::try_from(code) {
        Ok(2) | Err(_) => 1,
        Ok(code) => code,
    }
}

/// Hands a piece of stdin to the build; a build that doesn't read on closes it.
async fn feed(stdin: &mut Option<ChildStdin>, piece: Option<Vec<u8>>) {
    let done = match (stdin.as_mut(), piece) {
        (Some(to), Some(piece)) => to.write_all(&piece).await.is_err(),
        _ => true,
    };
    if done {
        *stdin = None;
    }
}

/// Ends a build whose caller is gone.
async fn end(child: &mut tokio::process::Child, group: Option<u32>) {
    processes::signal_group(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        processes::signal_group(group, Signal::KILL);
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "cannot wait for a build");
        }
    }
}

/// Notes what `docker build --push` pushed, in whatever form it was asked for; the store holds it under the same names now.
fn note_pushed(context: &Context, arguments: &[String]) {
    for name in crate::cli::pushed(arguments) {
        let noted = name.with_tag(name.tag_or_latest()).and_then(|name| {
            let store = context.store()?;
            store
                .resolve(&name)?
                .map(|image| pushed::note(&store, &image, &name))
                .transpose()
        });
        match noted {
            Ok(Some(note)) => context.note_pushed(note),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot note a push"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_dockers() {
        for (raw, code) in [(0, 0), (1 << 8, 1), (2 << 8, 1), (3 << 8, 3), (15, 143)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), code);
        }
    }
}
