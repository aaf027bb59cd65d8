//! `DescribeImageScanFindings`: waiting for a scan, and what it found.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use aws_sdk_ecr::Client;
use aws_sdk_ecr::operation::describe_image_scan_findings::DescribeImageScanFindingsOutput;
use aws_sdk_ecr::types::{EnhancedImageScanFinding, FindingSeverity, ImageIdentifier, ImageScanFinding, ScanStatus};

use super::EcrHost;
use super::api::{self, Settings};
use crate::digest::{Digest, shorten};
use crate::error::{RegistryError, Result};

const POLL: Duration = Duration::from_secs(3);
/// A scan begins some seconds after the push. One that nobody has asked for never does.
const BEGIN: Duration = Duration::from_secs(60);
/// Findings kept; a report longer than this helps nobody.
const FINDINGS_LIMIT: usize = 10_000;

/// How bad a finding is. Ordered: `Critical` is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Not judged yet.
    Undefined,
    /// For information.
    Informational,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

impl Severity {
    /// Returns ECR's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Undefined => "UNDEFINED",
            Self::Informational => "INFORMATIONAL",
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [
            Self::Undefined,
            Self::Informational,
            Self::Low,
            Self::Medium,
            Self::High,
            Self::Critical,
        ];
        let found = all
            .into_iter()
            .find(|severity| severity.name().eq_ignore_ascii_case(text));
        // Enhanced scans say UNTRIAGED where basic ones say UNDEFINED.
        let found = found.or_else(|| text.eq_ignore_ascii_case("untriaged").then_some(Self::Undefined));
        found.ok_or_else(|| {
            format!(
                "`{}` is no severity: critical, high, medium, low, informational or undefined",
                shorten(text)
            )
        })
    }
}

/// One finding of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name, such as `CVE-2026-1234`.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// The package it is in; empty when the scan does not say.
    pub package: String,
    /// That package's version; empty when the scan does not say.
    pub version: String,
    /// Where to read more; empty when the scan does not say.
    pub uri: String,
}

/// What a scan found, the worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl ScanReport {
    /// Lists the findings that are as bad as `severity`, or worse.
    pub fn at_least(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity >= severity)
    }
}

/// Waits until an image has been scanned, at most `patience`.
///
/// # Errors
/// `EcrCall` when the scan fails, does not begin or does not end in time, or the image cannot be scanned; permission
/// `ecr:DescribeImageScanFindings`.
pub async fn wait_for_scan(
    host: &EcrHost,
    repository: &str,
    digest: &Digest,
    patience: Duration,
    ca: Option<&Path>,
) -> Result<ScanReport> {
    let scan = Scan {
        client: Client::new(&Settings::of(host, ca).load().await?),
        host,
        repository,
        digest,
    };
    let begun = Instant::now();
    loop {
        let status = match scan.page(None).await {
            Ok(page) => match scan.judge(&page)? {
                true => return scan.collect(page).await,
                false => "it has not ended",
            },
            Err(RegistryError::EcrCall { code, .. })
                if code == "ScanNotFoundException" && begun.elapsed() < BEGIN.min(patience) =>
            {
                "it has not begun"
            }
            Err(RegistryError::EcrCall { code, .. }) if code == "ScanNotFoundException" => {
                return Err(scan.failed(&code, "no scan has begun; turn scan on push on for the repository"));
            }
            Err(error) => return Err(error),
        };
        if begun.elapsed() + POLL > patience {
            return Err(scan.failed("", &format!("after {} seconds {status}", patience.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Scan<'a> {
    client: Client,
    host: &'a EcrHost,
    repository: &'a str,
    digest: &'a Digest,
}

impl Scan<'_> {
    async fn page(&self, token: Option<String>) -> Result<DescribeImageScanFindingsOutput> {
        let call = self
            .client
            .describe_image_scan_findings()
            .registry_id(&self.host.account)
            .repository_name(self.repository)
            .image_id(ImageIdentifier::builder().image_digest(self.digest.to_string()).build())
            .set_next_token(token);
        api::call(&self.operation(), "ecr:DescribeImageScanFindings", call.send()).await
    }

    fn operation(&self) -> String {
        format!("get the scan findings of {} in `{}`", self.digest, self.repository)
    }

    fn failed(&self, code: &str, message: &str) -> RegistryError {
        RegistryError::EcrCall {
            operation: self.operation(),
            code: code.to_owned(),
            message: message.to_owned(),
            permission: "ecr:DescribeImageScanFindings",
            transient: false,
        }
    }

    /// Tells whether the scan has ended; an error when it never will.
    fn judge(&self, page: &DescribeImageScanFindingsOutput) -> Result<bool> {
        let scan = page.image_scan_status();
        match scan.and_then(|scan| scan.status()) {
            // An enhanced scan stays active and goes on as new vulnerabilities become known.
            Some(ScanStatus::Complete | ScanStatus::Active) => Ok(true),
            None | Some(ScanStatus::InProgress | ScanStatus::Pending) => Ok(false),
            Some(other) => {
                let why = scan.and_then(|scan| scan.description()).unwrap_or_default();
                let message = format!("the scan ended as {}: {}", other.as_str(), shorten(why));
                Err(self.failed(other.as_str(), message.trim_end_matches([':', ' '])))
            }
        }
    }

    async fn collect(&self, mut page: DescribeImageScanFindingsOutput) -> Result<ScanReport> {
        let mut findings = Vec::new();
        loop {
            if let Some(found) = page.image_scan_findings() {
                findings.extend(found.findings().iter().map(basic));
                findings.extend(found.enhanced_findings().iter().map(enhanced));
            }
            match page.next_token() {
                Some(token) if findings.len() < FINDINGS_LIMIT => page = self.page(Some(token.to_owned())).await?,
                _ => break,
            }
        }
        findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.name.cmp(&b.name)));
        Ok(ScanReport { findings })
    }
}

fn severity(text: &str) -> Severity {
    // A severity that is not known yet must not pass as harmless.
    text.parse().unwrap_or(Severity::Critical)
}

fn basic(finding: &ImageScanFinding) -> Finding {
    let attribute = |key: &str| {
        let found = finding.attributes().iter().find(|attribute| attribute.key() == key);
        shorten(found.and_then(|attribute| attribute.value()).unwrap_or_default())
    };
    Finding {
        name: shorten(finding.name().unwrap_or_default()),
        severity: finding
            .severity()
            .map(FindingSeverity::as_str)
            .map_or(Severity::Undefined, severity),
        package: attribute("package_name"),
        version: attribute("package_version"),
        uri: shorten(finding.uri().unwrap_or_default()),
    }
}

fn enhanced(finding: &EnhancedImageScanFinding) -> Finding {
    let details = finding.package_vulnerability_details();
    let package = details.and_then(|details| details.vulnerable_packages().first());
    let name = details
        .and_then(|details| details.vulnerability_id())
        .or_else(|| finding.title());
    Finding {
        name: shorten(name.unwrap_or_default()),
        severity: finding.severity().map_or(Severity::Undefined, severity),
        package: shorten(package.and_then(|package| package.name()).unwrap_or_default()),
        version: shorten(package.and_then(|package| package.version()).unwrap_or_default()),
        uri: shorten(details.and_then(|details| details.source_url()).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered_and_read() {
        assert!(Severity::Critical > Severity::High && Severity::Low > Severity::Informational);
        for (text, expected) in [("critical", Severity::Critical), ("Untriaged", Severity::Undefined)] {
            assert_eq!(text.parse(), Ok(expected));
        }
        assert!("bad".parse::<Severity>().unwrap_err().contains("`bad`"));
        assert_eq!(severity("NEW"), Severity::Critical);
    }
}
