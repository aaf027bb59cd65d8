//! The rules: their names, what they say of themselves, and where they are documented. Source: BuildKit's linter, frontend 1.26.

/// Names a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are the rules; their descriptions are below")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// Gives the name that `check=skip=` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// Says in one sentence what the rule wants.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.texts().1
    }

    /// Gives the page that explains the rule: its name in kebab case.
    #[must_use]
    pub fn url(self) -> String {
        let mut url = "https://docs.docker.com/go/dockerfile/rule/".to_owned();
        let name = self.name();
        for (at, c) in name.char_indices() {
            let next_lower = name[at + 1..].starts_with(|c: char| c.is_ascii_lowercase());
            let last_lower = name[..at].ends_with(|c: char| c.is_ascii_lowercase());
            if at > 0 && c.is_ascii_uppercase() && (next_lower || last_lower) {
                url.push('-');
            }
            url.push(c.to_ascii_lowercase());
        }
        url.push('/');
        url
    }

    /// Tells whether the rule is checked only when `experimental=` asks for it.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::StageNameCasing => ("StageNameCasing", "Stage names should be lowercase"),
            Self::FromAsCasing => (
                "FromAsCasing",
                "The 'as' keyword should match the case of the 'from' keyword",
            ),
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Self::DuplicateStageName => ("DuplicateStageName", "Stage names should be unique"),
            Self::ReservedStageName => ("ReservedStageName", "Reserved words should not be used as stage names"),
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Self::UndefinedArgInFrom => ("UndefinedArgInFrom", "FROM command must use declared ARGs"),
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
            ),
            Self::UndefinedVar => ("UndefinedVar", "Variables should be defined before their use"),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "Base image platform does not match expected target platform",
            ),
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Self::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "Attempting to Copy file that is excluded by .dockerignore",
            ),
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
            ),
            Self::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "Protocol in EXPOSE instruction should be lowercase",
            ),
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named_after_the_rules() {
        let page = |rule: Rule| rule.url().trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
        assert_eq!(page(Rule::JsonArgsRecommended), "json-args-recommended");
        assert_eq!(page(Rule::SecretsUsedInArgOrEnv), "secrets-used-in-arg-or-env");
        assert_eq!(page(Rule::FromAsCasing), "from-as-casing");
        let mut names = Rule::ALL.map(Rule::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 22);
    }
}
