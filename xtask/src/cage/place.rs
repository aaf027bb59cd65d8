//! Where a build runs: on the machine as it is, or in a cage.

use std::process::Command;

use super::container::Cage;

/// One of the two places that are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Outside,
    Inside(&'a Cage<'a>),
}

impl Place<'_> {
    /// The name in reports, and of files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Outside => "data-outside",
            Self::Inside(_) => "data-in-cage",
        }
    }

    /// What `roadstead build` is told there.
    pub(crate) fn flags(self) -> Vec<String> {
        let sandbox = match self {
            Self::Outside => "namespaces",
            Self::Inside(_) => "chroot",
        };
        vec![format!("--sandbox={sandbox}")]
    }

    /// Turns a command for the machine into one for this place.
    pub(crate) fn take(self, command: Command) -> Command {
        match self {
            Self::Inside(cage) => cage.inside(&command),
            Self::Outside => command,
        }
    }
}
