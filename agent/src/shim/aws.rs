//! The `aws` calls that are served: the logins to ECR, and the version where there is no other `aws`.

use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use roadstead_registry_client::ecr;
use tokio::process::Command;

use super::context::Context;
use super::session::Session;
use crate::config::Config;
use crate::error::CliError;

/// Options of every `aws` command that take a value.
const WITH_VALUE: [&str; 11] = [
    "--region",
    "--profile",
    "--endpoint-url",
    "--output",
    "--query",
    "--ca-bundle",
    "--color",
    "--cli-read-timeout",
    "--cli-connect-timeout",
    "--cli-binary-format",
    "--registry-ids",
];

/// Variables that hold credentials.
const KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// A call taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    words: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

impl Call {
    fn parse(arguments: &[String]) -> Self {
        let mut call = Self::default();
        let mut left = arguments.iter().peekable();
        while let Some(argument) = left.next() {
            if !argument.starts_with("--") {
                call.words.push(argument.clone());
            } else if let Some((name, value)) = argument.split_once('=') {
                call.options.push((name.to_owned(), Some(value.to_owned())));
            } else {
                let value = WITH_VALUE
                    .contains(&argument.as_str())
                    .then(|| left.next_if(|value| !value.starts_with("--")).cloned())
                    .flatten();
                call.options.push((argument.clone(), value));
            }
        }
        call
    }

    fn is(&self, words: &[&str]) -> bool {
        self.words == words
    }

    fn value(&self, option: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| name == option)?.1.as_deref()
    }

    /// The first option that lacks its value.
    fn incomplete(&self) -> Option<&str> {
        self.options
            .iter()
            .find(|(name, value)| value.is_none() && WITH_VALUE.contains(&name.as_str()))
            .map(|(name, _)| name.as_str())
    }

    /// Whether a variable of the caller must not count: a profile named on the command line goes before the environment's keys.
    fn overrides(&self, variable: &str) -> bool {
        self.value("--profile").is_some() && KEYS.contains(&variable)
    }

    /// The first option that the login cannot honour.
    fn refused(&self) -> Option<&str> {
        let taken = |name: &str| {
            let harmless = [
                "--output",
                "--color",
                "--no-cli-pager",
                "--no-paginate",
                "--debug",
                "--no-cli-auto-prompt",
            ];
            let honoured = [
                "--region",
                "--profile",
                "--endpoint-url",
                "--ca-bundle",
                "--registry-ids",
                "--no-include-email",
            ];
            harmless.contains(&name) || honoured.contains(&name) || name.starts_with("--cli-")
        };
        self.options
            .iter()
            .map(|(name, _)| name.as_str())
            .find(|name| !taken(name))
    }
}

/// Whether the runner answers this call, whatever other `aws` there may be.
pub(super) fn is_served(arguments: &[String]) -> bool {
    let call = Call::parse(arguments);
    let help = call.options.iter().any(|(name, _)| name == "--help");
    !help && (call.is(&["ecr", "get-login-password"]) || call.is(&["ecr", "get-login"]))
}

/// Serves a call.
pub(super) async fn serve(context: &Context, session: &mut Session) -> io::Result<u8> {
    let call = Call::parse(&session.request.arguments);
    if session.request.arguments.iter().any(|argument| argument == "--version") {
        let version = env!("CARGO_PKG_VERSION");
        session
            .line(&format!("aws-cli/2.0.0 roadstead/{version} (only the logins to ECR)"))
            .await?;
        return Ok(0);
    }
    if let Some(option) = call.refused() {
        let text = format!(
            "aws: `{option}` of `aws ecr {}` is not served by roadstead",
            call.words[1]
        );
        return session.fail(&text).await;
    }
    if let Some(option) = call.incomplete() {
        return session
            .fail(&format!("aws: argument {option}: expected one argument"))
            .await;
    }
    match token(context, session, &call).await {
        Ok(token) if call.is(&["ecr", "get-login"]) => {
            let email = call.options.iter().any(|(name, _)| name == "--no-include-email");
            let email = if email { "" } else { " -e none" };
            let text = format!(
                "docker login -u {} -p {}{email} {}",
                token.user, token.password, token.endpoint
            );
            session.line(&text).await?;
            Ok(0)
        }
        Ok(token) => {
            session.line(&token.password).await?;
            Ok(0)
        }
        Err(reason) => session.fail(&reason).await,
    }
}

struct Token {
    user: String,
    password: String,
    endpoint: String,
}

/// Gets a token with the caller's credentials and region: the commands of a job may have taken on a role of their own, which
/// the runner's environment doesn't know.
async fn token(context: &Context, session: &Session, call: &Call) -> Result<Token, String> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("roadstead").arg("ecr-token").env_clear().envs(
        session
            .request
            .environment
            .iter()
            .filter(|(name, _)| !call.overrides(name)),
    );
    if let Some(region) = call.value("--region") {
        command.args(["--region", region]);
    }
    if let Some(id) = call.value("--registry-ids") {
        command.args(["--registry-id", id]);
    }
    if let Some(bundle) = call.value("--ca-bundle") {
        command.arg("--ca-bundle").arg(session.directory().join(bundle));
    }
    for (option, variable) in [("--profile", "AWS_PROFILE"), ("--endpoint-url", "AWS_ENDPOINT_URL")] {
        if let Some(value) = call.value(option) {
            command.env(variable, value);
        }
    }
    for variable in [crate::environment::CONFIG, crate::environment::DATA] {
        command.env_remove(variable);
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    command
        .current_dir(session.directory())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let mut gone = session.gone();
    let done = tokio::select! {
        done = command.output() => done.map_err(|error| format!("cannot ask for a token: {error}"))?,
        () = gone.wait() => return Err("interrupted".to_owned()),
    };
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).trim_end().to_owned());
    }
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    match (lines.next(), lines.next(), lines.next()) {
        (Some(user), Some(password), Some(endpoint)) => {
            context.secrets().add(&password);
            Ok(Token {
                user,
                password,
                endpoint,
            })
        }
        _ => Err("the token is incomplete".to_owned()),
    }
}

/// Arguments of the process that asks for a token.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[arg(long)]
    region: Option<String>,
    #[arg(long)]
    registry_id: Option<String>,
    #[arg(long)]
    ca_bundle: Option<PathBuf>,
}

/// Prints user, password and endpoint; for the runner, which reads them from a pipe.
pub(crate) fn print_token(args: &TokenArgs) -> Result<ExitCode, CliError> {
    use io::Write as _;
    let bundle = match &args.ca_bundle {
        Some(bundle) => Some(bundle.clone()),
        None => Config::load()?.ca_bundle,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::failed)?;
    let asked = ecr::authorization_token(args.region.as_deref(), args.registry_id.as_deref(), bundle.as_deref());
    let token = runtime.block_on(asked).map_err(CliError::registry)?;
    let text = format!(
        "{}\n{}\n{}\n",
        token.user,
        token.password.expose(),
        token.proxy_endpoint
    );
    io::stdout().write_all(text.as_bytes()).map_err(CliError::failed)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_logins_are_served_and_nothing_else() {
        for text in [
            "ecr get-login-password",
            "ecr get-login-password --region us-east-1",
            "--region us-east-1 ecr get-login-password",
            "--profile=p ecr get-login-password --output text",
            "ecr get-login --no-include-email --region r",
        ] {
            assert!(is_served(&call(text)), "{text}");
            assert_eq!(Call::parse(&call(text)).refused(), None, "{text}");
        }
        for text in [
            "s3 ls",
            "ecr get-login-password help",
            "ecr describe-images",
            "--version",
            "ecr-public get-login-password",
        ] {
            assert!(!is_served(&call(text)), "{text}");
        }
        let refused = Call::parse(&call("ecr get-login-password --no-verify-ssl"));
        assert_eq!(refused.refused(), Some("--no-verify-ssl"));
        assert_eq!(
            Call::parse(&call("--region a ecr get-login-password --region=b")).value("--region"),
            Some("b")
        );
    }

    #[test]
    fn options_without_their_value_and_the_keys_of_a_profile() {
        for (text, option) in [
            ("ecr get-login-password --region", Some("--region")),
            ("ecr get-login-password --profile --region a", Some("--profile")),
            ("ecr get-login-password --region a --profile=", None),
        ] {
            assert_eq!(Call::parse(&call(text)).incomplete(), option, "{text}");
        }
        let plain = Call::parse(&call("ecr get-login-password"));
        let named = Call::parse(&call("ecr get-login-password --profile p"));
        for key in KEYS {
            assert!(!plain.overrides(key) && named.overrides(key), "{key}");
        }
        assert!(!named.overrides("AWS_CONFIG_FILE"));
    }
}
