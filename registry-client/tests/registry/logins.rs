//! Basic, Bearer and Amazon ECR; what is sent where, and what a refusal says.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roadstead_registry_client::{NoProgress, Platform, Reference, RegistryError, Secret, ecr};

use crate::images::{Setup, noise};
use crate::proxy::{Action, Head, Proxy};
use crate::servers::{LOGIN, Server};

const ECR_HOST: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn mapped(host: &str) -> String {
    format!("[[registry]]\nprefix = \"{ECR_HOST}\"\nlocation = \"{host}\"\ninsecure = true\n")
}

#[tokio::test]
async fn a_password_is_checked_as_docker_login_does() {
    let server = Server::with_login();
    let setup = Setup::new();
    setup
        .client
        .ping_login(&server.host(), LOGIN.0, &Secret::new(LOGIN.1))
        .await
        .unwrap();
    let wrong = Secret::new("hunter2");
    let error = setup
        .client
        .ping_login(&server.host(), LOGIN.0, &wrong)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Unauthorized {
                with_credentials: true,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("wrong or have expired"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let open = Server::registry();
    setup.client.ping_login(&open.host(), "anybody", &wrong).await.unwrap();
}

#[tokio::test]
async fn a_stored_login_is_used_and_a_missing_one_is_named() {
    let server = Server::with_login();
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[noise(40, 100_000)]);
    let name: Reference = format!("{}/app", server.host()).parse().unwrap();
    let error = setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap_err();
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
    assert_eq!(
        error.hint().unwrap(),
        format!("log in first: `docker login {}`", server.host())
    );

    let right = Setup::new();
    right.log_in(&server.host(), LOGIN.0, LOGIN.1);
    let image = right.image("linux/amd64", &[noise(40, 100_000)]);
    right
        .client
        .push(&right.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    right
        .client
        .pull(&name, &amd64(), &right.store, &NoProgress)
        .await
        .unwrap();

    let wrong = Setup::new();
    wrong.log_in(&server.host(), LOGIN.0, "hunter2");
    let error = wrong.client.resolve(&name, &amd64()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Unauthorized {
                with_credentials: true,
                ..
            }
        ),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn the_login_belongs_to_the_name_and_goes_to_its_location() {
    let server = Server::with_login();
    let setup = Setup::with_registries(&mapped(&server.host()));
    setup.log_in(ECR_HOST, LOGIN.0, LOGIN.1);
    let image = setup.image("linux/amd64", &[noise(41, 1000)]);
    let name: Reference = format!("{ECR_HOST}/my-node-app:abc").parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    assert_eq!(
        setup.client.head_manifest(&name).await.unwrap().unwrap().digest,
        image.digest
    );
    setup
        .client
        .ping_login(ECR_HOST, LOGIN.0, &Secret::new(LOGIN.1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_mirror_may_have_a_login_of_its_own() {
    let server = Server::with_login();
    let toml = format!(
        "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"{}/hub\"\n",
        server.host()
    );
    let setup = Setup::with_registries(&toml);
    setup.log_in(&server.host(), LOGIN.0, LOGIN.1);
    let image = setup.image("linux/amd64", &[noise(42, 1000)]);
    let there: Reference = format!("{}/hub/node:20", server.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &there, &NoProgress)
        .await
        .unwrap();
    let pulled = setup
        .client
        .resolve(&"node:20".parse().unwrap(), &amd64())
        .await
        .unwrap();
    assert_eq!(pulled.descriptor.digest, image.digest);
}

/// Plays a registry with a token service before one without: `token-N` is granted in turn.
fn token_proxy(upstream: u16, accept: impl Fn(&str) -> bool + Send + Sync + 'static) -> Proxy {
    let port = Arc::new(AtomicUsize::new(0));
    let (own, granted) = (Arc::clone(&port), AtomicUsize::new(0));
    let proxy = Proxy::start(upstream, move |head: &Head| {
        if head.target.starts_with("/token") {
            let number = granted.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"token":"token-{number}","expires_in":300}}"#);
            return Action::answer("200 OK", "Content-Type: application/json\r\n", body);
        }
        match head
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
        {
            Some(token) if accept(token) => Action::Forward,
            _ => {
                let port = own.load(Ordering::Relaxed);
                let headers = format!(
                    "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"test, service\",scope=\"repository:app:pull\"\r\n"
                );
                Action::answer(
                    "401 Unauthorized",
                    &headers,
                    r#"{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}"#,
                )
            }
        }
    });
    port.store(usize::from(proxy.port), Ordering::Relaxed);
    proxy
}

#[tokio::test]
async fn a_token_is_got_once_for_each_scope() {
    let server = Server::registry();
    let proxy = token_proxy(server.port, |_| true);
    let (here, there) = (Setup::new(), Setup::new());
    here.log_in(&proxy.host(), "me", "pa:ss");
    let layers: Vec<Vec<u8>> = (0..6).map(|seed| noise(50 + seed, 20_000)).collect();
    let image = here.image("linux/amd64", &layers);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    here.client.push(&here.store, &image, &name, &NoProgress).await.unwrap();
    let asked = proxy.seen("GET", "/token");
    assert_eq!(asked.len(), 1, "one scope, however many blobs");
    assert!(
        asked[0].target.contains("service=test%2C+service"),
        "{}",
        asked[0].target
    );
    assert!(
        asked[0].target.contains("scope=repository%3Aapp%3Apull%2Cpush"),
        "{}",
        asked[0].target
    );
    assert_eq!(asked[0].header("authorization"), Some("Basic bWU6cGE6c3M="));
    let others: Vec<Head> = ["GET", "HEAD", "POST", "PATCH", "PUT"]
        .iter()
        .flat_map(|method| proxy.seen(method, "/v2/"))
        .collect();
    let basic = |head: &Head| {
        head.header("authorization")
            .is_some_and(|value| value.starts_with("Basic"))
    };
    assert!(
        !others.iter().any(basic),
        "the password goes to the token service alone"
    );

    // Without a login a token for anybody is asked for.
    there
        .client
        .pull(&name, &amd64(), &there.store, &NoProgress)
        .await
        .unwrap();
    let asked = proxy.seen("GET", "/token");
    assert_eq!((asked.len(), asked[1].header("authorization")), (2, None));
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_also_in_the_middle_of_an_upload() {
    let server = Server::registry();
    // The first token dies after a few requests, right before the bytes are sent.
    let used = AtomicUsize::new(0);
    let proxy = token_proxy(server.port, move |token| {
        token != "token-0" || used.fetch_add(1, Ordering::Relaxed) < 2
    });
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[]);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    assert_eq!(proxy.seen("GET", "/token").len(), 2);
    assert_eq!(proxy.seen("PATCH", "/uploads/").len(), 2);
}

#[tokio::test]
async fn a_token_that_expires_while_many_blobs_are_sent_is_renewed_once() {
    let server = Server::registry();
    // Uploads that run side by side are refused together.
    let used = AtomicUsize::new(0);
    let proxy = token_proxy(server.port, move |token| {
        token != "token-0" || used.fetch_add(1, Ordering::Relaxed) < 7
    });
    let setup = Setup::new();
    let layers: Vec<Vec<u8>> = (0..5).map(|seed| noise(60 + seed, 300_000)).collect();
    let image = setup.image("linux/amd64", &layers);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let pushed = setup.client.push(&setup.store, &image, &name, &NoProgress).await;
    assert_eq!(pushed.unwrap(), image.digest);
    assert_eq!(proxy.seen("GET", "/token").len(), 2);
    let straight: Reference = format!("{}/app", server.host()).parse().unwrap();
    let there = Setup::new();
    let pulled = there.client.pull(&straight, &amd64(), &there.store, &NoProgress).await;
    assert_eq!(pulled.unwrap().descriptor.digest, image.digest);
}

#[tokio::test]
async fn a_token_that_is_never_taken_ends_in_a_refusal() {
    let server = Server::registry();
    let proxy = token_proxy(server.port, |_| false);
    let setup = Setup::new();
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    let error = setup.client.resolve(&name, &amd64()).await.unwrap_err();
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
    assert!(
        error.to_string().contains("UNAUTHORIZED: log in") && !error.to_string().contains("token-0"),
        "{error}"
    );
}

#[tokio::test]
async fn a_login_of_ecr_is_never_sent_to_a_token_service() {
    let server = Server::registry();
    let proxy = token_proxy(server.port, |_| true);
    let setup = Setup::with_registries(&mapped(&proxy.host()));
    setup.log_in(ECR_HOST, "AWS", "pass-of-ecr");
    let name: Reference = format!("{ECR_HOST}/app").parse().unwrap();
    let error = setup.client.resolve(&name, &amd64()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Challenge { .. }), "{error}");
    assert!(proxy.seen("GET", "/token").is_empty());
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let server = Server::registry();
    let proxy = token_proxy(server.port, |_| true);
    let setup = Setup::new();
    setup.log_in(&proxy.host(), "<token>", "refresh me");
    let image = setup.image("linux/amd64", &[]);
    let name: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    let asked = proxy.seen("POST", "/token");
    assert_eq!((asked.len(), proxy.seen("GET", "/token").len()), (1, 0));
    assert!(
        asked[0].body.contains("grant_type=refresh_token&client_id=roadstead"),
        "{}",
        asked[0].body
    );
    assert!(
        asked[0].body.ends_with("&refresh_token=refresh+me"),
        "{}",
        asked[0].body
    );
}

/// What the child process of [`amazon_ecr_is_logged_in_to_by_the_name_of_its_host`] is to do.
const CHILD_VARIABLE: &str = "ROADSTEAD_TEST_REGISTRY";

/// The AWS SDK reads its settings from the environment, so the part with AWS runs in a process of its own.
#[test]
fn amazon_ecr_is_logged_in_to_by_the_name_of_its_host() {
    if let Ok(host) = std::env::var(CHILD_VARIABLE) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(use_ecr(&host));
        println!("pushed with a token of moto");
        return;
    }
    let (server, moto) = (Server::with_login(), Server::moto());
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "logins::amazon_ecr_is_logged_in_to_by_the_name_of_its_host",
            "--nocapture",
        ])
        .env(CHILD_VARIABLE, server.host())
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", moto.port))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_REGION")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("pushed with a token of moto"),
        "{text}"
    );
}

async fn use_ecr(host: &str) {
    let token = ecr::authorization_token(Some("us-east-1"), None, None).await.unwrap();
    assert_eq!(
        (token.user.as_str(), token.password.expose()),
        ("AWS", "123456789012-auth-token")
    );
    assert_eq!(token.proxy_endpoint, format!("https://{ECR_HOST}"));
    // Nobody has logged in: the token is got because of the host's name, and the location takes it.
    let setup = Setup::with_registries(&mapped(host));
    let image = setup.image("linux/amd64", &[noise(60, 300_000)]);
    let name: Reference = format!("{ECR_HOST}/my-node-app:auto").parse().unwrap();
    setup
        .client
        .push(&setup.store, &image, &name, &NoProgress)
        .await
        .unwrap();
    // A name that is not Amazon's gets no token, though it is at the same place.
    let plain: Reference = format!("{host}/my-node-app:auto").parse().unwrap();
    let error = setup.client.resolve(&plain, &amd64()).await.unwrap_err();
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
