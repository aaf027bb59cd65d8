//! Credentials: docker's `config.json`, credential helpers, and Amazon ECR.
//!
//! They are looked up under the name the user wrote, since `docker login` was made for it, and only after a registry has
//! asked for a login.

mod docker_config;
#[cfg(feature = "ecr")]
mod ecr_tokens;
mod helper;
mod login;
mod rule;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) use docker_config::Stored;
#[cfg(feature = "fuzzing")]
pub(crate) use docker_config::look_up;
use docker_config::{FILE_NAME, credential, read_config};
pub use login::{login, logout};

use crate::config::Location;
use crate::error::Result;
use crate::reference::Reference;
use crate::secret::Secret;

/// A login found for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) user: String,
    pub(crate) secret: Secret,
    /// Whether the secret is an OAuth2 refresh token in place of a password.
    pub(crate) is_identity_token: bool,
    pub(crate) expires_at: Option<SystemTime>,
}

/// Finds logins. Cheap to clone; clones share the tokens fetched.
#[derive(Clone, Debug)]
pub struct CredentialStore {
    /// Docker's configuration directory of the job, whose own logins come first.
    job: Option<PathBuf>,
    directory: Option<PathBuf>,
    #[cfg(feature = "ecr")]
    ecr_tokens: ecr_tokens::EcrTokens,
}

/// What a login is wanted for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup<'a> {
    /// The name the user wrote.
    pub(crate) name: &'a Reference,
    /// The place it leads to.
    pub(crate) location: &'a Location,
    /// Certificates to trust when AWS is asked.
    pub(crate) ca: Option<&'a Path>,
}

impl CredentialStore {
    /// Reads logins from a docker configuration directory; `None` means `$DOCKER_CONFIG`, else `~/.docker`.
    #[must_use]
    pub fn new(docker_config_dir: Option<PathBuf>) -> Self {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directory = docker_config_dir
            .or_else(|| variable("DOCKER_CONFIG"))
            .or_else(|| variable("HOME").map(|home| home.join(".docker")));
        Self {
            job: None,
            directory,
            #[cfg(feature = "ecr")]
            ecr_tokens: ecr_tokens::EcrTokens::default(),
        }
    }

    /// Puts the logins of a job, kept in a docker configuration directory of its own, before all others.
    #[must_use]
    pub fn with_job(mut self, directory: PathBuf) -> Self {
        self.job = Some(directory);
        self
    }

    /// Keeps tokens of Amazon ECR in a directory, so that processes share them. Its files are for their owner alone.
    #[must_use]
    #[cfg_attr(
        not(feature = "ecr"),
        expect(unused_variables, reason = "without ECR there are no tokens")
    )]
    pub fn with_token_directory(self, directory: PathBuf) -> Self {
        #[cfg(feature = "ecr")]
        return Self {
            ecr_tokens: ecr_tokens::EcrTokens::in_directory(directory),
            ..self
        };
        #[cfg(not(feature = "ecr"))]
        self
    }

    /// Finds the login for a repository; `None` means anonymous.
    ///
    /// Order: the job's own login, `registries.toml`, docker's `config.json`, Amazon ECR by the host's name. In
    /// `config.json`: the credential helper named for the host, a login in the file (the longest path first), the general
    /// helper. Each step is told to the log at level debug, without its secret.
    pub(crate) async fn find(&self, lookup: Lookup<'_>) -> Result<Option<Credential>> {
        let host = lookup.name.registry();
        if let Some(job) = &self.job {
            let found = find_named(job, lookup).await?;
            tell(host, "the job's own login", found.as_ref());
            if found.is_some() {
                return Ok(found);
            }
        }
        if let Some(rule) = &lookup.location.credential {
            let found = rule::apply(rule, &lookup.location.host).await?;
            tell(host, "registries.toml", found.as_ref());
            return Ok(found);
        }
        tracing::debug!("credentials for {host}: registries.toml names none");
        if let Some(directory) = &self.directory {
            let found = find_named(directory, lookup).await?;
            tell(host, "docker's config.json", found.as_ref());
            if found.is_some() {
                return Ok(found);
            }
        }
        #[cfg(feature = "ecr")]
        for host in hosts(lookup) {
            if let Some(found) = self.ecr_tokens.find(host, lookup.ca).await? {
                tell(host, "Amazon ECR by the host's name", Some(&found));
                return Ok(Some(found));
            }
        }
        tracing::debug!("credentials for {host}: none, so anonymous");
        Ok(None)
    }
}

fn tell(host: &str, step: &str, found: Option<&Credential>) {
    match found {
        Some(found) => tracing::debug!(
            "credentials for {host}: {step}: user `{}`",
            crate::digest::shorten(&found.user)
        ),
        None => tracing::debug!("credentials for {host}: {step}: none"),
    }
}

/// The host the user wrote, and the one it leads to when that is another.
fn hosts(lookup: Lookup<'_>) -> impl Iterator<Item = &str> {
    let written = lookup.name.registry();
    let there = Some(lookup.location.host.as_str()).filter(|there| *there != written);
    std::iter::once(written).chain(there)
}

/// Looks a login up under the name the user wrote, since `docker login` was made for it, and then under the place it leads
/// to, which may have an account of its own.
async fn find_named(directory: &Path, lookup: Lookup<'_>) -> Result<Option<Credential>> {
    let path = directory.join(FILE_NAME);
    let config = read_config(&path)?;
    let mut repository = Some(lookup.name.repository());
    for host in hosts(lookup) {
        match config.look_up(host, repository, &path)? {
            Stored::Login { key, credential } => {
                tracing::debug!("credentials for {host}: found under `{key}` in {}", path.display());
                return Ok(Some(credential));
            }
            Stored::Helper { name, server } => {
                if let Some(found) = helper::get(&name, server).await? {
                    return Ok(Some(found));
                }
            }
            Stored::Nothing => {}
        }
        repository = Some(&lookup.location.repository);
    }
    Ok(None)
}

impl Default for CredentialStore {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Credential {
    /// Returns what follows `Basic` in a header.
    pub(crate) fn basic(&self) -> Secret {
        Secret::new(STANDARD.encode(format!("{}:{}", self.user, self.secret.expose())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistriesConfig;
    use crate::error::RegistryError;
    use crate::test_dir::TestDir;

    async fn find_in(store: &CredentialStore, name: &str) -> Result<Option<Credential>> {
        let name: Reference = name.parse().unwrap();
        let location = RegistriesConfig::empty().locate(&name).unwrap();
        let lookup = Lookup {
            name: &name,
            location: &location,
            ca: None,
        };
        store.find(lookup).await
    }

    async fn find(json: &str, name: &str) -> Result<Option<(String, String)>> {
        let dir = TestDir::new("credentials");
        std::fs::write(dir.path().join(FILE_NAME), json).unwrap();
        let store = CredentialStore::new(Some(dir.path().to_owned()));
        let found = find_in(&store, name).await?;
        Ok(found.map(|credential| (credential.user, credential.secret.expose().to_owned())))
    }

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.to_owned(), password.to_owned()))
    }

    #[tokio::test]
    async fn the_longest_path_wins_and_spellings_are_equal() {
        let json = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{}"}},"https://r.example/team":{{"username":"t","password":"2"}},
            "https://index.docker.io/v1/":{{"auth":"{}"}},"empty.example":{{}}}},"credHelpers":null,"other":1}}"#,
            STANDARD.encode("h:1:x"),
            STANDARD.encode("hub:3")
        );
        for (name, expected) in [
            ("r.example/app", pair("h", "1:x")),
            ("r.example/team/app", pair("t", "2")),
            ("r.example/teamwork", pair("h", "1:x")),
            ("node", pair("hub", "3")),
            ("empty.example/app", None),
            ("x.r.example/app", None),
        ] {
            assert_eq!(find(&json, name).await.unwrap(), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn of_several_spellings_dockers_own_is_taken_each_time() {
        let entry = |user: &str| format!(r#"{{"username":"{user}","password":"x"}}"#);
        let json = format!(
            r#"{{"auths":{{"docker.io":{},"https://index.docker.io/v1/":{},"http://r.example":{{}},
            "https://r.example":{},"https://r.example/v2/":{}}}}}"#,
            entry("a"),
            entry("b"),
            entry("c"),
            entry("d")
        );
        for _ in 0..20 {
            assert_eq!(find(&json, "node").await.unwrap(), pair("b", "x"));
            assert_eq!(find(&json, "r.example/app").await.unwrap(), pair("c", "x"));
        }
    }

    #[tokio::test]
    async fn a_broken_file_is_an_error_that_shows_no_content() {
        for json in [
            r#"{"auths":{"r.example":{"auth":"hunter2"}}}"#,
            r#"{"auths":{"r.example":"hunter2"}}"#,
            "hunter2",
        ] {
            let error = find(json, "r.example/app").await.unwrap_err();
            assert!(matches!(error, RegistryError::CredentialFile { .. }), "{json}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn an_identity_token_is_told_from_a_password() {
        let dir = TestDir::new("identity");
        let json = r#"{"auths":{"r.example":{"auth":"dTo=","identitytoken":"t"}}}"#;
        std::fs::write(dir.path().join(FILE_NAME), json).unwrap();
        let store = CredentialStore::new(Some(dir.path().to_owned()));
        let found = find_in(&store, "r.example/app").await.unwrap().unwrap();
        assert_eq!((found.is_identity_token, found.secret.expose()), (true, "t"));
        assert_eq!(find_in(&store, "other.example/app").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_job_s_own_login_comes_first_and_the_machine_s_serves_the_rest() {
        let (job, machine) = (TestDir::new("job-login"), TestDir::new("machine-login"));
        login(job.path(), "a.example", "job", &Secret::new("1")).unwrap();
        login(machine.path(), "a.example", "machine", &Secret::new("2")).unwrap();
        login(machine.path(), "b.example", "machine", &Secret::new("3")).unwrap();
        let store = CredentialStore::new(Some(machine.path().to_owned())).with_job(job.path().to_owned());
        for (name, user) in [("a.example/x", "job"), ("b.example/x", "machine")] {
            assert_eq!(find_in(&store, name).await.unwrap().unwrap().user, user);
        }
    }

    #[tokio::test]
    async fn helpers_may_be_named_for_a_path() {
        let json = r#"{"auths":{"r.example":{"username":"u","password":"p"}},"credHelpers":{"r.example/team":"roadstead-absent"}}"#;
        assert_eq!(find(json, "r.example/app").await.unwrap(), pair("u", "p"));
        let error = find(json, "r.example/team/app").await.unwrap_err();
        assert!(matches!(error, RegistryError::CredentialHelper { .. }), "{error}");
    }
}
