//! Bytes that are not the right ones, and what is left of them: nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use roadstead_registry_client::{Descriptor, NoProgress, Platform, Reference, RegistryError, media_type};

use crate::faults::{first, seed};
use crate::images::{Setup, noise};
use crate::proxy::{Action, Head, Proxy};
use crate::servers::Server;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Answers like a server whose copy of a blob is too short, and which does not know it.
pub(crate) fn truncated(head: &Head, short: &[u8]) -> Action {
    let start = head
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    match short.get(start..) {
        Some(rest) if start == 0 => Action::answer("200 OK", "", rest),
        Some(rest) if !rest.is_empty() => {
            let (last, total) = (short.len() - 1, short.len());
            let headers = format!("Content-Range: bytes {start}-{last}/{total}\r\n");
            Action::answer("206 Partial Content", &headers, rest)
        }
        _ => Action::answer("416 Requested Range Not Satisfiable", "", ""),
    }
}

/// Fetches a blob by way of a proxy that spoils it; nothing of it may be in the store afterwards.
async fn fetch_spoiled(rule: impl Fn(&Head) -> Action + Send + Sync + 'static, bytes: &[u8]) -> RegistryError {
    let server = Server::registry();
    let layer = seed(&server, bytes).await;
    let proxy = Proxy::start(server.port, rule);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let error = setup
        .client
        .fetch_blob(&name, &layer, &setup.store, &NoProgress)
        .await
        .unwrap_err();
    assert_eq!((setup.store.has(&layer.digest), setup.unfinished_files()), (false, 0));
    assert!(error.to_string().contains(&layer.digest.to_string()), "{error}");
    error
}

#[tokio::test]
async fn one_bit_of_a_layer_is_noticed() {
    for byte in [0, 150_000, 299_999] {
        let error = fetch_spoiled(
            first(1, "GET", "/blobs/", move || Action::Flip(byte)),
            &noise(110, 300_000),
        )
        .await;
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_bit_that_was_wrong_before_a_download_went_on_is_noticed() {
    let seen = AtomicUsize::new(0);
    let bytes = noise(111, 300_000);
    let mut wrong = bytes.clone();
    wrong[10] ^= 1;
    let rule = move |head: &Head| match head.is("GET", "/blobs/") {
        true if seen.fetch_add(1, Ordering::Relaxed) == 0 => truncated(head, &wrong[..100_000]),
        _ => Action::Forward,
    };
    let error = fetch_spoiled(rule, &bytes).await;
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_layer_that_is_too_short_at_the_registry_is_refused_by_its_size() {
    let bytes = noise(112, 300_000);
    let short = bytes[..200_000].to_vec();
    let rule = move |head: &Head| match head.is("GET", "/blobs/") {
        true => truncated(head, &short),
        false => Action::Forward,
    };
    let error = fetch_spoiled(rule, &bytes).await;
    assert!(
        matches!(
            error,
            RegistryError::SizeMismatch {
                expected: 300_000,
                actual: 200_000,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_layer_that_was_too_short_once_is_completed() {
    let server = Server::registry();
    let bytes = noise(113, 300_000);
    let layer = seed(&server, &bytes).await;
    let proxy = Proxy::start(server.port, first(1, "GET", "/blobs/", || Action::Shorten(200_000)));
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let fetched = setup.client.fetch_blob(&name, &layer, &setup.store, &NoProgress).await;
    fetched.unwrap();
    assert_eq!(setup.store.read_blob(&layer.digest, 300_000).unwrap(), bytes);
    assert_eq!(proxy.seen("GET", "/blobs/")[1].header("range"), Some("bytes=200000-"));
}

#[tokio::test]
async fn a_spoiled_manifest_or_configuration_names_no_image() {
    let server = Server::registry();
    let layer = seed(&server, &noise(114, 1000)).await;
    for (part, action) in [
        ("/manifests/", Action::Flip(30)),
        ("/manifests/", Action::Shorten(100)),
        ("/blobs/", Action::Flip(30)),
        ("/blobs/", Action::Shorten(30)),
    ] {
        let spoil = action.clone();
        let proxy = Proxy::start(server.port, first(usize::MAX, "GET", part, move || spoil.clone()));
        let setup = Setup::new();
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let error = setup
            .client
            .pull(&name, &amd64(), &setup.store, &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::DigestMismatch { .. }
                    | RegistryError::SizeMismatch { .. }
                    // The rest of a shortened blob is asked for, and never comes.
                    | RegistryError::Interrupted { .. }
            ),
            "{action:?}: {error:?}"
        );
        assert!(setup.store.resolve(&name).unwrap().is_none(), "{action:?}");
        assert!(!setup.store.has(&layer.digest), "{action:?}");
    }
}

#[tokio::test]
async fn bytes_that_change_on_the_way_up_are_refused_by_the_registry() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, |head| match head.method.as_str() {
        "PATCH" => Action::FlipRequest(5),
        _ => Action::Forward,
    });
    let setup = Setup::new();
    let bytes = noise(115, 1000);
    let image = setup.image("linux/amd64", std::slice::from_ref(&bytes));
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let error = setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error:?}");
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert_eq!(proxy.seen("PUT", "/manifests/").len(), 0);

    let layer = Descriptor::of(media_type::OCI_LAYER_TAR, &bytes);
    let (straight, there) = (format!("{}/app", server.host()).parse().unwrap(), Setup::new());
    let fetched = there
        .client
        .fetch_blob(&straight, &layer, &there.store, &NoProgress)
        .await;
    assert!(matches!(
        fetched,
        Err(RegistryError::BlobUnknown { .. } | RegistryError::RepositoryUnknown { .. })
    ));
}
