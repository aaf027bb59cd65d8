//! Credential helpers: programs named `docker-credential-<name>`.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Credential, credential};
use crate::error::{RegistryError, Result};

const TIMEOUT: Duration = Duration::from_secs(30);
const OUTPUT_LIMIT: u64 = 64 * 1024;
/// What a helper prints when it has no login; it then ends with status 1.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks a helper for the login of a server; `None` when it has none.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credential>> {
    let failed = |message: String| RegistryError::CredentialHelper {
        helper: crate::digest::shorten(name),
        host: server.to_owned(),
        message,
    };
    // The name comes from a file and becomes part of a program's name: it must not lead elsewhere.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(failed("this is not the name of a helper".to_owned()));
    }
    let (success, output) = tokio::time::timeout(TIMEOUT, run(name, server))
        .await
        .map_err(|_| failed(format!("it gave no answer within {} seconds", TIMEOUT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !success {
        let text = String::from_utf8_lossy(&output);
        if text.to_ascii_lowercase().contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(crate::digest::shorten(text.trim())));
    }
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| failed("its answer is not valid".to_owned()))?;
    Ok((!answer.user.is_empty()).then(|| credential(answer.user, answer.secret, None)))
}

async fn run(name: &str, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(server.as_bytes()).await?;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_LIMIT).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["../../bin/sh", "", "a b", "a/b"] {
            assert!(
                matches!(
                    get(name, "r.example").await,
                    Err(RegistryError::CredentialHelper { .. })
                ),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_helper_is_an_error_that_names_it() {
        let message = get("roadstead-absent", "r.example").await.unwrap_err().to_string();
        assert!(
            message.contains("`docker-credential-roadstead-absent`") && message.contains("r.example"),
            "{message}"
        );
    }
}
