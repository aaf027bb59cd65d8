//! Texts that are never printed, and names without the logins in them.

use std::fmt;

/// Holds a password or a token. Debug and Display show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the secret itself; the caller keeps it out of messages and logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What may follow an `@` that ends no login.
const DIGESTS: [&str; 3] = ["sha256:", "sha384:", "sha512:"];

/// Shows what was given as a name or an address, without the login that may stand in it: all before the last `@` that begins no digest.
#[must_use]
pub fn without_login(text: &str) -> String {
    let mut end = text.len();
    // From its end: a password may hold an `@`, too.
    while let Some(at) = text[..end].rfind('@') {
        let after = &text[at + 1..];
        if !DIGESTS.iter().any(|digest| after.starts_with(digest)) {
            return format!("{}***@{after}", scheme(&text[..at]));
        }
        end = at;
    }
    text.to_owned()
}

fn scheme(text: &str) -> &str {
    match text.find("://") {
        Some(colon) if text[..colon].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => &text[..colon + 3],
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_login_is_not_shown_and_a_digest_is() {
        for (text, want) in [
            ("node:20", "node:20"),
            ("node:20@sha256:12", "node:20@sha256:12"),
            ("user:hunter2@host/x", "***@host/x"),
            ("https://user:hunter2@host/x", "https://***@host/x"),
            ("user:hunter2://@host/x", "***@host/x"),
            ("user:hun@ter2@host:5000/x@sha256:12", "***@host:5000/x@sha256:12"),
            ("user:hun@sha256:ter2@host/x", "***@host/x"),
            ("hunter2@", "***@"),
        ] {
            assert_eq!(without_login(text), want, "{text}");
        }
    }
}
