//! A secret of `--secret`: shown to the commands that ask for it, and to nobody else.

/// Most bytes of one secret, as with BuildKit.
pub const MAX_SECRET: u64 = 500 << 10;

/// Holds a secret's bytes. What it shows of itself is only that it is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
