//! The git program, run so that neither the user's settings nor a repository's own can steer it.

use super::RemoteError;
use super::git_ref::GitRef;
use crate::beneath::{Dir, FileError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Bytes of git's words that an error repeats.
const MAX_REASON: usize = 400;

type Result<T> = std::result::Result<T, RemoteError>;

/// Value of the header `Authorization` that git sends by http. Shows nothing of itself.
#[derive(Clone)]
pub struct Authorization(pub String);

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization(..)")
    }
}

/// A git command with a clean environment: no prompts, no system or user settings, no hooks.
#[must_use]
pub fn command(directory: &Path) -> Command {
    // The modes of files depend on the umask, and must not depend on the caller's.
    let mut git = Command::new("sh");
    git.args(["-c", "umask 022; exec git \"$@\"", "git"]);
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
        ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git"),
    ]);
    for setting in [
        "safe.directory=*",
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "advice.detachedHead=false",
        "init.defaultBranch=main",
        "protocol.version=2",
        // A server that stands still for a minute is given up.
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
    ] {
        git.args(["-c", setting]);
    }
    git.args([OsStr::new("-C"), directory.as_os_str()])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    git
}

/// A URL without what stands before `@` in it, for logs and variables; and the secret that stood there, if one did.
#[must_use]
pub fn without_credentials(url: &str) -> (String, Option<&str>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    // Nobody but a mistaken or hostile user writes more slashes, and some programs pass over them.
    let rest = rest.trim_start_matches('/');
    let (host, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let Some((user, host)) = host.rsplit_once('@') else {
        return (url.to_owned(), None);
    };
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    (format!("{scheme}://{host}{path}"), Some(secret))
}

/// The address without a login of http, and that login as the header that it stands for: so no file of a repository comes to hold it.
fn address(remote: &str) -> (String, Option<Authorization>) {
    let Some((scheme, rest)) = remote
        .split_once("://")
        .filter(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("http"))
    else {
        return (remote.to_owned(), None);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some((login, host)) = rest[..end].rsplit_once('@') else {
        return (remote.to_owned(), None);
    };
    let login = super::git_ref::decoded(login).unwrap_or_else(|_| login.to_owned());
    let login = if login.contains(':') {
        login
    } else {
        format!("{login}:")
    };
    let header = format!("Basic {}", STANDARD.encode(login));
    (
        format!("{scheme}://{host}{}", &rest[end..]),
        Some(Authorization(header)),
    )
}

/// Runs a git command about a repository, and returns what it printed.
///
/// # Errors
/// Git's own words, without the login of the address.
pub async fn run(mut git: Command, step: &'static str, remote: &str, arguments: &[&str]) -> Result<String> {
    let done = output(git.args(arguments)).await.map_err(RemoteError::NoGit)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let (shown, secret) = without_credentials(remote);
    let mut reason = String::from_utf8_lossy(&done.stderr).replace(remote, &shown);
    if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
        reason = reason.replace(secret, "***");
    }
    let reason = reason.trim().replace('\n', "; ").chars().take(MAX_REASON).collect();
    Err(RemoteError::Git {
        step,
        remote: shown,
        reason,
    })
}

/// Runs git in a process group of its own, and ends the whole group when nobody waits for it any more: git's helpers are
/// processes that do not end with it.
async fn output(git: &mut Command) -> std::io::Result<std::process::Output> {
    struct Group(Option<rustix::process::Pid>);
    impl Drop for Group {
        fn drop(&mut self) {
            if let Some(group) = self.0 {
                // It may have ended by itself a moment ago.
                let _ended = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        }
    }
    let child = git
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(rustix::process::Pid::from_raw));
    let output = child.wait_with_output().await;
    group.0 = None;
    output
}

/// A repository to fetch from, and how.
#[derive(Debug)]
pub struct Repository<'a> {
    /// What of it.
    pub wanted: &'a GitRef,
    /// Sent by http.
    pub authorization: Option<Authorization>,
    /// Certificates to trust besides the system's.
    pub ca_bundle: Option<&'a Path>,
}

/// A commit of a repository: its hash, and the name to fetch it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full hash.
    pub hash: String,
    name: String,
}

impl Repository<'_> {
    fn git(&self, directory: &Path) -> Command {
        let mut git = command(directory);
        let mut settings: Vec<(String, String)> = Vec::new();
        let own = address(&self.wanted.remote).1;
        let authorization = self.authorization.as_ref().or(own.as_ref());
        if let (Some(Authorization(value)), Some(origin)) = (authorization, origin(&self.wanted.remote)) {
            // By the environment, since every user sees a process's arguments. Only for this repository's host, and not
            // along a redirect: a submodule may lie elsewhere.
            settings.push((format!("http.{origin}.extraHeader"), format!("Authorization: {value}")));
            settings.push(("http.followRedirects".to_owned(), "false".to_owned()));
        }
        if let Some(bundle) = self.ca_bundle {
            settings.push(("http.sslCAInfo".to_owned(), bundle.display().to_string()));
        }
        git.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.into_iter().enumerate() {
            git.env(format!("GIT_CONFIG_KEY_{number}"), key);
            git.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        git
    }

    fn failed(&self, step: &'static str, reason: impl Into<String>) -> RemoteError {
        RemoteError::Git {
            step,
            remote: without_credentials(&self.wanted.remote).0,
            reason: reason.into(),
        }
    }

    /// Asks the repository which commit is meant.
    ///
    /// # Errors
    /// When it cannot be reached, or has no such ref, or the ref's commit is not the one that is expected.
    pub async fn resolve(&self, scratch: &Path) -> Result<Commit> {
        let (remote, _) = address(&self.wanted.remote);
        let remote = remote.as_str();
        if self.wanted.fetch_by_commit
            && let Some(checksum) = self.wanted.checksum.as_ref().filter(|hash| is_full(hash))
        {
            return Ok(Commit::of(checksum));
        }
        let reference = self.wanted.reference.as_deref().unwrap_or("HEAD");
        if is_full(reference) {
            return self.checked(Commit::of(reference));
        }
        let peeled = format!("{reference}^{{}}");
        let arguments = ["ls-remote", "--quiet", "--", remote, reference, &peeled];
        let listed = run(self.git(scratch), "ls-remote", remote, &arguments).await?;
        match pick(&listed, reference) {
            Some(commit) => self.checked(commit),
            None => Err(self.failed("ls-remote", format!("the repository has no `{reference}`"))),
        }
    }

    fn checked(&self, commit: Commit) -> Result<Commit> {
        match &self.wanted.checksum {
            Some(wanted) if !commit.hash.starts_with(&wanted.to_ascii_lowercase()) => Err(RemoteError::Checksum {
                what: format!("{} at {}", without_credentials(&self.wanted.remote).0, commit.name),
                wanted: wanted.clone(),
                found: commit.hash,
            }),
            _ => Ok(commit),
        }
    }

    /// Puts the commit's files into `directory`, which must be empty; `.git` stays only when that is wanted. Returns the time of
    /// the commit in seconds since 1970.
    ///
    /// # Errors
    /// When git fails.
    pub async fn fetch(&self, commit: &Commit, directory: &Path, keep_git_dir: bool) -> Result<i64> {
        let (remote, _) = address(&self.wanted.remote);
        let remote = remote.as_str();
        let step = async |step, arguments: &[&str]| run(self.git(directory), step, remote, arguments).await;
        step("init", &["init", "--quiet", "--template="]).await?;
        step("remote", &["remote", "add", "origin", "--", remote]).await?;
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        let shallow = [&fetch[..], &["--depth=1", "--", remote, &commit.name]].concat();
        if let Err(error) = step("fetch", &shallow).await {
            // Not every server gives a commit by its hash.
            if commit.name != commit.hash {
                return Err(error);
            }
            let whole = [
                "--",
                remote,
                "+refs/heads/*:refs/remotes/origin/*",
                "+refs/tags/*:refs/tags/*",
            ];
            step("fetch", &[&fetch[..], &whole].concat()).await?;
        }
        step("checkout", &["checkout", "--quiet", "--detach", &commit.hash]).await?;
        if self.wanted.submodules.unwrap_or(true) && directory.join(".gitmodules").is_file() {
            step(
                "submodule",
                &["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"],
            )
            .await?;
        }
        let time = step("log", &["log", "-1", "--format=%ct", &commit.hash]).await?;
        let time = time.trim().parse();
        let time = time.map_err(|_| self.failed("log", "the commit has no time"))?;
        if keep_git_dir {
            // The index holds times and numbers of files on this machine; written anew it holds none.
            step("read-tree", &["read-tree", "HEAD"]).await?;
            for name in ["FETCH_HEAD", "ORIG_HEAD", "logs"] {
                Dir::open(&directory.join(".git"))?.remove_all(OsStr::new(name))?;
            }
        } else {
            let directory = directory.to_owned();
            let removing = tokio::task::spawn_blocking(move || remove_git(&Dir::open(&directory)?, 0));
            let removed = removing.await;
            removed.map_err(|error| self.failed("checkout", error.to_string()))??;
        }
        Ok(time)
    }
}

impl Commit {
    fn of(hash: &str) -> Self {
        let hash = hash.to_ascii_lowercase();
        Self {
            name: hash.clone(),
            hash,
        }
    }
}

/// Scheme, host and port of an address by http, as git's settings take them.
fn origin(remote: &str) -> Option<String> {
    let (scheme, rest) = remote
        .split_once("://")
        .filter(|(scheme, _)| scheme.starts_with("http"))?;
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    Some(format!("{scheme}://{host}/"))
}

fn is_full(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Finds the commit of a ref in what `ls-remote` lists: the full name, then a branch, then a tag, whose object's commit is meant.
fn pick(listed: &str, reference: &str) -> Option<Commit> {
    let lines: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let full = format!("refs/{}", reference.strip_prefix("refs/").unwrap_or(reference));
    let branch = format!(
        "refs/heads/{}",
        reference.strip_prefix("refs/heads/").unwrap_or(reference)
    );
    let tag = format!(
        "refs/tags/{}",
        reference.strip_prefix("refs/tags/").unwrap_or(reference)
    );
    for name in [reference, &full, &branch, &tag] {
        for wanted in [format!("{name}^{{}}"), name.to_owned()] {
            if let Some((hash, _)) = lines
                .iter()
                .find(|(_, known)| *known == wanted)
                .filter(|(hash, _)| is_full(hash))
            {
                return Some(Commit {
                    hash: (*hash).to_owned(),
                    name: name.to_owned(),
                });
            }
        }
    }
    None
}

/// Removes `.git`, also those of submodules, which name places on this machine.
fn remove_git(dir: &Dir, depth: usize) -> std::result::Result<(), FileError> {
    dir.remove_all(OsStr::new(".git"))?;
    // Git itself nests submodules no deeper than its repositories say; a hostile one must not use up the stack.
    if depth > 200 {
        return Ok(());
    }
    for name in dir.names()? {
        let stat = dir.metadata(&name)?;
        if stat.is_some_and(|stat| crate::beneath::kind(&stat) == rustix::fs::FileType::Directory) {
            remove_git(&dir.plain_dir(Path::new(&name))?, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_picked_as_git_does() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listed = format!(
            "{a}\tHEAD\n{a}\trefs/heads/x\n{b}\trefs/tags/x\n{c}\trefs/tags/x^{{}}\n{b}\trefs/tags/y\n{c}\trefs/tags/y^{{}}\nbroken\n"
        );
        for (reference, hash, name) in [
            ("HEAD", Some(&a), "HEAD"),
            ("x", Some(&a), "refs/heads/x"),
            ("refs/tags/x", Some(&c), "refs/tags/x"),
            ("tags/x", Some(&c), "refs/tags/x"),
            ("y", Some(&c), "refs/tags/y"),
            ("z", None, ""),
        ] {
            let found = pick(&listed, reference);
            assert_eq!(found.as_ref().map(|commit| &commit.hash), hash, "{reference}");
            assert_eq!(found.map(|commit| commit.name).unwrap_or_default(), name);
        }
    }

    #[test]
    fn a_login_becomes_a_header() {
        let (remote, login) = address("https://us%40er:p4ss@h.org/a.git");
        assert_eq!(remote, "https://h.org/a.git");
        assert_eq!(login.unwrap().0, format!("Basic {}", STANDARD.encode("us@er:p4ss")));
        for kept in ["ssh://git@h/a", "git@h:a", "https://h/a@b.git"] {
            let (remote, login) = address(kept);
            assert!(remote == kept && login.is_none());
        }
    }

    #[test]
    fn credentials_leave_the_url() {
        for (url, shown, secret) in [
            ("https://u:p4ss@h.org/a/b", "https://h.org/a/b", Some("p4ss")),
            ("https://token@h.org/a", "https://h.org/a", Some("token")),
            ("https://h.org/a@b", "https://h.org/a@b", None),
            ("git@h.org:a", "git@h.org:a", None),
            ("http://h?x=a@b", "http://h?x=a@b", None),
            ("http:///u:p4ss@h/x", "http://h/x", Some("p4ss")),
        ] {
            assert_eq!(without_credentials(url), (shown.to_owned(), secret), "{url}");
        }
    }
}
