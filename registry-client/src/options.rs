//! What a client is made with.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::RegistriesConfig;
use crate::credentials::CredentialStore;
use crate::transport::retry::RetryBudget;

/// Says how a client works.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where registries are.
    pub registries: RegistriesConfig,
    /// Where logins are.
    pub credentials: CredentialStore,
    /// Certificates to trust besides the system's, for all registries and for AWS.
    pub ca_bundle: Option<PathBuf>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Blobs fetched from a host at once. Uploads are bounded by 4 as well.
    pub max_concurrent_per_host: usize,
    /// What one whole push or pull may spend on trying again.
    pub retry_budget: RetryBudget,
    /// Largest blob that is fetched, in bytes.
    pub max_layer_size: u64,
    /// Silence after which a connection that is read from counts as dead.
    pub stall_timeout: Duration,
    /// Makes every use of the network an error that names what was missing.
    pub offline: bool,
}

/// Larger than any layer ECR takes (52,000 MiB).
const MAX_LAYER_SIZE: u64 = 64 << 30;

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            registries: RegistriesConfig::empty(),
            credentials: CredentialStore::default(),
            ca_bundle: None,
            user_agent: concat!("roadstead/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_concurrent_per_host: 6,
            retry_budget: RetryBudget::default(),
            max_layer_size: MAX_LAYER_SIZE,
            stall_timeout: Duration::from_secs(60),
            offline: false,
        }
    }
}
