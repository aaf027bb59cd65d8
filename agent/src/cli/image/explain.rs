//! `roadstead image explain`.

use std::process::ExitCode;

use roadstead_registry_client::{CredentialRule, Explanation, Location, Reference, UploadKind, ecr};
use serde_json::{Value, json};

use super::{Place, print, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name.
    #[arg(value_name = "NAME", value_parser = Place::in_registry)]
    name: Reference,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let network = args.network.network()?;
    let options = network.options().map_err(CliError::usage)?;
    let explanation = options.registries.explain(&args.name);
    if args.json {
        print_json(&document(&args.name, &explanation, network.offline))?;
    } else {
        print(&text(&args.name, &explanation, network.offline))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(name: &Reference, explanation: &Explanation, offline: bool) -> String {
    let file = explanation.file.as_ref();
    let file = file.map_or_else(|| "none found".to_owned(), |file| file.display().to_string());
    let prefix = explanation.prefix.as_deref().unwrap_or("none");
    let mut text = format!("name:            {name}\nregistries.toml: {file}\nentry:           {prefix}\n");
    if explanation.blocked {
        text.push_str("blocked:         yes, the name cannot be used\n");
    }
    if offline {
        text.push_str("offline:         yes, nothing is asked\n");
    }
    for mirror in &explanation.mirrors {
        text.push_str(&format!("mirror:          {}\n", place(mirror)));
    }
    text.push_str(&format!("location:        {}\n", place(&explanation.location)));
    text.push_str(&format!("login:           {}\n", login(name, &explanation.location)));
    text.push_str(&format!("upload:          {}\n", upload(&explanation.location)));
    text
}

fn place(location: &Location) -> String {
    let scheme = if location.insecure { "http" } else { "https" };
    let mut text = format!("{scheme}://{}/v2/{}", location.host, location.repository);
    if let Some(ca) = &location.ca {
        text.push_str(&format!(", ca {}", ca.display()));
    }
    if let Some((certificate, _)) = &location.client_certificate {
        text.push_str(&format!(", client-cert {}", certificate.display()));
    }
    text
}

/// Where a login is looked for, in order.
fn login(name: &Reference, location: &Location) -> String {
    let rule = match &location.credential {
        None => None,
        Some(CredentialRule::Anonymous) => Some("none, as registries.toml says".to_owned()),
        Some(CredentialRule::Helper(helper)) => Some(format!("registries.toml: docker-credential-{helper}")),
        Some(CredentialRule::PasswordFile { user, path }) => {
            Some(format!("registries.toml: user {user}, password in {}", path.display()))
        }
        Some(CredentialRule::PasswordVariable { user, variable }) => {
            Some(format!("registries.toml: user {user}, password in ${variable}"))
        }
    };
    let mut steps = vec!["the job's own".to_owned()];
    match rule {
        Some(rule) => steps.push(rule),
        None => {
            steps.push("docker's config.json".to_owned());
            let hosts = [name.registry(), &location.host];
            if hosts.iter().any(|host| ecr::parse_host(host).is_some()) {
                steps.push("Amazon ECR by the host's name".to_owned());
            } else if hosts.iter().any(|host| ecr::is_public(host)) {
                steps.push("Amazon ECR Public by the host's name".to_owned());
            }
            steps.push("anonymous".to_owned());
        }
    }
    steps.join(", then ")
}

fn upload(location: &Location) -> &'static str {
    match location.upload {
        Some(UploadKind::Stream) => "stream",
        Some(UploadKind::Chunks) => "chunks",
        Some(UploadKind::EcrParts) => "ecr-parts",
        None => "stream, another way after failures",
    }
}

fn document(name: &Reference, explanation: &Explanation, offline: bool) -> Value {
    let location = |location: &Location| {
        json!({
            "host": location.host, "repository": location.repository, "insecure": location.insecure, "ca": location.ca,
            "clientCert": location.client_certificate.as_ref().map(|(certificate, _)| certificate),
            "login": login(name, location), "upload": upload(location),
        })
    };
    json!({
        "name": name.to_string(), "file": explanation.file, "entry": explanation.prefix, "blocked": explanation.blocked,
        "offline": offline, "mirrors": explanation.mirrors.iter().map(location).collect::<Vec<_>>(),
        "location": location(&explanation.location),
    })
}
