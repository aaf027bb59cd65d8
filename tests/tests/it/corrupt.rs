//! Damage of any file of the data directory: the next build gives the right image, or fails and says why; never another image.

use crate::binary::roadstead;
use crate::image::{Image, sha256};
use crate::random::{Random, rounds_and_seed};
use crate::registry::Registry;
use crate::site::{Outcome, Site, files_below};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the edited files hold, by turns: old contents come back, and with them old results.
const CONTENTS: [&str; 3] = ["zero", "one", "two"];

struct Bench {
    registry: Registry,
    site: Site,
    /// Digests of the image by what the edited files hold, as an untouched data directory gives them.
    right: HashMap<(usize, usize), String>,
    state: (usize, usize),
}

impl Bench {
    fn new() -> Self {
        let registry = Registry::start();
        let base = format!("{}/base:1", registry.host());
        let maker = Site::new();
        maker.dockerfile("FROM base\n");
        maker.build(&["--push", "-t", &base]).good();
        let site = Site::empty();
        site.dockerfile(&format!(
            "FROM {base} AS build\nCOPY src /src\nRUN cat /src/* > /built; echo more > /more\n\
             FROM {base}\nRUN echo deps > /deps\nWORKDIR /work\nCOPY --from=build /built /built\nCOPY late /late\n\
             RUN cat /built /late > /all\n"
        ));
        site.file("src/fixed", "fixed");
        Self {
            registry,
            site,
            right: HashMap::new(),
            state: (0, 0),
        }
    }

    fn edit(&mut self, state: (usize, usize)) {
        self.state = state;
        self.site
            .file("src/edited", CONTENTS[state.0])
            .file("late", CONTENTS[state.1]);
    }

    /// Gives the digest of the image of an untouched data directory.
    fn expected(&mut self) -> String {
        let site = &self.site;
        let build = || {
            let fresh = Site::empty();
            let data = fresh.data();
            let built = Outcome::of(
                site.command(&["-t", "app"])
                    .env("ROADSTEAD_DATA", data)
                    .output()
                    .unwrap(),
            );
            built.good();
            fresh.digest_of("app")
        };
        self.right.entry(self.state).or_insert_with(build).clone()
    }

    fn build(&self) -> Outcome {
        self.site.build(&["-t", "app"])
    }

    /// Every other time an image is also pushed: the registry hashes what it is sent.
    fn push(&self, round: u64) {
        let name = format!("{}/app{round}:1", self.registry.host());
        self.site.build(&["-t", &name, "--push"]).good();
    }

    fn cache(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(roadstead());
        let command = self.site.prepare(&mut command).arg("cache").args(arguments);
        Outcome::of(command.output().unwrap())
    }

    /// Holds that the image is the right one, and that its blobs here are what they are called.
    fn assert_right(&mut self, context: &str) {
        let expected = self.expected();
        assert_eq!(self.site.digest_of("app"), expected, "{context}");
        let store = self.site.data().join("store");
        let blob = |digest: &str| std::fs::read(store.join("blobs").join(digest.replace(':', "/"))).ok();
        let manifest = blob(&expected).unwrap_or_else(|| panic!("no manifest: {context}"));
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let mut whole = true;
        for digest in layers
            .chain([&manifest["config"]])
            .map(|d| d["digest"].as_str().unwrap())
        {
            match blob(digest) {
                Some(bytes) => assert_eq!(sha256(&bytes), digest, "{context}"),
                // A base layer that nothing needed.
                None => {
                    assert!(self.registry.blob_path(digest).exists(), "{digest} is lost: {context}");
                    whole = false;
                }
            }
        }
        if whole {
            // Reads all layers, and compares their diff_ids.
            Image::of_digest(&store, &expected);
        }
    }
}

/// Files by the part of the data directory they are of, so that each part has its share.
fn parts(data: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut parts: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files_below(data) {
        let within = path.strip_prefix(data).unwrap().to_string_lossy().into_owned();
        let is_file = std::fs::symlink_metadata(&path).unwrap().is_file();
        if !is_file || within.starts_with("cache-mounts") || within.starts_with("tmp") {
            continue;
        }
        let part = match within.split('/').collect::<Vec<_>>()[..] {
            ["layers", _, "fs", ..] => "layer",
            ["layers", _, "seal"] => "seal",
            ["store", "blobs", ..] => "blob",
            ["store", "checked", _] => "stamp",
            ["cache", _] => "record",
            _ => "other",
        };
        parts.entry(part.to_owned()).or_default().push(path);
    }
    parts.values_mut().for_each(|paths| paths.sort());
    parts
}

/// Files that later steps read.
const READ: [&str; 5] = ["built", "edited", "fixed", "deps", "late"];

/// Draws a part, then a file of it: every other time one that the next build is likely to use, for most others are of old results.
fn choose(bench: &Bench, random: &mut Random) -> PathBuf {
    let parts = parts(&bench.site.data());
    let names: Vec<&String> = parts.keys().collect();
    let part = *random.pick(&names);
    let current = bench.site.image_documents("app");
    let is_used = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        match part.as_str() {
            "blob" | "stamp" => current
                .iter()
                .any(|layer| layer["digest"].as_str().unwrap().ends_with(&*name)),
            "layer" => READ.contains(&&*name),
            _ => true,
        }
    };
    let used: Vec<&PathBuf> = parts[part].iter().filter(is_used).collect();
    match random.below(2) == 0 && !used.is_empty() {
        true => (*random.pick(&used)).clone(),
        false => random.pick(&parts[part]).clone(),
    }
}

/// Flips a bit, cuts the file off, or removes it; the modification time stays. Tells what was done.
fn damage(path: &Path, random: &mut Random) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let at = usize::try_from(random.below(bytes.len().max(1) as u64)).unwrap();
    let done = match random.below(8) {
        0 => {
            std::fs::remove_file(path).unwrap();
            return format!("removed {}", path.display());
        }
        1 | 2 => {
            bytes.truncate(at);
            format!("cut off at {at}")
        }
        _ if bytes.is_empty() => {
            bytes.push(b'x');
            "made longer".to_owned()
        }
        _ => {
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("flipped bit {bit} of byte {at}")
        }
    };
    std::fs::write(path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
    format!("{done} of {}", path.display())
}

#[test]
fn a_damaged_data_directory_gives_no_wrong_image() {
    let (rounds, seed) = rounds_and_seed("CORRUPT", 20);
    let mut random = Random::new(seed);
    let mut bench = Bench::new();
    bench.edit((0, 0));
    bench.build().good();
    let (mut failed, mut edited) = (0, 0);
    for round in 0..rounds {
        let path = choose(&bench, &mut random);
        let context = format!("round {round} of seed {seed}: {}", damage(&path, &mut random));
        if random.below(4) == 0 {
            let found = bench.cache(&["check"]);
            assert!(matches!(found.status, Some(0 | 1)), "{context}: {}", found.log);
        }
        if random.below(2) == 0 {
            edited += 1;
            let state = (random.below(3), random.below(3));
            bench.edit((usize::try_from(state.0).unwrap(), usize::try_from(state.1).unwrap()));
        }
        let outcome = bench.build();
        if outcome.status == Some(0) {
            bench.assert_right(&context);
            if random.below(2) == 0 {
                bench.push(round);
            }
        } else {
            failed += 1;
            assert_eq!(outcome.status, Some(1), "{context}: {}", outcome.log);
            assert!(
                outcome.log.to_lowercase().contains("error: "),
                "{context}: {}",
                outcome.log
            );
            assert!(!outcome.log.contains("panicked"), "{context}: {}", outcome.log);
            let error = outcome
                .log
                .lines()
                .rfind(|line| line.to_lowercase().contains("error: "));
            eprintln!("{context}: {}", error.unwrap_or_default());
        }
        let repair = bench.cache(&["check", "--repair"]);
        assert!(matches!(repair.status, Some(0 | 1)), "{context}: {}", repair.log);
        let again = bench.build();
        assert_eq!(again.status, Some(0), "{context}: {}", again.log);
        bench.assert_right(&context);
        let clean = bench.cache(&["check"]);
        let text = String::from_utf8_lossy(&clean.stdout);
        // A name that was damaged into another one is there to stay.
        let is_clean = text
            .lines()
            .all(|line| line.starts_with("image `") || line.starts_with("checked "));
        assert!(is_clean, "{context}: {text}");
    }
    eprintln!("{rounds} rounds, {edited} with an edit: {failed} builds failed, the others were right");
}
