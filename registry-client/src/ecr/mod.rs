//! Amazon ECR: its host names, and what goes by its own API: tokens, layer parts, repositories, scan findings.

#[cfg(feature = "ecr")]
mod api;
#[cfg(feature = "ecr")]
mod images;
#[cfg(feature = "ecr")]
mod parts;
#[cfg(feature = "ecr")]
mod repository;
#[cfg(feature = "ecr")]
mod scan;
#[cfg(feature = "ecr")]
mod token;

use std::time::SystemTime;

#[cfg(feature = "ecr")]
pub(crate) use images::remove;
#[cfg(feature = "ecr")]
pub(crate) use parts::{PART_SIZE, PartUpload};
#[cfg(feature = "ecr")]
pub use repository::{RepositorySettings, create_repository};
#[cfg(feature = "ecr")]
pub use scan::{Finding, ScanReport, Severity, wait_for_scan};
#[cfg(feature = "ecr")]
pub(crate) use token::Asker;
#[cfg(feature = "ecr")]
pub use token::authorization_token;

use crate::secret::Secret;

/// Hosts of ECR Public (ECR General Reference); the second one has IPv6, too.
const PUBLIC_HOSTS: [&str; 2] = ["public.ecr.aws", "ecr-public.aws.com"];

/// Domains of the AWS partitions under which registries live (amazon-ecr-credential-helper, `client.go`).
const DOMAINS: [&str; 9] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "on.aws",
    "on.amazonwebservices.com.cn",
    "sc2s.sgov.gov",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

/// The parts of a private registry's host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcrHost {
    /// Account, twelve digits.
    pub account: String,
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Whether this is a FIPS endpoint.
    pub fips: bool,
    /// Domain of the partition, such as `amazonaws.com`.
    pub dns_suffix: String,
}

impl EcrHost {
    /// Tells whether the host is of the kind that has IPv6, too.
    #[must_use]
    pub fn dual_stack(&self) -> bool {
        self.dns_suffix.starts_with("on.")
    }
}

/// Tells whether a host is ECR Public.
#[must_use]
pub fn is_public(host: &str) -> bool {
    PUBLIC_HOSTS.contains(&host)
}

/// Takes the host name of a private registry apart; any other host, also one that only looks alike, gives `None`.
#[must_use]
pub fn parse_host(host: &str) -> Option<EcrHost> {
    let (account, rest) = host.split_at_checked(12)?;
    if !account.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let rest = rest
        .strip_prefix(".dkr")
        .and_then(|rest| rest.strip_prefix(['.', '-']))?
        .strip_prefix("ecr")?;
    let (fips, rest) = match rest.strip_prefix("-fips") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (region, dns_suffix) = rest.strip_prefix('.')?.split_once('.')?;
    let good_region = region.contains('-')
        && !region.starts_with('-')
        && !region.ends_with('-')
        && region
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (good_region && DOMAINS.contains(&dns_suffix)).then(|| EcrHost {
        account: account.to_owned(),
        region: region.to_owned(),
        fips,
        dns_suffix: dns_suffix.to_owned(),
    })
}

/// A login to all registries of an account in a region.
#[derive(Clone, Debug)]
pub struct EcrToken {
    /// User name, today always `AWS`.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// URL of the registry.
    pub proxy_endpoint: String,
    /// End of its life, usually twelve hours on.
    pub expires_at: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_all_partitions_are_taken_apart() {
        for (host, region, fips, suffix) in [
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com",
                "us-east-1",
                false,
                "amazonaws.com",
            ),
            (
                "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                true,
                "amazonaws.com",
            ),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", "eu-west-1", false, "on.aws"),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                false,
                "amazonaws.com.cn",
            ),
            (
                "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
                "eusc-de-east-1",
                false,
                "amazonaws.eu",
            ),
        ] {
            let parts = parse_host(host).unwrap();
            assert_eq!(
                (parts.region.as_str(), parts.fips, parts.dns_suffix.as_str()),
                (region, fips, suffix),
                "{host}"
            );
            assert_eq!(parts.account, "123456789012");
        }
    }

    #[test]
    fn lookalikes_are_not_ecr() {
        for host in [
            "",
            "123456789012",
            "12345678901.dkr.ecr.us-east-1.amazonaws.com",
            "1234567890123.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example",
            "123456789012.dkr.ecr.us-east-1.evil.example.amazonaws.com",
            "evil.123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012xdkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com:8443",
            "123456789012.dkr.ecr.us-east-1.amazonaws.co",
            "123456789012.dkr.ecr..amazonaws.com",
            "public.ecr.aws",
            "ä23456789012.dkr.ecr.us-east-1.amazonaws.com",
        ] {
            assert_eq!(parse_host(host), None, "{host}");
        }
    }
}
