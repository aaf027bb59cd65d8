//! The client against Debian's `docker-registry`, with a proxy between them where a fault is wanted.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic, as tests do")]

mod chaos;
mod corruption;
mod ecr;
mod errors;
mod faults;
mod http;
mod images;
mod interruptions;
mod logins;
mod mirrors;
mod places;
mod proxy;
mod round_trip;
mod servers;
mod uploads;
