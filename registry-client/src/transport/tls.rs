//! Trust in servers: system roots, `--ca-bundle`, and the `ca` of `registries.toml`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity};

use crate::error::{RegistryError, Result};

const IDENTITY_LIMIT: u64 = 1024 * 1024;
const BUNDLE_LIMIT: u64 = 16 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A CA bundle that was read and found usable.
pub(crate) struct Bundle {
    /// The file as it is; the AWS SDK wants the text.
    #[cfg(feature = "ecr")]
    pub(crate) pem: Vec<u8>,
    certificates: Vec<Certificate>,
}

/// Decides which HTTP client serves a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    pub(crate) bundles: Vec<PathBuf>,
    /// Certificate and key to show.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) plain_http: bool,
    /// This machine is never reached by way of a proxy.
    pub(crate) loopback: bool,
}

/// Reads a CA bundle and makes sure that every certificate in it can be used.
pub(crate) fn read_bundle(path: &Path) -> Result<Bundle> {
    let unusable = |message: &str| RegistryError::CaBundle {
        path: path.to_owned(),
        message: message.to_owned(),
    };
    let size = std::fs::metadata(path)
        .map_err(|error| unusable(&error.to_string()))?
        .len();
    if size > BUNDLE_LIMIT {
        return Err(unusable("the file is larger than 16 MiB"));
    }
    let pem = std::fs::read(path).map_err(|error| unusable(&error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| unusable("it is not PEM"))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate"));
    }
    // Only a client that is built with them shows whether the certificates can be parsed.
    let trial = Client::builder().tls_certs_only(certificates.iter().cloned()).build();
    trial.map_err(|_| unusable("it holds a certificate that cannot be read"))?;
    Ok(Bundle {
        #[cfg(feature = "ecr")]
        pem,
        certificates,
    })
}

/// Reads a client certificate with its chain, and its key. Messages show no content: the key is secret.
fn read_identity(certificate: &Path, key: &Path) -> Result<Identity> {
    let mut pem = Vec::new();
    for path in [certificate, key] {
        let unusable = |message: String| RegistryError::ClientCertificate {
            path: path.to_owned(),
            message,
        };
        let file = std::fs::File::open(path).map_err(|error| unusable(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(IDENTITY_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unusable(error.to_string()))?;
        if bytes.len() as u64 > IDENTITY_LIMIT {
            return Err(unusable("it is larger than 1 MiB".to_owned()));
        }
        pem.extend(bytes);
        pem.push(b'\n');
    }
    Identity::from_pem(&pem).map_err(|_| RegistryError::ClientCertificate {
        path: certificate.to_owned(),
        message: format!("it and `{}` are not a certificate and its key in PEM", key.display()),
    })
}

/// Builds a client. Redirects are not followed: the transport does that, and decides who may see a login.
pub(crate) fn build_client(trust: &Trust, user_agent: &str) -> Result<Client> {
    let mut certificates = Vec::new();
    for path in &trust.bundles {
        certificates.extend(read_bundle(path)?.certificates);
    }
    let certificate = trust.client_certificate.as_ref();
    let identity = certificate
        .map(|(certificate, key)| read_identity(certificate, key))
        .transpose()?;
    let builder = || {
        let builder = match &identity {
            Some(identity) => Client::builder().identity(identity.clone()),
            None => Client::builder(),
        };
        let builder = builder
            .user_agent(user_agent)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            // A connection for each blob: over one HTTP/2 connection a slow blob holds up the others.
            .http1_only();
        if trust.loopback { builder.no_proxy() } else { builder }
    };
    let usual = builder().tls_certs_merge(certificates.iter().cloned()).build();
    let client = match usual {
        // Plain http needs no roots, and an image without any must still reach a registry beside it.
        Err(_) if trust.plain_http => builder().tls_certs_only(certificates).build(),
        other => other,
    };
    client.map_err(|error| RegistryError::TlsSetup {
        source: Box::new(error.without_url()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn a_bundle_that_is_none_is_refused() {
        let dir = TestDir::new("bundle");
        let path = dir.path().join("ca.pem");
        assert!(matches!(read_bundle(&path), Err(RegistryError::CaBundle { .. })));
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        for text in ["", "hello", garbage] {
            std::fs::write(&path, text).unwrap();
            assert!(
                matches!(read_bundle(&path), Err(RegistryError::CaBundle { .. })),
                "{text}"
            );
        }
    }
}
