//! Amazon ECR's own API against moto: layer parts, repositories made on push, scans, and tokens that processes share.
//!
//! The AWS SDK reads its settings from the environment, so each test runs its part with AWS in a process of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_ecr::types::ImageIdentifier;
use roadstead_registry_client::ecr::{self, RepositorySettings, Severity};
use roadstead_registry_client::{
    CredentialStore, Descriptor, NoProgress, PushedHow, Reference, RegistryError, Selection, StoreImage, copy,
    media_type,
};

use crate::images::{Setup, noise};
use crate::proxy::{Action, Head, Proxy};
use crate::servers::{Server, TestDir};

const ECR_HOST: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
/// Arguments of the child: test, registry, and what else it needs, in lines.
const CHILD_VARIABLE: &str = "ROADSTEAD_TEST_AWS";
const GOOD: &str = "the child has seen all";

/// Runs `child` in a process whose AWS is at `endpoint`; in that process, runs it and ends.
fn with_aws(test: &str, endpoint: &str, key: &str, arguments: &[&str]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_VARIABLE, arguments.join("\n"))
        .env("AWS_ENDPOINT_URL", format!("http://{endpoint}"))
        .env("AWS_ACCESS_KEY_ID", key)
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
    assert!(output.status.success() && text.contains(GOOD), "{text}");
}

/// In the child: gives its arguments to `work` and tells whether this is the child.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn is_child(work: impl AsyncFnOnce(Vec<String>)) -> bool {
    let Ok(arguments) = std::env::var(CHILD_VARIABLE) else {
        return false;
    };
    let arguments = arguments.lines().map(str::to_owned).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work(arguments));
    println!("{GOOD}");
    true
}

fn mapped(host: &str, more: &str) -> String {
    format!("[[registry]]\nprefix = '{ECR_HOST}'\nlocation = '{host}'\ninsecure = true\n{more}\n")
}

async fn moto() -> aws_sdk_ecr::Client {
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(Region::new("us-east-1"));
    aws_sdk_ecr::Client::new(&loader.load().await)
}

fn calls(head: &Head, operation: &str) -> bool {
    head.header("x-amz-target")
        .is_some_and(|target| target.ends_with(&format!(".{operation}")))
}

fn name(repository: &str) -> Reference {
    format!("{ECR_HOST}/{repository}").parse().unwrap()
}

fn put(setup: &Setup, bytes: &[u8]) -> Descriptor {
    setup.store.put(bytes).unwrap();
    Descriptor::of(media_type::OCI_LAYER_TAR, bytes)
}

/// Layers that moto says are there.
async fn available(layer: &Descriptor) -> usize {
    let call = moto().await.batch_check_layer_availability().repository_name("app");
    call.layer_digests(layer.digest.to_string())
        .send()
        .await
        .unwrap()
        .layers()
        .len()
}

#[test]
fn layer_parts_arrive_and_a_broken_one_is_sent_again_alone() {
    if is_child(send_parts) {
        return;
    }
    for lost in [false, true] {
        let (registry, moto) = (Server::registry(), Server::moto());
        let parts = AtomicUsize::new(0);
        let proxy = Proxy::start(moto.port, move |head| {
            let second = calls(head, "UploadLayerPart") && parts.fetch_add(1, Ordering::Relaxed) == 1;
            match second {
                true if lost => Action::Lose,
                true => Action::Close,
                false => Action::Forward,
            }
        });
        with_aws(
            "ecr::layer_parts_arrive_and_a_broken_one_is_sent_again_alone",
            &proxy.host(),
            "test",
            &[&registry.host()],
        );
        let sent = proxy.seen("POST", "");
        let count = |operation: &str| sent.iter().filter(|head| calls(head, operation)).count();
        assert_eq!(
            (
                count("InitiateLayerUpload"),
                count("UploadLayerPart"),
                count("CompleteLayerUpload")
            ),
            // An upload to a repository that is not there is opened in vain.
            (2, 4, 1)
        );
    }
}

async fn send_parts(arguments: Vec<String>) {
    moto()
        .await
        .create_repository()
        .repository_name("app")
        .send()
        .await
        .unwrap();
    let setup = Setup::with_registries(&mapped(&arguments[0], "upload = 'ecr-parts'"));
    let layer = put(&setup, &noise(1, 12_000_000));
    let pushed = setup
        .client
        .push_blob(&name("app"), &layer, &setup.store, &NoProgress)
        .await;
    assert_eq!(pushed.unwrap(), PushedHow::Uploaded);
    assert_eq!(available(&layer).await, 1);
    let absent = setup
        .client
        .push_blob(&name("absent"), &layer, &setup.store, &NoProgress)
        .await;
    assert!(
        matches!(absent, Err(RegistryError::RepositoryUnknown { ecr: true, .. })),
        "{absent:?}"
    );
}

#[test]
fn an_upload_that_breaks_goes_on_by_layer_parts() {
    if is_child(break_and_go_on) {
        return;
    }
    let (registry, moto) = (Server::registry(), Server::moto());
    let proxy = Proxy::start(registry.port, |head| match head.method.as_str() {
        "PATCH" => Action::CutRequest(100_000),
        _ => Action::Forward,
    });
    with_aws(
        "ecr::an_upload_that_breaks_goes_on_by_layer_parts",
        &format!("127.0.0.1:{}", moto.port),
        "test",
        &[&proxy.host()],
    );
    assert_eq!(proxy.seen("PATCH", "").len(), 1);
}

async fn break_and_go_on(arguments: Vec<String>) {
    moto()
        .await
        .create_repository()
        .repository_name("app")
        .send()
        .await
        .unwrap();
    let setup = Setup::with_registries(&mapped(&arguments[0], ""));
    let layer = put(&setup, &noise(2, 1_000_000));
    let pushed = setup
        .client
        .push_blob(&name("app"), &layer, &setup.store, &NoProgress)
        .await;
    assert_eq!(pushed.unwrap(), PushedHow::Uploaded);
    assert_eq!(available(&layer).await, 1);
}

#[test]
fn a_missing_repository_is_made_on_push() {
    if is_child(push_and_create) {
        return;
    }
    let (registry, moto) = (Server::registry(), Server::moto());
    let made = Arc::new(AtomicBool::new(false));
    let (seen, asked) = (Arc::clone(&made), Arc::clone(&made));
    let before_moto = Proxy::start(moto.port, move |head| {
        seen.fetch_or(calls(head, "CreateRepository"), Ordering::SeqCst);
        Action::Forward
    });
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}"#;
    let before_registry = Proxy::start(registry.port, move |head| match head.method.as_str() {
        "POST" if !asked.load(Ordering::SeqCst) => {
            Action::answer("404 Not Found", "Content-Type: application/json\r\n", unknown)
        }
        _ => Action::Forward,
    });
    with_aws(
        "ecr::a_missing_repository_is_made_on_push",
        &before_moto.host(),
        "test",
        &[&before_registry.host()],
    );
    let sent = before_moto.seen("POST", "");
    assert_eq!(sent.iter().filter(|head| calls(head, "CreateRepository")).count(), 2);
}

async fn push_and_create(arguments: Vec<String>) {
    let setup = Setup::with_registries(&mapped(&arguments[0], ""));
    let image = setup.image("linux/amd64", &[noise(3, 1000), noise(4, 1000)]);
    let error = setup
        .client
        .push(&setup.store, &image, &name("team/app"), &NoProgress)
        .await
        .unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("ecr:CreateRepository") && hint.contains("team/app"),
        "{hint}"
    );
    let settings = RepositorySettings {
        scan_on_push: true,
        immutable_tags: true,
        kms_key: Some("alias/images".to_owned()),
        tags: vec![("team".to_owned(), "blue".to_owned())],
    };
    let target = setup.client.target(&name("team/app")).creating_repository(&settings);
    let source = StoreImage::described(&setup.store, &image);
    copy(&source, &target, &Selection::All, &NoProgress).await.unwrap();
    let moto = moto().await;
    let found = moto
        .describe_repositories()
        .repository_names("team/app")
        .send()
        .await
        .unwrap();
    let found = &found.repositories()[0];
    assert_eq!(found.image_tag_mutability().unwrap().as_str(), "IMMUTABLE");
    assert!(found.image_scanning_configuration().unwrap().scan_on_push());
    assert_eq!(
        found.encryption_configuration().unwrap().kms_key(),
        Some("alias/images")
    );
    let tags = moto
        .list_tags_for_resource()
        .resource_arn(found.repository_arn().unwrap());
    let tags = tags.send().await.unwrap();
    assert_eq!((tags.tags()[0].key(), tags.tags()[0].value()), ("team", "blue"));
    // One that is there is taken as it is.
    let host = ecr::parse_host(ECR_HOST).unwrap();
    ecr::create_repository(&host, "team/app", &settings, None)
        .await
        .unwrap();
}

#[test]
fn a_scan_is_waited_for_and_its_findings_are_read() {
    if is_child(|_| scan()) {
        return;
    }
    let moto = Server::moto();
    let endpoint = format!("127.0.0.1:{}", moto.port);
    with_aws(
        "ecr::a_scan_is_waited_for_and_its_findings_are_read",
        &endpoint,
        "test",
        &[],
    );
}

async fn scan() {
    let moto = moto().await;
    moto.create_repository().repository_name("app").send().await.unwrap();
    let setup = Setup::new();
    let image = setup.image("linux/amd64", &[noise(5, 10)]);
    let manifest = String::from_utf8(setup.store.read_blob(&image.digest, 1 << 20).unwrap()).unwrap();
    let put = moto.put_image().repository_name("app").image_tag("v1");
    let put = put
        .image_manifest(manifest)
        .image_manifest_media_type(media_type::OCI_MANIFEST);
    let put = put.send().await.unwrap();
    let digest = put
        .image()
        .unwrap()
        .image_id()
        .unwrap()
        .image_digest()
        .unwrap()
        .parse()
        .unwrap();
    let host = ecr::parse_host(ECR_HOST).unwrap();
    let never = ecr::wait_for_scan(&host, "app", &digest, Duration::from_secs(1), None)
        .await
        .unwrap_err();
    assert!(never.to_string().contains("it has not begun"), "{never}");
    let id = ImageIdentifier::builder().image_tag("v1").build();
    moto.start_image_scan()
        .repository_name("app")
        .image_id(id)
        .send()
        .await
        .unwrap();
    let report = ecr::wait_for_scan(&host, "app", &digest, Duration::from_secs(20), None)
        .await
        .unwrap();
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.name.as_str(), f.severity, f.package.as_str()))
        .collect();
    assert_eq!(found, [("CVE-9999-9999", Severity::High, "moto_fake")]);
    assert_eq!(report.at_least(Severity::Critical).count(), 0);
    let absent = ecr::wait_for_scan(&host, "absent", &digest, Duration::from_secs(1), None)
        .await
        .unwrap_err();
    assert!(absent.to_string().contains("RepositoryNotFoundException"), "{absent}");

    // Taking images away is ECR's own call, too.
    setup.client.remove(&name("app:v1")).await.unwrap();
    let again = setup.client.remove(&name("app:v1")).await.unwrap_err();
    assert!(matches!(again, RegistryError::NotFound { .. }), "{again}");
}

#[test]
fn processes_of_one_caller_share_a_token() {
    if is_child(use_token) {
        return;
    }
    let (registry, dir) = (Server::with_login(), TestDir::new());
    // moto's tokens ended in 2015: its answer, with another year.
    let body = r#"{"authorizationData":[{"authorizationToken":"QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu","expiresAt":4000000000,"proxyEndpoint":"https://x"}]}"#;
    let proxy = Proxy::start(1, move |_| {
        Action::answer("200 OK", "Content-Type: application/x-amz-json-1.1\r\n", body)
    });
    let tokens = dir.path().join("tokens");
    let run = |key: &str| {
        let arguments = [registry.host(), tokens.display().to_string()];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        with_aws(
            "ecr::processes_of_one_caller_share_a_token",
            &proxy.host(),
            key,
            &arguments,
        );
        let asked = proxy.seen("POST", "");
        asked.iter().filter(|head| calls(head, "GetAuthorizationToken")).count()
    };
    assert_eq!(run("first"), 1);
    assert_eq!(run("first"), 1);
    // What another caller may do is another matter.
    assert_eq!(run("second"), 2);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&tokens), 0o700);
    for file in std::fs::read_dir(&tokens).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

async fn use_token(arguments: Vec<String>) {
    let docker = TestDir::new();
    let setup = Setup::make(&mapped(&arguments[0], ""), |options| {
        options.credentials =
            CredentialStore::new(Some(docker.path().to_owned())).with_token_directory(arguments[1].clone().into());
    });
    let image = setup.image("linux/amd64", &[noise(6, 1000)]);
    setup
        .client
        .push(&setup.store, &image, &name("app"), &NoProgress)
        .await
        .unwrap();
}

#[test]
fn ecr_public_takes_a_token_of_its_own_service() {
    if is_child(push_to_public) {
        return;
    }
    let registry = Server::with_login();
    // moto has no ECR Public: its answer, with a token that the registry takes.
    let body =
        r#"{"authorizationData":{"authorizationToken":"QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu","expiresAt":4000000000}}"#;
    let public = Proxy::start(1, move |_| {
        Action::answer("200 OK", "Content-Type: application/x-amz-json-1.1\r\n", body)
    });
    with_aws(
        "ecr::ecr_public_takes_a_token_of_its_own_service",
        &public.host(),
        "test",
        &[&registry.host()],
    );
    let asked = public.seen("POST", "");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].header("x-amz-target"),
        Some("SpencerFrontendService.GetAuthorizationToken")
    );
    let signed = asked[0].header("authorization").unwrap();
    assert!(signed.contains("/us-east-1/ecr-public/"), "{signed}");
}

async fn push_to_public(arguments: Vec<String>) {
    let host = &arguments[0];
    let lookalike = "public.ecr.aws.evil.example";
    let entry = |prefix: &str| format!("[[registry]]\nprefix = '{prefix}'\nlocation = '{host}'\ninsecure = true\n");
    let setup = Setup::with_registries(&(entry("public.ecr.aws") + &entry(lookalike)));
    let image = setup.image("linux/amd64", &[noise(7, 1000)]);
    let push = async |host: &str| {
        let name: Reference = format!("{host}/alias/app").parse().unwrap();
        setup.client.push(&setup.store, &image, &name, &NoProgress).await
    };
    push("public.ecr.aws").await.unwrap();
    let refused = push(lookalike).await.unwrap_err();
    assert!(
        matches!(
            refused,
            RegistryError::Unauthorized {
                with_credentials: false,
                ..
            }
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn manifests_are_paced_for_ecr() {
    let registry = Server::registry();
    let setup = Setup::with_registries(&mapped(&registry.host(), ""));
    let images = (0..11)
        .map(|seed| setup.image("linux/amd64", &[noise(seed, 10)]))
        .collect();
    let index = setup.index(images);
    let start = Instant::now();
    setup
        .client
        .push(&setup.store, &index, &name("app"), &NoProgress)
        .await
        .unwrap();
    // Twelve manifests, the first at once: ECR takes ten a second.
    assert!(start.elapsed() >= Duration::from_millis(1100));
}
