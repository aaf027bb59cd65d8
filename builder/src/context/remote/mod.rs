//! Sources elsewhere: files by URL and git repositories, for ADD, for contexts and for named contexts.

pub mod archive;
pub mod git;
pub mod git_ref;
pub mod http;

pub use git_ref::GitRef;

/// What a source names that is not a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A file by http or https.
    Http(String),
    /// A git repository.
    Git(Box<GitRef>),
}

/// Tells why a remote source could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Its address says what cannot be.
    #[error("`{address}` is no address that can be fetched: {reason}")]
    Address {
        /// The address, without a login.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Git cannot be started.
    #[error("cannot run git; is it installed")]
    NoGit(#[source] std::io::Error),
    /// Git failed.
    #[error("git {step} of {remote} failed: {reason}")]
    Git {
        /// What it was to do.
        step: &'static str,
        /// The repository, without a login.
        remote: String,
        /// Its own words.
        reason: String,
    },
    /// The content is not what was asked for.
    #[error("{what} has checksum {found}, not {wanted}")]
    Checksum {
        /// What was fetched.
        what: String,
        /// What the Dockerfile says.
        wanted: String,
        /// What came.
        found: String,
    },
    /// An archive could not be unpacked.
    #[error("cannot unpack `{what}` as a context")]
    Archive {
        /// Its name.
        what: String,
        /// Why.
        source: Box<crate::layer::extract::ExtractError>,
    },
    /// The server failed.
    #[error(transparent)]
    Download(#[from] roadstead_registry_client::Error),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] crate::beneath::FileError),
}

impl Remote {
    /// Reads a source. `None` means that it is a path.
    ///
    /// # Errors
    /// A git address whose query or fragment is wrong.
    /// Also an address that programs read differently: one with `\`, or without a host.
    pub fn parse(source: &str) -> Result<Option<Self>, RemoteError> {
        if let Some(git) = GitRef::parse(source)? {
            return Ok(Some(Self::Git(Box::new(git))));
        }
        let lower = source.get(..8).unwrap_or(source).to_ascii_lowercase();
        let is_http = lower.starts_with("http://") || lower.starts_with("https://");
        if is_http {
            check_address(source)?;
        }
        Ok(is_http.then(|| Self::Http(source.to_owned())))
    }
}

/// Refuses an address whose host could be another one for the program that fetches it than for the one that looks for its login.
fn check_address(address: &str) -> Result<(), RemoteError> {
    let wrong = |reason: &str| {
        Err(RemoteError::Address {
            address: git::without_credentials(address).0,
            reason: reason.to_owned(),
        })
    };
    if address.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return wrong("it has a backslash, white space or a control character");
    }
    if address
        .split_once("://")
        .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(['/', '?', '#', '@']))
    {
        return wrong("it names no host");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_programs_read_differently_are_refused() {
        for address in [
            "http://evil\\@github.com/x",
            "https:///user:hunter2@h/x",
            "http://?x",
            "https://a b/x",
            "git://evil\\@h/a",
            "https:///h/a.git",
        ] {
            let error = Remote::parse(address).unwrap_err().to_string();
            assert!(error.contains("no address that can be fetched"), "{error}");
        }
        assert!(matches!(Remote::parse("https://h/x?a=b@c"), Ok(Some(Remote::Http(_)))));
    }
}
