//! Each case built with nothing cached, and then out of every kind of cache: the same digests, and no command runs again.

use std::path::Path;
use std::time::Instant;

use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::server::{Moto, Registry};
use crate::tools;
use crate::workspace::make_empty;

use super::case::{Case, RUNS_AGAIN};
use super::workshop::Workshop;

const BUCKET: &str = "caches";
const MAKE_BUCKET: &str = "import boto3, sys; boto3.client('s3').create_bucket(Bucket=sys.argv[1])";
/// Flags that ask for commands to be run again.
const RUN_AGAIN: [&str; 2] = ["--no-cache", "--no-cache-filter"];

/// Where caches are kept while the cases run.
#[derive(Debug)]
struct Places {
    registry: Registry,
    moto: Moto,
}

/// What a build out of a cache came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Build {
    cache: &'static str,
    digest: String,
    /// RUN instructions that were carried out.
    ran: Vec<String>,
}

/// Builds each case; an error names those whose digest depends on a cache, or that did not use one.
pub(super) fn run(workshop: &Workshop, cases: &[Case], directory: &Path) -> Result<()> {
    let start = Instant::now();
    let places = Places::open(directory)?;
    let good: Vec<&Case> = cases.iter().filter(|case| case.fails.is_none()).collect();
    let (mut wrong, mut builds) = (Vec::new(), 0);
    for case in &good {
        let place = workshop.prepare(case)?;
        // A build that fails out of a cache is a finding about this case alone.
        let (cold, faults) = match build_all(workshop, &places, case, &place) {
            Ok((cold, warm)) => {
                builds += 1 + warm.len();
                let faults = faults(case, &cold, &warm);
                (cold, faults)
            }
            Err(error) => ("-".to_owned(), vec![error.to_string()]),
        };
        println!(
            "{} {} {cold}",
            if faults.is_empty() { "same   " } else { "DIFFERS" },
            case.name
        );
        faults.iter().for_each(|fault| println!("        {fault}"));
        match faults.is_empty() {
            true => make_empty(&place)?,
            false => wrong.push(case.name.as_str()),
        }
    }
    println!(
        "{} cases, {builds} builds in {:.0} s, cold and out of a warm data directory, of registry, directory, S3 and image: {} with \
         other digests or commands that ran again",
        good.len(),
        start.elapsed().as_secs_f64(),
        wrong.len()
    );
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!("caches change: {}", wrong.join(" ")))),
    }
}

impl Places {
    fn open(directory: &Path) -> Result<Self> {
        let programs = tools::moto()?;
        let registry = directory.join("caches");
        make_empty(&registry)?;
        let places = Self {
            registry: Registry::start(&registry, None)?,
            moto: Moto::start(&programs, &directory.join("moto.log"))?,
        };
        let mut bucket = program(programs.join("python"));
        capture(places.moto.account(bucket.args(["-c", MAKE_BUCKET, BUCKET])))?;
        Ok(places)
    }

    /// The caches of a case, each as `--cache-to` and as `--cache-from` take it. That in an image goes with the image.
    fn of(&self, case: &Case, directory: &Path) -> [(&'static str, String, String); 3] {
        let reference = format!("type=registry,ref={}", self.reference(case, "cache"));
        let local = directory.join("cache");
        let s3 = format!("type=s3,bucket={BUCKET},name={}", case.name.replace('/', "-"));
        [
            ("registry", reference.clone(), reference),
            (
                "local",
                format!("type=local,dest={}", local.display()),
                format!("type=local,src={}", local.display()),
            ),
            ("s3", s3.clone(), s3),
        ]
    }

    fn reference(&self, case: &Case, tag: &str) -> String {
        format!("{}/{}:{tag}", self.registry.host(), case.name.to_lowercase())
    }
}

/// Gives the digest of the cold build and what the others came to.
fn build_all(workshop: &Workshop, places: &Places, case: &Case, directory: &Path) -> Result<(String, Vec<Build>)> {
    let build = |cache, name: &str, more: &[String]| -> Result<Build> {
        let mut command = program(workshop.binary());
        places.moto.account(&mut command);
        let (digest, log) = workshop.digest(case, &directory.join(name), command, more)?;
        let ran = commands_run(&log);
        Ok(Build { cache, digest, ran })
    };
    let caches = places.of(case, directory);
    workshop.fresh_data(directory, "first")?;
    let cold = build("none", "first", &[])?;
    let exports = caches
        .iter()
        .flat_map(|(_, to, _)| ["--cache-to".to_owned(), format!("{to},mode=max")]);
    let mut warm = vec![build("data directory", "first", &exports.collect::<Vec<_>>())?];
    for (cache, _, from) in caches {
        workshop.fresh_data(directory, cache)?;
        warm.push(build(cache, cache, &["--cache-from".to_owned(), from])?);
    }
    let image = places.reference(case, "image");
    let push = [
        "--output".to_owned(),
        format!("type=image,name={image},push=true"),
        "--cache-to=type=inline".to_owned(),
    ];
    build("none", "first", &push)?;
    workshop.fresh_data(directory, "inline")?;
    warm.push(build("image", "inline", &["--cache-from".to_owned(), image])?);
    Ok((cold.digest, warm))
}

/// What is not as it should be.
fn faults(case: &Case, cold: &str, warm: &[Build]) -> Vec<String> {
    let mut flags = case.flags.iter().map(|flag| flag.split('=').next().unwrap_or_default());
    let runs_again = flags.any(|flag| RUN_AGAIN.contains(&flag)) || case.reason(RUNS_AGAIN).is_some();
    let mut faults = Vec::new();
    for build in warm {
        if build.digest != cold {
            faults.push(format!("{}: {}", build.cache, build.digest));
        }
        if !runs_again && !build.ran.is_empty() {
            faults.push(format!("{}: ran {}", build.cache, build.ran.join("; ")));
        }
    }
    faults
}

/// The RUN instructions of a plain log that were not found in a cache.
fn commands_run(log: &str) -> Vec<String> {
    let instructions = log.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix('#')?.split_once(" [")?;
        let (_, instruction) = rest.split_once("] ")?;
        instruction.starts_with("RUN ").then_some((number, instruction))
    });
    let mut ran: Vec<String> = instructions
        .filter(|(number, _)| !log.lines().any(|line| line == format!("#{number} CACHED")))
        .map(|(_, instruction)| instruction.to_owned())
        .collect();
    ran.dedup();
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#4 [1/2] COPY a /a\n#4 CACHED\n\n#5 [build 2/3] RUN one\n#5 0.1 x\n#5 DONE 0.1s\n\n#6 [2/2] RUN two\n#6 CACHED\n";

    #[test]
    fn commands_that_ran_are_those_not_cached() {
        assert_eq!(commands_run(LOG), ["RUN one"]);
        assert!(commands_run("").is_empty());
    }

    #[test]
    fn another_digest_and_a_command_are_faults() {
        let build = |digest: &str, ran: &[&str]| Build {
            cache: "s3",
            digest: digest.to_owned(),
            ran: ran.iter().map(|text| (*text).to_owned()).collect(),
        };
        let mut case = Case::default();
        assert!(faults(&case, "d", &[build("d", &[])]).is_empty());
        assert_eq!(faults(&case, "d", &[build("e", &[]), build("d", &["RUN x"])]).len(), 2);
        case.flags.push("--no-cache-filter=build".to_owned());
        assert_eq!(faults(&case, "d", &[build("e", &["RUN x"])]), ["s3: e"]);
    }
}
