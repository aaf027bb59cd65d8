//! Integration tests: the crate is empty, its tests drive the real binary against real registries and the real kernel.
