//! Masking of secrets in a stream, also of those split over writes and those that overlap.

use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What stands in the log for a secret, whatever its length.
const MASK: &[u8] = b"***";

/// Bytes a value must have to be masked. Shorter ones occur by chance all over a log, and masking them would tell them.
const MIN_BYTES: usize = 6;

/// The secret values a run knows, shared by all who learn of one.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<RwLock<Vec<Vec<u8>>>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secrets(***)")
    }
}

impl Secrets {
    /// Masks `value` from now on, in plain text and in base64: the documents of `docker build --progress=rawjson` hold output so.
    pub(crate) fn add(&self, value: &str) {
        let value = value.trim_end_matches(['\r', '\n']).as_bytes().to_vec();
        let mut values = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if value.len() >= MIN_BYTES && !values.contains(&value) {
            values.extend(in_base64(&value));
            values.push(value);
        }
    }

    /// Masks the passwords that a command line gives `docker login` in plain text, before the line itself is shown.
    pub(crate) fn add_of_command(&self, command: &str) {
        for password in login_passwords(command) {
            self.add(password);
        }
    }

    /// Masks a text that is whole in itself.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut masker = Masker::new(self.clone());
        let mut out = Vec::new();
        masker.write(text.as_bytes(), &mut out);
        masker.flush(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Gives the characters that stand for `value` within base64 of a longer text, for each place it can have in a group of three bytes.
/// A character that other bytes have a part in is left out.
fn in_base64(value: &[u8]) -> [Vec<u8>; 3] {
    [(0, 0), (1, 2), (2, 3)].map(|(before, shared)| {
        let text = [&[0; 2][..before], value].concat();
        let mut encoded = STANDARD_NO_PAD.encode(&text).into_bytes();
        if !text.len().is_multiple_of(3) {
            encoded.pop();
        }
        encoded.split_off(shared)
    })
}

/// Finds what stands after `-p` or `--password` of `docker login`; a variable is no secret by itself.
fn login_passwords(command: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut words = command.split_whitespace();
    let mut before = "";
    let mut in_login = false;
    while let Some(word) = words.next() {
        in_login = (in_login && !word.contains(['|', ';', '&'])) || (word == "login" && before.ends_with("docker"));
        let value = match word {
            "-p" | "--password" if in_login => words.next(),
            _ if in_login => word.strip_prefix("--password=").or_else(|| word.strip_prefix("-p=")),
            _ => None,
        };
        let plain = value.map(|value| value.trim_matches(['"', '\'']));
        found.extend(plain.filter(|value| !value.contains(['$', '`'])));
        before = word;
    }
    found
}

/// A streaming replacer. What could be the beginning of a secret is held back until more comes or [`Masker::flush`].
#[derive(Debug)]
pub(crate) struct Masker {
    secrets: Secrets,
    held: Vec<u8>,
    /// Bytes at the start of `held` that belong to a secret whose mask is already out.
    masked: usize,
}

impl Masker {
    pub(crate) fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            held: Vec::new(),
            masked: 0,
        }
    }

    /// Takes `bytes` and appends to `out` what is safe to show.
    pub(crate) fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        self.process(false, out);
    }

    /// Appends all that was held back; the stream is known to pause here.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        self.process(true, out);
    }

    fn process(&mut self, last: bool, out: &mut Vec<u8>) {
        let secrets = Arc::clone(&self.secrets.0);
        let needles = secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let keep = if last {
            self.held.len()
        } else {
            first_open(&self.held, &needles)
        };
        // `covered` is the end of the secret that covers the position; its mask is out since its first byte.
        let (mut position, mut covered) = (0, self.masked);
        while position < keep {
            let rest = &self.held[position..];
            let longest = needles
                .iter()
                .filter(|needle| rest.starts_with(needle))
                .map(Vec::len)
                .max();
            if let Some(length) = longest {
                if position >= covered {
                    out.extend_from_slice(MASK);
                }
                covered = covered.max(position + length);
            }
            if position >= covered {
                out.push(self.held[position]);
            }
            position += 1;
        }
        self.held.drain(..keep);
        self.masked = covered.saturating_sub(keep);
    }
}

/// The first position whose bytes up to the end are the beginning of a needle, and no more than the beginning.
fn first_open(held: &[u8], needles: &[Vec<u8>]) -> usize {
    let longest = needles.iter().map(Vec::len).max().unwrap_or(0);
    let start = held.len().saturating_sub(longest.saturating_sub(1));
    (start..held.len())
        .find(|&position| {
            let rest = &held[position..];
            needles
                .iter()
                .any(|needle| needle.len() > rest.len() && needle.starts_with(rest))
        })
        .unwrap_or(held.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let secrets = Secrets::default();
        values.iter().for_each(|value| secrets.add(value));
        secrets
    }

    #[test]
    fn passwords_on_the_command_line_are_found() {
        for (command, want) in [
            ("docker login -u AWS -p hunter22 host", vec!["hunter22"]),
            (
                "echo a; docker login --password='s3cret' h && docker push -p x",
                vec!["s3cret"],
            ),
            ("docker login -u x --password \"pw-pw-pw\" h", vec!["pw-pw-pw"]),
            ("docker login -p $PASSWORD h", vec![]),
            ("docker login --username AWS --password-stdin h", vec![]),
            ("mysql -p hunter22", vec![]),
        ] {
            assert_eq!(login_passwords(command), want, "{command}");
        }
        let secrets = Secrets::default();
        secrets.add_of_command("docker login -u AWS -p hunter22 host");
        assert_eq!(
            secrets.mask("Running command docker login -u AWS -p hunter22 host"),
            "Running command docker login -u AWS -p *** host"
        );
    }

    #[test]
    fn masks_overlaps_as_one_and_neighbours_apart() {
        let secrets = secrets(&["abcdef", "defghi", "zzzzzz"]);
        assert_eq!(secrets.mask("x abcdefghi y"), "x *** y");
        assert_eq!(secrets.mask("abcdefabcdef"), "******");
        assert_eq!(secrets.mask("zzzzzzzzz|zzzzz"), "***|zzzzz");
        assert_eq!(secrets.mask("abcde"), "abcde");
    }

    #[test]
    fn short_values_and_line_ends_are_left() {
        let secrets = secrets(&["abcde", "tokens\n"]);
        assert_eq!(secrets.mask("abcde tokens"), "abcde ***");
        assert_eq!(format!("{secrets:?}"), "Secrets(***)");
    }

    #[test]
    fn base64_hides_nothing() {
        for secret in ["hunter", "hunter2", "hunter22"] {
            let secrets = secrets(&[secret]);
            for before in 0..5 {
                for after in 0..5 {
                    let text = format!("{}{secret}{}", "<".repeat(before), ">".repeat(after));
                    let masked = secrets.mask(&STANDARD_NO_PAD.encode(&text));
                    assert!(masked.contains("***"), "{text}: {masked}");
                    // What is left stands for the text around, and for less than a byte on either side.
                    assert!(masked.len() <= (before + after) * 4 / 3 + 3 + 4, "{text}: {masked}");
                }
            }
        }
    }

    #[test]
    fn holds_no_more_than_a_secret() {
        let mut masker = Masker::new(secrets(&["aaaaaa"]));
        let mut out = Vec::new();
        for _ in 0..1000 {
            masker.write(b"aa", &mut out);
            assert!(masker.held.len() < 6);
        }
        masker.flush(&mut out);
        assert_eq!(out, b"***");
    }

    proptest! {
        /// However the text is cut, the result is that of the whole, and holds no secret.
        #[test]
        fn cuts_do_not_matter(
            text in "[ab]{0,80}",
            needles in proptest::collection::vec("[ab]{6,8}", 1..4),
            cuts in proptest::collection::vec(0_usize..80, 0..12),
        ) {
            let known = Secrets::default();
            needles.iter().for_each(|needle| known.add(needle));
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.push(0);
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut masker, mut out) = (Masker::new(known.clone()), Vec::new());
            for pair in cuts.windows(2) {
                masker.write(&text.as_bytes()[pair[0]..pair[1]], &mut out);
            }
            masker.flush(&mut out);
            let streamed = String::from_utf8(out).unwrap();
            prop_assert_eq!(&streamed, &known.mask(&text));
            for needle in &needles {
                prop_assert!(!streamed.contains(needle.as_str()));
            }
            let untouched = needles.iter().all(|needle| !text.contains(needle.as_str()));
            prop_assert_eq!(untouched, streamed == text);
        }
    }
}
