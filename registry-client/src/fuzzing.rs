//! Doors for the fuzz targets, to parsers that nobody else calls from outside. No part of the public interface.

use reqwest::Url;

use crate::credentials::{self, Stored};
use crate::error::Result;
use crate::reference::Reference;
use crate::transport::challenge::{self, Challenge};
use crate::transport::guard;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A user and a password.
    Basic,
    /// A token of the service at `realm`.
    Bearer {
        /// Address of the service.
        realm: String,
        /// Name of the service.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

/// Reads a `WWW-Authenticate` header.
#[must_use]
pub fn challenges(header: &str) -> Vec<Asked> {
    let asked = |challenge| match challenge {
        Challenge::Basic => Asked::Basic,
        Challenge::Bearer { realm, service, scope } => Asked::Bearer { realm, service, scope },
    };
    challenge::parse(header).into_iter().map(asked).collect()
}

/// Returns the address that would be asked when a registry at `from` names it; `None` when it is refused.
#[must_use]
pub fn allowed_place(from: &str, to: &str) -> Option<String> {
    let (from, to): (Url, Url) = (from.parse().ok()?, to.parse().ok()?);
    guard::check(&from, &to).is_ok().then(|| to.to_string())
}

/// Who has the login to a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// The file itself.
    Here {
        /// Host, or path below it, that it was found under.
        key: String,
        /// Name of the user.
        user: String,
        /// Password or token.
        secret: String,
    },
    /// The program `docker-credential-<name>`, which is not started here.
    Helper {
        /// Name of the helper.
        name: String,
    },
    /// Nobody.
    Nowhere,
}

/// Looks a repository's login up in the bytes of a `config.json`.
///
/// # Errors
/// `CredentialFile` when the bytes are no such file.
pub fn look_up(config: &[u8], name: &Reference) -> Result<Login> {
    let stored = credentials::look_up(config, name.registry(), Some(name.repository()))?;
    Ok(match stored {
        Stored::Login { key, credential } => Login::Here {
            key,
            user: credential.user,
            secret: credential.secret.expose().to_owned(),
        },
        Stored::Helper { name, .. } => Login::Helper { name },
        Stored::Nothing => Login::Nowhere,
    })
}
