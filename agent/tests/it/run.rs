//! `roadstead run`: phases, variables, log and artifacts.

use crate::workspace::{Workspace, is_running, without_times};

#[test]
fn the_log_is_codebuilds() {
    let workspace = Workspace::new();
    workspace.write(
        "src/buildspec.yml",
        "version: 0.2\nphases:\n  install: {}\n  build:\n    commands:\n      - echo one; echo two >&2\n      - |\n        \
         echo a\n        sh -c 'exit 6'\n      - echo never\n    finally:\n      - printf no-line-feed\n  post_build:\n    \
         commands:\n      - echo ok=$CODEBUILD_BUILD_SUCCEEDING\n      - echo x > out.txt\nartifacts:\n  files: [out.txt, none]\n  \
         type: zip\n",
    );
    let done = workspace.roadstead(&["run", "src"]);
    assert_eq!(done.status, Some(1));
    let source = workspace.path("src");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "[Container] Running on Roadstead {version}
[Container] Phase is DOWNLOAD_SOURCE
[Container] CODEBUILD_SRC_DIR={source}
[Container] YAML location is buildspec.yml
[Container] Found possible syntax errors in buildspec: 
In the section artifacts
    The following keys cannot be identified:
        type
[Container] No commands found for phase name: install
[Container] Processing environment variables
[Container] No runtime version selected in buildspec.
[Container] CODEBUILD_RESOLVED_SOURCE_VERSION is not set: the source is no git work tree with a commit
[Container] Moving to directory {source}
[Container] Cache is not defined in the buildspec
[Container] Skip cache due to: no paths specified to be cached
[Container] Registering with agent
[Container] Phases found in YAML: 3
[Container]  INSTALL: 0 commands
[Container]  BUILD: 3 commands
[Container]  POST_BUILD: 2 commands
[Container] Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
[Container] Phase context status code:  Message: 
[Container] Entering phase INSTALL
[Container] Phase complete: INSTALL State: SUCCEEDED
[Container] Phase context status code:  Message: 
[Container] Entering phase PRE_BUILD
[Container] Phase complete: PRE_BUILD State: SUCCEEDED
[Container] Phase context status code:  Message: 
[Container] Entering phase BUILD
[Container] Running command echo one; echo two >&2
one
two

[Container] Running command echo a
sh -c 'exit 6'
a

[Container] Command did not exit successfully echo a
sh -c 'exit 6' exit status 6
[Container] Running command printf no-line-feed
no-line-feed
[Container] Phase complete: BUILD State: FAILED
[Container] Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: echo a
sh -c 'exit 6'. Reason: exit status 6
[Container] Entering phase POST_BUILD
[Container] Running command echo ok=$CODEBUILD_BUILD_SUCCEEDING
ok=0

[Container] Running command echo x > out.txt

[Container] Phase complete: POST_BUILD State: SUCCEEDED
[Container] Phase context status code:  Message: 
[Container] Expanding base directory path:  .
[Container] Assembling file list
[Container] Expanding .
[Container] Expanding file paths for base directory .
[Container] Assembling file list
[Container] Expanding out.txt
[Container] Found 1 file(s)
[Container] Expanding none
[Container] Skipping invalid file path none
[Container] Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED
[Container] Phase context status code:  Message: 
",
        source = source.display()
    );
    assert_eq!(without_times(&done.stdout), expected);
    assert_eq!(workspace.read("artifacts/out.txt"), "x\n");
    assert!(
        done.stderr
            .starts_with("error: the build failed in BUILD: Error while executing command: echo a")
    );
    workspace.assert_tidy();
}

#[test]
fn variables_by_their_order_and_nothing_of_the_runner() {
    let mut workspace = Workspace::new();
    workspace.set("FROM_CALLER", "caller");
    workspace.set("CODEBUILD_BUILD_ID", "forged");
    workspace.set("CARGO_HOME", "/nowhere");
    workspace.write(
        "src/buildspec.yml",
        "version: 0.2\nenv:\n  variables: {A: spec, B: '$HOME', FROM_CALLER: spec}\n  exported-variables: [A, LATER, NEVER]\nphases:\n  build:\n    commands:\n      - env > \
         ../env.txt; LATER=1\n",
    );
    let done = workspace.roadstead(&["run", "src", "--env", "A=flag=x", "--record", "record.json"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    let record: serde_json::Value = serde_json::from_str(&workspace.read("record.json")).unwrap();
    assert_eq!(
        record["exportedEnvironmentVariables"],
        serde_json::json!({"A": "flag=x", "LATER": "1"})
    );
    let environment = workspace.read("env.txt");
    let has = |line: &str| environment.lines().any(|other| other == line);
    for line in [
        "A=flag=x",
        "B=$HOME",
        "FROM_CALLER=spec",
        "CODEBUILD_CI=true",
        "CODEBUILD_BUILD_SUCCEEDING=1",
    ] {
        assert!(has(line), "{line}: {environment}");
    }
    assert!(has(&format!("CODEBUILD_SRC_DIR={}", workspace.path("src").display())));
    assert!(has("AWS_REGION=us-east-1") && has("AWS_DEFAULT_REGION=us-east-1"));
    assert!(!environment.contains("forged") && environment.contains("CODEBUILD_BUILD_ID=roadstead:"));
    for name in [
        "ROADSTEAD_CONFIG=",
        "ROADSTEAD_DATA=",
        "CARGO_HOME=",
        "CODEBUILD_RESOLVED_SOURCE_VERSION=",
    ] {
        assert!(!environment.contains(name), "{name}");
    }
}

#[test]
fn the_commit_of_a_work_tree_is_the_source_version() {
    let workspace = Workspace::new();
    let git = |arguments: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-C"])
            .arg(workspace.path("src"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    git(&["init", "-q"]);
    workspace.write(
        "src/buildspec.yml",
        "version: 0.2\nphases:\n  build:\n    commands: ['echo =$CODEBUILD_RESOLVED_SOURCE_VERSION=']\n",
    );
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let done = workspace.roadstead(&["run", "src"]);
    assert!(
        done.stdout.contains(&format!("\n={}=\n", commit.trim())),
        "{}",
        done.stdout
    );
}

#[test]
fn on_failure_and_failed_early_phases() {
    let workspace = Workspace::new();
    for (phase, rule, status, ran_after) in [
        ("install", "", 1, false),
        ("pre_build", "", 1, false),
        ("build", "", 1, true),
        ("pre_build", "on-failure: CONTINUE\n    ", 0, true),
        ("build", "on-failure: ABORT\n    ", 1, false),
    ] {
        let text = format!(
            "version: 0.2\nphases:\n  {phase}:\n    {rule}commands: ['false']\n  post_build:\n    commands: ['echo AFTER $((1+1))']\n"
        );
        workspace.write("src/buildspec.yml", &text);
        let done = workspace.roadstead(&["run", "src"]);
        assert_eq!(done.status, Some(status), "{phase} {rule}: {}", done.stdout);
        assert_eq!(done.stdout.contains("AFTER 2"), ran_after, "{phase} {rule}");
        assert!(
            done.stdout
                .contains(&format!("Phase complete: {} State: FAILED", phase.to_uppercase()))
        );
    }
}

#[test]
fn background_jobs_end_with_the_run() {
    let workspace = Workspace::new();
    let mark = format!("{}.25", 900_000 + std::process::id() % 90_000);
    let done = workspace.run_commands(&[
        &format!("nohup sleep {mark} > /dev/null 2>&1 & setsid sh -c \"sleep {mark}; true\" & true"),
        "echo still here",
    ]);
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.stdout.contains("still here\n"));
    assert!(!is_running(&format!("sleep\0{mark}")));
    workspace.assert_tidy();
}

#[test]
fn secrets_of_the_environment_stay_out_of_log_and_errors() {
    let mut workspace = Workspace::new();
    workspace.set("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE");
    workspace.set("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG");
    workspace.set("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEBYaD");
    let done = workspace.run_commands(&[
        "printf wJalrXUtn; sleep 0.2; printf FEMI/K7MDENG; echo \" $AWS_SESSION_TOKEN\"",
        "echo id $AWS_ACCESS_KEY_ID",
        "sh -c 'exit 3' FwoGZXIvYXdzEBYaD",
    ]);
    assert_eq!(done.status, Some(1));
    assert!(done.stdout.contains("\n*** ***\n"), "{}", done.stdout);
    assert!(done.stdout.contains("\nid ***\n"), "{}", done.stdout);
    for text in [done.stdout, done.stderr] {
        assert!(
            !text.contains("FwoGZXIvYXdzEBYaD")
                && !text.contains("K7MDENG\" ")
                && !text.contains("wJalrXUtnFEMI/K7MDENG")
        );
    }
}

#[test]
fn version_0_1_and_bash() {
    let workspace = Workspace::new();
    workspace.write(
        "src/buildspec.yml",
        "version: 0.1\nenvironment_variables:\n  plaintext: {X: old}\nphases:\n  build:\n    commands: ['Y=1; cd /', 'echo \
         $X${Y}; pwd']\n",
    );
    let done = workspace.roadstead(&["run", "src"]);
    assert!(
        done.stdout
            .contains(&format!("\nold\n{}\n", workspace.path("src").display())),
        "{}",
        done.stdout
    );
    workspace.write(
        "src/other.yml",
        "version: 0.2\nenv: {shell: bash}\nphases:\n  build:\n    commands: ['[[ a == a ]] && echo ${BASH_VERSION:+bash}']\n",
    );
    let done = workspace.roadstead(&["run", "src", "--buildspec", "other.yml"]);
    assert!(done.stdout.contains("\nbash\n"), "{}", done.stdout);
}
