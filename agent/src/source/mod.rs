//! Where a job's files come from.

pub(crate) mod git;
