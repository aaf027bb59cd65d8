//! `BatchDeleteImage`: ECR's own way to take images away.

use std::path::Path;

use aws_sdk_ecr::Client;
use aws_sdk_ecr::types::ImageIdentifier;

use super::EcrHost;
use super::api::{self, Settings};
use crate::error::{RegistryError, Result};
use crate::reference::Reference;

/// Takes a tag away, or by its digest an image with all of its tags.
pub(crate) async fn remove(host: &EcrHost, repository: &str, name: &Reference, ca: Option<&Path>) -> Result<()> {
    let image = match name.digest() {
        Some(digest) => ImageIdentifier::builder().image_digest(digest.to_string()),
        None => ImageIdentifier::builder().image_tag(name.tag_or_latest()),
    };
    let call = Client::new(&Settings::of(host, ca).load().await?)
        .batch_delete_image()
        .registry_id(&host.account)
        .repository_name(repository)
        .image_ids(image.build());
    let operation = format!("remove `{name}`");
    let permission = "ecr:BatchDeleteImage";
    let answer = api::call(&operation, permission, call.send()).await?;
    let Some(failure) = answer.failures().first() else {
        return Ok(());
    };
    let code = failure.failure_code().map_or("", |code| code.as_str());
    if code == "ImageNotFound" {
        return Err(RegistryError::NotFound {
            reference: name.to_string(),
        });
    }
    Err(RegistryError::EcrCall {
        operation,
        code: code.to_owned(),
        message: failure.failure_reason().unwrap_or(code).to_owned(),
        permission,
        transient: false,
    })
}
