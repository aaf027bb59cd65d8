//! Bad input: one clear error, the right status, and nothing left behind.

use crate::services;
use crate::workspace::Workspace;

#[test]
fn buildspecs_that_cannot_be_run() {
    let workspace = Workspace::new();
    for (text, expected) in [
        ("version: 0.2\nphases: [\n", " --> buildspec.yml:"),
        (
            "version: 0.2\nphases:\n  deploy:\n    commands: [x]\n",
            "unknown phase `deploy`",
        ),
        (
            "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b\n",
            "Expected Commands[0] to be of string type",
        ),
        (
            "version: 0.2\nenv:\n  parameter-store: {A: b}\nphases:\n  build:\n",
            "3 |   parameter-store: {A: b}\n  |   ^^^^",
        ),
        (
            "version: 0.2\nphases:\n  build:\n    run-as: nobody\n",
            "`run-as` is not supported",
        ),
    ] {
        workspace.write("src/buildspec.yml", text);
        let done = workspace.roadstead(&["run", "src"]);
        assert_eq!(done.status, Some(2), "{text}");
        assert!(
            done.stderr.starts_with("error: ") && done.stderr.contains(expected),
            "{text}: {}",
            done.stderr
        );
        assert_eq!(done.stderr.matches("error: ").count(), 1, "{}", done.stderr);
        assert!(
            done.stdout
                .contains("Phase context status code: YAML_FILE_ERROR Message: "),
            "{}",
            done.stdout
        );
        assert!(!done.stdout.contains("Entering phase"));
        workspace.assert_tidy();
    }
}

#[test]
fn missing_files_and_wrong_arguments() {
    let workspace = Workspace::new();
    for (arguments, expected) in [
        (&["run", "src"][..], "YAML file does not exist"),
        (&["run", "src", "--buildspec", "none/b.yml"], "YAML file does not exist"),
        (&["run", "nowhere"], "cannot open the source directory `nowhere`"),
        (&["run", "src", "--env", "A-B=1"], "no name for an environment variable"),
        (&["run", "src", "--env", "CODEBUILD_X=1"], "reserved"),
        (&["run", "--nonsense"], "--nonsense"),
        (&["agent", "--queue", "redis://x"], "is no queue"),
        (
            &["jobs", "list", "--queue", "sqs://only-host"],
            "sqs://HOST/ACCOUNT/NAME",
        ),
        (&["submit", "--source", "nowhere"], "cannot open the source directory"),
        (&["imagedefinitions", "app"], "expected NAME=URI"),
    ] {
        let done = workspace.roadstead(arguments);
        assert_eq!(done.status, Some(2), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(expected), "{arguments:?}: {}", done.stderr);
        workspace.assert_tidy();
    }
    workspace.write(
        "src/buildspec.yml",
        "version: 0.2\nphases:\n  build:\n    commands: [x]\n",
    );
    std::fs::create_dir(workspace.path("src/dir.yml")).unwrap();
    let done = workspace.roadstead(&["run", "src", "--buildspec", "dir.yml"]);
    assert!(done.status == Some(2) && done.stderr.contains("not a file"), "{done:?}");
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_line() {
    let workspace = Workspace::new();
    workspace.write("config/config.toml", "\nca-bundel = \"x\"\n");
    let done = workspace.roadstead(&["jobs", "list"]);
    assert_eq!(done.status, Some(2));
    assert!(
        done.stderr.contains("config.toml:2: unknown field `ca-bundel`"),
        "{}",
        done.stderr
    );
}

#[test]
fn registries_that_are_down_or_refuse() {
    let workspace = Workspace::new();
    let registry = services::registry(&workspace, true);
    let host = format!("127.0.0.1:{}", registry.port);
    let done = workspace.run_commands(&[
        &format!("echo secret-pass | docker login -u tester --password-stdin {host}"),
        &format!("docker pull {host}/none:1 || echo pull $?"),
        &format!("docker logout {host}; docker pull {host}/none:1 || echo anonymous $?"),
        &format!("echo wrong-password | docker login -u tester --password-stdin {host} || echo login $?"),
        "docker pull 127.0.0.1:1/none:1 || echo down $?",
        "docker push 127.0.0.1:1/none:1",
    ]);
    assert_eq!(done.status, Some(1), "{}", done.stdout);
    for line in [
        "Login Succeeded",
        "pull 1",
        "anonymous 1",
        "login 1",
        "down 1",
        "401 Unauthorized",
    ] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    assert!(
        done.stdout
            .contains("An image does not exist locally with the tag: 127.0.0.1:1/none"),
        "{}",
        done.stdout
    );
    // In the commands' own lines too, though they were logged before the login.
    assert!(
        !done
            .stdout
            .lines()
            .any(|line| !line.starts_with("[Container]") && line.contains("secret-pass"))
    );
    assert!(
        !workspace.path("home/.docker").exists(),
        "the user's own configuration was written"
    );
    workspace.assert_tidy();
}

#[test]
fn a_shim_that_fails_says_why() {
    let workspace = Workspace::new();
    let done = workspace.run_commands(&[
        "head -c 3000000 /dev/zero | docker login -u u --password-stdin 127.0.0.1:1 || echo status $?",
    ]);
    assert!(
        done.stdout.contains("\nerror: stdin is too large\nstatus 1\n"),
        "{}",
        done.stdout
    );
}

#[test]
fn an_imagedefinitions_file_that_no_deploy_would_take() {
    let workspace = Workspace::new();
    let registry = services::registry(&workspace, false);
    let missing = format!(
        "[{{\"name\":\"app\",\"imageUri\":\"127.0.0.1:{}/none:1\"}}]",
        registry.port
    );
    for (text, expected) in [
        ("{}", "it is not a JSON array"),
        (
            "[{\"name\":\"app\",\"imageUri\":\"h.example.org/app:\"}]",
            "container `app`",
        ),
        (
            missing.as_str(),
            "was not pushed by this build, and its registry has none of that name",
        ),
    ] {
        workspace.write("src/imagedefinitions.json", text);
        workspace.write(
            "src/buildspec.yml",
            "version: 0.2\nphases:\n  build:\n    commands: ['true']\nartifacts:\n  files: imagedefinitions.json\n",
        );
        let done = workspace.roadstead(&["run", "src"]);
        assert_eq!(done.status, Some(1), "{text}");
        assert!(
            done.stdout.contains("Phase complete: UPLOAD_ARTIFACTS State: FAILED"),
            "{}",
            done.stdout
        );
        let shown = "error: the build failed in UPLOAD_ARTIFACTS: imagedefinitions.json: ";
        assert!(
            done.stderr.starts_with(shown) && done.stderr.contains(expected),
            "{text}: {}",
            done.stderr
        );
    }
}

#[test]
fn containers_that_no_deploy_would_take_are_not_written() {
    let workspace = Workspace::new();
    let image = "app=127.0.0.1:1/app:1";
    let done = workspace.roadstead(&["imagedefinitions", image, image]);
    assert_eq!(done.status, Some(2), "{done:?}");
    assert!(done.stderr.contains("a second entry for container `app`"), "{done:?}");
    assert!(!workspace.path("imagedefinitions.json").exists());
}

#[test]
fn jobs_that_no_agent_could_run_are_not_submitted() {
    let workspace = Workspace::new();
    for (arguments, reason) in [
        (&["--source", "ext::sh -c id"][..], "ext::sh"),
        (&["--source", "ftp://example.org/a.git"], "ftp://example.org/a.git"),
        (
            &["--source", "src", "--project", "a:b"],
            "`a:b` is no name for a project",
        ),
    ] {
        let done = workspace.roadstead(&[&["submit"], arguments].concat());
        assert!(done.status == Some(2) && done.stderr.contains(reason), "{done:?}");
    }
    assert!(!workspace.path("data/queue.db").exists());
}
