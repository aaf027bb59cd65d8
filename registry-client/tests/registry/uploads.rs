//! The ways to send a blob, all held to the same: one PATCH, chunks, ECR's layer parts, and content of unknown digest.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use roadstead_registry_client::{
    BlobEvent, BlobStream, Descriptor, NoProgress, PushedHow, Reference, RegistryError, RetryBudget, Spool, media_type,
};

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

/// Content that is made piece by piece.
fn pieces(bytes: &[u8]) -> BlobStream<'static> {
    let pieces: Vec<_> = bytes
        .chunks(100_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Box::pin(stream::iter(pieces))
}

#[tokio::test]
async fn content_of_unknown_digest_streams() {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let bytes = noise(20, 3_000_000);
    let sent = setup
        .client
        .push_stream(
            &name,
            media_type::OCI_LAYER_TAR,
            pieces(&bytes),
            Spool::in_memory(0),
            &NoProgress,
        )
        .await
        .unwrap();
    assert_eq!(sent, Descriptor::of(media_type::OCI_LAYER_TAR, &bytes));
    let there = Setup::new();
    there
        .client
        .fetch_blob(&name, &sent, &there.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(there.store.read_blob(&sent.digest, 3_000_000).unwrap(), bytes);
    assert_eq!(proxy.seen("PATCH", "").len(), 1);
}

#[tokio::test]
async fn a_stream_that_broke_is_replayed_from_what_was_kept() {
    let server = Server::registry();
    let bytes = noise(21, 2_000_000);
    for (kept, replayed) in [
        (Kept::Store, true),
        (Kept::Memory(4_000_000), true),
        (Kept::Memory(1_000_000), false),
    ] {
        let count = AtomicUsize::new(0);
        let proxy = Proxy::start(server.port, move |head| {
            if head.method == "PATCH" && count.fetch_add(1, Ordering::Relaxed) == 0 {
                Action::Close
            } else {
                Action::Forward
            }
        });
        let setup = Setup::new();
        let name: Reference = format!("{}/app{}", proxy.host(), u8::from(replayed)).parse().unwrap();
        let spool = match kept {
            Kept::Store => Spool::in_store(&setup.store).unwrap(),
            Kept::Memory(limit) => Spool::in_memory(limit),
        };
        let sent = setup
            .client
            .push_stream(&name, media_type::OCI_LAYER_TAR, pieces(&bytes), spool, &NoProgress)
            .await;
        match sent {
            Ok(sent) => {
                assert!(replayed);
                assert_eq!(sent, Descriptor::of(media_type::OCI_LAYER_TAR, &bytes));
                let there = Setup::new();
                there
                    .client
                    .fetch_blob(&name, &sent, &there.store, &NoProgress)
                    .await
                    .unwrap();
            }
            Err(error) => {
                assert!(!replayed, "{error}");
                assert!(
                    matches!(error, RegistryError::SpoolExceeded { limit: 1_000_000, .. }),
                    "{error}"
                );
            }
        }
        assert_eq!(setup.unfinished_files(), 0);
    }
}

enum Kept {
    Store,
    Memory(u64),
}

#[tokio::test]
async fn content_that_fails_is_the_error_and_nothing_arrives() {
    let server = Server::registry();
    let setup = Setup::new();
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let broken = || RegistryError::Stopped {
        operation: "making a layer",
    };
    let content: BlobStream<'static> = Box::pin(stream::iter([Ok(Bytes::from_static(b"begin")), Err(broken())]));
    let error = setup
        .client
        .push_stream(
            &name,
            media_type::OCI_LAYER_TAR,
            content,
            Spool::in_memory(100),
            &NoProgress,
        )
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "making a layer was stopped");
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
