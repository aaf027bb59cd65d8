//! Every place an image can be in, held to the same: what is copied there comes back as it was.

use std::path::{Path, PathBuf};
use std::process::Command;

use roadstead_registry_client::{
    ArchiveKind, ArchiveWriter, Descriptor, ImageArchive, ImageSink, ImageSource, LayoutImage, LayoutTarget,
    NoProgress, Platform, Reference, RegistryError, Selection, StoreImage, StoreTarget, copy, layout_names,
};

use crate::images::{Setup, noise};
use crate::servers::{Server, TestDir};

/// A kind of place; each test has a directory and a registry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Registry,
    Store,
    Layout,
    OciArchive,
    DockerArchive,
}

const KINDS: [Kind; 5] = [
    Kind::Registry,
    Kind::Store,
    Kind::Layout,
    Kind::OciArchive,
    Kind::DockerArchive,
];

/// Where the images of a test are.
struct Site {
    dir: TestDir,
    server: Server,
    setup: Setup,
}

impl Site {
    fn new() -> Self {
        Self {
            dir: TestDir::new(),
            server: Server::registry(),
            setup: Setup::new(),
        }
    }

    fn name(&self, name: &str) -> Reference {
        format!("{}/{name}", self.server.host()).parse().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn source(&self, kind: Kind, name: &str) -> Result<Box<dyn ImageSource>, RegistryError> {
        let archive = async |kind| ImageArchive::open(&self.path(name), kind).await;
        Ok(match kind {
            Kind::Registry => Box::new(self.setup.client.image(&self.name(name))),
            Kind::Store => Box::new(StoreImage::named(&self.setup.store, &self.name(name))),
            Kind::Layout => Box::new(LayoutImage::open(&self.path(name), Some("v1"))?),
            Kind::OciArchive => Box::new(archive(ArchiveKind::Oci).await?.image(Some("v1")).await?),
            Kind::DockerArchive => Box::new(archive(ArchiveKind::Docker).await?.image(Some("v1")).await?),
        })
    }

    async fn write(
        &self,
        kind: Kind,
        name: &str,
        source: &dyn ImageSource,
        selection: &Selection,
    ) -> Result<Descriptor, RegistryError> {
        let to = async |sink: &dyn ImageSink| copy(source, sink, selection, &NoProgress).await;
        let archive = async |kind| {
            let writer = ArchiveWriter::create(&self.path(name), kind)?;
            let copied = to(&writer.image(Some("v1"))).await?;
            writer.finish().await?;
            Ok(copied)
        };
        match kind {
            Kind::Registry => to(&self.setup.client.target(&self.name(name))).await,
            Kind::Store => to(&StoreTarget::named(&self.setup.store, &self.name(name))).await,
            Kind::Layout => to(&LayoutTarget::create(&self.path(name), Some("v1"))?).await,
            Kind::OciArchive => archive(ArchiveKind::Oci).await,
            Kind::DockerArchive => archive(ArchiveKind::Docker).await,
        }
    }
}

/// Makes an image, or an index of two, in a store that is nobody's.
fn made(index: bool) -> (Setup, StoreImage, Descriptor) {
    let setup = Setup::new();
    let shared = noise(1, 300_000);
    let amd = setup.image("linux/amd64", &[shared.clone(), noise(2, 10), Vec::new()]);
    let root = match index {
        true => {
            let arm = setup.image("linux/arm64", &[shared, noise(3, 10)]);
            setup.index(vec![amd, arm])
        }
        false => amd,
    };
    let source = StoreImage::described(&setup.store, &root);
    (setup, source, root)
}

#[tokio::test]
async fn an_image_goes_from_any_place_to_any_other() {
    let (_made, original, root) = made(false);
    for from in KINDS {
        let site = Site::new();
        site.write(from, "from", &original, &Selection::All).await.unwrap();
        for to in KINDS {
            let name = format!("to-{to:?}").to_lowercase();
            let source = site.source(from, "from").await.unwrap();
            for _ in 0..2 {
                let copied = site.write(to, &name, &*source, &Selection::All).await.unwrap();
                assert_eq!(copied.digest, root.digest, "{from:?} to {to:?}");
            }
            // Back into a store of its own, which checks every byte.
            let back = Setup::new();
            let target = StoreTarget::named(&back.store, &"back".parse().unwrap());
            let source = site.source(to, &name).await.unwrap();
            let copied = copy(&*source, &target, &Selection::All, &NoProgress).await.unwrap();
            assert_eq!(copied.digest, root.digest, "{from:?} to {to:?} and back");
            let report = back.store.check(false).unwrap();
            assert_eq!((report.blobs, report.findings.len()), (5, 0));
        }
    }
}

#[tokio::test]
async fn an_index_goes_whole_or_in_part() {
    let (_made, original, root) = made(true);
    let arm: Platform = "linux/arm64".parse().unwrap();
    for kind in KINDS {
        let site = Site::new();
        let whole = site.write(kind, "whole", &original, &Selection::All).await;
        if kind == Kind::DockerArchive {
            let error = whole.unwrap_err();
            assert!(matches!(error, RegistryError::OnePlatform { .. }), "{error}");
        } else {
            assert_eq!(whole.unwrap().digest, root.digest, "{kind:?}");
            let one = site.source(kind, "whole").await.unwrap();
            let one = site
                .write(Kind::Store, "one", &*one, &Selection::Platform(arm.clone()))
                .await
                .unwrap();
            assert_eq!(one.platform, Some(arm.clone()), "{kind:?}");
        }
        let one = site
            .write(kind, "one", &original, &Selection::Platform(arm.clone()))
            .await
            .unwrap();
        assert_ne!(one.digest, root.digest);
        let absent = Selection::Platform("linux/s390x".parse().unwrap());
        let error = site.write(kind, "absent", &original, &absent).await.unwrap_err();
        assert!(matches!(error, RegistryError::NoPlatform { .. }), "{error}");
        // What refers to the index by its digest goes on working, with the images there are.
        if !matches!(kind, Kind::DockerArchive | Kind::Registry) {
            let site = Site::new();
            let sparse = Selection::Sparse([arm.clone()].into());
            assert_eq!(
                site.write(kind, "sparse", &original, &sparse).await.unwrap().digest,
                root.digest
            );
            let source = site.source(kind, "sparse").await.unwrap();
            let there = Setup::new();
            let target = StoreTarget::named(&there.store, &"x".parse().unwrap());
            copy(&*source, &target, &Selection::Present, &NoProgress).await.unwrap();
            copy(&*source, &target, &Selection::All, &NoProgress).await.unwrap_err();
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|_| panic!("{program} is needed"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn skopeo_and_umoci_read_what_was_written() {
    let (_made, original, root) = made(false);
    let site = Site::new();
    for (kind, place) in [
        (Kind::Layout, format!("oci:{}:v1", show(&site.path("image")))),
        (
            Kind::OciArchive,
            format!("oci-archive:{}:v1", show(&site.path("oci.tar"))),
        ),
        (Kind::Registry, format!("docker://{}", site.name("registry"))),
    ] {
        let name = match kind {
            Kind::Layout => "image",
            Kind::OciArchive => "oci.tar",
            _ => "registry",
        };
        site.write(kind, name, &original, &Selection::All).await.unwrap();
        let read = run(
            "skopeo",
            &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &place],
        );
        assert_eq!(read.trim(), root.digest.to_string(), "{place}");
    }
    let list = run("umoci", &["ls", "--layout", &show(&site.path("image"))]);
    assert_eq!(list.trim(), "v1");
    let docker = site.path("docker.tar");
    site.write(Kind::DockerArchive, "docker.tar", &original, &Selection::All)
        .await
        .unwrap();
    let writer = ArchiveWriter::create(&docker, ArchiveKind::Docker).unwrap();
    let target = writer.image_named(&["r.example/app:1".parse().unwrap()]);
    copy(&original, &target, &Selection::All, &NoProgress).await.unwrap();
    writer.finish().await.unwrap();
    let listed = run("tar", &["--list", "--file", &show(&docker)]);
    assert!(
        listed.contains("manifest.json") && listed.contains("oci-layout"),
        "{listed}"
    );
}

#[tokio::test]
async fn another_client_library_reads_what_was_pushed() {
    let (_made, original, root) = made(true);
    let site = Site::new();
    site.write(Kind::Registry, "app", &original, &Selection::All)
        .await
        .unwrap();
    let config = oci_client::client::ClientConfig {
        protocol: oci_client::client::ClientProtocol::Http,
        ..Default::default()
    };
    let client = oci_client::Client::try_from(config).unwrap();
    let name: oci_client::Reference = site.name("app").to_string().parse().unwrap();
    let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
    assert_eq!(
        client.fetch_manifest_digest(&name, &anonymous).await.unwrap(),
        root.digest.to_string()
    );
    let (manifest, digest) = client.pull_image_manifest(&name, &anonymous).await.unwrap();
    assert_ne!(digest, root.digest.to_string());
    assert_eq!(manifest.layers.len(), 3);
    for layer in &manifest.layers {
        let mut bytes = Vec::new();
        client.pull_blob(&name, layer, &mut bytes).await.unwrap();
        assert_eq!(roadstead_registry_client::Digest::of(&bytes).to_string(), layer.digest);
    }
}

#[tokio::test]
async fn what_skopeo_writes_is_read() {
    let site = Site::new();
    // skopeo looks into layers that say they are compressed or not: a real tar.
    let tar = site.path("layer.tar");
    std::fs::write(site.path("file"), noise(5, 5000)).unwrap();
    run(
        "tar",
        &[
            "--create",
            "--file",
            &show(&tar),
            "--directory",
            &show(site.dir.path()),
            "file",
        ],
    );
    let image = site.setup.image("linux/amd64", &[std::fs::read(&tar).unwrap()]);
    let source = StoreImage::described(&site.setup.store, &image);
    site.write(Kind::Layout, "image", &source, &Selection::All)
        .await
        .unwrap();
    let from = format!("oci:{}:v1", show(&site.path("image")));
    for (kind, place) in [("oci-archive", "o.tar"), ("docker-archive", "d.tar"), ("oci", "layout")] {
        let to = site.path(place);
        run(
            "skopeo",
            &[
                "copy",
                "--quiet",
                &from,
                &format!("{kind}:{}:r.example/app:v9", show(&to)),
            ],
        );
        if kind == "oci" {
            assert_eq!(layout_names(&to).unwrap(), ["r.example/app:v9"]);
            LayoutImage::open(&to, Some("r.example/app:v9")).unwrap();
            continue;
        }
        run("gzip", &["--keep", &show(&to)]);
        for path in [to.clone(), to.with_extension("tar.gz")] {
            let archive = ImageArchive::open(&path, ArchiveKind::Docker).await.unwrap();
            assert_eq!(archive.names(), ["r.example/app:v9"], "{kind}");
            let there = Setup::new();
            let target = StoreTarget::named(&there.store, &"x".parse().unwrap());
            let image = archive.image(None).await.unwrap();
            copy(&image, &target, &Selection::All, &NoProgress).await.unwrap();
            assert_eq!(there.store.check(false).unwrap().findings, []);
        }
    }
}
