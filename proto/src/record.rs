//! The record of a build: its phases, what it pushed and what it left behind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a build or a phase ended; CodeBuild's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Still running.
    InProgress,
    /// All went well.
    Succeeded,
    /// A command, the buildspec or an artifact is at fault.
    Failed,
    /// The machinery is at fault: the agent was lost too often, or the source could not be had.
    Fault,
    /// The time the job asked for was over.
    TimedOut,
    /// Somebody stopped it.
    Stopped,
}

impl Status {
    /// The word as CodeBuild writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Fault => "FAULT",
            Self::TimedOut => "TIMED_OUT",
            Self::Stopped => "STOPPED",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.word())
    }
}

/// A build's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `project:uuid`, as `CODEBUILD_BUILD_ID`.
    pub id: String,
    /// How it ended.
    pub build_status: Status,
    /// When it began, RFC 3339.
    pub start_time: String,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// The commit that was built, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_source_version: Option<String>,
    /// The phases that were entered, in order.
    pub phases: Vec<Phase>,
    /// Values of the buildspec's exported-variables after POST_BUILD.
    #[serde(default)]
    pub exported_environment_variables: BTreeMap<String, String>,
    /// Images the build pushed, in order.
    #[serde(default)]
    pub pushed_images: Vec<PushedImage>,
    /// Artifact paths, relative to where they were copied.
    #[serde(default)]
    pub artifacts: Vec<String>,
}

/// One phase of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// `DOWNLOAD_SOURCE`, `INSTALL`, and so on.
    pub phase_type: String,
    /// How it ended.
    pub phase_status: Status,
    /// When it began, RFC 3339.
    pub start_time: String,
    /// Seconds it took, rounded down.
    pub duration_in_seconds: u64,
    /// Why it ended so.
    #[serde(default)]
    pub contexts: Vec<PhaseContext>,
}

/// Why a phase ended as it did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseContext {
    /// Empty on success, else `COMMAND_EXECUTION_ERROR`, `CLIENT_ERROR` or `YAML_FILE_ERROR`.
    pub status_code: String,
    /// What happened.
    pub message: String,
}

/// One image that a build pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushedImage {
    /// Host and repository, without tag.
    pub name: String,
    /// The tag pushed, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest's digest.
    pub digest: String,
    /// The manifest's media type.
    pub media_type: String,
    /// Bytes of the image as the registry counts them: configuration and layers, compressed.
    pub size_in_bytes: u64,
    /// When the push ended, RFC 3339.
    pub pushed_at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_what_serde_writes() {
        for status in [
            Status::InProgress,
            Status::Succeeded,
            Status::Failed,
            Status::Fault,
            Status::TimedOut,
            Status::Stopped,
        ] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.word());
        }
    }
}
