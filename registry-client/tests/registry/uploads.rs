//! The ways to send a blob, all held to the same: one PATCH, chunks, ECR's layer parts, and blobs that are still being written.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use roadstead_registry_client::{BlobEvent, Descriptor, NoProgress, PushedHow, Reference, RetryBudget, media_type};

use crate::images::{Events, Setup, noise};
use crate::proxy::{Action, Head, Proxy};
use crate::servers::Server;

/// Larger than a chunk, and no multiple of one.
const SIZE: usize = 20_000_001;

fn forced(host: &str, upload: &str) -> String {
    format!("[[registry]]\nprefix = \"{host}\"\nupload = \"{upload}\"\n")
}

fn put(setup: &Setup, bytes: &[u8]) -> Descriptor {
    setup.store.put(bytes).unwrap();
    Descriptor::of(media_type::OCI_LAYER_TAR, bytes)
}

/// What every strategy must do; `proxy` stands before the registry and may inject faults that pass.
async fn conforms(server: &Server, upload: &str, rule: impl Fn(&Head) -> Action + Send + Sync + 'static) -> Proxy {
    let proxy = Proxy::start(server.port, rule);
    let setup = Setup::with_registries(&forced(&proxy.host(), upload));
    let name: Reference = format!("{}/{upload}", proxy.host()).parse().unwrap();
    for (seed, size) in [(1, 0), (2, 1), (3, SIZE)] {
        let bytes = noise(seed, size);
        let blob = put(&setup, &bytes);
        let events = Events::default();
        let how = setup
            .client
            .push_blob(&name, &blob, &setup.store, &events)
            .await
            .unwrap();
        assert_eq!(how, PushedHow::Uploaded, "{upload}, {size} bytes");
        assert_eq!(events.of(&blob.digest).last(), Some(&BlobEvent::Done));
        let there = Setup::new();
        let straight: Reference = format!("{}/{upload}", server.host()).parse().unwrap();
        there
            .client
            .fetch_blob(&straight, &blob, &there.store, &NoProgress)
            .await
            .unwrap();
        assert_eq!(there.store.read_blob(&blob.digest, SIZE as u64).unwrap(), bytes);
        let again = setup.client.push_blob(&name, &blob, &setup.store, &NoProgress).await;
        assert_eq!(again.unwrap(), PushedHow::Existed);
    }
    // What lies about itself is refused by the registry, and stays out.
    let mut lie = put(&setup, b"truth");
    std::fs::write(setup.store.blob_path(&lie.digest), b"false").unwrap();
    lie.size = 5;
    setup
        .client
        .push_blob(&name, &lie, &setup.store, &NoProgress)
        .await
        .unwrap_err();
    proxy
}

#[tokio::test]
async fn one_patch_conforms() {
    let server = Server::registry();
    let proxy = conforms(&server, "stream", |_| Action::Forward).await;
    assert!(
        proxy
            .seen("PATCH", "")
            .iter()
            .all(|head| head.header("content-range").is_none())
    );
}

#[tokio::test]
async fn chunks_conform() {
    let server = Server::registry();
    let proxy = conforms(&server, "chunks", |_| Action::Forward).await;
    let ranges: Vec<String> = proxy
        .seen("PATCH", "")
        .iter()
        .filter_map(|head| head.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(ranges[1..4], ["0-8388607", "8388608-16777215", "16777216-20000000"]);
}

#[tokio::test]
async fn a_chunk_that_failed_is_sent_again_alone() {
    let server = Server::registry();
    let count = AtomicUsize::new(0);
    let proxy = conforms(&server, "chunks", move |head| {
        let is_second = head.method == "PATCH" && count.fetch_add(1, Ordering::Relaxed) == 2;
        if is_second {
            Action::answer("503 Service Unavailable", "", "")
        } else {
            Action::Forward
        }
    })
    .await;
    let of_second = |head: &&Head| head.header("content-range") == Some("8388608-16777215");
    assert_eq!(proxy.seen("PATCH", "").iter().filter(of_second).count(), 2);
    let of_first = |head: &&Head| head.header("content-range") == Some("0-8388607");
    assert_eq!(proxy.seen("PATCH", "").iter().filter(of_first).count(), 1);
}

#[tokio::test]
async fn a_chunk_whose_answer_was_lost_begins_another_upload() {
    let server = Server::registry();
    let count = AtomicUsize::new(0);
    let proxy = conforms(&server, "chunks", move |head| {
        let is_second = head.method == "PATCH" && count.fetch_add(1, Ordering::Relaxed) == 2;
        if is_second { Action::Lose } else { Action::Forward }
    })
    .await;
    let of_first = |head: &&Head| head.header("content-range") == Some("0-8388607");
    assert_eq!(proxy.seen("PATCH", "").iter().filter(of_first).count(), 2);
}

#[tokio::test]
async fn a_limit_on_the_size_of_requests_turns_to_chunks() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, |head| {
        let length: usize = head
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if length > 10_000_000 {
            Action::answer("413 Request Entity Too Large", "", "")
        } else {
            Action::Forward
        }
    });
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    for seed in [10, 11] {
        let blob = put(&setup, &noise(seed, SIZE));
        let how = setup.client.push_blob(&name, &blob, &setup.store, &NoProgress).await;
        assert_eq!(how.unwrap(), PushedHow::Uploaded);
    }
    // The second blob knows.
    let whole = proxy
        .seen("PATCH", "")
        .iter()
        .filter(|head| head.header("content-range").is_none())
        .count();
    assert_eq!(whole, 1);
}

const BEGINNING: usize = 6 << 20;

/// Writes a blob to the store of `setup`, of which the end comes only when `ready` says so, and pushes it meanwhile.
async fn push_while_written(
    setup: &Setup,
    name: &Reference,
    bytes: Vec<u8>,
    ready: impl Fn() -> bool + Send + 'static,
) -> (Descriptor, roadstead_registry_client::Result<Descriptor>) {
    let mut writer = setup.store.writer().unwrap();
    let growing = writer.follow().unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER_TAR, &bytes);
    let writing = tokio::task::spawn_blocking(move || {
        let (beginning, end) = bytes.split_at(BEGINNING.min(bytes.len()));
        writer.write_all(beginning).unwrap();
        let begun = Instant::now();
        while !ready() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "nothing was sent before the end"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.write_all(end).unwrap();
        writer.commit().unwrap();
    });
    let pushing = setup
        .client
        .push_growing(name, media_type::OCI_LAYER_TAR, growing, &setup.store, &NoProgress);
    let sent = pushing.await;
    writing.await.unwrap();
    (blob, sent)
}

/// Whether an upload lies in the registry of which so many bytes have arrived.
fn has_arrived(server: &Server, bytes: u64) -> impl Fn() -> bool + Send + 'static {
    let uploads = server.repository("app/_uploads");
    move || {
        let entries = std::fs::read_dir(&uploads).into_iter().flatten().flatten();
        let sizes = entries.filter_map(|entry| Some(entry.path().join("data").metadata().ok()?.len()));
        sizes.max().unwrap_or(0) > bytes
    }
}

async fn assert_there(server: &Server, blob: &Descriptor) {
    let there = Setup::new();
    let straight: Reference = format!("{}/app", server.host()).parse().unwrap();
    let fetched = there.client.fetch_blob(&straight, blob, &there.store, &NoProgress);
    fetched.await.unwrap();
}

#[tokio::test]
async fn a_blob_is_sent_while_it_is_written() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    // Larger than what goes through the page cache.
    for (seed, size) in [(20, SIZE), (21, (140 << 20) + 777)] {
        let before = proxy.seen("PATCH", "").len();
        let (blob, sent) = push_while_written(&setup, &name, noise(seed, size), has_arrived(&server, 4 << 20)).await;
        assert_eq!(sent.unwrap(), blob);
        assert_there(&server, &blob).await;
        assert_eq!(proxy.seen("PATCH", "").len(), before + 1);
    }
}

#[tokio::test]
async fn a_small_blob_waits_for_its_end() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    for expected in [1, 1] {
        let (blob, sent) = push_while_written(&setup, &name, noise(22, 3_000_000), || true).await;
        assert_eq!(sent.unwrap(), blob);
        // The second time it is there.
        assert_eq!(proxy.seen("PATCH", "").len(), expected);
    }
}

#[tokio::test]
async fn a_growing_blob_whose_upload_broke_is_sent_when_it_has_ended() {
    let server = Server::registry();
    for way in ["PATCH", "PUT", "POST"] {
        let broken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&broken);
        let proxy = Proxy::start(server.port, move |head| {
            match head.method == way && count.fetch_add(1, Ordering::Relaxed) == 0 {
                true => Action::Close,
                false => Action::Forward,
            }
        });
        let setup = Setup::new();
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let ready = move || broken.load(Ordering::Relaxed) > 0 || way == "PUT";
        let (blob, sent) = push_while_written(&setup, &name, noise(way.len() as u64, SIZE), ready).await;
        assert_eq!(sent.unwrap(), blob, "{way}");
        assert_there(&server, &blob).await;
        assert_eq!(setup.unfinished_files(), 0);
    }
}

#[tokio::test]
async fn a_growing_blob_that_is_there_already_is_given_up() {
    let server = Server::registry();
    let bytes = noise(24, 8 * SIZE);
    let first = Setup::new();
    let straight: Reference = format!("{}/app", server.host()).parse().unwrap();
    let blob = put(&first, &bytes);
    first
        .client
        .push_blob(&straight, &blob, &first.store, &NoProgress)
        .await
        .unwrap();
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let (blob, sent) = push_while_written(&setup, &name, bytes, || true).await;
    assert_eq!(sent.unwrap(), blob);
    assert_eq!(proxy.seen("PUT", "").len(), 0, "it was sent to its end");
}

#[tokio::test]
async fn a_blob_that_is_given_up_arrives_nowhere() {
    let server = Server::registry();
    let setup = Setup::new();
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let mut writer = setup.store.writer().unwrap();
    let growing = writer.follow().unwrap();
    let arrived = has_arrived(&server, 4 << 20);
    let writing = tokio::task::spawn_blocking(move || {
        writer.write_all(&noise(25, SIZE)).unwrap();
        while !arrived() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let pushing = setup
        .client
        .push_growing(&name, media_type::OCI_LAYER_TAR, growing, &setup.store, &NoProgress);
    let error = pushing.await.unwrap_err();
    assert_eq!(error.to_string(), "writing a blob was stopped");
    writing.await.unwrap();
    assert!(!server.repository("app/_layers").exists());
}

#[tokio::test]
async fn the_budget_for_trying_again_ends() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, |head| match head.method.as_str() {
        "PATCH" => Action::answer("503 Service Unavailable", "", ""),
        _ => Action::Forward,
    });
    let setup = Setup::with_options(|options| {
        options.retry_budget = RetryBudget {
            retries: 2,
            ..RetryBudget::default()
        };
    });
    let image = setup.image(
        "linux/amd64",
        &[noise(30, 10), noise(31, 10), noise(32, 10), noise(33, 10)],
    );
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap_err();
    // Four uploads began at once, and all of them together were tried twice more.
    assert!(proxy.seen("PATCH", "").len() <= 6, "{}", proxy.seen("PATCH", "").len());
}
