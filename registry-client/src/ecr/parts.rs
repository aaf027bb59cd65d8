//! Layer parts: `InitiateLayerUpload`, `UploadLayerPart`, `CompleteLayerUpload`.
//!
//! A part that failed is sent again; those before it stay (reference: amazon-ecr-containerd-resolver, `layer_writer.go`).

use std::path::Path;

use aws_sdk_ecr::Client;
use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::primitives::Blob;

use super::EcrHost;
use super::api::{self, Settings};
use crate::digest::Digest;
use crate::error::{RegistryError, Result};

/// Smallest part ECR takes, save for the last. Larger ones would only cost memory: a part is held several times, in base64.
pub(crate) const PART_SIZE: usize = 5 * 1024 * 1024;

/// An upload under way.
pub(crate) struct PartUpload {
    client: Client,
    account: String,
    repository: String,
    id: String,
    sent: u64,
}

impl PartUpload {
    /// Opens an upload.
    pub(crate) async fn open(host: &EcrHost, repository: &str, ca: Option<&Path>) -> Result<Self> {
        let client = Client::new(&Settings::of(host, ca).load().await?);
        let call = client
            .initiate_layer_upload()
            .registry_id(&host.account)
            .repository_name(repository);
        let operation = format!("begin an upload to `{repository}`");
        let answer = api::call(&operation, "ecr:InitiateLayerUpload", call.send()).await?;
        let id = answer.upload_id().unwrap_or_default().to_owned();
        Ok(Self {
            client,
            account: host.account.clone(),
            repository: repository.to_owned(),
            id,
            sent: 0,
        })
    }

    /// Sends the next part. After an error the same part may be sent again.
    pub(crate) async fn send(&mut self, part: &[u8]) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let number = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
        let end = self.sent + part.len() as u64;
        let call = self
            .client
            .upload_layer_part()
            .registry_id(&self.account)
            .repository_name(&self.repository)
            .upload_id(&self.id)
            .part_first_byte(number(self.sent))
            .part_last_byte(number(end - 1))
            .layer_part_blob(Blob::new(part));
        let operation = format!("send a part of a layer to `{}`", self.repository);
        let sent = call.send().await;
        // A part whose answer was lost has arrived all the same: ECR then says where it wants to go on.
        if let Err(error) = &sent
            && let Some(refused) = error.as_service_error()
            && let aws_sdk_ecr::operation::upload_layer_part::UploadLayerPartError::InvalidLayerPartException(refused) =
                refused
            && refused.last_valid_byte_received() == Some(number(end - 1))
        {
            tracing::debug!(code = error.code(), "the part had arrived");
            self.sent = end;
            return Ok(());
        }
        api::call(&operation, "ecr:UploadLayerPart", std::future::ready(sent)).await?;
        self.sent = end;
        Ok(())
    }

    /// Ends the upload; ECR checks the digest.
    pub(crate) async fn complete(&self, digest: &Digest) -> Result<()> {
        let call = self
            .client
            .complete_layer_upload()
            .registry_id(&self.account)
            .repository_name(&self.repository)
            .upload_id(&self.id)
            .layer_digests(digest.to_string());
        let operation = format!("end the upload of {digest} to `{}`", self.repository);
        match api::call(&operation, "ecr:CompleteLayerUpload", call.send()).await {
            Ok(answer) => match answer.layer_digest().map(str::parse::<Digest>) {
                Some(Ok(actual)) if actual != *digest => Err(RegistryError::DigestMismatch {
                    what: "the layer that Amazon ECR put together".to_owned(),
                    expected: digest.clone(),
                    actual,
                }),
                _ => Ok(()),
            },
            // Somebody else was faster, which comes to the same.
            Err(RegistryError::EcrCall { code, .. }) if code == "LayerAlreadyExistsException" => Ok(()),
            Err(error) => Err(error),
        }
    }
}
