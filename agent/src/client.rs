//! The registry client of this machine: where registries are, which logins count, what of the network may be used.

use std::path::PathBuf;

use roadstead_registry_client::{Client, ClientOptions, CredentialStore, Error, RegistriesConfig};

use crate::config::{self, Config};
use crate::environment;
use crate::error::CliError;
use crate::notices;

/// What of the network may be used, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// Certificates to trust besides the system's.
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Whether every use is an error.
    pub(crate) offline: bool,
    /// Largest layer that is fetched, and that a build unpacks or writes, in bytes.
    pub(crate) max_layer_size: Option<u64>,
}

/// The flags of subcommands that talk to registries.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetworkFlags {
    /// CA certificates (PEM) to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Use no network: what is missing here is an error that names it.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Largest layer to fetch, such as 10g; in a build also to unpack or to write [default: 64g, unpacked 100g].
    #[arg(long, value_name = "SIZE", value_parser = config::size)]
    pub(crate) max_layer_size: Option<u64>,
    /// Say what is asked of whom, and where logins come from.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

impl NetworkFlags {
    /// The flags, and what the site has set where they say nothing.
    pub(crate) fn network(&self) -> Result<Network, CliError> {
        if self.verbose {
            notices::show_details();
        }
        let network = Network::of(&Config::load()?);
        let ca_bundle = self.ca_bundle.clone().or(network.ca_bundle);
        if let Some(path) = &ca_bundle
            && !path.is_file()
        {
            return Err(CliError::usage(format!(
                "CA bundle `{}` does not exist",
                path.display()
            )));
        }
        Ok(Network {
            ca_bundle,
            offline: self.offline || network.offline,
            max_layer_size: self.max_layer_size.or(network.max_layer_size),
        })
    }

    /// A client for a subcommand.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let options = self.network()?.options().map_err(CliError::usage)?;
        Client::new(options).map_err(CliError::registry)
    }
}

impl Network {
    /// What the site has set.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            ca_bundle: config.ca_bundle.clone(),
            offline: config.offline,
            max_layer_size: config.max_layer_size,
        }
    }

    /// The options of a client, with `registries.toml` and the logins of this machine and, in a job, the job's.
    pub(crate) fn options(&self) -> Result<ClientOptions, Error> {
        let docker_config = std::env::var_os(environment::DOCKER_CONFIG).map(PathBuf::from);
        let tokens = environment::data_directory().join("ecr-tokens");
        let mut credentials = CredentialStore::new(docker_config).with_token_directory(tokens);
        if let Some(job) = std::env::var_os(environment::JOB_LOGINS).filter(|job| !job.is_empty()) {
            credentials = credentials.with_job(job.into());
        }
        let defaults = ClientOptions::default();
        Ok(ClientOptions {
            registries: RegistriesConfig::load_default()?,
            credentials,
            ca_bundle: self.ca_bundle.clone(),
            offline: self.offline,
            max_layer_size: self.max_layer_size.unwrap_or(defaults.max_layer_size),
            ..defaults
        })
    }
}
