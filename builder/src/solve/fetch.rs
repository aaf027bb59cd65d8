//! Fetching what lies elsewhere, with the secrets that are meant for it: sources of ADD, and contexts.

use super::cancel::Cancel;
use super::copy_plan::{Plan, Source};
use super::error::{BuildError, Result};
use super::secret::Secret;
use super::step::StageRun;
use super::tools::Tools;
use crate::beneath::FileError;
use crate::context::files::{Choice, Selected, Tree};
use crate::context::remote::git::{Authorization, Commit, Repository};
use crate::context::remote::{GitRef, Remote, RemoteError, git_ref, http};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roadstead_registry_client::{Digest, Secret as Login};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Fetches files and repositories. A stopped build ends it.
#[derive(Debug)]
pub struct Fetcher<'a> {
    /// The client, and where temporary files go.
    pub tools: &'a Tools,
    /// `--secret`: logins are among them, by the names that BuildKit gives them.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// Certificates to trust besides the system's.
    pub ca_bundle: Option<&'a Path>,
    /// The switch of the build.
    pub cancel: &'a Cancel,
}

impl Fetcher<'_> {
    /// Fetches the file at `url` into a directory of its own, and gives its path.
    ///
    /// # Errors
    /// When the server does not give it, it is not what `checksum` says, or a secret for it is no header.
    pub async fn file(&self, url: &str, checksum: Option<&Digest>) -> Result<PathBuf> {
        let login = self
            .login("HTTP_AUTH", '_', url)?
            .map(|(Authorization(value), _)| Login::new(value));
        let directory = self.scratch()?;
        let fetching = http::fetch(&self.tools.client, url, login.as_ref(), checksum, &directory);
        Ok(self.unless_canceled(fetching).await?.path)
    }

    /// Finds the commit that an address means.
    ///
    /// # Errors
    /// As git.
    pub async fn commit(&self, git: &GitRef) -> Result<Commit> {
        let scratch = self.scratch()?;
        let repository = self.repository(git)?;
        self.unless_canceled(repository.resolve(&scratch)).await
    }

    /// Fetches a commit into a directory of its own; gives that and the time of the commit.
    ///
    /// # Errors
    /// As git.
    pub async fn checkout(&self, git: &GitRef, commit: &Commit) -> Result<(PathBuf, i64)> {
        let directory = self.scratch()?;
        let repository = self.repository(git)?;
        let keep = git.keep_git_dir.unwrap_or(false);
        let time = self.unless_canceled(repository.fetch(commit, &directory, keep)).await?;
        Ok((directory, time))
    }

    fn repository<'a>(&'a self, git: &'a GitRef) -> Result<Repository<'a>> {
        let authorization = self.login("GIT_AUTH", '.', &git.remote)?;
        Ok(Repository {
            wanted: git,
            authorization: authorization.map(|(value, is_token)| match is_token {
                // Git hosts take a token as the password of this user.
                true => Authorization(format!(
                    "basic {}",
                    STANDARD.encode(format!("x-access-token:{}", value.0))
                )),
                false => value,
            }),
            ca_bundle: self.ca_bundle,
        })
    }

    /// Finds the login for an address among the secrets: `PREFIX_HEADER<separator>HOST` or `PREFIX_TOKEN<separator>HOST`, and for
    /// git also without host. Tells whether it is a token.
    fn login(&self, prefix: &str, separator: char, url: &str) -> Result<Option<(Authorization, bool)>> {
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let with_host = [format!("{separator}{host}"), format!("{separator}{without_port}")];
        let without = (separator == '.').then(String::new);
        for suffix in with_host.iter().chain(&without) {
            for (kind, is_token) in [("HEADER", false), ("TOKEN", true)] {
                let name = format!("{prefix}_{kind}{suffix}");
                let Some(secret) = self.secrets.get(&name) else {
                    continue;
                };
                let text = std::str::from_utf8(secret.bytes()).ok().map(str::trim);
                let text = text.filter(|text| !text.is_empty() && !text.contains(char::is_control));
                let text = text.ok_or_else(|| BuildError::Other(format!("the secret `{name}` is no header")))?;
                let value = match (is_token, prefix) {
                    (true, "HTTP_AUTH") => format!("Bearer {text}"),
                    _ => text.to_owned(),
                };
                return Ok(Some((Authorization(value), is_token)));
            }
        }
        Ok(None)
    }

    async fn unless_canceled<T>(&self, work: impl Future<Output = std::result::Result<T, RemoteError>>) -> Result<T> {
        tokio::select! {
            done = work => done.map_err(BuildError::Remote),
            () = self.cancel.canceled() => Err(BuildError::Canceled),
        }
    }

    /// Makes a directory for temporary files; it goes with the build.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("fetch-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.tools.scratch.join(name);
        let failed = |error| FileError::new("create directory", &path, error);
        std::fs::create_dir(&path).map_err(failed)?;
        // A repository's directory may become one of the image, whatever the caller's umask.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(path)
    }
}

/// What is known of a remote source before it is fetched.
#[derive(Debug)]
pub(super) struct Identified {
    /// What the result depends on, when that is known already.
    pub(super) identity: Option<String>,
    commit: Option<Commit>,
}

/// Files that were fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    directory: PathBuf,
    /// What of it is copied, and the time of its files.
    source: String,
    time: Option<i64>,
}

impl Fetched {
    /// Selects the files. A repository gives its content, or that of a directory in it; a URL one file.
    pub(super) fn select(&self, choice: &Choice) -> Result<(Tree, Vec<Selected>)> {
        let tree = Tree::fetched(&self.directory, self.time)?;
        let choice = Choice {
            parents: false,
            ..choice.clone()
        };
        let selected = tree.select(&self.source, &choice)?;
        Ok((tree, selected))
    }
}

impl StageRun<'_> {
    fn fetcher(&self) -> Fetcher<'_> {
        let request = &self.shared.request;
        Fetcher {
            tools: &self.shared.tools,
            secrets: &request.secrets,
            ca_bundle: request.ca_bundle.as_deref(),
            cancel: &self.shared.cancel,
        }
    }

    /// Finds out what a remote source is, without fetching it.
    pub(super) async fn identify(&self, plan: &Plan, source: &Remote) -> Result<Identified> {
        match source {
            Remote::Http(url) => Ok(Identified {
                identity: plan
                    .digest()?
                    .map(|digest| format!("{} {digest}", http::file_name(url))),
                commit: None,
            }),
            Remote::Git(git) => {
                let git = wanted(plan, git)?;
                let commit = self.fetcher().commit(&git).await?;
                let what = (
                    &git.subdir,
                    git.keep_git_dir,
                    git.submodules,
                    git.commit_time,
                    &git.remote,
                );
                Ok(Identified {
                    identity: Some(format!("{} {what:?}", commit.hash)),
                    commit: Some(commit),
                })
            }
        }
    }

    /// Fetches a source that was identified.
    pub(super) async fn fetch(&self, plan: &Plan, source: &Remote, known: &Identified) -> Result<Fetched> {
        match (source, &known.commit) {
            (Remote::Http(url), _) => {
                let path = self.fetcher().file(url, plan.digest()?.as_ref()).await?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                Ok(Fetched {
                    directory: path.parent().unwrap_or(Path::new("/")).to_owned(),
                    source: literal(&name),
                    time: None,
                })
            }
            (Remote::Git(git), Some(commit)) => {
                let git = wanted(plan, git)?;
                let (directory, time) = self.fetcher().checkout(&git, commit).await?;
                Ok(Fetched {
                    directory,
                    source: git.subdir.as_deref().map_or_else(|| "/".to_owned(), literal),
                    time: git.commit_time.then_some(time),
                })
            }
            (Remote::Git(_), None) => Err(BuildError::Other("a repository was not looked up".into())),
        }
    }
}

/// Joins what the instruction's flags and the address say of a repository.
fn wanted(plan: &Plan, git: &GitRef) -> Result<GitRef> {
    let mut git = git.clone();
    match (plan.keep_git_dir, git.keep_git_dir) {
        (Some(flag), Some(address)) if flag != address => {
            return Err(BuildError::Other(
                "`--keep-git-dir` and the address contradict each other".into(),
            ));
        }
        (flag, address) => git.keep_git_dir = address.or(flag),
    }
    if let Some(checksum) = &plan.checksum {
        git_ref::check_commit(checksum).map_err(BuildError::Other)?;
        if git.checksum.as_ref().is_some_and(|other| other != checksum) {
            return Err(BuildError::Other(
                "`--checksum` and the address name other commits".into(),
            ));
        }
        git.checksum = Some(checksum.clone());
    }
    Ok(git)
}

/// A name in which nothing is a wildcard.
fn literal(name: &str) -> String {
    let mut text = String::from("/");
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Sources that must be fetched.
pub(super) fn remotes(plan: &Plan) -> impl Iterator<Item = &Remote> {
    plan.sources.iter().filter_map(|source| match source {
        Source::Remote(remote) => Some(remote),
        Source::Path(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(literal("a*b[c"), "/a\\*b\\[c");
    }
}
