//! Names of stacks of layers.

use roadstead_registry_client::Digest;

/// Hex digits of a chain id in a directory name: 96 bits. Short, since all lower directories of a mount share one 4 KiB option string.
const NAME_DIGITS: usize = 24;

/// Identifies a layer together with all below it. Source: OCI image specification, config.md, "Layer ChainID".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChainId(Digest);

impl ChainId {
    /// The id of `diff_id` upon `parent`.
    #[must_use]
    pub fn of(parent: Option<&Self>, diff_id: &Digest) -> Self {
        Self(parent.map_or_else(
            || diff_id.clone(),
            |parent| Digest::of(format!("{} {diff_id}", parent.0).as_bytes()),
        ))
    }

    /// The ids of a whole stack, lowest first.
    pub fn stack<'a>(diff_ids: impl IntoIterator<Item = &'a Digest>) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::new();
        for diff_id in diff_ids {
            let next = Self::of(chain.last(), diff_id);
            chain.push(next);
        }
        chain
    }

    /// The whole digest in hex digits.
    pub(super) fn hex(&self) -> &str {
        self.0.hex()
    }

    pub(super) fn directory(&self) -> &str {
        self.0.hex().get(..NAME_DIGITS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = ChainId::stack([&a, &b]);
        assert_eq!(chain[0].0, a);
        assert_eq!(chain[1].0, Digest::of(format!("{a} {b}").as_bytes()));
    }
}
