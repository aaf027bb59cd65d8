//! A site as a user of Roadstead has one: registries, an AWS account, and the configuration that names them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cage::Cage;
use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::server::{Moto, Registry};
use crate::workspace::{make, make_empty, target, write};

/// The registry that the example's buildspec names; the account is the one moto has.
const ECR: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
/// The prefix of the base image that the example's Dockerfile names.
const PUBLIC: &str = "public.ecr.aws/docker/library";
/// The machine's certificates, as Debian has them.
pub(super) const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes the repository, which ECR wants to be there before a push, and prints the login of the registry.
const PREPARE_ACCOUNT: &str = r#"
import base64, boto3
ecr = boto3.client("ecr")
for name in "my-node-app", "roadstead":
    ecr.create_repository(repositoryName=name)
token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
print(base64.b64decode(token).decode())
"#;

/// Prints an htpasswd line; crypt(3) knows bcrypt, and Perl is on every Debian.
const HTPASSWD: &str = r#"
my ($user, $password) = split /:/, $ENV{LOGIN}, 2;
my $salt = join "", map { (".", "/", 0..9, "A".."Z", "a".."z")[rand 64] } 1..22;
print "$user:", crypt($password, "\$2y\$05\$$salt"), "\n";
"#;

/// Where everything of the demo is.
pub(super) fn directory() -> PathBuf {
    target().join("demo")
}

/// Everything that runs, and where its files are.
#[derive(Debug)]
pub(super) struct Site<'a> {
    directory: PathBuf,
    binary: PathBuf,
    /// Where roadstead runs, if not on the machine as it is.
    cage: Option<&'a Cage<'a>>,
    /// Stands for ECR: asks for the login that moto gives.
    pub(super) ecr: Registry,
    /// Stands for the public registry: anyone may read.
    mirror: Registry,
    moto: Moto,
    /// User and password of `ecr`.
    pub(super) login: String,
}

impl<'a> Site<'a> {
    /// Starts the servers and writes the configuration, all below `target/demo`.
    pub(super) fn start(binary: PathBuf, cage: Option<&'a Cage<'a>>, programs: &Path) -> Result<Self> {
        let directory = directory();
        make(&directory)?;
        let moto = Moto::start(programs, &directory.join("moto.log"))?;
        let mut prepare = program(programs.join("python"));
        let login = capture(moto.account(&mut prepare).args(["-c", PREPARE_ACCOUNT]))?
            .trim()
            .to_owned();
        let [ecr, mirror, config] = ["ecr", "mirror", "config"].map(|name| directory.join(name));
        for each in [&ecr, &mirror, &config] {
            make_empty(each)?;
        }
        let htpasswd = ecr.join("htpasswd");
        write(
            &htpasswd,
            &capture(program("perl").args(["-e", HTPASSWD]).env("LOGIN", &login))?,
        )?;
        let ecr = Registry::start(&ecr, Some(&htpasswd))?;
        let mirror = Registry::start(&mirror, None)?;
        write_config(
            &config,
            &[(ECR, ecr.host()), (PUBLIC, format!("{}/library", mirror.host()))],
        )?;
        println!("{ECR} is {}, with a login", ecr.host());
        println!("{PUBLIC} is {}/library", mirror.host());
        println!("AWS is 127.0.0.1:{}", moto.port);
        Ok(Self {
            directory,
            binary,
            cage,
            ecr,
            mirror,
            moto,
            login,
        })
    }

    /// A path below the demo's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Prepares `roadstead` with this site's configuration, data and AWS account.
    pub(super) fn roadstead(&self) -> Command {
        let mut command = program(&self.binary);
        self.moto
            .account(&mut command)
            .env("ROADSTEAD_DATA", self.path("data"))
            .env("ROADSTEAD_CONFIG", self.path("config"))
            // No login of the person at the terminal takes part.
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("DOCKER_HOST");
        command
    }

    /// Takes a command of `roadstead` to where it runs.
    pub(super) fn take(&self, command: &mut Command) -> Command {
        match self.cage {
            Some(cage) => cage.inside(command),
            None => {
                let none = program("true");
                std::mem::replace(command, none)
            }
        }
    }

    /// The binary, to be put into an image.
    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The name under which others reach an image of the private registry, and its tag or digest.
    pub(super) fn outside_name(&self, name: &str) -> Result<String> {
        let rest = name
            .strip_prefix(ECR)
            .ok_or_else(|| TaskError::new(format!("the image `{name}` is not in {ECR}")))?;
        Ok(format!("{}{rest}", self.ecr.host()))
    }

    /// The processes of the servers, for a look at what else runs.
    pub(super) fn servers(&self) -> [u32; 3] {
        [self.ecr.server.id(), self.mirror.server.id(), self.moto.server.id()]
    }
}

fn write_config(directory: &Path, registries: &[(&str, String)]) -> Result<()> {
    let mut text = String::new();
    for (prefix, location) in registries {
        text.push_str(&format!(
            "[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\ninsecure = true\n\n"
        ));
    }
    write(&directory.join("registries.toml"), &text)?;
    // Behind a proxy that inspects TLS, the machine's bundle has the proxy's certificate, which commands of a build need, too.
    write(
        &directory.join("config.toml"),
        &format!("ca-bundle = \"{CA_BUNDLE}\"\n"),
    )
}
