//! What a run of cases needs: Docker with BuildKit, the base images on both sides, servers for ADD and for contexts.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use crate::command::{capture, logged, program, read_lossy, run};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::server::{Server, free_port};
use crate::workspace::{make, make_empty, write};

use super::case::Case;
use super::image::Image;

const PYTHON: &str = "/usr/bin/python3";
/// The Dockerfiles of the base images, by name; those that stand on others come later.
const BASES: [(&str, &str); 4] = [
    ("busybox", include_str!("bases/busybox.Dockerfile")),
    ("furnished", include_str!("bases/furnished.Dockerfile")),
    ("configured", include_str!("bases/configured.Dockerfile")),
    ("triggers", include_str!("bases/triggers.Dockerfile")),
];
/// Makes the files that the servers show: archives, repositories with a tag, a branch and a submodule.
const SERVED: &str = include_str!("bases/served.sh");

/// Everything that lasts over all cases.
#[derive(Debug)]
pub(super) struct Workshop {
    roadstead: PathBuf,
    directory: PathBuf,
    docker: Option<Docker>,
    bases: BTreeMap<String, Image>,
    addresses: [(&'static str, String); 2],
    _servers: [Server; 2],
}

/// What a builder made of a case.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: ExitStatus,
    pub(super) log: PathBuf,
    /// The archive, when the build went well.
    pub(super) archive: Option<PathBuf>,
}

impl Workshop {
    /// Starts everything. Without Docker only what needs no oracle can be run.
    pub(super) fn open(directory: &Path, shared: &Path, roadstead: PathBuf, with_docker: bool) -> Result<Self> {
        let served = directory.join("served");
        make(&served)?;
        run(program("sh").args(["-ec", SERVED]).current_dir(&served))?;
        let (http_port, git_port) = (free_port()?, free_port()?);
        let mut http = program(PYTHON);
        http.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .arg(&served)
            .arg(http_port.to_string());
        let mut git = program("git");
        git.args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={git_port}"))
            .arg(format!("--base-path={}", served.display()));
        let mut servers = [
            Server::start("http.server", &mut http, &directory.join("http.log"))?,
            Server::start("git daemon", &mut git, &directory.join("git.log"))?,
        ];
        for (server, port) in servers.iter_mut().zip([http_port, git_port]) {
            server.wait_for(|_| std::net::TcpStream::connect(("127.0.0.1", port)).ok())?;
        }
        let cases = directory.join("cases");
        make(&cases)?;
        let docker = match with_docker {
            true => Some(Docker::start_with(shared, &directory.join("docker"), &[&cases])?),
            false => None,
        };
        let mut workshop = Self {
            roadstead,
            directory: directory.to_owned(),
            docker,
            bases: BTreeMap::new(),
            addresses: [
                ("@HTTP@", format!("http://127.0.0.1:{http_port}")),
                ("@GIT@", format!("git://127.0.0.1:{git_port}")),
            ],
            _servers: servers,
        };
        for (name, dockerfile) in BASES {
            workshop.make_base(name, dockerfile)?;
        }
        Ok(workshop)
    }

    /// The oracle's version.
    pub(super) fn oracle(&self) -> Result<String> {
        self.docker.as_ref().map_or(Ok("none".to_owned()), Docker::version)
    }

    /// The oracle's daemon, which can show containers the cases.
    pub(super) fn docker(&self) -> Option<&Docker> {
        self.docker.as_ref()
    }

    /// Where the cases keep their files.
    pub(super) fn cases(&self) -> PathBuf {
        self.directory.join("cases")
    }

    /// A base image, and where the cases keep their files.
    pub(super) fn base(&self, name: &str) -> Option<&Image> {
        self.bases.get(name)
    }

    /// Makes a base with the oracle, so that both builders stand on the same image; without one, by roadstead.
    fn make_base(&mut self, name: &str, dockerfile: &str) -> Result<()> {
        let directory = self.directory.join("bases").join(name);
        let context = directory.join("context");
        make(&context)?;
        let busybox = Path::new("/usr/bin/busybox");
        std::fs::copy(busybox, context.join("busybox")).map_err(TaskError::at("copy", busybox))?;
        write(&context.join("Dockerfile"), dockerfile)?;
        let archive = directory.join("image.tar");
        match &self.docker {
            Some(docker) => {
                let mut build = docker.client();
                build.args(["buildx", "build", "--quiet", "--network", "host", "-t", name]);
                capture(build.arg(&context))?;
                capture(docker.client().args(["save", "--output"]).arg(&archive).arg(name))?;
                capture(self.roadstead().args(["image", "load", "-i"]).arg(&archive))?;
            }
            None => {
                let mut build = self.roadstead();
                build.args(["build", "--quiet", "-t", name, "-o"]);
                capture(
                    build
                        .arg(format!("type=docker,dest={}", archive.display()))
                        .arg(&context),
                )?;
            }
        }
        let image = Image::read(&archive, &std::collections::BTreeSet::new())?;
        self.bases.insert(name.to_owned(), image);
        Ok(())
    }

    /// Prepares roadstead with the data of this run.
    fn roadstead(&self) -> Command {
        self.roadstead_with(&self.directory.join("data"))
    }

    fn roadstead_with(&self, data: &Path) -> Command {
        let mut command = program(&self.roadstead);
        self.at_home(&mut command, data);
        command
    }

    /// Sets a command's environment to that of this run.
    fn at_home(&self, command: &mut Command, data: &Path) {
        let none = self.directory.join("none");
        command.env("ROADSTEAD_DATA", data).env("ROADSTEAD_CONFIG", &none);
        command.env("DOCKER_CONFIG", &none).env("NO_COLOR", "1");
    }

    /// Makes the context of a case, once for each builder, for a build may change what is beside it.
    pub(super) fn prepare(&self, case: &Case) -> Result<PathBuf> {
        let directory = self.cases().join(&case.name);
        make_empty(&directory)?;
        let context = directory.join("context");
        make(&context)?;
        let script = self.filled(&case.context);
        // Whatever the umask of the caller is, the files are the same.
        let script = format!("umask 022\n{script}");
        capture(program("sh").args(["-euc", &script]).current_dir(&context))
            .map_err(|error| TaskError::new(format!("the context of {}: {error}", case.name)))?;
        if let Some(dockerfile) = &case.dockerfile {
            write(&context.join("Dockerfile"), &self.filled(dockerfile))?;
        }
        Ok(directory)
    }

    fn filled(&self, text: &str) -> String {
        self.addresses
            .iter()
            .fold(text.to_owned(), |text, (name, address)| text.replace(name, address))
    }

    fn flags(&self, case: &Case) -> Vec<String> {
        case.flags.iter().map(|flag| self.filled(flag)).collect()
    }

    /// Starts roadstead on a prepared case.
    pub(super) fn start_roadstead(&self, case: &Case, directory: &Path) -> Result<Running> {
        let archive = directory.join("roadstead.tar");
        let mut command = self.roadstead();
        command.args(["build", "--progress", "plain", "-o"]);
        command.arg(format!("type=docker,dest={}", archive.display()));
        command.args(self.flags(case));
        if !has_context(case) {
            command.arg("context");
        }
        Running::start(command, directory, "roadstead", archive)
    }

    /// Starts Docker on a prepared case. The archive is written by [`Running::end`].
    pub(super) fn start_docker(&self, case: &Case, directory: &Path) -> Result<Option<Running>> {
        let Some(docker) = &self.docker else { return Ok(None) };
        let mut command = docker.client();
        command.args(["buildx", "build", "--progress", "plain", "--network", "host"]);
        command.args(["-t", &tag(case)]).args(self.flags(case));
        if !has_context(case) {
            command.arg("context");
        }
        Running::start(command, directory, "docker", directory.join("docker.tar")).map(Some)
    }

    /// Has Docker write what it built. It cannot write an image without layers, which then counts as not built.
    pub(super) fn save(&self, case: &Case, outcome: &mut Outcome) -> Result<()> {
        let (Some(docker), Some(archive)) = (&self.docker, &outcome.archive) else {
            return Ok(());
        };
        match capture(docker.client().args(["save", "--output"]).arg(archive).arg(tag(case))) {
            Err(error) if error.to_string().contains("empty export") => outcome.archive = None,
            saved => drop(saved?),
        }
        Ok(())
    }

    /// Makes a data directory of this name that holds the base images and nothing else.
    pub(super) fn fresh_data(&self, directory: &Path, name: &str) -> Result<PathBuf> {
        let data = directory.join(name);
        make_empty(&data)?;
        std::fs::remove_dir(&data).map_err(TaskError::at("remove", &data))?;
        capture(program("cp").arg("--archive").arg(self.seed()?).arg(&data))?;
        Ok(data)
    }

    /// Builds a case with this data by `build`, which runs roadstead, and what more is said; gives the digest of the layout, that of
    /// manifest, config and layers as a registry would get them, and what the build printed.
    pub(super) fn digest(&self, case: &Case, data: &Path, build: Command, more: &[String]) -> Result<(String, String)> {
        let log = data.with_extension("log");
        let (mut build, layout) = self.to_archive(case, data, "oci", build, more);
        logged(&mut build, &log)?;
        Ok((sha256(&layout)?, read_lossy(&log)))
    }

    /// Prepares `build`, which runs roadstead, for an archive of this type beside the data; gives the archive's path as well.
    pub(super) fn to_archive(
        &self,
        case: &Case,
        data: &Path,
        kind: &str,
        mut build: Command,
        more: &[String],
    ) -> (Command, PathBuf) {
        self.at_home(&mut build, data);
        let archive = data.with_extension(format!("{kind}.tar"));
        build.args(["build", "--progress", "plain", "-o"]);
        build.arg(format!("type={kind},dest={}", archive.display()));
        build.args(more).args(self.flags(case));
        if let Some(directory) = data.parent() {
            build.current_dir(directory);
        }
        if !has_context(case) {
            build.arg("context");
        }
        (build, archive)
    }

    /// The program that is under test.
    pub(super) fn binary(&self) -> &Path {
        &self.roadstead
    }

    /// A data directory that holds the base images and nothing else.
    fn seed(&self) -> Result<PathBuf> {
        let seed = self.directory.join("seed");
        if seed.exists() {
            return Ok(seed);
        }
        for base in self.bases.keys() {
            let archive = self.directory.join("bases").join(base).join("image.tar");
            capture(self.roadstead_with(&seed).args(["image", "load", "-i"]).arg(archive))?;
        }
        Ok(seed)
    }
}

/// The digest of a file, in hexadecimal.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let printed = capture(program("sha256sum").arg(file))?;
    Ok(printed.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A flag without a dash names the context.
fn has_context(case: &Case) -> bool {
    case.flags.iter().any(|flag| !flag.starts_with('-'))
}

fn tag(case: &Case) -> String {
    format!("case/{}:1", case.name.to_lowercase())
}

/// A build under way.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    log: PathBuf,
    archive: PathBuf,
}

impl Running {
    /// Starts a build that is to write `archive`; its log is named after the builder.
    pub(super) fn start(mut command: Command, directory: &Path, name: &str, archive: PathBuf) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).map_err(TaskError::at("write", &log))?;
        let copy = file.try_clone().map_err(TaskError::at("write", &log))?;
        let child = command.current_dir(directory).stdout(file).stderr(copy).spawn();
        let child = child.map_err(|error| TaskError::new(format!("cannot start {name}: {error}")))?;
        Ok(Self { child, log, archive })
    }

    /// Waits for the end.
    pub(super) fn end(mut self) -> Result<Outcome> {
        let status = self
            .child
            .wait()
            .map_err(|error| TaskError::new(format!("cannot wait for a build: {error}")))?;
        Ok(Outcome {
            status,
            log: self.log,
            archive: status.success().then_some(self.archive),
        })
    }
}

impl Outcome {
    /// What the build printed.
    pub(super) fn printed(&self) -> String {
        read_lossy(&self.log)
    }
}
