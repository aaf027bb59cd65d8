//! `roadstead doctor`: what works on this machine, and why.

use std::process::ExitCode;

use roadstead_builder::sandbox::{self, Findings, Kind};
use serde_json::json;

use super::image::{human, print_json};
use super::print;
use crate::data_directory;
use crate::error::CliError;

/// Arguments of `roadstead doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Names of file systems by the number statfs(2) gives.
const FILE_SYSTEMS: [(u64, &str); 6] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x794c_7630, "overlay"),
    (0x0102_1994, "tmpfs"),
    (0x6969, "nfs"),
];

/// Ends with status 1 when no command can be run here.
pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    let data = data_directory::open().map_err(data_directory::failed)?;
    let space = rustix::fs::statfs(&data).map_err(CliError::failed)?;
    let findings = sandbox::look().map_err(CliError::failed)?;
    let free = u64::try_from(space.f_bsize).unwrap_or_default() * space.f_bavail;
    let kind = u64::try_from(space.f_type).unwrap_or_default();
    let file_system = FILE_SYSTEMS.iter().find(|(number, _)| *number == kind);
    let file_system = file_system.map_or_else(|| format!("{kind:#x}"), |(_, name)| (*name).to_owned());
    if args.json {
        let (soft, hard) = findings.open_files;
        print_json(&json!({
            "sandbox": findings.place.kind.to_string(), "why": findings.place.why,
            "missingForChroot": findings.missing_for_chroot, "userNotification": findings.notification,
            "landlock": findings.landlock, "sysPtrace": findings.ptrace, "openFiles": { "soft": soft, "hard": hard },
            "data": { "path": data, "fileSystem": file_system, "free": free }, "advice": advice(&findings),
        }))?;
    } else {
        print(&table(
            &findings,
            &format!("{}: {file_system}, {} free", data.display(), human(free)),
        ))?;
    }
    Ok(match findings.place.kind {
        Kind::Nothing => ExitCode::FAILURE,
        Kind::Namespaces | Kind::Chroot => ExitCode::SUCCESS,
    })
}

fn table(findings: &Findings, data: &str) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let landlock = match findings.landlock {
        0 => "no".to_owned(),
        version => format!("yes, version {version}"),
    };
    let limit = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let chroot = findings
        .missing_for_chroot
        .as_ref()
        .map_or_else(|| "yes".to_owned(), |missing| format!("no: {missing}"));
    let namespaces = match (
        findings.place.kind,
        findings.place.why.split("; ").next().unwrap_or_default(),
    ) {
        (Kind::Namespaces, _) => "yes".to_owned(),
        (_, why) => why.replacen("no namespaces", "no", 1),
    };
    let (soft, hard) = findings.open_files;
    let rows = [
        ("sandbox", findings.place.kind.to_string()),
        ("  namespaces", namespaces),
        ("  chroot", chroot),
        ("user notification", yes(findings.notification).to_owned()),
        ("Landlock", landlock),
        ("SYS_PTRACE", yes(findings.ptrace).to_owned()),
        ("open files", format!("{}, at most {}", limit(soft), limit(hard))),
        ("data", data.to_owned()),
    ];
    let mut text: String = rows
        .iter()
        .map(|(name, value)| format!("{name:<18} {value}\n"))
        .collect();
    text.extend(advice(findings).iter().map(|line| format!("\n* {line}\n")));
    text
}

/// What would make it better.
fn advice(findings: &Findings) -> Vec<&'static str> {
    let mut advice = Vec::new();
    match findings.place.kind {
        Kind::Namespaces => return advice,
        Kind::Chroot => {}
        Kind::Nothing => advice.push(
            "Dockerfiles without RUN build here. For RUN, run as root with the capabilities that Docker gives a container, or let this \
             user make user namespaces.",
        ),
    }
    if !findings.notification {
        advice.push(
            "The kernel hands no calls to a supervisor (Linux 5.0 and a seccomp profile that allows it): RUN commands see an empty /proc.",
        );
    }
    if !findings.ptrace && findings.place.kind == Kind::Chroot {
        advice.push(
            "With the capability SYS_PTRACE (in a task definition: linuxParameters.capabilities.add), RUN commands would see /proc also \
             in processes that have just changed their user or run a program they may not read. Nearly no build needs that.",
        );
    }
    if findings.landlock == 0 && findings.place.kind == Kind::Chroot {
        advice.push("Without Landlock (Linux 5.19), RUN commands are kept in their root by chroot and dropped capabilities alone.");
    }
    advice
}
