//! The job document: what `submit` puts on a queue and an agent runs.
//!
//! Field names and values are those of CodeBuild's `StartBuild` and `BatchGetProjects`. Unknown fields are accepted, since
//! an exported project holds many that have no meaning here; fields that would change what is built must not be dropped
//! silently by the reader, so [`Job::refused`] names those that are set and not honoured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Minutes a job may run when it does not say; CodeBuild's default.
pub const DEFAULT_TIMEOUT_MINUTES: u32 = 60;
/// Minutes a job may ask for at most; CodeBuild's limit of 36 hours.
pub const MAX_TIMEOUT_MINUTES: u32 = 2_160;
/// Bytes of a job document at most; SQS takes 1 MiB, and a larger one is not a job.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// Names one job on its queue: letters, digits and `-`, at most 64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// Takes a text as a job's name; `None` when it could not be one. A name becomes a directory, hence the narrow set.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= 64 && !text.starts_with('-');
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (fits && plain).then(|| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for JobId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text).ok_or_else(|| "a job id is 1 to 64 letters, digits and `-`".to_owned())
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

/// One job, as queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The job's name; the queue refuses a second job of the same name.
    pub id: JobId,
    /// Groups jobs; the first half of `CODEBUILD_BUILD_ID`.
    #[serde(default = "default_project")]
    pub project_name: String,
    /// What to build.
    pub source: Source,
    /// A git revision; the default branch's tip when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Variables and image of the build.
    #[serde(default)]
    pub environment: Environment,
    /// A path below the source, or the buildspec's whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildspec_override: Option<String>,
    /// Minutes the job may run; [`DEFAULT_TIMEOUT_MINUTES`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_in_minutes: Option<u32>,
    /// Who or what asked for the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// All else the document held.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// Whether a text can name a project: CodeBuild's own rule, a letter or digit and up to 149 of these, `-` and `_`.
#[must_use]
pub fn is_project_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() <= 150 && text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(plain)
}

fn default_project() -> String {
    "roadstead".to_owned()
}

/// Where a job's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// How `location` is to be read.
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// An absolute directory or a git URL.
    pub location: String,
    /// Commits of history to fetch; 0 or absent is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_clone_depth: Option<u32>,
    /// A path below the source, or the buildspec's whole text; `buildspecOverride` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildspec: Option<String>,
    /// All else the source held.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// Kinds of source: CodeBuild's git hosts, and two of Roadstead's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SourceKind {
    /// A directory on the agent's machine (Roadstead's own).
    Directory,
    /// Any git URL (Roadstead's own).
    Git,
    /// A repository on GitHub.
    Github,
    /// A repository on GitHub Enterprise.
    GithubEnterprise,
    /// A repository on GitLab.
    Gitlab,
    /// A repository on a GitLab of one's own.
    GitlabSelfManaged,
    /// A repository on Bitbucket.
    Bitbucket,
    /// A repository on AWS CodeCommit.
    Codecommit,
}

/// What a build's commands find around them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Variables, in order; a later one of the same name wins.
    #[serde(default)]
    pub environment_variables: Vec<EnvironmentVariable>,
    /// All else the environment held.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One variable of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    /// The variable's name.
    pub name: String,
    /// Its value, or the name of where the value is kept.
    pub value: String,
    /// How `value` is to be read.
    #[serde(rename = "type", default)]
    pub kind: VariableKind,
}

/// How a variable's value is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VariableKind {
    /// The value itself.
    #[default]
    Plaintext,
    /// A parameter of the SSM parameter store.
    ParameterStore,
    /// A secret of Secrets Manager.
    SecretsManager,
}

/// Fields of a job, or of its source, that would change the result and are not honoured yet.
const REFUSED_JOB: [&str; 7] = [
    "secondarySources",
    "secondarySourceVersions",
    "artifacts",
    "secondaryArtifacts",
    "cache",
    "buildBatchConfig",
    "fileSystemLocations",
];
const REFUSED_SOURCE: [&str; 4] = ["gitSubmodulesConfig", "auth", "insecureSsl", "sourceIdentifier"];

impl Job {
    /// The buildspec the job names, its override first.
    #[must_use]
    pub fn buildspec(&self) -> Option<&str> {
        self.buildspec_override.as_deref().or(self.source.buildspec.as_deref())
    }

    /// The minutes this job may run.
    #[must_use]
    pub fn timeout_minutes(&self) -> u32 {
        self.timeout_in_minutes
            .unwrap_or(DEFAULT_TIMEOUT_MINUTES)
            .clamp(1, MAX_TIMEOUT_MINUTES)
    }

    /// Names what the document asks for and an agent cannot honour yet; empty when it can run as asked.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let meaningful = |value: &Value| match value {
            Value::Null => false,
            Value::Bool(set) => *set,
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => {
                let kind = fields.get("type").and_then(Value::as_str);
                !(fields.is_empty() || matches!(kind, Some("NO_ARTIFACTS" | "NO_CACHE")))
            }
            _ => true,
        };
        let mut refused: Vec<String> = Vec::new();
        for name in REFUSED_JOB {
            if self.rest.get(name).is_some_and(meaningful) {
                refused.push(name.to_owned());
            }
        }
        for name in REFUSED_SOURCE {
            if self.source.rest.get(name).is_some_and(meaningful) {
                refused.push(format!("source.{name}"));
            }
        }
        for variable in &self.environment.environment_variables {
            match variable.kind {
                VariableKind::Plaintext => {}
                VariableKind::ParameterStore => refused.push(format!("variable {} of PARAMETER_STORE", variable.name)),
                VariableKind::SecretsManager => refused.push(format!("variable {} of SECRETS_MANAGER", variable.name)),
            }
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_codebuild_prints() {
        let text = r#"{"id":"a-1","source":{"type":"GITHUB","location":"https://example.org/a.git","gitCloneDepth":1,
            "reportBuildStatus":true},"environment":{"type":"LINUX_CONTAINER","environmentVariables":
            [{"name":"A","value":"1"},{"name":"B","value":"/b","type":"PARAMETER_STORE"}]},
            "artifacts":{"type":"NO_ARTIFACTS"},"cache":{"type":"S3","location":"x"}}"#;
        let job: Job = serde_json::from_str(text).unwrap();
        assert_eq!(job.source.kind, SourceKind::Github);
        assert_eq!(job.timeout_minutes(), DEFAULT_TIMEOUT_MINUTES);
        assert_eq!(job.refused(), ["cache", "variable B of PARAMETER_STORE"]);
        let again: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
        assert_eq!(again, job);
    }

    #[test]
    fn project_names_are_codebuilds() {
        for good in ["roadstead", "a_B-9", "9", &"x".repeat(150)] {
            assert!(is_project_name(good), "{good:?}");
        }
        for bad in ["", "-a", "_a", "a b", "a:b", "a\n", "é", "../x", &"x".repeat(151)] {
            assert!(!is_project_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_id_can_be_no_path() {
        for bad in ["", "..", "a/b", "-rf", "a b", "é", &"x".repeat(65)] {
            assert_eq!(JobId::new(bad), None, "{bad:?}");
            serde_json::from_value::<JobId>(Value::from(bad)).unwrap_err();
        }
        assert_eq!(JobId::new("b2-C").unwrap().as_str(), "b2-C");
    }
}
