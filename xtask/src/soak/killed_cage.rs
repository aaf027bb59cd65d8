//! SIGKILL at any moment of a build in a cage, where no namespace ends what belonged to it: no process is left, no secret lies about,
//! the cache is sound, and the next build is right.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cage::{Cage, Kind, Place, Site};
use crate::command::{capture, logged, program, succeeds};
use crate::draw::Draw;
use crate::error::{Result, TaskError};
use crate::oracle;
use crate::workspace::{make, make_empty, write};

const ROUNDS: u64 = 50;
/// Time that what belonged to a killed build has to end.
const GONE: Duration = Duration::from_secs(2);
const SECRET_LENGTH: usize = 40;
/// A variable of the builder, by which it is found.
const MARK: &str = "ROADSTEAD_TEST_BUILD";

const DOCKERFILE: &str = "\
FROM debian
COPY work.sh /
RUN --mount=type=secret,id=token --mount=type=cache,target=/kept --mount=type=bind,target=/context sh /work.sh first
RUN --mount=type=secret,id=token,target=/etc/token --mount=type=bind,target=/context,rw --mount=type=tmpfs,target=/scratch sh /work.sh second
";
/// Reads what is mounted again and again, by many processes; the secret is written nowhere but to memory.
const WORK: &str = "\
set -e
export TOKEN=$(cat /run/secrets/token 2>/dev/null || cat /etc/token)
test ${#TOKEN} = 40
i=0
while [ $i -lt 40 ]; do
  cat /run/secrets/token /etc/token 2>/dev/null | sha256sum > /dev/null || true
  if [ -d /kept ]; then date > /kept/$1-$i; cat /kept/* > /dev/null; fi
  if [ -d /scratch ]; then echo \"$TOKEN\" > /scratch/token; echo changed > /context/work.sh; fi
  head -c 100000 /dev/zero | tr '\\0' x > /made-$1-$i
  setsid sh -c 'sleep 0.3; exec sleep 1000' > /dev/null 2>&1 < /dev/null &
  sleep 0.02
  i=$((i + 1))
done
";

/// A cage, a context, and the data of its builds.
struct Yard<'a> {
    site: &'a Site,
    cage: &'a Cage<'a>,
    place: PathBuf,
    data: PathBuf,
}

/// Kills builds; the first that leaves something wrong is the error.
pub(super) fn run(rounds: Option<u64>, seed: Option<u64>) -> Result<()> {
    if !oracle::is_possible() {
        println!("SKIPPED: a cage needs Docker, which needs root and mounts here");
        return Ok(());
    }
    let rounds = rounds.unwrap_or(ROUNDS);
    let seed = seed.unwrap_or_else(seed_of_the_clock);
    println!("{rounds} rounds of seed {seed}");
    let site = Site::open("soak-cage", None)?;
    let cage = site.cage(Kind::Plain, None)?;
    let yard = Yard::open(&site, &cage)?;
    let mut draw = Draw::new(seed);
    yard.fresh()?;
    let begun = Instant::now();
    let wanted = yard.build(&secret(&mut draw))?;
    let whole = begun.elapsed();
    let mut killed = 0;
    for round in 0..rounds {
        let context = |error: TaskError| TaskError::new(format!("round {round} of seed {seed}: {error}"));
        let moment = whole.mul_f64(f64::from(u32::try_from(draw.below(1000)).unwrap_or(0)) / 1000.0);
        let secret = secret(&mut draw);
        let is_group = draw.below(3) == 0;
        // Every other build finds what an earlier one has left.
        if round % 2 == 0 {
            yard.fresh().map_err(context)?;
        }
        let was_killed = yard.kill_after(&secret, moment, is_group, round).map_err(context)?;
        killed += u64::from(was_killed);
        yard.check(&secret).map_err(context)?;
        let digest = yard.build(&secret).map_err(context)?;
        yard.check(&secret).map_err(context)?;
        if digest != wanted {
            return Err(context(TaskError::new(format!(
                "another image: {digest}, not {wanted}"
            ))));
        }
        let what = match (was_killed, is_group) {
            (true, true) => "killed with its group",
            (true, false) => "killed",
            (false, _) => "not killed, it ended",
        };
        println!(
            "round {round}: {what} after {:.2} s; nothing left, sound, {digest}",
            moment.as_secs_f64()
        );
    }
    println!(
        "{rounds} rounds, {killed} builds killed before their end: nothing left, every cache sound, every next build right"
    );
    if killed * 2 < rounds {
        return Err(TaskError::new(
            "fewer than half of the builds were killed before their end",
        ));
    }
    make_empty(&site.directory)
}

fn seed_of_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |time| u64::from(time.subsec_nanos()))
}

fn secret(draw: &mut Draw) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    (0..SECRET_LENGTH)
        .map(|_| char::from(letters[draw.below(letters.len())]))
        .collect()
}

impl<'a> Yard<'a> {
    fn open(site: &'a Site, cage: &'a Cage<'a>) -> Result<Self> {
        let place = site.directory.join("killed");
        let context = place.join("context");
        make(&context)?;
        write(&context.join("Dockerfile"), DOCKERFILE)?;
        write(&context.join("work.sh"), WORK)?;
        let data = place.join("data");
        Ok(Self {
            site,
            cage,
            place,
            data,
        })
    }

    fn at(&self) -> Place<'_> {
        Place::Inside(self.cage)
    }

    fn fresh(&self) -> Result<()> {
        self.site.fresh_data(self.at(), &self.data)
    }

    /// Prepares the build with this secret, which lies outside of everything that is looked through.
    fn command(&self, secret: &str, mark: &str) -> Result<Command> {
        let mut build = self.site.build(self.at(), &self.place, &self.data, "killed")?;
        build.args([
            "--no-cache",
            "--metadata-file",
            "metadata.json",
            "--secret",
            "id=token,env=TOKEN",
        ]);
        build.env("TOKEN", secret).env(MARK, mark);
        Ok(self.at().take(build))
    }

    /// Builds to the end; gives the digest of the manifest.
    fn build(&self, secret: &str) -> Result<String> {
        logged(&mut self.command(secret, "whole")?, &self.place.join("build.log"))?;
        let metadata = self.place.join("metadata.json");
        let text = std::fs::read_to_string(&metadata).map_err(TaskError::at("read", &metadata))?;
        let digest = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|json| Some(json.get("containerimage.digest")?.as_str()?.to_owned()));
        digest.ok_or_else(|| TaskError::new(format!("no digest in {text}")))
    }

    /// Starts a build and kills it. Gives whether it was still at work.
    fn kill_after(&self, secret: &str, moment: Duration, is_group: bool, round: u64) -> Result<bool> {
        let failed = |error: std::io::Error| TaskError::new(format!("cannot watch a build: {error}"));
        let mark = format!("{MARK}=round-{round}-of-{}", std::process::id());
        let mut command = self.command(secret, mark.split_once('=').map_or("", |(_, value)| value))?;
        let mut build = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        // The eldest of those that have the variable is the build itself.
        let builder = loop {
            if let Some(builder) = self.cage.processes_with(&mark)?.first() {
                break *builder;
            }
            if let Some(status) = build.try_wait().map_err(failed)? {
                return Err(TaskError::new(format!("a build ended before it was seen: {status}")));
            }
        };
        std::thread::sleep(moment);
        let target = if is_group {
            format!("-{}", group_of(builder)?)
        } else {
            builder.to_string()
        };
        let was_killed = succeeds(program("sh").args(["-c", "kill -s KILL -- \"$1\"", "sh", &target]));
        let ended_well = build.wait().map_err(failed)?.success();
        self.nothing_runs()?;
        Ok(was_killed && !ended_well)
    }

    fn nothing_runs(&self) -> Result<()> {
        let until = Instant::now() + GONE;
        loop {
            let left = self.cage.processes()?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(TaskError::new(format!("left running: {}", left.join(", "))));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether nothing runs, the secret is nowhere, and the cache is sound.
    fn check(&self, secret: &str) -> Result<()> {
        self.nothing_runs()?;
        let mut grep = program("grep");
        grep.args(["--recursive", "--files-with-matches", "--fixed-strings", "-e", secret]);
        let found = grep.arg(&self.data).output();
        let found = found.map_err(|error| TaskError::new(format!("cannot start grep: {error}")))?;
        if !found.stdout.is_empty() {
            let files = String::from_utf8_lossy(&found.stdout).into_owned();
            return Err(TaskError::new(format!("the secret is in {files}")));
        }
        let mut check = self.site.roadstead(self.at(), &self.data);
        check.args(["cache", "check"]);
        capture(&mut self.at().take(check)).map(drop)
    }
}

/// The process group of a process, as this machine counts.
fn group_of(process: u32) -> Result<u32> {
    let path = PathBuf::from(format!("/proc/{process}/stat"));
    let stat = std::fs::read_to_string(&path).map_err(TaskError::at("read", &path))?;
    // The name before it may have anything in it.
    let group = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(2)?.parse().ok());
    group.ok_or_else(|| TaskError::new(format!("no group in {stat}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_each_another() {
        let mut draw = Draw::new(1);
        let (one, other) = (secret(&mut draw), secret(&mut draw));
        assert_eq!(one.len(), SECRET_LENGTH);
        assert_ne!(one, other);
    }

    #[test]
    fn a_group_is_read() {
        assert!(group_of(std::process::id()).unwrap() > 0);
    }
}
