//! The `credential` of `registries.toml`.

use std::io::Read as _;
use std::path::Path;

use super::{Credential, helper};
use crate::config::CredentialRule;
use crate::error::{RegistryError, Result};
use crate::secret::Secret;

const PASSWORD_LIMIT: u64 = 64 * 1024;

/// Gets the login that a rule names; `None` means that none is to be used.
pub(super) async fn apply(rule: &CredentialRule, host: &str) -> Result<Option<Credential>> {
    let failed = |message: String| RegistryError::CredentialRule {
        host: host.to_owned(),
        message,
    };
    let (user, password) = match rule {
        CredentialRule::Anonymous => return Ok(None),
        CredentialRule::Helper(name) => {
            let found = helper::get(name, host).await?;
            return found
                .map(Some)
                .ok_or_else(|| failed(format!("`docker-credential-{name}` has none")));
        }
        CredentialRule::PasswordFile { user, path } => (user, read(path).map_err(failed)?),
        CredentialRule::PasswordVariable { user, variable } => {
            let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
            (
                user,
                value.ok_or_else(|| failed(format!("variable `{variable}` is not set")))?,
            )
        }
    };
    Ok(Some(Credential {
        user: user.clone(),
        secret: Secret::new(password),
        is_identity_token: false,
        expires_at: None,
    }))
}

fn read(path: &Path) -> std::result::Result<String, String> {
    let failed = |reason: &dyn std::fmt::Display| format!("cannot read `{}`: {reason}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(PASSWORD_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > PASSWORD_LIMIT {
        return Err(failed(&"it is larger than 64 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed(&"it is not text"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(failed(&"it is empty"));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[tokio::test]
    async fn a_password_comes_from_its_file_and_mistakes_name_the_place() {
        let dir = TestDir::new("rule");
        let rule = |file: &str| CredentialRule::PasswordFile {
            user: "ci".to_owned(),
            path: dir.path().join(file),
        };
        std::fs::write(dir.path().join("good"), "hunter2\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        let found = apply(&rule("good"), "r.example").await.unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.secret.expose()), ("ci", "hunter2"));
        for file in ["empty", "absent"] {
            let error = apply(&rule(file), "r.example").await.unwrap_err().to_string();
            assert!(error.contains("r.example") && error.contains(file), "{error}");
        }
        let unset = CredentialRule::PasswordVariable {
            user: "ci".to_owned(),
            variable: "ROADSTEAD_TEST_UNSET".to_owned(),
        };
        apply(&unset, "r.example").await.unwrap_err();
        assert_eq!(apply(&CredentialRule::Anonymous, "r.example").await.unwrap(), None);
    }
}
