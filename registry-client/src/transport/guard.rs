//! Which places a registry may send us to, and what of a URL may be shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::config::{host_without_port, is_loopback};

/// Parameters that hold nothing secret (go-containerregistry, `internal/redact`). All others may be a signature.
const SHOWN_PARAMETERS: [&str; 7] = ["scope", "service", "mount", "from", "digest", "n", "last"];

/// Tells whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// Checks a place that an answer of `from` names; the error says what is wrong.
///
/// A registry on the open network must not make us ask this machine, its neighbours or the metadata service of a cloud
/// (go-containerregistry, `nextLocation`).
pub(crate) fn check(from: &Url, to: &Url) -> Result<(), String> {
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        (_, scheme) => return Err(format!("`{scheme}` in place of https")),
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err("it holds a login".to_owned());
    }
    let Some(host) = to.host_str() else {
        return Err("it has no host".to_owned());
    };
    if same_origin(from, to) || from.host_str() == Some(host) {
        return Ok(());
    }
    let from_private = from.host_str().is_some_and(is_private);
    if is_private(host) && !from_private || is_metadata(host) {
        return Err(format!("{host} is a private address"));
    }
    Ok(())
}

fn address(host: &str) -> Option<IpAddr> {
    let address: IpAddr = host_without_port(host).parse().ok()?;
    Some(address.to_canonical())
}

fn is_private(host: &str) -> bool {
    is_loopback(host)
        || match address(host) {
            Some(IpAddr::V4(v4)) => v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
            Some(IpAddr::V6(v6)) => {
                v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified()
            }
            None => false,
        }
}

/// Cloud metadata services live here; no registry does. Besides link-local addresses: Alibaba's, AWS's over IPv6, and
/// Google's by its name.
fn is_metadata(host: &str) -> bool {
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address(host) {
        Some(IpAddr::V4(v4)) => v4.is_link_local() || v4 == ALIBABA,
        Some(IpAddr::V6(v6)) => v6.is_unicast_link_local() || v6 == AWS,
        None => host.trim_end_matches('.') == "metadata.google.internal",
    }
}

/// Shows a URL without a login and without parameters that may be secret.
pub(crate) fn redact(url: &Url) -> String {
    let mut shown = url.clone();
    // Both fail only for URLs that cannot hold a login at all.
    if shown.set_username("").and_then(|()| shown.set_password(None)).is_err() {
        return url.scheme().to_owned();
    }
    if url.query().is_some() {
        shown
            .query_pairs_mut()
            .clear()
            .extend_pairs(url.query_pairs().map(|(name, value)| {
                let value = if SHOWN_PARAMETERS.contains(&name.as_ref()) {
                    value
                } else {
                    "REDACTED".into()
                };
                (name, value)
            }));
    }
    shown.set_fragment(None);
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_registry_cannot_send_us_anywhere() {
        for (from, to, allowed) in [
            ("https://r.example/v2/", "https://r.example/x", true),
            ("https://r.example/v2/", "https://s3.example/x", true),
            ("https://r.example/v2/", "http://s3.example/x", false),
            ("https://r.example/v2/", "ftp://s3.example/x", false),
            ("https://r.example/v2/", "https://user:pw@s3.example/x", false),
            ("https://r.example/v2/", "https://127.0.0.1/x", false),
            ("https://r.example/v2/", "https://localhost/x", false),
            ("https://r.example/v2/", "https://10.1.2.3/x", false),
            ("https://r.example/v2/", "https://[::1]/x", false),
            ("https://r.example/v2/", "https://[::ffff:10.0.0.1]/x", false),
            ("https://r.example/v2/", "https://0x7f000001/x", false),
            ("https://r.example/v2/", "https://169.254.169.254/x", false),
            ("http://10.0.0.1:5000/v2/", "http://10.0.0.2:9000/x", true),
            ("http://10.0.0.1:5000/v2/", "http://169.254.169.254/x", false),
            ("http://10.0.0.1:5000/v2/", "http://[fd00:ec2::254]/x", false),
            ("http://10.0.0.1:5000/v2/", "http://metadata.google.internal/x", false),
            ("https://r.example/v2/", "https://100.100.100.200/x", false),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:9000/x", true),
            ("http://127.0.0.1:5000/v2/", "https://cdn.example/x", true),
        ] {
            assert_eq!(check(&url(from), &url(to)).is_ok(), allowed, "{from} to {to}");
        }
    }

    #[test]
    fn only_a_url_of_the_same_place_is_the_same_origin() {
        assert!(same_origin(
            &url("https://a.example/x"),
            &url("https://a.example:443/y")
        ));
        for other in ["http://a.example/", "https://a.example:444/", "https://b.example/"] {
            assert!(!same_origin(&url("https://a.example/"), &url(other)), "{other}");
        }
    }

    #[test]
    fn signatures_and_logins_are_not_shown() {
        let shown = redact(&url(
            "https://u:p@s3.example/blob?X-Amz-Signature=secret&digest=sha256:ab&_state=abc#frag",
        ));
        assert_eq!(
            shown,
            "https://s3.example/blob?X-Amz-Signature=REDACTED&digest=sha256%3Aab&_state=REDACTED"
        );
        assert_eq!(redact(&url("https://r.example/v2/")), "https://r.example/v2/");
    }
}
