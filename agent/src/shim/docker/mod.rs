//! The `docker` calls that are served.

mod build;
mod buildx;
mod images;
mod imagetools;
mod inspect;
mod login;
mod pull;
mod push;
mod select;
mod system;
mod tag;
mod template;

use std::io;

use clap::Parser;

use super::context::Context;
use super::session::Session;

/// Serves a call; gives its exit status. Nothing of it goes on once nobody wants the result.
pub(super) async fn serve(context: &Context, session: &mut Session) -> io::Result<u8> {
    let arguments = match strip_global(&session.request.arguments) {
        Ok(arguments) => arguments,
        Err(option) => {
            return session
                .fail(&format!("docker {option} is not served by roadstead"))
                .await;
        }
    };
    let builds = match arguments.first().map(String::as_str) {
        Some("build") => Some(1),
        Some("image" | "builder") if arguments.get(1).is_some_and(|word| word == "build") => Some(2),
        _ => None,
    };
    if let Some(words) = builds {
        // A build ends in its own time: it has mounts and files to take away.
        return buildx::build(context, session, None, arguments.into_iter().skip(words).collect()).await;
    }
    if let Some(("buildx", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        let call = match buildx::Call::read(rest) {
            Ok(call) => call,
            Err(option) => {
                return session
                    .fail(&format!("docker buildx {option} is not served by roadstead"))
                    .await;
            }
        };
        if let Some((builder, arguments)) = call.of_build() {
            return buildx::build(context, session, builder, arguments).await;
        }
        let mut gone = session.gone();
        return tokio::select! {
            status = buildx::serve(context, session, call) => status,
            () = gone.wait() => Ok(1),
        };
    }
    let mut gone = session.gone();
    tokio::select! {
        status = command(context, session, &arguments) => status,
        () = gone.wait() => Ok(1),
    }
}

async fn command(context: &Context, session: &mut Session, arguments: &[String]) -> io::Result<u8> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rest = |skipped: usize| arguments.get(skipped..).unwrap_or_default().to_vec();
    match words[..] {
        [] | ["help" | "--help" | "-h", ..] => help(session).await,
        ["--version" | "-v", ..] => system::short_version(session).await,
        ["login", ..] => login::login(context, session, rest(1)).await,
        ["logout", ..] => login::logout(context, session, rest(1)).await,
        ["push", ..] => push::serve(context, session, rest(1)).await,
        ["image", "push", ..] => push::serve(context, session, rest(2)).await,
        ["pull", ..] => pull::serve(context, session, rest(1)).await,
        ["image", "pull", ..] => pull::serve(context, session, rest(2)).await,
        ["tag", ..] => tag::tag(context, session, rest(1)).await,
        ["image", "tag", ..] => tag::tag(context, session, rest(2)).await,
        ["rmi", ..] => tag::remove(context, session, rest(1)).await,
        ["image", "rm" | "remove", ..] => tag::remove(context, session, rest(2)).await,
        ["images", ..] => images::serve(context, session, rest(1)).await,
        ["image", "ls" | "list", ..] => images::serve(context, session, rest(2)).await,
        ["inspect", ..] => inspect::serve(context, session, rest(1)).await,
        ["image", "inspect", ..] => inspect::serve(context, session, rest(2)).await,
        ["info", ..] => system::info(context, session, rest(1)).await,
        ["system", "info", ..] => system::info(context, session, rest(2)).await,
        ["version", ..] => system::version(session, rest(1)).await,
        ["compose", ..] => session
            .fail(
                "docker compose is not served by roadstead: no containers run here; build each service's image with \
                     `docker build -t NAME CONTEXT`",
            )
            .await,
        [group @ ("image" | "builder" | "system"), command, ..] => {
            session
                .fail(&format!("docker {group} {command} is not served by roadstead"))
                .await
        }
        [command, ..] => {
            session
                .fail(&format!("docker {command} is not served by roadstead"))
                .await
        }
    }
}

/// Takes docker's own options off the front; an error names one that would lead elsewhere.
fn strip_global(arguments: &[String]) -> Result<Vec<String>, String> {
    let mut position = 0;
    while let Some(argument) = arguments.get(position) {
        match argument.as_str() {
            "-D" | "--debug" => position += 1,
            "-l" | "--log-level" => position += 2,
            "-v" | "--version" | "-h" | "--help" => break,
            option if option.starts_with("--log-level=") => position += 1,
            option if option.starts_with('-') => return Err(option.split('=').next().unwrap_or(option).to_owned()),
            _ => break,
        }
    }
    Ok(arguments.get(position..).unwrap_or_default().to_vec())
}

async fn help(session: &mut Session) -> io::Result<u8> {
    session
        .line(
            "Usage:  docker COMMAND\n\nThis is roadstead under docker's name. It serves:\n  build, login, logout, push, pull, \
             tag, images, inspect, rmi, info, version, buildx",
        )
        .await?;
    Ok(0)
}

/// Reads a command's arguments; on a mistake, tells the caller and gives the exit status.
async fn parse<T: Parser>(session: &mut Session, name: &str, arguments: Vec<String>) -> io::Result<Result<T, u8>> {
    let all = std::iter::once(format!("docker {name}")).chain(arguments);
    match T::try_parse_from(all) {
        Ok(parsed) => Ok(Ok(parsed)),
        Err(error) if !error.use_stderr() => {
            session.stdout(error.to_string().as_bytes()).await?;
            Ok(Err(0))
        }
        Err(error) => {
            let error = crate::cli::without_logins(error);
            session.stderr(error.to_string().as_bytes()).await?;
            Ok(Err(1))
        }
    }
}

/// Takes the value, or returns with the status that says why there is none.
macro_rules! or_exit {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(status) => return Ok(status),
        }
    };
}
/// Takes the value, or tells the caller about the registry client's error.
macro_rules! or_fail {
    ($session:expr, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return $session.fail_with(&error).await,
        }
    };
}
use {or_exit, or_fail};
