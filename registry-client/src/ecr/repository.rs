//! `CreateRepository`, for pushes to a repository that is not there yet.

use std::path::Path;

use aws_sdk_ecr::Client;
use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability, Tag,
};

use super::EcrHost;
use super::api::{self, Settings};
use crate::error::{RegistryError, Result};

/// Says what a new repository is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositorySettings {
    /// Whether images are scanned when they are pushed.
    pub scan_on_push: bool,
    /// Whether a tag, once given, stays.
    pub immutable_tags: bool,
    /// KMS key to encrypt with: id, alias or ARN. Without one, ECR's own AES-256 is used; empty means AWS's key for ECR.
    pub kms_key: Option<String>,
    /// Tags of the repository.
    pub tags: Vec<(String, String)>,
}

/// Makes a repository in the registry of `host`. One that is there already is taken as it is.
///
/// # Errors
/// `EcrCall`; permission `ecr:CreateRepository`, and `ecr:TagResource` with tags.
pub async fn create_repository(
    host: &EcrHost,
    repository: &str,
    settings: &RepositorySettings,
    ca: Option<&Path>,
) -> Result<()> {
    let operation = format!("create repository `{repository}`");
    let wrong = |message: String| RegistryError::EcrCall {
        operation: operation.clone(),
        code: String::new(),
        message,
        permission: "ecr:CreateRepository",
        transient: false,
    };
    let mut call = Client::new(&Settings::of(host, ca).load().await?)
        .create_repository()
        .registry_id(&host.account)
        .repository_name(repository)
        .image_scanning_configuration(
            ImageScanningConfiguration::builder()
                .scan_on_push(settings.scan_on_push)
                .build(),
        );
    if settings.immutable_tags {
        call = call.image_tag_mutability(ImageTagMutability::Immutable);
    }
    if let Some(key) = &settings.kms_key {
        let mut encryption = EncryptionConfiguration::builder().encryption_type(EncryptionType::Kms);
        if !key.is_empty() {
            encryption = encryption.kms_key(key);
        }
        call = call.encryption_configuration(encryption.build().map_err(|error| wrong(error.to_string()))?);
    }
    for (key, value) in &settings.tags {
        let tag = Tag::builder().key(key).value(value).build();
        call = call.tags(tag.map_err(|error| wrong(error.to_string()))?);
    }
    match api::call(&operation, "ecr:CreateRepository", call.send()).await {
        Err(RegistryError::EcrCall { code, .. }) if code == "RepositoryAlreadyExistsException" => Ok(()),
        other => other.map(drop),
    }
}
