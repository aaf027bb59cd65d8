//! What is sent is what comes back; nothing is sent twice.

use roadstead_registry_client::{BlobEvent, NoProgress, Platform, PushedHow, Reference, media_type};

use crate::images::{Events, Setup, noise};
use crate::proxy::{Action, Proxy};
use crate::servers::Server;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_sent() {
    let server = Server::registry();
    let (here, there) = (Setup::new(), Setup::new());
    let layers = [noise(1, 5_000_000), noise(2, 300), Vec::new()];
    let image = here.image("linux/amd64", &layers);
    let name: Reference = format!("{}/team/app:v1", server.host()).parse().unwrap();
    assert_eq!(here.client.head_manifest(&name).await.unwrap(), None);

    let events = Events::default();
    assert_eq!(
        here.client.push(&here.store, &image, &name, &events).await.unwrap(),
        image.digest
    );
    let large = roadstead_registry_client::Digest::of(&layers[0]);
    assert_eq!(
        events.of(&large).first(),
        Some(&BlobEvent::Started { total: 5_000_000 })
    );
    assert_eq!(
        (events.advanced(&large), events.of(&large).last()),
        (5_000_000, Some(&BlobEvent::Done))
    );

    let again = Events::default();
    here.client.push(&here.store, &image, &name, &again).await.unwrap();
    assert_eq!(
        (again.count(|event| *event == BlobEvent::Exists), again.count(|_| true)),
        (4, 4)
    );
    let found = here.client.head_manifest(&name).await.unwrap().unwrap();
    assert_eq!(
        (found.digest, found.size, found.media_type.as_str()),
        (image.digest.clone(), image.size, media_type::OCI_MANIFEST)
    );

    let pulled = there
        .client
        .pull(&name, &amd64(), &there.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(pulled.descriptor.digest, image.digest);
    for (layer, descriptor) in layers.iter().zip(&pulled.manifest.layers) {
        assert_eq!(there.store.read_blob(&descriptor.digest, 10_000_000).unwrap(), *layer);
        assert_eq!(there.store.sources(&descriptor.digest), [name.without_tag()]);
    }
    assert_eq!(there.store.resolve(&name).unwrap().unwrap().digest, image.digest);
    assert_eq!(there.unfinished_files(), 0);
    let by_digest = name.without_tag().with_digest(image.digest.clone());
    assert_eq!(
        there.client.resolve(&by_digest, &amd64()).await.unwrap().manifest_bytes,
        pulled.manifest_bytes
    );
}

#[tokio::test]
async fn an_index_is_sent_whole_and_the_platform_is_chosen_on_the_way_back() {
    let server = Server::registry();
    let (here, there) = (Setup::new(), Setup::new());
    let shared = noise(3, 1000);
    let amd = here.image("linux/amd64", &[shared.clone(), noise(4, 10)]);
    let arm = here.image("linux/arm64", &[shared, noise(5, 10)]);
    let index = here.index(vec![amd, arm.clone()]);
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    assert_eq!(
        here.client.push(&here.store, &index, &name, &NoProgress).await.unwrap(),
        index.digest
    );

    let resolved = there
        .client
        .pull(&name, &"linux/arm64/v8".parse().unwrap(), &there.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(
        (resolved.descriptor.digest, resolved.index.unwrap().0.digest),
        (arm.digest, index.digest)
    );
    let error = there
        .client
        .resolve(&name, &"linux/s390x".parse().unwrap())
        .await
        .unwrap_err();
    let text = format!("image `{name}` is not made for linux/s390x, only for linux/amd64, linux/arm64");
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_single_image_for_another_platform_is_refused() {
    let server = Server::registry();
    let here = Setup::new();
    let image = here.image("linux/arm64", &[noise(6, 10)]);
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    here.client.push(&here.store, &image, &name, &NoProgress).await.unwrap();
    let error = here.client.resolve(&name, &amd64()).await.unwrap_err().to_string();
    assert!(
        error.ends_with("is not made for linux/amd64, only for linux/arm64"),
        "{error}"
    );
}

#[tokio::test]
async fn a_layer_of_the_same_registry_is_mounted_without_being_here() {
    let server = Server::registry();
    let (here, there) = (Setup::new(), Setup::new());
    let layer = noise(7, 100_000);
    let image = here.image("linux/amd64", &[layer]);
    let base: Reference = format!("{}/base:1", server.host()).parse().unwrap();
    let app: Reference = format!("{}/app", server.host()).parse().unwrap();
    here.client.push(&here.store, &image, &base, &NoProgress).await.unwrap();

    // Only manifest and configuration are fetched: the layer is known by its source alone.
    let resolved = there.client.resolve(&base, &amd64()).await.unwrap();
    let layer = &resolved.manifest.layers[0];
    there.store.add_source(&layer.digest, &base).unwrap();
    let how = there
        .client
        .push_blob(&app, layer, &there.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(
        how,
        PushedHow::Mounted {
            from: base.without_tag()
        }
    );
    assert!(!there.store.has(&layer.digest));
    let how = there
        .client
        .push_blob(&app, layer, &there.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(how, PushedHow::Existed);
}

#[tokio::test]
async fn a_layer_of_another_registry_is_fetched_and_sent_on() {
    let (first, second) = (Server::registry(), Server::registry());
    let (here, there) = (Setup::new(), Setup::new());
    let image = here.image("linux/amd64", &[noise(8, 100_000)]);
    let base: Reference = format!("{}/base", first.host()).parse().unwrap();
    here.client.push(&here.store, &image, &base, &NoProgress).await.unwrap();
    let layer = there
        .client
        .resolve(&base, &amd64())
        .await
        .unwrap()
        .manifest
        .layers
        .remove(0);
    there.store.add_source(&layer.digest, &base).unwrap();

    // The proxy shows that no mount was asked of a registry that cannot have the blob.
    let proxy = Proxy::start(second.port, |_| Action::Forward);
    let app: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let how = there
        .client
        .push_blob(&app, &layer, &there.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(how, PushedHow::Uploaded);
    assert!(there.store.has(&layer.digest));
    let posts = proxy.seen("POST", "uploads");
    assert_eq!(posts.len(), 1);
    assert!(!posts[0].target.contains("mount"), "{}", posts[0].target);
}

#[tokio::test]
async fn a_mount_that_is_declined_goes_on_as_an_upload() {
    let server = Server::registry();
    let here = Setup::new();
    let image = here.image("linux/amd64", &[noise(9, 1000)]);
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let app: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let layer = {
        let manifest = here.store.read_blob(&image.digest, 100_000).unwrap();
        roadstead_registry_client::Manifest::parse(&manifest)
            .unwrap()
            .layers
            .remove(0)
    };
    // The source is said to have the blob, and does not.
    here.store
        .add_source(&layer.digest, &format!("{}/gone", proxy.host()).parse().unwrap())
        .unwrap();
    let how = here
        .client
        .push_blob(&app, &layer, &here.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(how, PushedHow::Uploaded);
    let posts = proxy.seen("POST", "uploads");
    assert_eq!(posts.len(), 1, "the upload the registry opened is used");
    assert!(
        posts[0].target.contains("mount=sha256") && posts[0].target.contains("from=gone"),
        "{}",
        posts[0].target
    );
}

#[tokio::test]
async fn one_patch_without_a_range_is_sent_and_201_is_taken() {
    let server = Server::registry();
    let here = Setup::new();
    let image = here.image("linux/amd64", &[noise(10, 700_000)]);
    // ECR answers a PATCH so.
    let proxy = Proxy::start(server.port, |head| match head.method.as_str() {
        "PATCH" => Action::Status("201 Created"),
        _ => Action::Forward,
    });
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    here.client.push(&here.store, &image, &name, &NoProgress).await.unwrap();
    let patches = proxy.seen("PATCH", "uploads");
    assert_eq!(patches.len(), 2, "one for the layer and one for the configuration");
    assert!(patches.iter().all(|head| head.header("content-range").is_none()));
    assert!(
        patches
            .iter()
            .any(|head| head.header("content-length") == Some("700000"))
    );
}

#[tokio::test]
async fn a_mount_that_is_forbidden_is_asked_for_again_as_an_upload() {
    let server = Server::registry();
    let here = Setup::new();
    let image = here.image("linux/amd64", &[noise(11, 1000)]);
    let proxy = Proxy::start(server.port, |head| match head.is("POST", "mount=") {
        true => Action::answer("403 Forbidden", "", ""),
        false => Action::Forward,
    });
    let manifest = roadstead_registry_client::Manifest::parse(&here.store.read_blob(&image.digest, 100_000).unwrap());
    let layer = manifest.unwrap().layers.remove(0);
    let source = format!("{}/private", proxy.host()).parse().unwrap();
    here.store.add_source(&layer.digest, &source).unwrap();
    let app: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let how = here
        .client
        .push_blob(&app, &layer, &here.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(how, PushedHow::Uploaded);
    let posts = proxy.seen("POST", "uploads");
    assert_eq!((posts.len(), posts[1].target.as_str()), (2, "/v2/app/blobs/uploads/"));
}
