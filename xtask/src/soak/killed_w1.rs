//! SIGKILL at any moment of W1, the middling project of the benchmarks: the cache is sound after it, the next build is right, and
//! nothing is left of the killed one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::bench::builders::Workshop;
use crate::bench::{seeds, workload};
use crate::command::{capture, logged};
use crate::draw::Draw;
use crate::error::{Result, TaskError};
use crate::server::Registry;
use crate::workspace::{self, make_empty};

const ROUNDS: u64 = 100;
/// Time the kernel has to end what belonged to a killed build.
const GONE: Duration = Duration::from_secs(20);

/// W1, a registry that holds its base, and where the builds keep their data.
#[derive(Debug)]
struct Site {
    workshop: Workshop,
    context: PathBuf,
    registry: Registry,
    data: PathBuf,
}

/// Kills builds of W1; the first that leaves something wrong is the error.
pub(super) fn run(rounds: Option<u64>, seed: Option<u64>) -> Result<()> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let seed = seed.unwrap_or_else(seed_of_the_clock);
    println!("{rounds} rounds of seed {seed}");
    let site = Site::open()?;
    // What is right: each state of the sources built cold, and how long that takes.
    let (plain, _) = site.cold()?;
    site.edit(true)?;
    let (edited, whole) = site.cold()?;
    let mut draw = Draw::new(seed);
    let mut killed = 0;
    for round in 0..rounds {
        let context = |error: TaskError| TaskError::new(format!("round {round} of seed {seed}: {error}"));
        // Every other build finds what an earlier one has left.
        let is_warm = round % 2 == 1;
        if !is_warm {
            make_empty(&site.data)?;
        }
        let is_edited = draw.below(2) == 1;
        site.edit(is_edited)?;
        let longest = if is_warm { whole / 2 } else { whole };
        let moment = longest.mul_f64(f64::from(u32::try_from(draw.below(1000)).unwrap_or(0)) / 1000.0);
        let was_killed = site.kill_after(moment).map_err(context)?;
        killed += u64::from(was_killed);
        let digest = site.build().map_err(context)?;
        site.check().map_err(context)?;
        if digest != if is_edited { &*edited } else { &*plain } {
            return Err(context(TaskError::new(format!("another image: {digest}"))));
        }
        println!(
            "round {round}: {} after {:.2} s; sound, nothing left, {digest}",
            if was_killed { "killed" } else { "not killed, it ended" },
            moment.as_secs_f64()
        );
    }
    println!(
        "{rounds} rounds, {killed} builds killed before their end: every cache sound, every next build right, nothing left"
    );
    if killed * 2 < rounds {
        return Err(TaskError::new(
            "fewer than half of the builds were killed before their end",
        ));
    }
    make_empty(&site.workshop.turns)
}

fn seed_of_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |time| u64::from(time.subsec_nanos()))
}

impl Site {
    fn open() -> Result<Self> {
        // The base is the benchmarks' own, made once.
        let directory = workspace::target().join("bench");
        let turns = workspace::target().join("soak-w1");
        make_empty(&turns)?;
        let workshop = Workshop {
            directory,
            roadstead: workspace::build_product("release")?,
            turns,
        };
        let seed = seeds::debian(&workshop)?;
        let home = seed.parent().unwrap_or(&seed).to_owned();
        let context = workshop.turns.join("w1");
        workload::make_w1(&context)?;
        Ok(Self {
            registry: Registry::start_with_data(&home, None)?,
            data: workshop.turns.join("data"),
            context,
            workshop,
        })
    }

    fn edit(&self, is_edited: bool) -> Result<()> {
        workload::restore(&self.context)?;
        if is_edited {
            workload::edit(&self.context)
        } else {
            Ok(())
        }
    }

    /// Builds with nothing cached; gives the image's digest and how long it took.
    fn cold(&self) -> Result<(String, Duration)> {
        make_empty(&self.data)?;
        let begun = Instant::now();
        Ok((self.build()?, begun.elapsed()))
    }

    fn command(&self) -> Command {
        let host = self.registry.host();
        let mut command = self.workshop.roadstead(&self.data);
        command
            .args(["build", "--progress", "plain", "--push", "--build-arg"])
            .arg(format!("BASE={host}/{}", seeds::DEBIAN))
            .args(["--tag", &format!("{host}/result:1"), "--metadata-file"])
            .arg(self.metadata())
            .arg(&self.context);
        command
    }

    fn metadata(&self) -> PathBuf {
        self.workshop.turns.join("metadata.json")
    }

    /// Builds to the end; gives the digest of the manifest that was pushed.
    fn build(&self) -> Result<String> {
        logged(&mut self.command(), &self.workshop.turns.join("build.log"))?;
        let metadata = self.metadata();
        let text = std::fs::read_to_string(&metadata).map_err(TaskError::at("read", &metadata))?;
        let digest = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|json| Some(json.get("containerimage.digest")?.as_str()?.to_owned()));
        digest.ok_or_else(|| TaskError::new(format!("no digest in {text}")))
    }

    /// Starts a build, kills it, and looks at what it has left. Gives whether it was still at work.
    fn kill_after(&self, moment: Duration) -> Result<bool> {
        let failed = |error: std::io::Error| TaskError::new(format!("cannot kill a build: {error}"));
        let mut command = self.command();
        let mut build = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        std::thread::sleep(moment);
        build.kill().map_err(failed)?;
        let was_killed = !build.wait().map_err(failed)?.success();
        let until = Instant::now() + GONE;
        while let Some(user) = user_of(&self.data) {
            if Instant::now() > until {
                return Err(TaskError::new(format!("{user} is left of the killed build")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.data.join("store/oci-layout").exists() {
            capture(self.workshop.roadstead(&self.data).args(["cache", "check"]))?;
        }
        Ok(was_killed)
    }

    /// Whether the cache is sound, and nothing but caches and images is there.
    fn check(&self) -> Result<()> {
        capture(self.workshop.roadstead(&self.data).args(["cache", "check"]))?;
        for place in ["tmp", "store/ingest", "cache/locks", "store/locks"] {
            if let Some(name) = entries(&self.data.join(place))?.first() {
                return Err(TaskError::new(format!("left: {place}/{name}")));
            }
        }
        let mut caches = entries(&self.data.join("cache"))?;
        caches.retain(|name| name.len() != 64 && name != "locks");
        if let Some(name) = caches.first() {
            return Err(TaskError::new(format!("left: cache/{name}")));
        }
        match user_of(&self.data) {
            Some(user) => Err(TaskError::new(format!("{user} is left"))),
            None => Ok(()),
        }
    }
}

/// The names in a directory; none when there is no such directory.
fn entries(directory: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TaskError::at("read", directory)(error)),
        Ok(entries) => Ok(entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect()),
    }
}

/// A process in whose mount table the directory stands, be it of the build itself or of a command.
fn user_of(directory: &Path) -> Option<String> {
    let needle = directory.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find_map(|process| {
            let mounts = std::fs::read_to_string(process.join("mountinfo")).ok()?;
            mounts.contains(&needle).then(|| process.display().to_string())
        })
}
