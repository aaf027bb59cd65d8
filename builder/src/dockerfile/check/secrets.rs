//! Which variable names promise a secret.

/// Words that do.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
/// Words that take it back, as in `PUBLIC_KEY` and `PASSWORD_FILE`.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Tells whether the name has a secret word, and no harmless one, between its underscores.
pub(super) fn promises_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        let mut parts = name.split('_');
        parts.any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)))
    };
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [
            "SECRET",
            "api_key",
            "GITHUB_TOKEN",
            "secret_MESSAGE",
            "my_apikey_1",
            "AUTH",
        ] {
            assert!(promises_secret(name), "{name}");
        }
        for name in [
            "SECRETS",
            "MONKEY",
            "PUBLIC_KEY",
            "PASSWORD_FILE",
            "auth_version",
            "authority",
            "a-key",
            "",
        ] {
            assert!(!promises_secret(name), "{name}");
        }
    }
}
