//! Connections that break, servers that are busy, and places that must not see a login.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use roadstead_registry_client::{BlobEvent, Descriptor, Digest, NoProgress, Platform, Reference, RegistryError};

use crate::images::{Events, Setup, noise};
use crate::proxy::{Action, Proxy};
use crate::servers::{LOGIN, Server};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Pushes an image of one layer straight to the server.
pub(crate) async fn seed(server: &Server, layer: &[u8]) -> Descriptor {
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[layer.to_vec()]);
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    Descriptor::of(roadstead_registry_client::media_type::OCI_LAYER_TAR, layer)
}

/// Lets the first requests of a kind fail, and the others pass.
pub(crate) fn first(
    count: usize,
    method: &'static str,
    part: &'static str,
    fault: impl Fn() -> Action + Send + Sync + 'static,
) -> impl Fn(&crate::proxy::Head) -> Action + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |head| {
        if head.is(method, part) && seen.fetch_add(1, Ordering::Relaxed) < count {
            fault()
        } else {
            Action::Forward
        }
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let server = Server::registry();
    let bytes = noise(20, 3_000_000);
    let layer = seed(&server, &bytes).await;
    let proxy = Proxy::start(server.port, first(2, "GET", "/blobs/", || Action::Cut(1_000_000)));
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let events = Events::default();
    setup
        .client
        .fetch_blob(&name, &layer, &setup.store, &events)
        .await
        .unwrap();
    assert_eq!(setup.store.read_blob(&layer.digest, 3_000_000).unwrap(), bytes);
    let ranges: Vec<Option<String>> = proxy
        .seen("GET", "/blobs/")
        .iter()
        .map(|head| head.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=1000000-".to_owned()),
            Some("bytes=2000000-".to_owned())
        ]
    );
    assert_eq!(
        events
            .of(&layer.digest)
            .iter()
            .filter(|event| matches!(event, BlobEvent::Retrying { .. }))
            .count(),
        2
    );
    assert_eq!(events.advanced(&layer.digest), 3_000_000);
    assert_eq!(setup.unfinished_files(), 0);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_from_the_beginning() {
    let server = Server::registry();
    let bytes = noise(21, 2_000_000);
    let layer = seed(&server, &bytes).await;
    let whole = bytes.clone();
    let seen = AtomicUsize::new(0);
    let proxy = Proxy::start(server.port, move |head| match head.is("GET", "/blobs/") {
        true if seen.fetch_add(1, Ordering::Relaxed) == 0 => Action::Cut(500_000),
        true => Action::answer("200 OK", "", whole.clone()),
        false => Action::Forward,
    });
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .fetch_blob(&name, &layer, &setup.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(setup.store.read_blob(&layer.digest, 2_000_000).unwrap(), bytes);
}

#[tokio::test]
async fn other_content_is_refused_and_leaves_nothing() {
    let server = Server::registry();
    let layer = seed(&server, &noise(22, 1000)).await;
    let setup = Setup::new();
    for (content, by_size) in [(noise(23, 1000), false), (noise(22, 2000), true)] {
        let proxy = Proxy::start(server.port, move |head| match head.is("GET", "/blobs/") {
            true => Action::answer("200 OK", "", content.clone()),
            false => Action::Forward,
        });
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let error = setup
            .client
            .fetch_blob(&name, &layer, &setup.store, &NoProgress)
            .await
            .unwrap_err();
        match by_size {
            true => assert!(
                matches!(error, RegistryError::SizeMismatch { expected: 1000, .. }),
                "{error}"
            ),
            false => assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}"),
        }
        assert_eq!((setup.store.has(&layer.digest), setup.unfinished_files()), (false, 0));
    }
}

#[tokio::test]
async fn a_redirect_to_another_place_does_not_see_the_login() {
    let server = Server::with_login();
    let bytes = noise(24, 50_000);
    let layer = Descriptor::of(roadstead_registry_client::media_type::OCI_LAYER_TAR, &bytes);
    let content = bytes.clone();
    let other = Proxy::start(1, move |_| Action::answer("200 OK", "", content.clone()));
    let place = format!("http://{}/signed?X-Amz-Signature=abc", other.host());
    let proxy = Proxy::start(server.port, move |head| {
        match head.is("GET", "/blobs/") && head.header("authorization").is_some() {
            true => Action::answer("307 Temporary Redirect", &format!("Location: {place}\r\n"), ""),
            false => Action::Forward,
        }
    });
    let setup = Setup::new();
    setup.log_in(&proxy.host(), LOGIN.0, LOGIN.1);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .fetch_blob(&name, &layer, &setup.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(setup.store.read_blob(&layer.digest, 50_000).unwrap(), bytes);
    let asked = other.seen("GET", "/signed");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn an_object_store_that_refuses_a_second_login_serves_the_blobs() {
    // Amazon ECR sends reads to S3, which answers 400 when `Authorization` comes along with a signed address.
    let server = Server::registry();
    let bytes = noise(32, 2_000_000);
    let layer = seed(&server, &bytes).await;
    let broken = AtomicUsize::new(0);
    let s3 = Proxy::start(server.port, move |head| match head.header("authorization") {
        Some(_) => Action::answer("400 Bad Request", "", "Only one auth mechanism allowed"),
        None if broken.fetch_add(1, Ordering::Relaxed) == 1 => Action::Cut(700_000),
        None => Action::Forward,
    });
    let place = s3.host();
    let proxy = Proxy::start(server.port, move |head| match head.header("authorization") {
        None => Action::answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
        Some(_) if head.is("GET", "/blobs/") => {
            let location = format!("Location: http://{place}{}?X-Amz-Signature=abc\r\n", head.target);
            Action::answer("307 Temporary Redirect", &location, "")
        }
        Some(_) => Action::Forward,
    });
    let setup = Setup::new();
    setup.log_in(&proxy.host(), LOGIN.0, LOGIN.1);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let pulled = setup.client.pull(&name, &amd64(), &setup.store, &NoProgress).await;
    assert_eq!(pulled.unwrap().manifest.layers[0].digest, layer.digest);
    assert_eq!(setup.store.read_blob(&layer.digest, 2_000_000).unwrap(), bytes);
    // The configuration, the layer, and the rest of it: asked of the registry again, since signatures expire.
    let asked = s3.seen("GET", "/blobs/");
    let ranges: Vec<Option<&str>> = asked.iter().map(|head| head.header("range")).collect();
    assert_eq!(ranges, [None, None, Some("bytes=700000-")]);
    assert!(asked.iter().all(|head| head.header("authorization").is_none()));
    let redirected = proxy.seen("GET", "/blobs/");
    assert_eq!(
        redirected
            .iter()
            .filter(|head| head.header("authorization").is_some())
            .count(),
        3
    );
}

#[tokio::test]
async fn a_place_that_was_redirected_to_cannot_ask_for_the_login() {
    let server = Server::registry();
    let layer = seed(&server, &noise(25, 1000)).await;
    let thief = Proxy::start(1, |_| {
        Action::answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "")
    });
    let place = format!("http://{}/blob", thief.host());
    let proxy = Proxy::start(server.port, move |head| match head.is("GET", "/blobs/") {
        true => Action::answer("307 Temporary Redirect", &format!("Location: {place}\r\n"), ""),
        false => Action::Forward,
    });
    let setup = Setup::new();
    setup.log_in(&proxy.host(), LOGIN.0, LOGIN.1);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .fetch_blob(&name, &layer, &setup.store, &NoProgress)
        .await
        .unwrap_err();
    assert!(
        thief
            .seen("GET", "")
            .iter()
            .all(|head| head.header("authorization").is_none())
    );
    assert_eq!(thief.seen("GET", "").len(), 1);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let server = Server::registry();
    seed(&server, &noise(26, 1000)).await;
    let busy = || Action::answer("503 Service Unavailable", "", "");
    let proxy = Proxy::start(server.port, first(2, "GET", "/manifests/", busy));
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .pull(&name, &amd64(), &setup.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(proxy.seen("GET", "/manifests/").len(), 3);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Server::registry();
    seed(&server, &noise(27, 1000)).await;
    let limited = || Action::answer("429 Too Many Requests", "Retry-After: 2\r\n", "");
    let proxy = Proxy::start(server.port, first(1, "GET", "/manifests/", limited));
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let start = Instant::now();
    setup.client.resolve(&name, &amd64()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_broken_upload_starts_over_in_a_session_of_its_own() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, first(1, "PATCH", "/uploads/", || Action::Close));
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[noise(28, 400_000)]);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let events = Events::default();
    setup.client.push(&setup.store, &image, &name, &events).await.unwrap();
    // Two blobs, one of which was sent twice.
    assert_eq!(
        (
            proxy.seen("POST", "/uploads/").len(),
            proxy.seen("PATCH", "/uploads/").len()
        ),
        (3, 3)
    );
    assert_eq!(events.count(|event| matches!(event, BlobEvent::Retrying { .. })), 1);
    assert_eq!(
        setup.client.head_manifest(&name).await.unwrap().unwrap().digest,
        image.digest
    );
}

#[tokio::test]
async fn a_tag_that_may_not_change_is_no_obstacle_to_the_same_image() {
    let server = Server::registry();
    let setup = Setup::new();
    let (image, other) = (
        setup.image("linux/amd64", &[noise(29, 10)]),
        setup.image("linux/amd64", &[noise(30, 10)]),
    );
    let straight: Reference = format!("{}/app:v1", server.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &straight, &NoProgress)
        .await
        .unwrap();
    let body = r#"{"errors":[{"code":"TAG_INVALID","message":"the tag is immutable"}]}"#;
    let refuse = move || Action::answer("400 Bad Request", "Content-Type: application/json\r\n", body);
    let proxy = Proxy::start(server.port, first(usize::MAX, "PUT", "/manifests/", refuse));
    let name: Reference = format!("{}/app:v1", proxy.host()).parse().unwrap();
    assert_eq!(
        setup
            .client
            .push(&setup.store, &image, &name, &NoProgress)
            .await
            .unwrap(),
        image.digest
    );
    let error = setup
        .client
        .push(&setup.store, &other, &name, &NoProgress)
        .await
        .unwrap_err();
    let text = format!(
        "tag `v1` of `{}` is immutable and means {}, not {}",
        name.name(),
        image.digest,
        other.digest
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_download_that_is_given_up_leaves_no_file() {
    let server = Server::registry();
    let layer = seed(&server, &noise(31, 2_000_000)).await;
    // After the first bytes nothing comes any more, as when a cable is pulled.
    let reached = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&reached);
    let proxy = Proxy::start(server.port, move |head| {
        if head.is("GET", "/blobs/") {
            told.notify_one();
            std::thread::sleep(Duration::from_secs(3));
        }
        Action::Forward
    });
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    tokio::select! {
        result = setup.client.fetch_blob(&name, &layer, &setup.store, &NoProgress) => panic!("ended early: {result:?}"),
        () = reached.notified() => {}
    }
    // The thread that writes sees the end on its own.
    let start = Instant::now();
    while setup.unfinished_files() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "a temporary file was left behind"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!setup.store.has(&layer.digest));
}

#[tokio::test]
async fn a_registry_that_stores_something_else_is_caught() {
    let server = Server::registry();
    let other = Digest::of(b"another manifest");
    let headers = format!("Docker-Content-Digest: {other}\r\n");
    let lie = move || Action::answer("201 Created", &headers, "");
    let proxy = Proxy::start(server.port, first(1, "PUT", "/manifests/", lie));
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[noise(31, 10)]);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let error = setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::DigestMismatch { actual, .. } if *actual == other),
        "{error}"
    );
}
