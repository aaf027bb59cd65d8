//! Flags that make a repository of Amazon ECR when a push finds none.

use roadstead_registry_client::ecr::{self, RepositorySettings};
use roadstead_registry_client::{Reference, RegistryTarget};

use crate::error::CliError;

#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct RepositoryFlags {
    /// Create the repository when Amazon ECR has none of the name.
    #[arg(long)]
    create_repository: bool,
    /// Let ECR scan images of the new repository when they are pushed.
    #[arg(long, requires = "create_repository")]
    scan_on_push: bool,
    /// Make the tags of the new repository immutable.
    #[arg(long, requires = "create_repository")]
    immutable_tags: bool,
    /// Encrypt the new repository with a KMS key: an id, alias or ARN; without value, AWS's key for ECR.
    #[arg(long, value_name = "KEY", num_args = 0..=1, default_missing_value = "", require_equals = true, requires = "create_repository")]
    kms_key: Option<String>,
    /// Tag the new repository (an AWS tag, not an image's); may be repeated.
    #[arg(long = "repository-tag", value_name = "KEY=VALUE", value_parser = tag, requires = "create_repository")]
    tags: Vec<(String, String)>,
}

impl RepositoryFlags {
    pub(super) fn is_given(&self) -> bool {
        self.create_repository
    }

    /// Refuses what no other registry could honour.
    pub(super) fn check(&self, name: &Reference) -> Result<(), CliError> {
        if self.create_repository && ecr::parse_host(name.registry()).is_none() {
            return Err(CliError::usage(format!(
                "cannot honour `--create-repository` for {}: it is no private registry of Amazon ECR",
                name.registry()
            )));
        }
        Ok(())
    }

    pub(super) fn apply(&self, target: RegistryTarget) -> RegistryTarget {
        if !self.create_repository {
            return target;
        }
        target.creating_repository(&RepositorySettings {
            scan_on_push: self.scan_on_push,
            immutable_tags: self.immutable_tags,
            kms_key: self.kms_key.clone(),
            tags: self.tags.clone(),
        })
    }
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
