//! `docker login` and `docker logout`, in the job's own configuration.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use roadstead_registry_client::{Error, Secret, login as keep, logout as forget};

use super::{or_exit, or_fail, parse};
use crate::shim::context::Context;
use crate::shim::session::Session;

/// Bytes of a password at most; ECR's tokens have about 2 KiB.
const MAX_PASSWORD: usize = 64 * 1024;
/// The server that is meant when none is named.
const DEFAULT_SERVER: &str = "docker.io";

/// Log in to a registry.
#[derive(Debug, Parser)]
struct Login {
    /// User name.
    #[arg(short, long)]
    username: Option<String>,
    /// Password.
    #[arg(short, long)]
    password: Option<String>,
    /// Take the password from stdin.
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// Ignored, as docker does; old AWS CLIs print it.
    #[arg(short, long, hide = true)]
    email: Option<String>,
    server: Option<String>,
}

/// Log out from a registry.
#[derive(Debug, Parser)]
struct Logout {
    server: Option<String>,
}

fn server(given: Option<String>) -> String {
    let given = given.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let host = given
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    match host {
        "index.docker.io/v1" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_SERVER.to_owned(),
        host => host.to_owned(),
    }
}

pub(super) async fn login(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let login: Login = or_exit!(parse(session, "login", arguments).await?);
    let Some(user) = login.username else {
        let stdin = login.password_stdin;
        let text = if stdin {
            "Must provide --username with --password-stdin"
        } else {
            NOT_INTERACTIVE
        };
        return session.fail(text).await;
    };
    let password = match login.password {
        Some(password) => {
            session
                .stderr(b"WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
                .await?;
            password
        }
        None if login.password_stdin => {
            let bytes = session.read_stdin(MAX_PASSWORD).await?;
            let Ok(text) = String::from_utf8(bytes) else {
                return session.fail("the password is not UTF-8").await;
            };
            let text = text.strip_suffix('\n').unwrap_or(&text);
            text.strip_suffix('\r').unwrap_or(text).to_owned()
        }
        None => return session.fail(NOT_INTERACTIVE).await,
    };
    if password.is_empty() {
        return session.fail("Error: password is empty").await;
    }
    context.secrets().add(&password);
    // The file that keeps the login holds it in this form, and a command may print the file.
    context.secrets().add(&STANDARD.encode(format!("{user}:{password}")));
    let (server, secret) = (server(login.server), Secret::new(password));
    let client = or_fail!(session, context.client());
    match client.ping_login(&server, &user, &secret).await {
        Ok(()) => {}
        Err(Error::Unauthorized { .. }) => {
            let text = format!(
                "Error response from daemon: login attempt to https://{server}/v2/ failed with status: 401 Unauthorized"
            );
            return session.fail(&text).await;
        }
        Err(error) => return session.fail_with(&error).await,
    }
    or_fail!(session, keep(context.docker_config(), &server, &user, &secret));
    session.line("Login Succeeded").await?;
    Ok(0)
}

const NOT_INTERACTIVE: &str = "Error: Cannot perform an interactive login from a non TTY device";

pub(super) async fn logout(context: &Context, session: &mut Session, arguments: Vec<String>) -> io::Result<u8> {
    let logout: Logout = or_exit!(parse(session, "logout", arguments).await?);
    let server = server(logout.server);
    session
        .line(&format!("Removing login credentials for {server}"))
        .await?;
    if !or_fail!(session, forget(context.docker_config(), &server)) {
        session
            .stderr(format!("Not logged in to {server}\n").as_bytes())
            .await?;
    }
    Ok(0)
}
