//! `--wait-scan`: what Amazon ECR's scan finds decides over the push.

use std::process::ExitCode;
use std::time::Duration;

use roadstead_registry_client::ecr::{self, Finding, ScanReport, Severity};
use roadstead_registry_client::{Digest, Reference};
use serde_json::{Value, json};

use super::{print, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ScanFlags {
    /// Wait for ECR's scan, and fail when it finds something as bad as SEVERITY or worse: critical, high, medium, low,
    /// informational or undefined.
    #[arg(long, value_name = "SEVERITY", num_args = 0..=1, default_missing_value = "high", require_equals = true)]
    wait_scan: Option<Severity>,
    /// How long to wait for the scan, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait_scan")]
    scan_timeout: u64,
}

impl ScanFlags {
    pub(super) fn is_given(&self) -> bool {
        self.wait_scan.is_some()
    }

    /// Refuses what no other registry could honour, before anything is pushed.
    pub(super) fn check(&self, name: &Reference) -> Result<(), CliError> {
        if self.is_given() && ecr::parse_host(name.registry()).is_none() {
            return Err(CliError::usage(format!(
                "cannot honour `--wait-scan` for {}: it is no private registry of Amazon ECR",
                name.registry()
            )));
        }
        Ok(())
    }

    /// Waits for the scan of what was pushed, and judges it. With JSON, `document` tells of the push, and is printed with it.
    pub(super) async fn wait(
        &self,
        name: &Reference,
        digest: &Digest,
        network: &NetworkFlags,
        document: Option<Value>,
    ) -> Result<ExitCode, CliError> {
        let (Some(limit), Some(host)) = (self.wait_scan, ecr::parse_host(name.registry())) else {
            if let Some(document) = document {
                print_json(&document)?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let network = network.network()?;
        let patience = Duration::from_secs(self.scan_timeout);
        let ca = network.ca_bundle.as_deref();
        let report = ecr::wait_for_scan(&host, name.repository(), digest, patience, ca).await;
        judge(&report.map_err(CliError::registry)?, limit, document)
    }
}

fn judge(report: &ScanReport, limit: Severity, document: Option<Value>) -> Result<ExitCode, CliError> {
    let bad = report.at_least(limit).count();
    if let Some(mut pushed) = document {
        let findings: Vec<Value> = report.findings.iter().map(finding_document).collect();
        pushed["scan"] = json!({ "findings": findings, "atOrAboveLimit": bad });
        print_json(&pushed)?;
    } else {
        print(&report.findings.iter().map(line).collect::<String>())?;
    }
    match bad {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(CliError::failed(format!(
            "the scan found {bad} vulnerabilit{} of severity {} or worse",
            if bad == 1 { "y" } else { "ies" },
            limit.name()
        ))
        .hint("the image was pushed; do not deploy it")),
    }
}

fn line(finding: &Finding) -> String {
    let Finding {
        name,
        severity,
        package,
        version,
        uri,
    } = finding;
    format!("{:<13} {name:<16} {package} {version} {uri}", severity.name())
        .trim_end()
        .to_owned()
        + "\n"
}

fn finding_document(finding: &Finding) -> Value {
    json!({
        "name": finding.name, "severity": finding.severity.name(), "package": finding.package,
        "version": finding.version, "uri": finding.uri
    })
}
