//! `registries.toml` at work: mirrors, client certificates, logins named there, blocked names, and offline.

use roadstead_registry_client::{NoProgress, Platform, Reference, RegistryError};

use crate::images::{Setup, noise};
use crate::proxy::{Action, Proxy};
use crate::servers::{LOGIN, Server};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

async fn seed(host: &str, repository: &str, seed: u64) -> roadstead_registry_client::Descriptor {
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[noise(seed, 200_000)]);
    let name: Reference = format!("{host}/{repository}").parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    image
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_pushes_go_past_them() {
    let (origin, second) = (Server::registry(), Server::registry());
    let image = seed(&origin.host(), "team/app", 1).await;
    seed(&second.host(), "cache/app", 1).await;
    let (first, before_second) = (
        Proxy::start(1, |_| Action::answer("404 Not Found", "", "")),
        Proxy::start(second.port, |_| Action::Forward),
    );
    let before_origin = Proxy::start(origin.port, |_| Action::Forward);
    let setup = Setup::with_registries(&format!(
        "[[registry]]\nprefix = 'r.example/team'\nlocation = '{}/team'\ninsecure = true\nmirrors = ['{}', '{}/cache']\n",
        before_origin.host(),
        first.host(),
        before_second.host()
    ));
    let name: Reference = "r.example/team/app".parse().unwrap();
    let pulled = setup
        .client
        .pull(&name, &amd64(), &setup.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(pulled.descriptor.digest, image.digest);
    assert_eq!(first.seen("GET", "/v2/app/manifests/latest").len(), 1);
    assert_eq!(before_second.seen("GET", "/v2/cache/app/blobs/").len(), 2);
    assert!(before_origin.seen("GET", "").is_empty());
    // The image is known by the name it was asked by.
    let layer = &pulled.manifest.layers[0].digest;
    assert_eq!(setup.store.sources(layer), [name.without_tag()]);

    let other: Reference = "r.example/team/other".parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &other, &NoProgress)
        .await
        .unwrap();
    assert_eq!(before_origin.seen("PUT", "/v2/team/other/manifests/").len(), 1);
    assert!(before_second.seen("PUT", "").is_empty() && before_second.seen("POST", "").is_empty());
}

#[tokio::test]
async fn a_download_that_breaks_at_a_mirror_goes_on_at_the_next_place() {
    let server = Server::registry();
    let image = seed(&server.host(), "app", 2).await;
    let mirror = Proxy::start(server.port, |head| match head.target.contains("/blobs/") {
        true => Action::Cut(50_000),
        false => Action::Forward,
    });
    let origin = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::with_registries(&format!(
        "[[registry]]\nprefix = '{}'\nmirrors = ['{}']\n",
        origin.host(),
        mirror.host()
    ));
    let name: Reference = format!("{}/app", origin.host()).parse().unwrap();
    let pulled = setup
        .client
        .pull(&name, &amd64(), &setup.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(pulled.descriptor.digest, image.digest);
    let ranges: Vec<_> = origin
        .seen("GET", "/blobs/")
        .iter()
        .filter_map(|head| head.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, ["bytes=50000-"]);
}

#[tokio::test]
async fn a_mirror_that_sends_something_else_does_no_harm() {
    let server = Server::registry();
    let image = seed(&server.host(), "app", 3).await;
    let mirror = Proxy::start(server.port, |head| match head.target.contains("/manifests/sha256:") {
        true => Action::answer("200 OK", "Content-Type: application/json\r\n", "{}"),
        false => Action::Forward,
    });
    let setup = Setup::with_registries(&format!(
        "[[registry]]\nprefix = '{}'\nmirrors = ['{}']\n",
        server.host(),
        mirror.host()
    ));
    let name: Reference = format!("{}/app@{}", server.host(), image.digest).parse().unwrap();
    let pulled = setup
        .client
        .pull(&name, &amd64(), &setup.store, &NoProgress)
        .await
        .unwrap();
    assert_eq!(pulled.descriptor.digest, image.digest);
}

#[tokio::test]
async fn a_mirror_that_sends_other_blobs_does_no_harm_either() {
    let server = Server::registry();
    let image = seed(&server.host(), "app", 10).await;
    for action in [Action::Flip(100), Action::Cut(150_000)] {
        // The cut comes behind bytes that are turned over already.
        let fault = action.clone();
        let mirror = Proxy::start(server.port, move |head| match head.target.contains("/blobs/") {
            true if matches!(fault, Action::Cut(_)) => Action::answer(
                "200 OK",
                "Content-Type: application/octet-stream\r\n",
                vec![b'x'; 150_000],
            ),
            true => fault.clone(),
            false => Action::Forward,
        });
        let setup = Setup::with_registries(&format!(
            "[[registry]]\nprefix = '{}'\nmirrors = ['{}']\n",
            server.host(),
            mirror.host()
        ));
        let name: Reference = format!("{}/app", server.host()).parse().unwrap();
        let blob = {
            let straight = Setup::new();
            straight.client.resolve(&name, &amd64()).await.unwrap().manifest.layers[0].clone()
        };
        setup
            .client
            .fetch_blob(&name, &blob, &setup.store, &NoProgress)
            .await
            .unwrap();
        assert_eq!(setup.store.check(false).unwrap().findings, []);
        assert_eq!(setup.unfinished_files(), 0, "{action:?}");
    }
    assert_eq!(image.media_type, roadstead_registry_client::media_type::OCI_MANIFEST);
}

#[tokio::test]
async fn the_login_of_the_original_does_not_go_to_a_mirror() {
    let server = Server::with_login();
    let mirror = Proxy::start(1, |_| {
        Action::answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "")
    });
    let setup = Setup::with_registries(&format!(
        "[[registry]]\nprefix = '{}'\nmirrors = ['{}']\n",
        server.host(),
        mirror.host()
    ));
    setup.log_in(&server.host(), LOGIN.0, LOGIN.1);
    let image = setup.image("linux/amd64", &[noise(4, 100)]);
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    setup.client.resolve(&name, &amd64()).await.unwrap();
    let asked = mirror.seen("GET", "");
    assert!(!asked.is_empty() && asked.iter().all(|head| head.header("authorization").is_none()));
}

#[tokio::test]
async fn a_login_named_in_registries_toml_comes_before_docker_s() {
    let server = Server::with_login();
    let toml = format!(
        "[[registry]]\nprefix = '{0}'\ncredential = {{ user = '{1}', password-file = 'password' }}\n\
         [[registry]]\nprefix = '{0}/open'\ncredential = 'anonymous'\n",
        server.host(),
        LOGIN.0
    );
    let setup = Setup::with_registries(&toml);
    std::fs::write(setup.path().join("password"), format!("{}\n", LOGIN.1)).unwrap();
    setup.log_in(&server.host(), "somebody", "else");
    let image = setup.image("linux/amd64", &[noise(5, 100)]);
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    let open: Reference = format!("{}/open/app", server.host()).parse().unwrap();
    let error = setup.client.resolve(&open, &amd64()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Unauthorized {
                with_credentials: false,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (server, files) = Server::with_client_certificates();
    let toml = |client: &str| {
        format!(
            "[[registry]]\nprefix = '{}'\nca = '{}'\n{client}",
            server.host(),
            files.ca.display()
        )
    };
    let client = format!(
        "client-cert = '{}'\nclient-key = '{}'\n",
        files.certificate.display(),
        files.key.display()
    );
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let setup = Setup::with_registries(&toml(&client));
    let image = setup.image("linux/amd64", &[noise(6, 100)]);
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();

    let without = Setup::with_registries(&toml(""));
    without.client.resolve(&name, &amd64()).await.unwrap_err();
    let swapped = format!(
        "client-cert = '{}'\nclient-key = '{}'\n",
        files.key.display(),
        files.key.display()
    );
    let error = Setup::with_registries(&toml(&swapped))
        .client
        .resolve(&name, &amd64())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::ClientCertificate { .. }), "{error}");
}

#[tokio::test]
async fn a_blocked_name_is_not_asked_for() {
    let proxy = Proxy::start(1, |_| Action::Close);
    let setup = Setup::with_registries(&format!(
        "[[registry]]\nprefix = '{0}/secret'\nblocked = true\n[[registry]]\nprefix = '{0}'\n",
        proxy.host()
    ));
    let name: Reference = format!("{}/secret/app", proxy.host()).parse().unwrap();
    let error = setup.client.resolve(&name, &amd64()).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "`{0}/secret/app` is blocked by `{0}/secret` in registries.toml",
            proxy.host()
        )
    );
    assert!(proxy.seen("GET", "").is_empty());
}

#[tokio::test]
async fn offline_names_what_is_missing_and_asks_nobody() {
    let server = Server::registry();
    let image = seed(&server.host(), "app", 7).await;
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::with_options(|options| options.offline = true);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let errors = [
        setup.client.resolve(&name, &amd64()).await.unwrap_err(),
        setup.client.head_manifest(&name).await.unwrap_err(),
        setup
            .client
            .fetch_blob(&name, &image, &setup.store, &NoProgress)
            .await
            .unwrap_err(),
        setup.client.tags(&name).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, RegistryError::Offline { .. }), "{error}");
        assert!(error.to_string().contains(&proxy.host()), "{error}");
    }
    let error = setup.client.resolve(&name, &amd64()).await.unwrap_err().to_string();
    assert_eq!(error, format!("offline: the pull of `{name}` needs {}", proxy.host()));
    assert!(proxy.seen("GET", "").is_empty() && proxy.seen("HEAD", "").is_empty());
}

#[tokio::test]
async fn a_layer_over_the_limit_is_refused_before_it_is_fetched() {
    let server = Server::registry();
    seed(&server.host(), "app", 8).await;
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::with_options(|options| options.max_layer_size = 199_999);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let error = setup
        .client
        .pull(&name, &amd64(), &setup.store, &NoProgress)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::BlobTooLarge {
                size: 200_000,
                limit: 199_999,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn several_builds_fetch_a_blob_once() {
    let server = Server::registry();
    seed(&server.host(), "app", 9).await;
    let proxy = Proxy::start(server.port, |_| Action::Forward);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let blob = {
        let resolved = setup.client.resolve(&name, &amd64()).await.unwrap();
        resolved.manifest.layers[0].clone()
    };
    // Clients of their own, as other processes have.
    let others: Vec<Setup> = (0..4).map(|_| Setup::new()).collect();
    let fetching = others
        .iter()
        .map(|other| other.client.fetch_blob(&name, &blob, &setup.store, &NoProgress));
    for fetched in futures_util::future::join_all(fetching).await {
        fetched.unwrap();
    }
    let path = format!("/blobs/{}", blob.digest);
    assert_eq!(proxy.seen("GET", &path).len(), 1);
}
