//! The git program, run so that neither the user's settings nor a repository's own can steer it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use roadstead_proto::job::Job;
use tokio::process::Command;

use super::SourceError;
use crate::error::FileError;

/// Bytes of git's words that an error repeats.
const MAX_REASON: usize = 400;

/// A git command with a clean environment: no prompts, no system or user settings, no hooks.
fn command(directory: &Path) -> Command {
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
    ]);
    for setting in [
        "safe.directory=*",
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "advice.detachedHead=false",
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

/// Whether a source given on a command line is a git URL rather than a directory.
pub(crate) fn is_url(text: &str) -> bool {
    let scp_like = text
        .split_once(':')
        .is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    text.contains("://") || scp_like
}

/// A URL without what stands before `@` in it, for logs and variables; and the secret that stood there, if one did.
pub(crate) fn without_credentials(url: &str) -> (String, Option<&str>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let Some((user, host)) = host.rsplit_once('@') else {
        return (url.to_owned(), None);
    };
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    let slash = if rest.contains('/') { "/" } else { "" };
    (format!("{scheme}://{host}{slash}{path}"), Some(secret))
}

/// Refuses a URL that git would not be given.
pub(crate) fn check_url(url: &str) -> Result<(), SourceError> {
    let allowed = ["https://", "http://", "ssh://", "file://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    let scp_like = !url.contains("://") && is_url(url) && !url.contains("::");
    let plain = !url.starts_with('-') && !url.chars().any(char::is_control);
    if plain && (allowed || scp_like) {
        Ok(())
    } else {
        Err(SourceError::Url(without_credentials(url).0))
    }
}

fn check_revision(revision: &str) -> Result<(), SourceError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-+@#".contains(&byte);
    let fits = !revision.is_empty() && revision.len() <= 250 && !revision.starts_with(['-', '+']);
    if fits && revision.bytes().all(plain) {
        Ok(())
    } else {
        Err(SourceError::Revision(revision.to_owned()))
    }
}

/// Clones a job's repository into `destination` and checks out the revision it asks for.
pub(super) async fn fetch(job: &Job, destination: &Path) -> Result<(), SourceError> {
    let url = job.source.location.as_str();
    let revision = job.source_version.as_deref().unwrap_or("HEAD");
    check_url(url)?;
    check_revision(revision)?;
    std::fs::create_dir(destination).map_err(FileError::at("create", destination))?;
    step(destination, "init", url, &["init", "--quiet"]).await?;
    let depth = job
        .source
        .git_clone_depth
        .filter(|depth| *depth > 0)
        .map(|depth| format!("--depth={depth}"));
    let mut arguments = vec!["fetch", "--quiet", "--no-recurse-submodules"];
    arguments.extend(depth.as_deref());
    arguments.extend(["--", url, revision]);
    step(destination, "fetch", url, &arguments).await?;
    step(
        destination,
        "checkout",
        url,
        &["checkout", "--quiet", "--detach", "FETCH_HEAD"],
    )
    .await
}

async fn step(directory: &Path, step: &'static str, url: &str, arguments: &[&str]) -> Result<(), SourceError> {
    let done = command(directory)
        .args(arguments)
        .output()
        .await
        .map_err(SourceError::NoGit)?;
    if done.status.success() {
        return Ok(());
    }
    let (shown, secret) = without_credentials(url);
    let mut reason: String = String::from_utf8_lossy(&done.stderr).replace(url, &shown);
    if let Some(secret) = secret {
        reason = reason.replace(secret, "***");
    }
    let reason = reason.trim().replace('\n', "; ").chars().take(MAX_REASON).collect();
    Err(SourceError::Git {
        step,
        url: shown,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_directories_are_told_apart() {
        for url in ["https://example.org/a.git", "git@example.org:a/b.git", "file:///srv/a"] {
            assert!(is_url(url) && check_url(url).is_ok(), "{url}");
        }
        for path in [".", "/srv/a", "./a:b", "dir"] {
            assert!(!is_url(path), "{path}");
        }
        for url in [
            "ext::sh -c x",
            "--upload-pack=x",
            "ftp://h/a",
            "a@b::c",
            "https://h/\nx",
            "/srv/a",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn revisions_are_no_options_and_no_refspecs() {
        for good in [
            "main",
            "v1.0",
            "refs/pull/1/head",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert!(check_revision(good).is_ok(), "{good}");
        }
        for bad in ["", "--upload-pack=x", "a:b", "+main", "a b", "a\nb"] {
            assert!(check_revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_leave_the_url() {
        for (url, shown, secret) in [
            ("https://u:p4ss@h.org/a/b", "https://h.org/a/b", Some("p4ss")),
            ("https://token@h.org/a", "https://h.org/a", Some("token")),
            ("https://h.org/a@b", "https://h.org/a@b", None),
            ("git@h.org:a", "git@h.org:a", None),
        ] {
            assert_eq!(without_credentials(url), (shown.to_owned(), secret), "{url}");
        }
    }
}
