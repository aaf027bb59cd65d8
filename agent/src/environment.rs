//! Every environment variable Roadstead reads or sets, and where its data and configuration live.

use std::env;
use std::path::PathBuf;

/// Directory of the store, the cache and the default queue.
pub(crate) const DATA: &str = "ROADSTEAD_DATA";
/// Directory of `config.toml` and `registries.toml`.
pub(crate) const CONFIG: &str = "ROADSTEAD_CONFIG";
/// How large the build cache may be.
pub(crate) const CACHE_SIZE: &str = "ROADSTEAD_CACHE_SIZE";
/// Unix socket of the job's runner; set for a job's commands, read by the shims.
pub(crate) const SHIM_SOCKET: &str = "ROADSTEAD_SHIM_SOCKET";
/// Docker's configuration directory; a job has one of its own.
pub(crate) const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Docker's configuration directory of a job, whose logins come before all others; set for a job's commands and builds.
pub(crate) const JOB_LOGINS: &str = "ROADSTEAD_JOB_LOGINS";
/// Names the builder that buildx shall use.
pub(crate) const BUILDX_BUILDER: &str = "BUILDX_BUILDER";
/// Socket of the user's SSH agent.
pub(crate) const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";
/// Asks for output without colour.
pub(crate) const NO_COLOR: &str = "NO_COLOR";
/// Names the kind of terminal.
pub(crate) const TERM: &str = "TERM";

/// Variables whose values are masked in a job's log.
pub(crate) const SECRET_NAMES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

/// Whether a variable's name may stand in a shell's `export` line.
pub(crate) fn is_shell_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    let head = bytes
        .next()
        .is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic());
    head && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// Refuses a variable that a job's commands cannot be given. Text that is no name could be a command to the shell.
pub(crate) fn check_assignment(name: &str, value: &str) -> Result<(), String> {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if !is_shell_identifier(name) {
        return Err(format!("`{shown}` is no name for an environment variable"));
    }
    if name.starts_with("CODEBUILD_") {
        return Err(format!("`{shown}`: names that begin with `CODEBUILD_` are reserved"));
    }
    if value.contains('\0') {
        return Err(format!("the value of `{shown}` holds a NUL character"));
    }
    Ok(())
}

/// Whether a variable of the caller is passed on to a job's commands.
///
/// The machine's own names go through; those by which the runner is steered, and those a build gets anew, do not.
pub(crate) fn passes_to_job(name: &str) -> bool {
    const OWN: [&str; 7] = [DOCKER_CONFIG, "PWD", "OLDPWD", "SHLVL", "_", "BASH_ENV", "ENV"];
    is_shell_identifier(name)
        && !OWN.contains(&name)
        && !name.starts_with("ROADSTEAD_")
        && !name.starts_with("CODEBUILD_")
        && !name.starts_with("CARGO")
        && !name.starts_with("RUSTUP_")
}

/// The user's home directory; root's when unknown.
pub(crate) fn home() -> PathBuf {
    env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// Where the image store, the cache and the default queue live.
pub(crate) fn data_directory() -> PathBuf {
    if let Some(data) = env::var_os(DATA).filter(|data| !data.is_empty()) {
        return PathBuf::from(data);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/roadstead");
    }
    env::var_os("XDG_DATA_HOME")
        .filter(|data| !data.is_empty())
        .map_or_else(|| home().join(".local/share"), PathBuf::from)
        .join("roadstead")
}

/// Directories that may hold configuration, the first that exists being the one that counts.
pub(crate) fn config_directories() -> Vec<PathBuf> {
    match env::var_os(CONFIG).filter(|config| !config.is_empty()) {
        Some(config) => vec![PathBuf::from(config)],
        None => vec![home().join(".config/roadstead"), PathBuf::from("/etc/roadstead")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_a_shell_can_hold() {
        assert_eq!(check_assignment("A_1", "a\nb;c"), Ok(()));
        for (name, value, reason) in [
            (
                "x;touch /tmp/y;",
                "",
                "`x;touch /tmp/y;` is no name for an environment variable",
            ),
            ("a\n", "", "`a\\n` is no name for an environment variable"),
            (
                "CODEBUILD_X",
                "",
                "`CODEBUILD_X`: names that begin with `CODEBUILD_` are reserved",
            ),
            ("A", "a\0b", "the value of `A` holds a NUL character"),
        ] {
            assert_eq!(check_assignment(name, value), Err(reason.to_owned()));
        }
    }

    #[test]
    fn passes_what_a_command_needs_and_nothing_of_the_runner() {
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "AWS_ENDPOINT_URL",
            "AWS_SECRET_ACCESS_KEY",
            "http_proxy",
        ] {
            assert!(passes_to_job(name), "{name}");
        }
        for name in [
            "ROADSTEAD_CONFIG",
            "CODEBUILD_BUILD_ID",
            "DOCKER_CONFIG",
            "BASH_ENV",
            "A B",
            "1A",
            "",
            "BASH_FUNC_x%%",
        ] {
            assert!(!passes_to_job(name), "{name}");
        }
    }
}
