//! `--check` and `--call`: what is told of a Dockerfile, in which form, with which exit status; and the warnings of a build.

use crate::site::{Outcome, Site};
use serde_json::{Value, json};

/// Two findings: a stage name, and a CMD in shell form.
const TEXT: &str = "FROM scratch AS Base\n\nCOPY file \\\n  /\nCMD echo hello\n";
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule";
const CMD_MESSAGE: &str = "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";

fn stdout(outcome: &Outcome) -> &str {
    std::str::from_utf8(&outcome.stdout).unwrap()
}

fn document(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// A site that has never built anything.
fn site(dockerfile: &str) -> Site {
    let site = Site::empty();
    site.dockerfile(dockerfile).file("file", "x");
    site
}

#[test]
fn findings_as_text() {
    let site = site(TEXT);
    let file = site.context().join("Dockerfile").display().to_string();
    let want = format!(
        "Check complete, 2 warnings have been found!\n\n\
         WARNING: StageNameCasing - {PAGES}/stage-name-casing/\nStage name 'Base' should be lowercase\n{file}:1\n\
         --------------------\n   1 | >>> FROM scratch AS Base\n   2 |     \n   3 |     COPY file \\\n--------------------\n\n\
         WARNING: JSONArgsRecommended - {PAGES}/json-args-recommended/\n{CMD_MESSAGE}\n{file}:5\n\
         --------------------\n   3 |     COPY file \\\n   4 |       /\n   5 | >>> CMD echo hello\n   6 |     \n--------------------\n"
    );
    for form in ["--check", "--call=check", "--call=lint"] {
        let outcome = site.build(&[form]);
        assert_eq!(stdout(&outcome), want);
        outcome.bad(1);
    }
    site.build(&["--call=check,ignorestatus=true"]).good();
    let left = std::fs::read_dir(site.data()).unwrap().count();
    assert_eq!(left, 0, "a check leaves nothing behind");
}

#[test]
fn nothing_found() {
    let site = site("FROM scratch AS base\nCOPY file /\nCMD [\"x\"]\n");
    let outcome = site.build(&["--check"]).good();
    assert_eq!(stdout(&outcome), "Check complete, no warnings found.\n");
    let outcome = site.build(&["--call=check,format=json"]).good();
    assert_eq!(document(&outcome)["warnings"], json!([]));
}

#[test]
fn findings_as_json() {
    let site = site(TEXT);
    let outcome = site.build(&["--call=check,format=json"]);
    assert_eq!(
        document(&outcome)["warnings"][1],
        json!({
            "ruleName": "JSONArgsRecommended",
            "description": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            "url": format!("{PAGES}/json-args-recommended/"),
            "detail": CMD_MESSAGE,
            "location": {"ranges": [{"start": {"line": 5}, "end": {"line": 5}}]}
        })
    );
    assert_eq!(document(&outcome)["sources"][0]["language"], json!("Dockerfile"));
    outcome.bad(1);
}

#[test]
fn rules_are_chosen_by_directive_and_argument() {
    let site = site(&format!("# check=skip=all\n{TEXT}"));
    site.build(&["--check"]).good();
    let argument = "BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing";
    let outcome = site.build(&["--check", "--build-arg", argument]);
    assert!(stdout(&outcome).starts_with("Check complete, 1 warning has been found!\n\nWARNING: JSONArgs"));
    outcome.bad(1);
    let log = site
        .build(&["--check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=what"])
        .bad(2);
    assert!(log.contains("invalid check option `what`"), "{log}");
}

#[test]
fn ignored_files_and_stored_bases_are_looked_at() {
    let site = Site::new();
    site.file(".dockerignore", "file\n");
    site.dockerfile("FROM base\nCOPY file /\nLABEL a=$PATH b=$NONE\nFROM elsewhere\nLABEL a=$NONE\n");
    let outcome = site.build(&["--check"]);
    let text = stdout(&outcome);
    assert!(text.contains("2 warnings have been found!"), "{text}");
    assert!(
        text.contains("Attempting to Copy file \"file\" that is excluded by .dockerignore"),
        "{text}"
    );
    assert!(text.contains("Usage of undefined variable '$NONE'"), "{text}");
    outcome.bad(1);
    site.dockerfile("FROM --platform=linux/s390x base AS s390x\n");
    let outcome = site.build(&["--check"]);
    assert!(stdout(&outcome).contains("WARNING: InvalidBaseImagePlatform - "));
    outcome.bad(1);
}

#[test]
fn what_is_no_dockerfile_is_an_error() {
    for (text, arguments, status, want) in [
        (
            "FROM scratch\nRUNN x\n",
            &["--check"][..],
            1,
            "unknown instruction `RUNN`",
        ),
        ("FROM $NONE\n", &["--check"], 1, "should not be blank"),
        ("FROM scratch\n", &["--check", "--target=none"], 2, "none"),
        (
            "FROM scratch\n",
            &["--call=convertllb"],
            2,
            "cannot honour `--call=convertllb`",
        ),
        (
            "# syntax=docker/dockerfile:1.99\nFROM scratch\n",
            &["--check"],
            1,
            "Dockerfile:1:1",
        ),
        (
            "FROM scratch\n",
            &["--check", "--build-arg", "BUILDKIT_SYNTAX=a/b"],
            2,
            "cannot honour `BUILDKIT_SYNTAX=a/b`",
        ),
    ] {
        let log = site(text).build(arguments).bad(status);
        assert!(log.contains(want), "{log}");
    }
    site("# syntax=a/b\nFROM scratch\n")
        .build(&["--check", "--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"])
        .good();
}

#[test]
fn a_build_warns_and_fails_when_told_to() {
    let site = site(TEXT);
    let log = site.build(&["-t", "x"]).good().log;
    let warnings: Vec<&str> = log.lines().filter(|line| line.starts_with("warning: ")).collect();
    let found: Vec<&&str> = warnings.iter().filter(|line| line.contains("(line ")).collect();
    assert_eq!(
        found,
        [
            &"warning: StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
            &format!("warning: JSONArgsRecommended: {CMD_MESSAGE} (line 5)").as_str(),
        ]
    );
    site.dockerfile(&format!("# check=error=true\n{TEXT}"));
    let outcome = site.build(&["-t", "x"]);
    assert!(outcome.steps().is_empty(), "no step runs");
    let log = outcome.bad(1);
    assert!(log.contains("warning: StageNameCasing: "), "{log}");
    assert!(
        log.contains("error: lint violation found for rules: StageNameCasing, JSONArgsRecommended\n"),
        "{log}"
    );
    let skip = "BUILDKIT_DOCKERFILE_CHECK=skip=all";
    let log = site.build(&["-t", "x", "--build-arg", skip]).good().log;
    assert!(!log.contains("not consumed"), "{log}");
}

#[test]
fn targets_and_outlines() {
    let site = site(
        "# VERSION is what is built\nARG VERSION=1\n# tools compiles\nFROM scratch AS tools\nARG VERSION\n\
         RUN --mount=type=secret,id=token,required x\nFROM scratch\nCOPY --from=tools /x /\n",
    );
    let outcome = site.build(&["--call=targets"]).good();
    assert_eq!(
        stdout(&outcome),
        "TARGET    DESCRIPTION\ntools     compiles\n(default)\n"
    );
    let outcome = site.build(&["--call=targets,format=json"]).good();
    let targets = &document(&outcome)["targets"];
    assert_eq!(
        targets[0],
        json!({"name": "tools", "description": "compiles", "base": "scratch",
               "location": {"ranges": [{"start": {"line": 4}, "end": {"line": 4}}]}})
    );
    assert_eq!(targets[1]["default"], json!(true));
    let outcome = site
        .build(&["--call=outline", "--target=tools", "--build-arg=VERSION=2"])
        .good();
    assert_eq!(
        stdout(&outcome),
        "TARGET:      tools\nDESCRIPTION: compiles\n\n\
         BUILD ARG   VALUE   DESCRIPTION\nVERSION     2       is what is built\n\n\
         SECRET   REQUIRED\ntoken    true\n\n"
    );
    let outcome = site.build(&["--call=outline,format=json"]).good();
    assert_eq!(document(&outcome)["secrets"][0]["name"], json!("token"));
    assert_eq!(document(&outcome)["args"][0]["value"], json!("1"));
    site.build(&["--call=outline", "--target=none"]).bad(2);
}
