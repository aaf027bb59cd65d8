//! Caches of other machines that are not what they say: wrong layers, missing blobs, and results that count for one build only.

use crate::image::sha256;
use crate::registry::Registry;
use crate::site::Site;
use serde_json::Value;
use std::path::{Path, PathBuf};

const TEXT: &str = "FROM base AS build\nCOPY src /src\nRUN mkdir /out && cat /src/* > /out/built\n\
     FROM base\nRUN echo system > /system\nCOPY --from=build /out /app\n";

fn site() -> Site {
    let site = Site::new();
    site.file("src/a", "aaa").file("src/b", "bbb").dockerfile(TEXT);
    site
}

/// Files of a cache in a directory.
struct Directory(PathBuf);

impl Directory {
    fn of(site: &Site) -> Self {
        let directory = site.out("cache");
        let to = format!("type=local,dest={},mode=max", directory.display());
        site.build(&["-t", "result", "--cache-to", &to]).good();
        Self(directory)
    }

    fn from(&self) -> String {
        format!("type=local,src={}", self.0.display())
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// Changes what the cache says, and sees to it that all digests are right.
    fn forge(&self, change: impl Fn(&mut Value)) {
        let index = self.0.join("index.json");
        let mut root = json(&index);
        let mut manifest = json(&self.blob(text(&root["manifests"][0]["digest"])));
        let mut document = json(&self.blob(text(&manifest["config"]["digest"])));
        change(&mut document);
        self.put(&document, &mut manifest["config"]);
        self.put(&manifest, &mut root["manifests"][0]);
        std::fs::write(index, root.to_string()).unwrap();
    }

    fn put(&self, value: &Value, descriptor: &mut Value) {
        let bytes = value.to_string();
        let digest = sha256(bytes.as_bytes());
        std::fs::write(self.blob(&digest), &bytes).unwrap();
        descriptor["digest"] = digest.into();
        descriptor["size"] = bytes.len().into();
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Gives each layer the blob of the next one.
fn exchange_blobs(document: &mut Value) {
    let steps = document["steps"].as_object_mut().unwrap();
    let blobs: Vec<Value> = steps.values().map(|layer| layer["descriptor"].clone()).collect();
    for (layer, blob) in steps.values_mut().zip(blobs.iter().cycle().skip(1)) {
        layer["descriptor"] = blob.clone();
    }
}

#[test]
fn a_layer_that_is_another_one_is_made_again() {
    let site = site();
    let cache = Directory::of(&site);
    cache.forge(exchange_blobs);
    let fresh = site.with_fresh_data();
    fresh.file("src/b", "changed");
    let out = fresh.out("files");
    let output = format!("type=local,dest={}", out.display());
    // One step needs the files of a stage, the output needs those of all layers.
    let built = fresh.build(&["-o", &output, "--cache-from", &cache.from()]).good();
    assert!(built.log.contains("is of no use, its step runs"), "{}", built.log);
    assert_eq!(std::fs::read_to_string(out.join("app/built")).unwrap(), "aaachanged");
    assert_eq!(std::fs::read_to_string(out.join("system")).unwrap(), "system\n");
}

#[test]
fn a_registry_that_has_forgotten_a_blob_costs_time_only() {
    let registry = Registry::start();
    let site = site();
    let cache = format!("{}/app:cache", registry.host());
    let to = format!("type=registry,ref={cache},mode=max");
    site.build(&["-t", "result", "--cache-to", &to]).good();
    registry.forget_layers();
    let image = format!("{}/other:1", registry.host());
    let fresh = site.with_fresh_data();
    let built = fresh.build(&["-t", &image, "--push", "--cache-from", &cache]).good();
    assert!(built.log.contains("a cached layer cannot be had"), "{}", built.log);
    assert!(built.ran().contains(&"RUN echo system > /system".to_owned()));
    fresh.build(&["-t", "result"]).good();
    assert_eq!(fresh.digest_of("result"), site.digest_of("result"));
}

#[test]
fn what_a_cache_of_others_says_counts_for_builds_that_were_given_it() {
    let site = site();
    let cache = Directory::of(&site);
    let other = site.with_fresh_data();
    // The stage is another one, what is copied from it is the same.
    other.dockerfile(&TEXT.replacen("RUN mkdir", "RUN touch /more\nRUN mkdir", 1));
    let built = other.build(&["-t", "result", "--cache-from", &cache.from()]).good();
    let copying = "COPY --from=build /out /app".to_owned();
    assert!(!built.ran().contains(&copying), "{}", built.log);
    let ran = other.build(&["-t", "result"]).good().ran();
    assert!(ran.contains(&copying), "{ran:?}");
    assert!(!ran.contains(&"RUN touch /more".to_owned()), "{ran:?}");
}
