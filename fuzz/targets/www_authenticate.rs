//! `WWW-Authenticate`: no token service is made up, and none is asked in a place that must not see us.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_registry_client::fuzzing::{Asked, allowed_place, challenges};

const REGISTRY: &str = "https://registry.example/v2/";

fuzz_target!(|data: &[u8]| {
    let Ok(header) = std::str::from_utf8(data) else { return };
    let lower = header.to_ascii_lowercase();
    for asked in challenges(header) {
        let Asked::Bearer { realm, service, scope } = &asked else {
            assert!(lower.contains("basic"));
            continue;
        };
        assert!(lower.contains("bearer") && lower.contains("realm"));
        for value in [Some(realm), service.as_ref(), scope.as_ref()].into_iter().flatten() {
            // A value stands in the header in one piece; only escapes are taken out of it.
            assert!(header.replace('\\', "").contains(&value.replace('\\', "")), "{value}");
        }
        assert_eq!(
            challenges(&written(realm, service.as_deref(), scope.as_deref())),
            [asked.clone()]
        );
        if let Some(place) = allowed_place(REGISTRY, realm) {
            assert!(place.starts_with("https://"), "{place}");
            let authority = place["https://".len()..].split('/').next().unwrap_or_default();
            assert!(!authority.contains('@'), "{place}");
            for private in ["127.", "10.", "192.168.", "169.254.", "localhost", "[::1]", "0.0.0.0"] {
                let is_address = authority
                    .split(':')
                    .next()
                    .is_some_and(|host| host.parse::<std::net::Ipv4Addr>().is_ok());
                let is_private = match private.starts_with(char::is_numeric) {
                    true => is_address && authority.starts_with(private),
                    false => authority == private,
                };
                assert!(!is_private, "{place}");
            }
        }
    }
});

fn written(realm: &str, service: Option<&str>, scope: Option<&str>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut header = format!("Bearer realm={}", quoted(realm));
    for (name, value) in [("service", service), ("scope", scope)] {
        if let Some(value) = value {
            header.push_str(&format!(",{name}={}", quoted(value)));
        }
    }
    header
}
