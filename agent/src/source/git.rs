//! The git program, run so that neither the user's settings nor a repository's own can steer it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// A git command with a clean environment: no prompts, no system or user settings, no repository hooks.
pub(crate) fn command(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.env_clear();
    for name in [
        "PATH",
        "HOME",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSH_AUTH_SOCK",
    ] {
        if let Some(value) = std::env::var_os(name) {
            git.env(name, value);
        }
    }
    git.envs([
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ALLOW_PROTOCOL", "https:http:ssh:file"),
        ("GIT_LFS_SKIP_SMUDGE", "0"),
    ]);
    for setting in [
        "safe.directory=*",
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "protocol.ext.allow=never",
    ] {
        git.args(["-c", setting]);
    }
    git.args([OsStr::new("-C"), directory.as_os_str()])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    git
}

/// The commit that is checked out in `directory`; `None` where there is no git, no work tree or no commit.
pub(crate) async fn head(directory: &Path) -> Option<String> {
    let done = command(directory)
        .args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
        .output()
        .await
        .ok()?;
    let commit = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    let plain = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    (done.status.success() && plain).then_some(commit)
}
