//! The errors of this crate.
//!
//! No variant holds a password, a token, or a URL with its query. What to do about an error stands apart, in
//! [`RegistryError::hint`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::Digest;
use crate::platform::Platform;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// Says why no connection to a host came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectProblem {
    /// Nothing listens on the port.
    Refused,
    /// The host's name has no address.
    UnknownHost,
    /// The server's certificate is signed by an authority that is not trusted here.
    UnknownIssuer,
    /// The TLS handshake failed for another reason.
    Tls,
    /// No answer in time.
    Timeout,
    /// Anything else; the source says more.
    Other,
}

impl std::fmt::Display for ConnectProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "the connection was refused",
            Self::UnknownHost => "the host name was not found",
            Self::UnknownIssuer => "its certificate is signed by an unknown authority",
            Self::Tls => "the TLS handshake failed",
            Self::Timeout => "it did not answer in time",
            Self::Other => "the connection failed",
        })
    }
}

/// Source of an error that came from another library.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Everything that can go wrong with names, stores, credentials and registries.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A text is not a digest.
    #[error("`{text}` is not a digest: {reason}")]
    InvalidDigest {
        /// What was given, shortened.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text is not an image name.
    #[error("`{text}` is not an image name: {reason}")]
    InvalidReference {
        /// What was given, shortened.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text is not a platform.
    #[error("`{text}` is not a platform")]
    InvalidPlatform {
        /// What was given, shortened.
        text: String,
    },
    /// A manifest, index or configuration cannot be read.
    #[error("cannot read the {what}: {reason}")]
    InvalidDocument {
        /// Kind of document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A blob is not where it was looked for on this machine.
    #[error("blob {digest} is not in {place}")]
    BlobMissing {
        /// The blob.
        digest: Digest,
        /// The local store, or the path of a layout or an archive.
        place: String,
    },
    /// A blob is larger than the reader allows.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What was allowed, in bytes.
        limit: u64,
    },
    /// A layout or an archive holds no image that can be read, or takes none.
    #[error("cannot use `{}`: {reason}", path.display())]
    Layout {
        /// The directory or the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An index of several images was to go where one image goes.
    #[error("{place} takes an image for one platform, and this is an index of several")]
    OnePlatform {
        /// Kind of place.
        place: &'static str,
    },
    /// Content has another digest than its name says.
    #[error("{what} has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was read, and where from.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest found.
        actual: Digest,
    },
    /// Content has another size than its descriptor says.
    #[error("{what} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// What was read, and where from.
        what: String,
        /// The size in the descriptor, in bytes.
        expected: u64,
        /// The size found, in bytes.
        actual: u64,
    },
    /// `registries.toml` cannot be used.
    #[error("{}:{line}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// docker's `config.json` cannot be used.
    #[error("cannot use the credentials in `{}`: {message}", path.display())]
    CredentialFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A credential helper failed.
    #[error("credential helper `docker-credential-{helper}` failed for {host}: {message}")]
    CredentialHelper {
        /// Name of the helper.
        helper: String,
        /// Registry asked for.
        host: String,
        /// What went wrong.
        message: String,
    },
    /// Amazon ECR gave no authorization token.
    #[error("cannot get an Amazon ECR authorization token{}: {message}", region.as_ref().map(|r| format!(" in {r}")).unwrap_or_default())]
    EcrToken {
        /// Region asked, if one was named.
        region: Option<String>,
        /// What AWS answered.
        message: String,
    },
    /// A CA bundle cannot be used.
    #[error("cannot use `{}` as a CA bundle: {message}", path.display())]
    CaBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// No TLS client can be made on this machine.
    #[error("cannot set up TLS")]
    TlsSetup {
        /// The library's error; most often: no system roots.
        source: Source,
    },
    /// `registries.toml` forbids the name.
    #[error("`{name}` is blocked by `{prefix}` in registries.toml")]
    Blocked {
        /// The repository.
        name: String,
        /// The prefix whose entry forbids it.
        prefix: String,
    },
    /// The network is not to be used.
    #[error("offline: {operation} needs {host}")]
    Offline {
        /// Host and port.
        host: String,
        /// What was missing here and would have been asked for.
        operation: String,
    },
    /// A client certificate cannot be used.
    #[error("cannot use `{}` as a client certificate: {message}", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A login named by `registries.toml` cannot be had.
    #[error("cannot get the login for {host} that registries.toml names: {message}")]
    CredentialRule {
        /// Host and port.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// The tag means another image, and the repository does not let tags change.
    #[error("tag `{tag}` of `{repository}` is immutable and means {existing}, not {pushed}")]
    TagImmutable {
        /// The tag.
        tag: String,
        /// The repository.
        repository: String,
        /// What the tag means.
        existing: Digest,
        /// What it was to mean.
        pushed: Digest,
    },
    /// The registry cannot take a tag away.
    #[error("the registry cannot take the tag of `{name}` away, only the image with all of its tags")]
    CannotUntag {
        /// The name.
        name: String,
    },
    /// The registry has lost an upload, or taken it in part.
    #[error("{host} broke off {operation}{}", detail_suffix(detail))]
    UploadLost {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// What the registry said.
        detail: String,
    },
    /// A call of Amazon ECR's API failed.
    #[error("cannot {operation}: {message}")]
    EcrCall {
        /// What was tried.
        operation: String,
        /// AWS's error code; empty when there was no answer.
        code: String,
        /// What AWS answered.
        message: String,
        /// The permission that the call takes.
        permission: &'static str,
        /// Whether the same call may succeed later.
        transient: bool,
    },
    /// No connection.
    #[error("cannot reach registry {host}: {problem}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        problem: ConnectProblem,
        /// The library's error.
        source: Option<Source>,
    },
    /// A connection broke, or stood still, during an exchange.
    #[error("the connection to {host} broke off during {operation}")]
    Interrupted {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// The library's error.
        source: Option<Source>,
    },
    /// The registry took longer than any honest one does. It is not asked again: the wait would only multiply.
    #[error("{host} did not complete {operation} within {seconds} seconds")]
    TooSlow {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The registry wants a login, or refuses the one it got.
    #[error("{host} {} {operation}{}", login_verb(*with_credentials), detail_suffix(detail))]
    Unauthorized {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// Whether credentials were sent.
        with_credentials: bool,
        /// What the registry said.
        detail: String,
    },
    /// The login is good, but not for this.
    #[error("{host} denied {operation}{}", detail_suffix(detail))]
    Denied {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// What the registry said.
        detail: String,
    },
    /// The repository does not exist.
    #[error("{host} has no repository `{repository}`{}", detail_suffix(detail))]
    RepositoryUnknown {
        /// Host and port.
        host: String,
        /// The repository.
        repository: String,
        /// Whether the host is Amazon ECR, where a repository must be made before a push.
        ecr: bool,
        /// What the registry said.
        detail: String,
    },
    /// No such tag or manifest.
    #[error("image `{reference}` was not found")]
    NotFound {
        /// The image.
        reference: String,
    },
    /// No image of that name in the local store.
    #[error("the local store has no image `{reference}`")]
    NotInStore {
        /// The image.
        reference: String,
    },
    /// The registry lacks a blob.
    #[error("{host} has no blob {digest} in repository `{repository}`")]
    BlobUnknown {
        /// Host and port.
        host: String,
        /// The repository.
        repository: String,
        /// The blob.
        digest: Digest,
    },
    /// The image is not made for the platform asked for.
    #[error("image `{reference}` is not made for {wanted}, only for {}", platform_list(have))]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        have: Vec<Platform>,
    },
    /// An answer held in memory is too large.
    #[error("{what} from {host} is larger than {limit} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
        /// What was fetched.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The answer is no registry's: most often HTML from a proxy or a web page.
    #[error(
        "{host} answered {operation} with `{content_type}`, so it is not a registry or a proxy answered in its place"
    )]
    NotRegistry {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// Content type of the answer.
        content_type: String,
    },
    /// The registry asks for a login in a way that is not understood or not safe.
    #[error("cannot log in to {host}: {reason}")]
    Challenge {
        /// Host and port.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry sent us to a place we do not go.
    #[error("{host} sent {operation} to another place that is not safe: {reason}")]
    UnsafeLocation {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// What is wrong.
        reason: String,
    },
    /// Any other status.
    #[error("{host} answered {operation} with status {status}{}", detail_suffix(detail))]
    Status {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// HTTP status.
        status: u16,
        /// What the registry said.
        detail: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The registry's answer lacks something.
    #[error("{host} answered {operation} wrongly: {reason}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was being done.
        operation: String,
        /// What is wrong.
        reason: String,
    },
    /// A background thread ended early.
    #[error("{operation} was stopped")]
    Stopped {
        /// What was being done.
        operation: &'static str,
    },
}

impl RegistryError {
    /// For a blob that the local store lacks.
    #[must_use]
    pub fn missing_in_store(digest: &Digest) -> Self {
        Self::BlobMissing {
            digest: digest.clone(),
            place: "the local store".to_owned(),
        }
    }

    pub(crate) fn layout(path: &Path, reason: impl Into<String>) -> Self {
        Self::Layout {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// Tells whether the same operation may succeed when it is tried again.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { problem, .. } => {
                matches!(
                    problem,
                    ConnectProblem::Refused
                        | ConnectProblem::UnknownHost
                        | ConnectProblem::Timeout
                        | ConnectProblem::Other
                )
            }
            Self::Interrupted { .. } | Self::UploadLost { .. } => true,
            Self::EcrCall { transient, .. } => *transient,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Returns how long the registry asked us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn permission(&self) -> Option<&'static str> {
        match self {
            Self::EcrCall { permission, .. } => Some(permission),
            _ => None,
        }
    }

    /// Says what the user can do, when that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { host, problem, .. } => connect_hint(host, *problem),
            Self::TlsSetup { .. } => {
                Some("install the CA certificates of the system, or give `--ca-bundle FILE`".to_owned())
            }
            Self::Unauthorized {
                host,
                with_credentials: false,
                ..
            } => Some(format!("log in first: `docker login {host}`")),
            Self::Unauthorized { host, .. } => Some(format!(
                "user name or password are wrong or have expired; log in again: `docker login {host}`"
            )),
            Self::RepositoryUnknown {
                repository, ecr: true, ..
            } => Some(format!(
                "create it (`aws ecr create-repository --repository-name {repository}`, permission `ecr:CreateRepository`), \
                 or set up a repository creation template for create on push"
            )),
            Self::RepositoryUnknown { repository, .. } => {
                Some(format!("check the name `{repository}`, or create the repository"))
            }
            Self::NotFound { .. } => {
                Some("check the name and the tag; a private image may also need a login".to_owned())
            }
            Self::BlobMissing { .. } => Some(
                "pull or load the image whole, or choose one that is there by `--platform`".to_owned(),
            ),
            Self::NotInStore { .. } => {
                Some("pull or build it first; `roadstead image ls` lists what is there".to_owned())
            }
            Self::EcrToken { .. } => {
                Some("check the AWS credentials, the region, and the permission `ecr:GetAuthorizationToken`".to_owned())
            }
            Self::EcrCall { permission, code, .. } if code.contains("AccessDenied") => {
                Some(format!("the caller needs the permission `{permission}`"))
            }
            Self::EcrCall { .. } => Some(format!(
                "check the AWS credentials, the region, and the permission `{permission}`",
                permission = self.permission().unwrap_or_default()
            )),
            Self::Offline { .. } => Some(
                "bring it here by `roadstead bundle create` on a machine with a network and `roadstead bundle load`, or go without `--offline`"
                    .to_owned(),
            ),
            Self::CannotUntag { .. } => Some("to remove the image with all of its tags, give it by its digest: `NAME@sha256:…`".to_owned()),
            Self::Blocked { .. } => Some("use another image, or have the entry changed".to_owned()),
            Self::OnePlatform { .. } => Some("choose one by `--platform`".to_owned()),
            Self::TagImmutable { .. } => Some("push under a new tag".to_owned()),
            Self::BlobTooLarge { .. } => Some("raise the limit by `--max-layer-size` if the image is trusted".to_owned()),
            Self::NotRegistry { .. } => Some("check the host, and a proxy on the way".to_owned()),
            Self::Status { status: 429, .. } => Some("the registry limits the rate; try again later".to_owned()),
            Self::Status { status: 413, .. } => {
                Some("something before the registry limits the size of a request; raise its limit".to_owned())
            }
            _ => None,
        }
    }
}

fn connect_hint(host: &str, problem: ConnectProblem) -> Option<String> {
    match problem {
        ConnectProblem::UnknownIssuer => {
            Some("give the authority's certificate by `--ca-bundle FILE`, or by `ca` in registries.toml".to_owned())
        }
        ConnectProblem::Tls => Some(format!(
            "if {host} speaks plain http, say `insecure = true` for it in registries.toml"
        )),
        ConnectProblem::Refused | ConnectProblem::Timeout => {
            Some(format!("check that the registry runs and listens at {host}"))
        }
        ConnectProblem::UnknownHost => Some(format!("check the spelling of {host} and the name service")),
        ConnectProblem::Other => None,
    }
}

fn login_verb(with_credentials: bool) -> &'static str {
    if with_credentials {
        "refused the login for"
    } else {
        "wants a login for"
    }
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

fn platform_list(have: &[Platform]) -> String {
    const SHOWN: usize = 20;
    let mut names: Vec<String> = have.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return "no known platform".to_owned();
    }
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.truncate(SHOWN);
    format!("{}{more}", names.join(", "))
}
