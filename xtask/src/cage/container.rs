//! A container with what Docker gives by default: no mount, no namespace, no further capability.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{capture, logged, program, succeeds, tail};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::workspace::{self, make, make_empty};

/// The authorities that this machine trusts, and where the cage has them.
pub(crate) const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const PACKAGES: &str = "--include=git,ca-certificates,openssh-client";
const IMAGE: &str = "cage";
/// The first process: it buries what its children leave, as the init of a real container does.
const INIT: &str = "sleep infinity & while :; do wait; done";
/// What the cage must refuse; it prints what was granted all the same.
const EXAMINE: &str = r"
grep -E '^(CapEff|Seccomp):' /proc/self/status
unshare -U true 2>/dev/null && echo a user namespace
mount -t tmpfs x /mnt 2>/dev/null && echo a mount
true
";

/// How little a cage may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Docker's defaults.
    Plain,
    /// With SYS_PTRACE, the one capability that can be had besides.
    Ptrace,
    /// Uid 1000 without capabilities, as in a restricted pod.
    Restricted,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Ptrace => "ptrace",
            Self::Restricted => "restricted",
        }
    }

    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Ptrace => &["--cap-add=SYS_PTRACE"],
            Self::Restricted => &["--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges"],
        }
    }

    /// The effective capabilities, as the kernel shows them.
    const fn capabilities(self) -> &'static str {
        match self {
            Self::Plain => "00000000a80425fb",
            Self::Ptrace => "00000000a80c25fb",
            Self::Restricted => "0000000000000000",
        }
    }
}

/// A running cage; it ends with this value.
#[derive(Debug)]
pub(crate) struct Cage<'a> {
    docker: &'a Docker,
    name: String,
    kind: Kind,
    /// What it sees of the machine, under the same path.
    directory: PathBuf,
}

impl<'a> Cage<'a> {
    /// Starts a cage on a daemon that can show it `directory`. `shared` keeps the root it is made from.
    pub(crate) fn start(docker: &'a Docker, shared: &Path, directory: &Path, kind: Kind) -> Result<Self> {
        import(docker, shared)?;
        let programs = directory.join("bin");
        make(&programs)?;
        let bundle = programs.join("ca-certificates.crt");
        std::fs::copy(CA_BUNDLE, &bundle).map_err(TaskError::at("copy", Path::new(CA_BUNDLE)))?;
        let name = format!("cage-{}", kind.name());
        let mut run = docker.client();
        run.args(["run", "--detach", "--rm", "--network=host", "--stop-signal=KILL"]);
        run.args(["--name", &name]).args(kind.options());
        for (from, to, mode) in [
            (directory, directory, ""),
            (&*programs, &*programs, ":ro"),
            (&*bundle, Path::new(CA_BUNDLE), ":ro"),
        ] {
            run.arg("--volume")
                .arg(format!("{}:{}{mode}", from.display(), to.display()));
        }
        capture(run.args([IMAGE, "sh", "-c", INIT]))?;
        let cage = Self {
            docker,
            name,
            kind,
            directory: directory.to_owned(),
        };
        cage.examine()?;
        Ok(cage)
    }

    pub(super) fn client(&self) -> Command {
        self.docker.client()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where roadstead is once it is installed, in the cage and on the machine.
    pub(crate) fn roadstead(&self) -> PathBuf {
        self.directory.join("bin/roadstead")
    }

    /// Makes sure that what is started in it later is as confined as its first process.
    fn examine(&self) -> Result<()> {
        let wanted = format!("CapEff:\t{}\nSeccomp:\t2\n", self.kind.capabilities());
        let found = capture(&mut self.command("sh", ["-c", EXAMINE]))?;
        if found == wanted {
            return Ok(());
        }
        Err(TaskError::new(format!(
            "the cage is not what it should be: wanted\n{wanted}and got\n{found}"
        )))
    }

    /// Prepares a program in the cage.
    pub(crate) fn command<I>(&self, name: impl AsRef<OsStr>, arguments: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.inside(program(name).args(arguments))
    }

    /// Turns a command for the machine into the same in the cage, with its variables and its current directory.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut exec = self.docker.client();
        exec.arg("exec");
        if let Some(directory) = command.get_current_dir() {
            exec.arg("--workdir").arg(directory);
        }
        for (name, value) in command.get_envs() {
            // The caller's own variables are not there, so none need be taken away.
            let Some(value) = value else { continue };
            let mut pair = OsString::from(name);
            pair.push("=");
            pair.push(value);
            exec.arg("--env").arg(pair);
        }
        exec.arg(&self.name).args(words(command));
        exec
    }

    /// Puts roadstead into the cage. A binary that was asked for must run there as it is.
    pub(crate) fn install(&self, asked_for: Option<&Path>) -> Result<()> {
        let there = self.roadstead();
        let put = |from: &Path| std::fs::copy(from, &there).map_err(TaskError::at("copy", from));
        let runs = || succeeds(&mut self.command(&there, ["--version"]));
        match asked_for {
            Some(binary) => put(binary)?,
            None => put(&workspace::build_product("dev")?)?,
        };
        if !runs() && asked_for.is_none() {
            println!("this machine's libc is not the cage's: building roadstead statically");
            put(&workspace::build_static("dev")?)?;
        }
        match runs() {
            true => Ok(()),
            false => Err(TaskError::new(
                "roadstead does not run in the cage; is it linked statically?",
            )),
        }
    }
}

impl Drop for Cage<'_> {
    fn drop(&mut self) {
        let removed = capture(self.docker.client().args(["rm", "--force", &self.name]));
        if let Err(error) = removed {
            eprintln!("cannot end the cage: {}", tail(&error.to_string()));
        }
    }
}

/// A command's program and arguments, without what ties it to this process: in the cage there is no such process.
fn words(command: &Command) -> Vec<&OsStr> {
    let mut words: Vec<&OsStr> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    if command.get_program() == "/usr/bin/setpriv"
        && let Some(end) = words.iter().position(|word| *word == "--")
    {
        words.drain(..=end);
    }
    words
}

/// Gives the daemon the cage's image: Debian 12 with what a builder calls.
fn import(docker: &Docker, shared: &Path) -> Result<()> {
    if succeeds(docker.client().args(["image", "inspect", IMAGE])) {
        return Ok(());
    }
    let home = shared.join("cage");
    let archive = home.join("cage.tar");
    if !archive.exists() {
        println!("making the cage's root from Debian's packages, about half a minute");
        make_empty(&home)?;
        let part = home.join("part.tar");
        let mut mmdebstrap = program("mmdebstrap");
        mmdebstrap.args([
            "--variant=minbase",
            "--mode=root",
            "--skip=output/dev",
            PACKAGES,
            "bookworm",
        ]);
        logged(mmdebstrap.arg(&part), &home.join("mmdebstrap.log"))?;
        std::fs::rename(&part, &archive).map_err(TaskError::at("rename", &part))?;
    }
    capture(docker.client().arg("import").arg(&archive).arg(IMAGE)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_as_it_is_meant() {
        assert_eq!(words(program("a").args(["--", "b"])), ["a", "--", "b"]);
        assert_eq!(words(Command::new("a").args(["--", "b"])), ["a", "--", "b"]);
    }
}
