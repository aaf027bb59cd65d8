//! Requests and answers that break off, stand still or get lost, and servers that fail for a moment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roadstead_registry_client::{BlobEvent, Descriptor, NoProgress, Platform, Reference, RegistryError};

use crate::faults::{first, seed};
use crate::images::{Events, Setup, noise};
use crate::proxy::{Action, Head, Proxy};
use crate::servers::Server;

const SERVER_ERRORS: [&str; 4] = [
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Timeout",
];

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// A push by way of a proxy, and what became of it.
struct Pushed {
    proxy: Proxy,
    events: Events,
}

impl Pushed {
    /// Pushes an image of one layer past a fault, and reads it back straight from the server.
    async fn past(rule: impl Fn(&Head) -> Action + Send + Sync + 'static, layer: Vec<u8>) -> Self {
        let server = Server::registry();
        let proxy = Proxy::start(server.port, rule);
        let setup = Setup::new();
        let image = setup.image("linux/amd64", &[layer]);
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let events = Events::default();
        let pushed = setup.client.push(&setup.store, &image, &name, &events).await;
        assert_eq!(pushed.unwrap(), image.digest);
        assert_is_there(&server, &image).await;
        Self { proxy, events }
    }

    fn requests(&self, method: &str, part: &str) -> usize {
        self.proxy.seen(method, part).len()
    }

    fn retries(&self) -> usize {
        self.events.count(|event| matches!(event, BlobEvent::Retrying { .. }))
    }
}

async fn assert_is_there(server: &Server, image: &Descriptor) {
    let there = Setup::new();
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let pulled = there.client.pull(&name, &amd64(), &there.store, &NoProgress).await;
    assert_eq!(pulled.unwrap().descriptor.digest, image.digest);
}

#[tokio::test]
async fn an_upload_that_is_cut_in_the_middle_starts_over() {
    for place in [0, 1, 199_999, 399_999] {
        let seen = AtomicUsize::new(0);
        let rule = move |head: &Head| match head.method == "PATCH" && head.header("content-length") == Some("400000") {
            true if seen.fetch_add(1, Ordering::Relaxed) == 0 => Action::CutRequest(place),
            _ => Action::Forward,
        };
        let pushed = Pushed::past(rule, noise(100, 400_000)).await;
        // Two blobs, one of which was begun and sent twice.
        assert_eq!(pushed.requests("POST", "/uploads/"), 3, "cut at {place}");
        assert_eq!(pushed.requests("PATCH", "/uploads/"), 3, "cut at {place}");
        assert_eq!(pushed.retries(), 1, "cut at {place}");
    }
}

#[tokio::test]
async fn a_download_that_is_cut_at_any_byte_goes_on_there() {
    let server = Server::registry();
    let bytes = noise(101, 300_000);
    let layer = seed(&server, &bytes).await;
    for place in [0, 1, 150_000, 299_999] {
        let proxy = Proxy::start(server.port, first(1, "GET", "/blobs/", move || Action::Cut(place)));
        let setup = Setup::new();
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let fetched = setup.client.fetch_blob(&name, &layer, &setup.store, &NoProgress).await;
        fetched.unwrap();
        assert_eq!(setup.store.read_blob(&layer.digest, 300_000).unwrap(), bytes);
        let seen = proxy.seen("GET", "/blobs/");
        let range = (place > 0).then(|| format!("bytes={place}-"));
        assert_eq!((seen.len(), seen[1].header("range")), (2, range.as_deref()));
    }
}

#[tokio::test]
async fn documents_that_break_off_are_asked_for_again() {
    let server = Server::registry();
    let layer = seed(&server, &noise(102, 1000)).await;
    for part in ["/manifests/", "/blobs/"] {
        let proxy = Proxy::start(server.port, first(2, "GET", part, || Action::Cut(20)));
        let setup = Setup::new();
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let pulled = setup.client.pull(&name, &amd64(), &setup.store, &NoProgress).await;
        assert_eq!(pulled.unwrap().manifest.layers[0].digest, layer.digest);
    }
}

#[tokio::test]
async fn a_download_that_stands_still_and_breaks_off_goes_on() {
    let server = Server::registry();
    let bytes = noise(103, 300_000);
    let layer = seed(&server, &bytes).await;
    let stall = || Action::Stall(100_000, Duration::from_millis(500));
    let proxy = Proxy::start(server.port, first(1, "GET", "/blobs/", stall));
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let fetched = setup.client.fetch_blob(&name, &layer, &setup.store, &NoProgress).await;
    fetched.unwrap();
    assert_eq!(setup.store.read_blob(&layer.digest, 300_000).unwrap(), bytes);
    assert_eq!(proxy.seen("GET", "/blobs/")[1].header("range"), Some("bytes=100000-"));
}

#[tokio::test]
async fn a_download_that_stands_still_is_not_waited_for() {
    let server = Server::registry();
    let bytes = noise(109, 300_000);
    let layer = seed(&server, &bytes).await;
    // Whoever waits for the end of this never comes to the end of the test.
    let hang = || Action::Stall(100_000, Duration::from_secs(100_000));
    let proxy = Proxy::start(server.port, first(1, "GET", "/blobs/", hang));
    let setup = Setup::with_options(|options| options.stall_timeout = Duration::from_secs(2));
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let events = Events::default();
    let fetched = setup.client.fetch_blob(&name, &layer, &setup.store, &events).await;
    fetched.unwrap();
    assert_eq!(setup.store.read_blob(&layer.digest, 300_000).unwrap(), bytes);
    assert_eq!(events.count(|event| matches!(event, BlobEvent::Retrying { .. })), 1);
    assert_eq!(proxy.seen("GET", "/blobs/")[1].header("range"), Some("bytes=100000-"));
}

#[tokio::test]
async fn every_step_of_a_push_gets_past_errors_of_the_server() {
    let steps = [
        ("HEAD", "/blobs/"),
        ("POST", "/uploads/"),
        ("PATCH", "/uploads/"),
        ("PUT", "/uploads/"),
        ("PUT", "/manifests/"),
    ];
    for (step, (method, part)) in steps.into_iter().enumerate() {
        let status = SERVER_ERRORS[step % SERVER_ERRORS.len()];
        let rule = first(1, method, part, move || Action::answer(status, "", ""));
        let pushed = Pushed::past(rule, noise(104, 1000)).await;
        let usual = if part == "/manifests/" { 1 } else { 2 };
        assert_eq!(pushed.requests(method, part), usual + 1, "{status} for {method}");
    }
}

#[tokio::test]
async fn every_step_of_a_pull_gets_past_errors_of_the_server() {
    let server = Server::registry();
    let layer = seed(&server, &noise(105, 1000)).await;
    for (status, part) in SERVER_ERRORS
        .into_iter()
        .zip(["/manifests/", "/blobs/", "/manifests/", "/blobs/"])
    {
        let proxy = Proxy::start(
            server.port,
            first(2, "GET", part, move || Action::answer(status, "", "")),
        );
        let setup = Setup::new();
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let pulled = setup.client.pull(&name, &amd64(), &setup.store, &NoProgress).await;
        assert_eq!(pulled.unwrap().manifest.layers[0].digest, layer.digest, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_recover_is_reported_as_it_is() {
    let server = Server::registry();
    let rule = first(usize::MAX, "PUT", "/manifests/", || {
        Action::answer("502 Bad Gateway", "", "no luck")
    });
    let proxy = Proxy::start(server.port, rule);
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[]);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let error = setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 502, .. }), "{error:?}");
    assert!(error.to_string().ends_with("no luck"), "{error}");
    assert_eq!(proxy.seen("PUT", "/manifests/").len(), 5);
}

#[tokio::test]
async fn too_many_manifests_are_paced_as_the_registry_asks() {
    let limited = || Action::answer("429 Too Many Requests", "Retry-After: 1\r\n", "");
    let start = std::time::Instant::now();
    let pushed = Pushed::past(first(2, "PUT", "/manifests/", limited), noise(106, 1000)).await;
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(pushed.requests("PUT", "/manifests/"), 3);
}

#[tokio::test]
async fn an_answer_that_is_lost_does_no_harm() {
    // The server did what it was asked for, and the client cannot know.
    for (method, part, requests) in [
        ("POST", "/uploads/", 3),
        ("PATCH", "/uploads/", 3),
        // A blob that has arrived is found, and not sent again.
        ("PUT", "/uploads/", 2),
        ("PUT", "/manifests/", 2),
    ] {
        let pushed = Pushed::past(first(1, method, part, || Action::Lose), noise(107, 100_000)).await;
        assert_eq!(pushed.requests(method, part), requests, "{method} {part}");
    }
}

#[tokio::test]
async fn a_stale_range_is_not_believed() {
    // ECR takes all bytes of a PATCH, and says 201 and a range that ends long before (aws/containers-roadmap #2831).
    let rule = |head: &Head| match head.method.as_str() {
        "PATCH" => Action::Rewrite("201 Created", ("Range", "0-0")),
        _ => Action::Forward,
    };
    let pushed = Pushed::past(rule, noise(108, 700_000)).await;
    assert_eq!(pushed.requests("PATCH", "/uploads/"), 2, "nothing is sent twice");
    assert_eq!(pushed.retries(), 0);
}
