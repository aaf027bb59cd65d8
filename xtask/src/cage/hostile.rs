//! A program that tries to get out of its RUN, with secrets planted outside for it to find.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::command::{capture, logged, program, read_lossy, run, succeeds, tail};
use crate::error::{Result, TaskError};
use crate::server::Server;
use crate::workspace::{make, write};

use super::container::Cage;
use super::endpoint::Endpoints;
use super::orphans;
use super::place::Place;
use super::site::Site;

/// Stages of the Dockerfile, each with the program as another user.
const TARGETS: [&str; 2] = ["root", "user"];
const FLAGS: [&str; 7] = [
    "-std=gnu11",
    "-O1",
    "-Wall",
    "-Wextra",
    "-static",
    "-no-pie",
    "-pthread",
];
/// The name of the files with a secret.
const OUTSIDE: &str = "roadstead-outside";
/// The name that the program gives to files which it makes outside.
const ESCAPED: &str = "roadstead-escaped";
const ABSTRACT: &str = "roadstead-victim";
/// What the program must gain when nothing holds it, for attempts that cannot succeed tell nothing.
const GAINED_WHEN_FREE: [&str; 9] = [
    "proc-environ",
    "proc-root",
    "kill-probe",
    "pidfd-send-signal",
    "path-plain",
    "race-paths",
    "socket-abstract",
    "socket-path",
    "shared-memory",
];

/// Where everything lies, and the secrets.
struct Trap<'a> {
    site: &'a Site,
    at: Place<'a>,
    directory: PathBuf,
    secrets: Vec<String>,
}

/// Builds with the program at a place; an error tells what it gained.
pub(super) fn run_all(site: &Site, at: Place<'_>) -> Result<()> {
    let mut trap = Trap::new(site, at)?;
    let token = trap.secret("token")?;
    let endpoints = Endpoints::open(&token)?;
    if endpoints.is_none() {
        println!("SKIPPED: the addresses of credentials cannot be added to the loopback interface");
    }
    trap.plant(endpoints.is_some())?;
    let victim = trap.start_victim()?;
    if let Place::Inside(cage) = at {
        trap.run_free(cage, endpoints.is_some())?;
    }
    let mut gained = Vec::new();
    for target in TARGETS {
        gained.extend(trap.build(target)?);
    }
    gained.extend(trap.traces()?);
    drop(victim);
    trap.clear()?;
    match gained.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!("gained {}:\n{}", at.name(), gained.join("\n")))),
    }
}

impl<'a> Trap<'a> {
    fn new(site: &'a Site, at: Place<'a>) -> Result<Self> {
        let directory = site.context("hostile")?;
        let context = directory.join("context");
        let sources = context.join("*.c");
        let script = format!(
            "exec gcc \"$@\" -o {0}/hostile {1}",
            context.display(),
            sources.display()
        );
        run(program("sh").args(["-c", &script, "sh"]).args(FLAGS))?;
        std::fs::copy(context.join("hostile"), directory.join("hostile")).map_err(TaskError::at("copy", &context))?;
        Ok(Self {
            site,
            at,
            directory,
            secrets: Vec::new(),
        })
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Makes a secret that the program knows by its form.
    fn secret(&mut self, place: &str) -> Result<String> {
        let random = Path::new("/dev/urandom");
        let mut bytes = [0; 16];
        let file = std::fs::File::open(random).and_then(|mut file| file.read_exact(&mut bytes));
        file.map_err(TaskError::at("read", random))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("roadstead-marker-{place}-{digits}");
        self.secrets.push(secret.clone());
        Ok(secret)
    }

    /// Puts secrets beside the data directory, into it, onto the place's root and into another stage, and writes the plan.
    fn plant(&mut self, has_endpoints: bool) -> Result<()> {
        let data = self.data();
        self.site.fresh_data(self.at, &data)?;
        make(&data)?;
        let beside = self.directory.join(OUTSIDE);
        let within = data.join(OUTSIDE);
        write(&beside, &self.secret("beside")?)?;
        write(&within, &self.secret("data")?)?;
        let stage = self.secret("stage")?;
        write(&self.directory.join("stage"), &stage)?;
        let secret = self.secret("container")?;
        self.shell(&format!("echo {secret} > /{OUTSIDE}"))?;
        let mut plan = format!(
            "path /{OUTSIDE}\npath {}\npath {}\nabstract {ABSTRACT}\nsocket {}\n",
            within.display(),
            beside.display(),
            self.directory.join("victim.sock").display()
        );
        if has_endpoints {
            plan.push_str("endpoints\n");
        }
        write(&self.directory.join("context/plan"), &plan)
    }

    /// Runs a script at the place.
    fn shell(&self, script: &str) -> Result<()> {
        let mut command = program("sh");
        command.args(["-ec", script]);
        capture(&mut self.at.take(command)).map(drop)
    }

    /// Starts the process outside that tells of signals.
    fn start_victim(&mut self) -> Result<Server> {
        let marker = self.secret("victim")?;
        let mut victim = program(self.directory.join("hostile"));
        victim.arg("victim").arg(&self.directory).args([ABSTRACT, &marker]);
        let log = self.directory.with_file_name("victim-output");
        let mut server = Server::start("the victim", &mut self.at.take(victim), &log)?;
        let ready = self.directory.join("victim.ready");
        server.wait_for(|_| ready.exists().then_some(()))?;
        Ok(server)
    }

    /// Lets the program run with nothing around it but the cage: it must see that it can get everywhere. Never outside of a cage, where it
    /// would do harm.
    fn run_free(&self, cage: &Cage<'_>, has_endpoints: bool) -> Result<()> {
        let mut free = program(self.directory.join("hostile"));
        free.arg("run").arg(self.directory.join("context/plan"));
        let output = cage.inside(&free).output();
        let output = output.map_err(|error| TaskError::new(format!("cannot start the program: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_gained = |name: &str| text.lines().any(|line| line.starts_with(&format!("GAINED {name} ")));
        let endpoint = has_endpoints.then_some("endpoint-connect");
        let missing: Vec<&str> = GAINED_WHEN_FREE
            .into_iter()
            .chain(endpoint)
            .filter(|name| !is_gained(name))
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(TaskError::new(format!(
                "the program is too weak, for it did not gain {missing}:\n{text}"
            )));
        }
        // The victim has told of signals by now, and the program may have made files.
        write(&self.directory.join("victim.log"), "")?;
        let script = format!("rm -rf /{ESCAPED} /tmp/*");
        capture(&mut cage.command("sh", ["-c", &script])).map(drop)
    }

    /// Lets the program run; gives what it gained.
    fn build(&mut self, target: &str) -> Result<Vec<String>> {
        let secret = self.secret("environment")?;
        let log = self
            .site
            .directory
            .with_file_name(format!("hostile-{target}-{}.log", self.at.name()));
        let mut build = self
            .site
            .build(self.at, &self.directory, &self.data(), "cage/hostile")?;
        build.env("ROADSTEAD_TEST_MARKER", secret);
        build.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x");
        build.args(["--target", target, "--secret", "id=stage,src=stage"]);
        let built = logged(&mut self.at.take(build), &log);
        let text = read_lossy(&log);
        let report = Report::read(&text);
        if !report.is_whole {
            let end = tail(&text);
            return Err(TaskError::new(format!(
                "the program did not come to its end as {target}:\n{end}"
            )));
        }
        println!(
            "{target} {}: {} blocked, {} gained; {}",
            self.at.name(),
            report.blocked,
            report.gained.len(),
            log.display()
        );
        report.noted.iter().for_each(|line| println!("        noted: {line}"));
        let mut gained = report.gained;
        if built.is_err() && gained.is_empty() {
            gained.push(format!("the build failed:\n{}", tail(&text)));
        }
        if self.secrets.iter().any(|secret| text.contains(secret.as_str())) {
            gained.push("a secret is in the log".to_owned());
        }
        Ok(gained.iter().map(|line| format!("{target}: {line}")).collect())
    }

    /// What the program left outside.
    fn traces(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let signals = read_lossy(&self.directory.join("victim.log"));
        found.extend(signals.lines().map(|line| format!("the victim got {line}")));
        if let Err(error) = orphans::none_is_left("roadstead-orphan") {
            found.push(error.to_string());
        }
        let mut exists = program("sh");
        exists.args(["-c", &format!("test -e /{ESCAPED}")]);
        if succeeds(&mut self.at.take(exists)) {
            found.push(format!("/{ESCAPED} was made outside"));
        }
        for directory in [&self.directory, &self.data(), &self.directory.join("context")] {
            if directory.join(ESCAPED).exists() {
                found.push(format!("{} was made", directory.join(ESCAPED).display()));
            }
        }
        Ok(found)
    }

    fn clear(&self) -> Result<()> {
        self.shell(&format!("rm -rf /{OUTSIDE} /{ESCAPED}"))
    }
}

/// What the program printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    blocked: usize,
    noted: Vec<String>,
    gained: Vec<String>,
    /// Whether it came to its end.
    is_whole: bool,
}

impl Report {
    /// Reads a plain log: number, time, and then the program's line.
    fn read(log: &str) -> Self {
        let mut report = Self::default();
        for line in log.lines().filter(|line| line.starts_with('#')) {
            let words = line.splitn(3, ' ').nth(2).unwrap_or_default();
            match words.split_once(' ') {
                Some(("blocked", _)) => report.blocked += 1,
                Some(("noted", rest)) => report.noted.push(rest.to_owned()),
                Some(("GAINED", rest)) => report.gained.push(rest.to_owned()),
                _ => report.is_whole |= words.contains(" attempts, "),
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let log = "#5 [root 1/1] RUN x\n#5 0.1 blocked a \n#5 0.2 GAINED b what\n#5 0.3 noted c why\n#5 0.4 3 attempts, 1 gained\n > GAINED b\n";
        let want = Report {
            blocked: 1,
            noted: vec!["c why".to_owned()],
            gained: vec!["b what".to_owned()],
            is_whole: true,
        };
        assert_eq!(Report::read(log), want);
    }
}
