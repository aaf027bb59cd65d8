//! The AWS SDKs the agent uses, a file a service.

pub(crate) mod sqs;
