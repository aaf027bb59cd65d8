//! Random images past random faults.
//!
//! What is said to have worked is right, and faults that pass make nothing fail. `ROADSTEAD_CHAOS_SEED` repeats the rounds
//! of a failure, `ROADSTEAD_CHAOS_ROUNDS` says how many there are; `cargo xtask soak` has more of them.

mod plan;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use roadstead_registry_client::{Descriptor, Digest, Manifest, NoProgress, Platform, Reference, RegistryError};

use crate::corruption::truncated;
use crate::images::{Setup, noise};
use crate::proxy::{Action, Head, Proxy};
use crate::servers::Server;
use plan::{Dice, Plan, Spoil, Step};

const DEFAULT_ROUNDS: u64 = 40;
const AT_ONCE: usize = 4;
const LARGEST_LAYER: usize = 600_000;

/// Reads a number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[tokio::test]
async fn chaos_loses_no_image_and_makes_none_up() {
    let seed = setting("ROADSTEAD_CHAOS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let rounds = setting("ROADSTEAD_CHAOS_ROUNDS").unwrap_or(DEFAULT_ROUNDS);
    println!("ROADSTEAD_CHAOS_SEED={seed} ROADSTEAD_CHAOS_ROUNDS={rounds}");
    let server = Server::registry();
    let failures: Vec<String> = futures_util::stream::iter(0..rounds)
        .map(|number| {
            let round = Round::draw(seed, number);
            let server = &server;
            async move {
                let result = round.run(server).await;
                result.err().map(|error| format!("round {number}: {error}\n{round:?}"))
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|failure| async { failure })
        .collect()
        .await;
    assert!(
        failures.is_empty(),
        "{} of {rounds} rounds failed with ROADSTEAD_CHAOS_SEED={seed}\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// All that is drawn for one round.
#[derive(Debug)]
struct Round {
    number: u64,
    noise_seed: u64,
    sizes: Vec<usize>,
    push: Plan,
    pull: Plan,
    spoil: Option<Spoil>,
    /// The layer that is spoiled, and where in it, in parts of 65536.
    target: usize,
    place: usize,
}

/// The image of a round.
struct Image {
    descriptor: Descriptor,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    /// Layers and the configuration last.
    blobs: Vec<(Digest, Vec<u8>)>,
}

impl Round {
    fn draw(seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed, number);
        let sizes: Vec<usize> = (0..1 + dice.below(4))
            .map(|_| {
                let largest = if dice.one_in(4) { 100 } else { LARGEST_LAYER };
                2 + dice.below(largest)
            })
            .collect();
        let blobs = sizes.len() + 1;
        let mut round = Self {
            number,
            noise_seed: dice.draw(),
            push: Plan::for_push(&mut dice, blobs),
            pull: Plan::for_pull(&mut dice, blobs),
            spoil: Spoil::draw(&mut dice),
            target: dice.below(sizes.len()),
            place: dice.below(1 << 16),
            sizes,
        };
        if round.spoil.is_some() {
            // Another fault might keep the spoiled bytes from being sent.
            round.push.faults.clear();
            round.pull.faults.clear();
        }
        round
    }

    /// Pushes, looks at what the registry has, and pulls.
    async fn run(&self, server: &Server) -> Result<(), String> {
        let here = Setup::new();
        let image = self.image(&here);
        let name = |host: String| -> Reference { format!("{host}/chaos/{}:tag", self.number).parse().unwrap() };
        let faults = Faults::new(self.push.clone(), &image, self.spoiled(&image));
        let proxy = faults.start(server.port);
        let target = name(proxy.host());
        let pushed = here
            .client
            .push(&here.store, &image.descriptor, &target, &NoProgress)
            .await;
        if self.spoil == Some(Spoil::Upload) {
            return self.refused_push(server, &image, pushed).await;
        }
        let digest = pushed.map_err(|error| format!("the push failed: {error:?}"))?;
        same("the digest of the push", &digest, &image.descriptor.digest)?;
        self.is_at(server, &image).await?;

        let faults = Faults::new(self.pull.clone(), &image, self.spoiled(&image));
        let proxy = faults.start(server.port);
        let (source, there) = (name(proxy.host()), Setup::new());
        let platform: Platform = "linux/amd64".parse().unwrap();
        let pulled = there.client.pull(&source, &platform, &there.store, &NoProgress).await;
        only_right_blobs(&there, &image)?;
        if self.spoil.is_some() {
            return self.refused_pull(&there, &source, &image, pulled.map(|_| ())).await;
        }
        let pulled = pulled.map_err(|error| format!("the pull failed: {error:?}"))?;
        same(
            "the digest of the pull",
            &pulled.descriptor.digest,
            &image.descriptor.digest,
        )?;
        same(
            "the manifest of the pull",
            &pulled.manifest_bytes,
            &image.manifest_bytes,
        )?;
        let missing = image.blobs.iter().find(|(digest, _)| !there.store.has(digest));
        same("the blob that is missing", &missing.map(|(digest, _)| digest), &None)?;
        nothing_unfinished(&there).await
    }

    fn image(&self, setup: &Setup) -> Image {
        let layers: Vec<Vec<u8>> = self
            .sizes
            .iter()
            .zip(self.noise_seed..)
            .map(|(size, seed)| noise(seed, *size))
            .collect();
        let descriptor = setup.image("linux/amd64", &layers);
        let manifest_bytes = setup.store.read_blob(&descriptor.digest, 100_000).unwrap();
        let manifest = Manifest::parse(&manifest_bytes).unwrap();
        let config = setup.store.read_blob(&manifest.config.digest, 100_000).unwrap();
        let blobs = layers.into_iter().chain([config]);
        Image {
            blobs: blobs.map(|bytes| (Digest::of(&bytes), bytes)).collect(),
            descriptor,
            manifest,
            manifest_bytes,
        }
    }

    /// Says what is spoiled: the end of a target or the length of a body, and what becomes of it.
    fn spoiled(&self, image: &Image) -> Option<Spoiled> {
        let (digest, bytes) = &image.blobs[self.target];
        let place = |length: usize| (length * self.place) >> 16;
        let flip = |length: usize| Action::Flip(place(length) as u64);
        let digest = digest.to_string();
        Some(match self.spoil? {
            Spoil::Upload => Spoiled::Body(bytes.len(), Action::FlipRequest(place(bytes.len()) as u64)),
            Spoil::Manifest => Spoiled::Target("/manifests/tag".to_owned(), flip(image.manifest_bytes.len())),
            Spoil::Config => {
                let config = &image.manifest.config;
                Spoiled::Target(config.digest.to_string(), flip(usize::try_from(config.size).unwrap()))
            }
            Spoil::LayerBit => Spoiled::Target(digest, flip(bytes.len())),
            Spoil::LayerEnd => Spoiled::End(digest, bytes[..1 + place(bytes.len() - 1)].to_vec()),
        })
    }

    /// The registry has exactly this image.
    async fn is_at(&self, server: &Server, image: &Image) -> Result<(), String> {
        let (status, manifest) = self.get(server, "manifests/tag").await?;
        same("the status of the manifest", &status, &200)?;
        same("the manifest at the registry", &manifest, &image.manifest_bytes)?;
        for (digest, bytes) in &image.blobs {
            let (status, blob) = self.get(server, &format!("blobs/{digest}")).await?;
            same("the status of a blob", &status, &200)?;
            same("whether a blob is right", &(blob == *bytes), &true)?;
        }
        Ok(())
    }

    /// Reads straight from the registry, without the client that is tested.
    async fn get(&self, server: &Server, path: &str) -> Result<(u16, Vec<u8>), String> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/v2/chaos/{}/{path}", server.host(), self.number);
        let request = http
            .get(url)
            .header("accept", "application/vnd.oci.image.manifest.v1+json");
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok((
            status,
            answer.bytes().await.map_err(|error| error.to_string())?.to_vec(),
        ))
    }

    async fn refused_push(
        &self,
        server: &Server,
        image: &Image,
        pushed: Result<Digest, RegistryError>,
    ) -> Result<(), String> {
        match pushed {
            Err(RegistryError::Status { status: 400, .. }) => {}
            other => return Err(format!("a spoiled push ended with {other:?}")),
        }
        let digest = &image.blobs[self.target].0;
        for path in ["manifests/tag".to_owned(), format!("blobs/{digest}")] {
            same(
                &format!("the status of {path}"),
                &self.get(server, &path).await?.0,
                &404,
            )?;
        }
        Ok(())
    }

    async fn refused_pull(
        &self,
        there: &Setup,
        source: &Reference,
        image: &Image,
        pulled: Result<(), RegistryError>,
    ) -> Result<(), String> {
        let digest = match self.spoil {
            Some(Spoil::Manifest) => &image.descriptor.digest,
            Some(Spoil::Config) => &image.manifest.config.digest,
            _ => &image.blobs[self.target].0,
        };
        match &pulled {
            Err(RegistryError::DigestMismatch { expected, .. }) if expected == digest => {}
            Err(RegistryError::SizeMismatch { what, .. }) if what.contains(&digest.to_string()) => {}
            other => return Err(format!("a spoiled pull ended with {other:?}")),
        }
        same("the spoiled blob in the store", &there.store.has(digest), &false)?;
        same("the name in the store", &there.store.resolve(source).unwrap(), &None)?;
        nothing_unfinished(there).await
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, actual: &T, expected: &T) -> Result<(), String> {
    match actual == expected {
        true => Ok(()),
        false => Err(format!("{what} is {actual:?}, not {expected:?}")),
    }
}

/// Whatever a pull has brought, or part of it, is right.
fn only_right_blobs(there: &Setup, image: &Image) -> Result<(), String> {
    let manifest = [(image.descriptor.digest.clone(), image.manifest_bytes.clone())];
    for (digest, bytes) in image.blobs.iter().chain(&manifest) {
        let is_right = !there.store.has(digest)
            || there
                .store
                .read_blob(digest, 1_000_000)
                .is_ok_and(|found| found == *bytes);
        same("whether a blob in the store is right", &is_right, &true)?;
    }
    Ok(())
}

/// Threads that write see the end of a pull that failed on their own.
async fn nothing_unfinished(there: &Setup) -> Result<(), String> {
    let start = Instant::now();
    while there.unfinished_files() > 0 {
        if start.elapsed() > Duration::from_secs(30) {
            return Err("a temporary file was left behind".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What is wrong with every try.
enum Spoiled {
    /// A read whose target ends so.
    Target(String, Action),
    /// A read of a blob that is short at the registry.
    End(String, Vec<u8>),
    /// A body of this length that is sent.
    Body(usize, Action),
}

/// Carries out a plan.
struct Faults {
    plan: Plan,
    spoiled: Option<Spoiled>,
    /// Lengths of what is read, by the end of its target.
    lengths: HashMap<String, u64>,
    config: String,
    seen: Mutex<HashMap<Step, usize>>,
    token: AtomicUsize,
    used: AtomicUsize,
    /// Requests that came without a token.
    refused: Mutex<HashSet<(String, String)>>,
}

impl Faults {
    fn new(plan: Plan, image: &Image, spoiled: Option<Spoiled>) -> Arc<Self> {
        let blobs = image
            .blobs
            .iter()
            .map(|(digest, bytes)| (digest.to_string(), bytes.len() as u64));
        let manifest = [("tag".to_owned(), image.manifest_bytes.len() as u64)];
        Arc::new(Self {
            plan,
            spoiled,
            lengths: blobs.chain(manifest).collect(),
            config: image.manifest.config.digest.to_string(),
            seen: Mutex::default(),
            token: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            refused: Mutex::default(),
        })
    }

    /// Starts what is between the client and the registry.
    fn start(self: &Arc<Self>, upstream: u16) -> Between {
        let faults = Arc::clone(self);
        // Like S3, it refuses a second login, and answers as badly as the registry itself.
        let store = Proxy::start(upstream, move |head| match head.header("authorization") {
            Some(_) => Action::answer("400 Bad Request", "", "Only one auth mechanism allowed"),
            None => faults.act(head),
        });
        let (faults, place) = (Arc::clone(self), store.host());
        let door = Proxy::start(upstream, move |head| {
            if let Some(answer) = faults.guard(head) {
                return answer;
            }
            match faults.plan.redirects && head.is("GET", "/blobs/") {
                true => {
                    let location = format!("Location: http://{place}{}?X-Amz-Signature=abc\r\n", head.target);
                    Action::answer("307 Temporary Redirect", &location, "")
                }
                false => faults.act(head),
            }
        });
        Between { door, _store: store }
    }

    /// Grants tokens, and refuses requests without the one that is good now.
    fn guard(&self, head: &Head) -> Option<Action> {
        if head.target.starts_with("/token") {
            let body = format!(r#"{{"token":"token-{}"}}"#, self.token.load(Ordering::SeqCst));
            return Some(Action::answer("200 OK", "Content-Type: application/json\r\n", body));
        }
        if !self.plan.asks_for_token {
            return None;
        }
        let is_good = |number: usize| head.header("authorization") == Some(&format!("Bearer token-{number}"));
        if is_good(0) && Some(self.used.fetch_add(1, Ordering::SeqCst) + 1) == self.plan.expires_at {
            self.token.store(1, Ordering::SeqCst);
        }
        let request = (head.method.clone(), head.target.clone());
        let mut refused = self.refused.lock().unwrap();
        // A token is good for the request it was granted for, however long that one took to come.
        if is_good(self.token.load(Ordering::SeqCst)) || is_good(0) && refused.remove(&request) {
            return None;
        }
        if head.header("authorization").is_none() {
            refused.insert(request);
        }
        let host = head.header("host").unwrap_or_default();
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
        Some(Action::answer("401 Unauthorized", &challenge, ""))
    }

    fn act(&self, head: &Head) -> Action {
        let path = head.target.split('?').next().unwrap_or_default();
        match &self.spoiled {
            Some(Spoiled::Target(end, action)) if head.method == "GET" && path.ends_with(end) => return action.clone(),
            Some(Spoiled::End(end, short)) if head.method == "GET" && path.ends_with(end) => {
                return truncated(head, short);
            }
            Some(Spoiled::Body(length, action))
                if head.method == "PATCH" && head.header("content-length") == Some(&length.to_string()) =>
            {
                return action.clone();
            }
            _ => {}
        }
        let Some(step) = Step::of(head) else {
            return Action::Forward;
        };
        let number = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry(step).or_default();
            *count += 1;
            *count - 1
        };
        let sent = head.header("content-length").and_then(|text| text.parse().ok());
        let end = path.rsplit('/').next().unwrap_or_default();
        let length = sent.or_else(|| self.lengths.get(end).copied()).unwrap_or_default();
        let planned = self.plan.faults.iter().find(|planned| planned.meets(step, number));
        planned.map_or(Action::Forward, |planned| planned.action(length, end != self.config))
    }
}

/// A registry's door, and the object store behind it.
struct Between {
    door: Proxy,
    _store: Proxy,
}

impl Between {
    fn host(&self) -> String {
        self.door.host()
    }
}
