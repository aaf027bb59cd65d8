//! A file by its URL.

use super::RemoteError;
use super::git_ref::decoded;
use crate::beneath::FileError;
use roadstead_registry_client::{Client, Digest, Secret};
use std::path::{Path, PathBuf};

/// A file that was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
}

/// The name that a URL gives its file, as BuildKit has it: the last part of its path.
#[must_use]
pub fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let path = decoded(path).unwrap_or_else(|_| path.to_owned());
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

/// Fetches `url` into `directory` under its own name, with mode 0600 and the time the server tells, or that of 1970.
///
/// # Errors
/// When the server does not give it, or it is not what `checksum` says.
pub async fn fetch(
    client: &Client,
    url: &str,
    authorization: Option<&Secret>,
    checksum: Option<&Digest>,
    directory: &Path,
) -> Result<Fetched, RemoteError> {
    let path = directory.join(file_name(url));
    let done = client.download(url, authorization, &path).await?;
    if let Some(wanted) = checksum.filter(|wanted| **wanted != done.digest) {
        return Err(RemoteError::Checksum {
            what: format!("`{}`", shown(url)),
            wanted: wanted.to_string(),
            found: done.digest.to_string(),
        });
    }
    let time = done.last_modified.as_deref().and_then(seconds).unwrap_or(0);
    settle(&path, time).map_err(|error| FileError::new("set the mode of", &path, error))?;
    Ok(Fetched {
        path,
        digest: done.digest,
    })
}

fn settle(path: &Path, time: i64) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let file = std::fs::File::options().write(true).open(path)?;
    let since = std::time::Duration::from_secs(u64::try_from(time).unwrap_or(0));
    file.set_modified(std::time::UNIX_EPOCH + since)
}

/// Reads a date as HTTP has it, such as `Wed, 21 Oct 2015 07:28:00 GMT`.
fn seconds(date: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::parse(&date.replace("GMT", "+0000")).ok()?;
    Some(parsed.timestamp().as_second())
}

/// A URL as a message may show it: without login and query.
fn shown(url: &str) -> String {
    let (shown, _) = super::git::without_credentials(url);
    shown.split(['?', '#']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_dates() {
        for (url, name) in [
            ("http://h/a/b.txt", "b.txt"),
            ("https://h/a/b%20c?x=/y#z", "b c"),
            ("https://h/a/", "a"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/%2e%2e", "__unnamed__"),
            ("https://h/a%2fb", "b"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(seconds("never"), None);
    }
}
