//! The log writer: `[Container] …` lines and raw output, in CodeBuild's bytes.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::mask::{Masker, Secrets};

/// Where a build's log goes; clones write to the same log.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Inner>>);

struct Inner {
    secrets: Secrets,
    masker: Masker,
    out: Box<dyn Write + Send>,
    /// The first error of `out`; writing goes on without it, for a build shall not fail since nobody reads its log.
    broken: Option<io::Error>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Log")
    }
}

impl Log {
    pub(crate) fn new(secrets: Secrets, out: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            masker: Masker::new(secrets.clone()),
            secrets,
            out,
            broken: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Masks what a command line holds of passwords, from now on.
    pub(crate) fn hide_passwords_of(&self, command: &str) {
        self.inner().secrets.add_of_command(command);
    }

    /// Writes one of the runner's own lines.
    pub(crate) fn line(&self, text: &str) {
        let mut inner = self.inner();
        inner.pass(format!("[Container] {} {text}\n", timestamp(Timestamp::now())).as_bytes());
        inner.flush();
    }

    /// Writes output of a command as it came.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        self.inner().pass(bytes);
    }

    /// Ends a command's output: what was held back goes out, and an empty line follows.
    pub(crate) fn end_output(&self) {
        let mut inner = self.inner();
        inner.flush();
        inner.pass(b"\n");
        inner.flush();
    }

    /// A text as the log would show it, for a record or an error.
    pub(crate) fn mask(&self, text: &str) -> String {
        let secrets = self.inner().secrets.clone();
        secrets.mask(text)
    }

    /// The error that cut the log short, if one did.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.inner().broken.take()
    }
}

impl Inner {
    fn pass(&mut self, bytes: &[u8]) {
        let mut shown = Vec::with_capacity(bytes.len());
        self.masker.write(bytes, &mut shown);
        self.put(&shown);
    }

    fn flush(&mut self) {
        let mut shown = Vec::new();
        self.masker.flush(&mut shown);
        self.put(&shown);
    }

    fn put(&mut self, shown: &[u8]) {
        if shown.is_empty() || self.broken.is_some() {
            return;
        }
        if let Err(error) = self.out.write_all(shown).and_then(|()| self.out.flush()) {
            self.broken = Some(error);
        }
    }
}

/// A time as the log has it: UTC with microseconds.
fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y/%m/%d %H:%M:%S.%6f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bytes_are_codebuilds() {
        let at: Timestamp = "2025-12-14T22:48:31.261140Z".parse().unwrap();
        assert_eq!(timestamp(at), "2025/12/14 22:48:31.261140");
        let out = Shared::default();
        let secrets = Secrets::default();
        secrets.add("hunter2");
        let log = Log::new(secrets, Box::new(out.clone()));
        log.line("Running command echo hunter2");
        log.raw(b"a hun");
        log.raw(b"ter2 b hun");
        log.end_output();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(
            first.starts_with("[Container] 2") && first.ends_with(" Running command echo ***"),
            "{first}"
        );
        assert_eq!(
            first.len(),
            "[Container] 2025/12/14 22:48:31.261140 Running command echo ***".len()
        );
        assert_eq!(rest, "a *** b hun\n");
    }
}
