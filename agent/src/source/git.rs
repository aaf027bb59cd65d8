//! A job's repository, by the git program as the builder runs it.

use std::path::Path;

use roadstead_builder::context::remote::git;
pub(crate) use roadstead_builder::context::remote::git::without_credentials;
use roadstead_proto::job::Job;
use tokio::process::Command;

use super::SourceError;
use crate::error::FileError;

/// The builder's git command, which may also read repositories on this machine.
fn command(directory: &Path) -> Command {
    let mut git = git::command(directory);
    git.env("GIT_ALLOW_PROTOCOL", "https:http:ssh:file");
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
    let done = git::run(command(directory), step, url, arguments).await;
    done.map(drop).map_err(SourceError::Git)
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
}
