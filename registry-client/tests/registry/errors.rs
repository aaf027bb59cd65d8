//! What the user reads when something is wrong with a registry.

use roadstead_registry_client::{ConnectProblem, NoProgress, Platform, Reference, RegistryError};

use crate::images::{Setup, noise};
use crate::proxy::{Action, Proxy};
use crate::servers::{Server, free_port};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Resolves a name behind a proxy that answers all reads of manifests in one way.
async fn resolve_answered(answer: fn() -> Action) -> RegistryError {
    let server = Server::registry();
    let proxy = Proxy::start(server.port, move |_| answer());
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    Setup::new().client.resolve(&name, &amd64()).await.unwrap_err()
}

#[tokio::test]
async fn a_registry_that_is_down_is_named() {
    let host = format!("127.0.0.1:{}", free_port());
    let error = Setup::new()
        .client
        .resolve(&format!("{host}/app").parse().unwrap(), &amd64())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Connect {
                problem: ConnectProblem::Refused,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        format!("cannot reach registry {host}: the connection was refused")
    );
    assert_eq!(
        error.hint().unwrap(),
        format!("check that the registry runs and listens at {host}")
    );
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_named() {
    let error = Setup::new()
        .client
        .resolve(&"nowhere.invalid/app".parse().unwrap(), &amd64())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Connect {
                problem: ConnectProblem::UnknownHost,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_unknown_authority_is_trusted_when_its_certificate_is_given() {
    let (server, certificate) = Server::with_tls();
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let entry = |more: &str| format!("[[registry]]\nprefix = \"{}\"\n{more}\n", server.host());

    let stranger = Setup::with_registries(&entry("insecure = false"));
    let error = stranger.client.resolve(&name, &amd64()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Connect {
                problem: ConnectProblem::UnknownIssuer,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("`--ca-bundle FILE`"), "{error:?}");

    let friend = Setup::with_registries(&entry("ca = \"ca.pem\""));
    std::fs::write(friend.path().join("ca.pem"), certificate).unwrap();
    let image = friend.image("linux/amd64", &[noise(70, 500_000)]);
    friend
        .client
        .push(&friend.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    assert_eq!(
        friend.client.resolve(&name, &amd64()).await.unwrap().descriptor.digest,
        image.digest
    );

    // The other way round: plain http spoken to a registry that wants https.
    let plain = Setup::with_registries(&entry("insecure = true"));
    let error = plain.client.resolve(&name, &amd64()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error:?}");
}

#[tokio::test]
async fn https_spoken_to_a_plain_registry_has_a_hint() {
    let server = Server::registry();
    let setup = Setup::with_registries(&format!(
        "[[registry]]\nprefix = \"{}\"\ninsecure = false\n",
        server.host()
    ));
    let error = setup
        .client
        .resolve(&format!("{}/app", server.host()).parse().unwrap(), &amd64())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Connect {
                problem: ConnectProblem::Tls,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("insecure = true"), "{error:?}");
}

#[tokio::test]
async fn a_name_that_is_not_there_is_not_found() {
    let server = Server::registry();
    let name: Reference = format!("{}/no/such:tag", server.host()).parse().unwrap();
    let error = Setup::new().client.resolve(&name, &amd64()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::NotFound { .. } | RegistryError::RepositoryUnknown { .. }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("no/such"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_repository_that_is_missing_at_ecr_is_named_with_what_to_do() {
    // ECR closes the connection; a clean answer is treated alike.
    let clean = || {
        let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}"#;
        Action::answer("404 Not Found", "Content-Type: application/json\r\n", body)
    };
    for close in [true, false] {
        let server = Server::registry();
        let proxy = Proxy::start(server.port, move |head| match head.is("POST", "/uploads/") {
            true if close => Action::Close,
            true => clean(),
            false => Action::Forward,
        });
        let host = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        let toml = format!(
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{}\"\ninsecure = true\n",
            proxy.host()
        );
        let setup = Setup::with_registries(&toml);
        let image = setup.image("linux/amd64", &[noise(71, 10)]);
        let name: Reference = format!("{host}/my-node-app:abc").parse().unwrap();
        let error = setup
            .client
            .push(&setup.store, &image, &name, &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(error, RegistryError::RepositoryUnknown { ecr: true, .. }),
            "{error:?}"
        );
        assert!(
            error
                .to_string()
                .starts_with(&format!("{host} has no repository `my-node-app`")),
            "{error}"
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("--repository-name my-node-app") && hint.contains("ecr:CreateRepository"),
            "{hint}"
        );
        assert_eq!(
            proxy.seen("PUT", "/manifests/").len(),
            0,
            "nothing is named when a blob is missing"
        );
    }
}

#[tokio::test]
async fn a_denial_shows_what_the_registry_says() {
    let error = resolve_answered(|| {
        let body = r#"{"errors":[{"code":"DENIED","message":"not for you\u001b[31m"}]}"#;
        Action::answer("403 Forbidden", "Content-Type: application/json\r\n", body)
    })
    .await;
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(error.to_string().ends_with("DENIED: not for you?[31m"), "{error}");
}

#[tokio::test]
async fn a_web_page_is_not_a_registry() {
    for status in ["200 OK", "404 Not Found"] {
        let error = match status {
            "200 OK" => resolve_answered(|| Action::answer("200 OK", "Content-Type: text/html\r\n", "<html>")).await,
            _ => resolve_answered(|| Action::answer("404 Not Found", "Content-Type: text/html\r\n", "<html>")).await,
        };
        assert!(matches!(error, RegistryError::NotRegistry { .. }), "{error:?}");
        assert!(
            error.to_string().contains("with `text/html`") && error.hint().is_some(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_manifest_is_bounded() {
    let error = resolve_answered(|| {
        Action::answer(
            "200 OK",
            "Content-Type: application/json\r\n",
            vec![b' '; 4 * 1024 * 1024 + 1],
        )
    })
    .await;
    assert!(
        matches!(error, RegistryError::TooLarge { limit: 4_194_304, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_manifest_that_is_another_one_is_refused() {
    let server = Server::registry();
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[]);
    let straight: Reference = format!("{}/app", server.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &straight, &NoProgress)
        .await
        .unwrap();
    let other = setup.image("linux/arm64", &[]);
    let bytes = setup.store.read_blob(&other.digest, 100_000).unwrap();
    let proxy = Proxy::start(server.port, move |head| match head.is("GET", "/manifests/") {
        true => Action::answer(
            "200 OK",
            "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
            bytes.clone(),
        ),
        false => Action::Forward,
    });
    let name: Reference = format!("{}/app@{}", proxy.host(), image.digest).parse().unwrap();
    let error = setup.client.resolve(&name, &amd64()).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn an_upload_is_not_sent_to_a_place_that_holds_a_login_or_no_address() {
    let server = Server::registry();
    for place in [
        "http://user:pw@127.0.0.1:1/upload",
        "ftp://127.0.0.1/upload",
        "http://169.254.169.254/latest/",
    ] {
        let proxy = Proxy::start(server.port, move |head| match head.is("POST", "/uploads/") {
            true => Action::answer("202 Accepted", &format!("Location: {place}\r\n"), ""),
            false => Action::Forward,
        });
        let setup = Setup::new();
        let image = setup.image("linux/amd64", &[]);
        let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
        let error = setup
            .client
            .push(&setup.store, &image, &name, &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(error, RegistryError::UnsafeLocation { .. }),
            "{place}: {error:?}"
        );
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}

#[tokio::test]
async fn a_blob_that_is_nowhere_stops_the_push() {
    let server = Server::registry();
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[noise(72, 1000)]);
    let layer = roadstead_registry_client::Digest::of(&noise(72, 1000));
    std::fs::remove_file(setup.store.blob_path(&layer)).unwrap();
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let error = setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::BlobMissing { digest, .. } if *digest == layer),
        "{error:?}"
    );
    assert_eq!(setup.client.head_manifest(&name).await.unwrap(), None);
}
