//! One `[[registry]]` of the file: read, checked, every mistake with its line.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{CredentialRule, UploadKind};
use crate::digest::shorten;
use crate::error::{RegistryError, Result};
use crate::reference::{is_path_component, is_registry};

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) prefix: String,
    pub(super) location: Option<String>,
    pub(super) mirrors: Vec<String>,
    pub(super) insecure: Option<bool>,
    pub(super) ca: Option<PathBuf>,
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) credential: Option<CredentialRule>,
    pub(super) upload: Option<UploadKind>,
    pub(super) blocked: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawEntry {
    pub(super) prefix: Spanned<String>,
    location: Option<Spanned<String>>,
    #[serde(default)]
    mirrors: Vec<Spanned<String>>,
    insecure: Option<bool>,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    credential: Option<Spanned<Value>>,
    upload: Option<Spanned<String>>,
    #[serde(default)]
    blocked: bool,
}

/// The file an entry is in, for messages and relative paths.
struct Origin<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Origin<'_> {
    fn error<T>(&self, value: &Spanned<T>, message: String) -> RegistryError {
        config_error(self.path, self.text, value.span().start, message)
    }

    fn below(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// Checks an entry.
pub(super) fn read(raw: RawEntry, text: &str, path: &Path) -> Result<Entry> {
    let origin = Origin { text, path };
    let prefix = read_place(&raw.prefix, "prefix", &origin)?;
    let location = raw.location.as_ref();
    let location = location
        .map(|place| read_place(place, "location", &origin))
        .transpose()?;
    let mirrors = raw.mirrors.iter().map(|place| read_place(place, "mirrors", &origin));
    let mirrors = mirrors.collect::<Result<_>>()?;
    let client_certificate = match (raw.client_cert, raw.client_key) {
        (Some(certificate), Some(key)) => Some((origin.below(certificate), origin.below(key))),
        (None, None) => None,
        _ => {
            let message = format!("`{prefix}` has one of `client-cert` and `client-key`; both are needed");
            return Err(origin.error(&raw.prefix, message));
        }
    };
    for (key, given) in [("ca", raw.ca.is_some()), ("client-cert", client_certificate.is_some())] {
        if raw.insecure == Some(true) && given {
            let message = format!("`{prefix}` has both `insecure` and `{key}`; plain http has no certificate");
            return Err(origin.error(&raw.prefix, message));
        }
    }
    Ok(Entry {
        prefix,
        location,
        mirrors,
        insecure: raw.insecure,
        ca: raw.ca.map(|path| origin.below(path)),
        client_certificate,
        credential: raw
            .credential
            .as_ref()
            .map(|value| read_credential(value, &origin))
            .transpose()?,
        upload: raw
            .upload
            .as_ref()
            .map(|value| read_upload(value, &origin))
            .transpose()?,
        blocked: raw.blocked,
    })
}

fn read_place(value: &Spanned<String>, key: &str, origin: &Origin<'_>) -> Result<String> {
    let place = value.get_ref().trim_end_matches('/');
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let good_path = path.is_empty() || path.split('/').all(is_path_component);
    if !is_registry(host) || !good_path {
        // Whoever writes a login into the address should not find it in a log.
        let shown = place
            .rsplit_once('@')
            .map_or_else(|| shorten(place), |(_, rest)| format!("…@{}", shorten(rest)));
        let message =
            format!("`{key}` must be a host, with a port and a path where needed, and without `https://`: `{shown}`");
        return Err(origin.error(value, message));
    }
    let host = host.to_ascii_lowercase();
    Ok(if path.is_empty() {
        host
    } else {
        format!("{host}/{path}")
    })
}

fn read_upload(value: &Spanned<String>, origin: &Origin<'_>) -> Result<UploadKind> {
    match value.get_ref().as_str() {
        "stream" => Ok(UploadKind::Stream),
        "chunks" => Ok(UploadKind::Chunks),
        "ecr-parts" => Ok(UploadKind::EcrParts),
        other => {
            let message = format!(
                "`upload` is `stream`, `chunks` or `ecr-parts`, not `{}`",
                shorten(other)
            );
            Err(origin.error(value, message))
        }
    }
}

/// What is written there may be a password in the wrong place: messages never repeat it.
fn read_credential(value: &Spanned<Value>, origin: &Origin<'_>) -> Result<CredentialRule> {
    const FORMS: &str = "`credential` is \"anonymous\", { helper = \"NAME\" }, { user = \"NAME\", password-file = \"FILE\" } \
                         or { user = \"NAME\", password-env = \"VARIABLE\" }";
    let wrong = || origin.error(value, FORMS.to_owned());
    let table = match value.get_ref() {
        Value::String(word) if word == "anonymous" => return Ok(CredentialRule::Anonymous),
        Value::Table(table) => table,
        _ => return Err(wrong()),
    };
    if table.contains_key("password") {
        let message = "a password does not belong in this file; name the file that holds it by `password-file`";
        return Err(origin.error(value, message.to_owned()));
    }
    let mut fields = Vec::new();
    for (key, value) in table {
        fields.push((
            key.as_str(),
            value.as_str().filter(|text| !text.is_empty()).ok_or_else(wrong)?,
        ));
    }
    // A table's keys come sorted.
    match fields.as_slice() {
        [("helper", name)] => Ok(CredentialRule::Helper((*name).to_owned())),
        [("password-file", path), ("user", user)] => Ok(CredentialRule::PasswordFile {
            user: (*user).to_owned(),
            path: origin.below(path),
        }),
        [("password-env", variable), ("user", user)] => Ok(CredentialRule::PasswordVariable {
            user: (*user).to_owned(),
            variable: (*variable).to_owned(),
        }),
        _ => Err(wrong()),
    }
}

pub(super) fn config_error(path: &Path, text: &str, offset: usize, message: String) -> RegistryError {
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    RegistryError::Config {
        path: path.to_owned(),
        line,
        message,
    }
}
