//! The build's log: CodeBuild's lines, the commands' output, and no secret in either.

pub(crate) mod mask;
pub(crate) mod write;

pub(crate) use mask::Secrets;
pub(crate) use write::Log;
