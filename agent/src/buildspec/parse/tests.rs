use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Buildspec, Diagnostic> {
    Buildspec::parse("buildspec.yml", text)
}

fn failure(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

const FULL: &str = r#"version: 0.2
env:
  shell: bash
  variables:
    A: yes
    NUMBER: 007
    PATH: $PATH:/x
    EMPTY:
  exported-variables: [A]
phases:
  install:
    runtime-versions: {nodejs: 20, docker: 18}
  pre_build:
    on-failure: abort
    commands:
      - 'echo "a: b"'
      - |
        first
        second
    finally: echo done
  build:
    commands: [true, 5]
artifacts:
  files: imagedefinitions.json
  discard-paths: yes
  exclude-paths: ['**/*.map']
  base-directory: dist
  name: n-$(date +%F)
"#;

#[test]
fn reads_a_full_buildspec() {
    let spec = parse(FULL).unwrap();
    assert_eq!(spec.shell, ShellKind::Bash);
    let variables: Vec<(&str, &str)> = spec.variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(
        variables,
        [("A", "yes"), ("NUMBER", "007"), ("PATH", "$PATH:/x"), ("EMPTY", "")]
    );
    assert!(spec.runtime_versions);
    assert_eq!(spec.phases_written(), 3);
    let before = spec.phase(PhaseName::PreBuild);
    assert_eq!(before.commands, ["echo \"a: b\"", "first\nsecond\n"]);
    assert_eq!(before.finally, ["echo done"]);
    assert_eq!(before.on_failure, OnFailure::Abort);
    assert_eq!(spec.phase(PhaseName::Build).commands, ["true", "5"]);
    let artifacts = spec.artifacts.unwrap();
    assert_eq!(artifacts.files, ["imagedefinitions.json"]);
    assert!(artifacts.discard_paths);
    assert_eq!(artifacts.base_directory.as_deref(), Some("dist"));
    assert_eq!(artifacts.name.as_deref(), Some("n-$(date +%F)"));
    assert!(spec.warnings.is_empty(), "{:?}", spec.warnings);
}

#[test]
fn unknown_keys_warn_and_go_on() {
    let text = "version: 0.2\nphases:\n  build:\n    command: x\nartifacts:\n  type: zip\n  files: [a]\nfoo: 1\n";
    let spec = parse(text).unwrap();
    assert_eq!(spec.warnings.len(), 3);
    assert_eq!(
        spec.warnings[1],
        "Found possible syntax errors in buildspec: \nIn the section artifacts\n    The following keys cannot be \
         identified:\n        type"
    );
}

#[test]
fn an_unquoted_colon_gets_codebuilds_words_and_a_caret() {
    let shown = failure("version: 0.2\nphases:\n  build:\n    commands:\n      - echo foo: bar\n");
    assert_eq!(
        shown,
        "Expected Commands[0] to be of string type: found subkeys instead at line 5, value of the key tag on line 4 might \
         be empty\n --> buildspec.yml:5:9\n  |\n5 |       - echo foo: bar\n  |         ^^^^^^^^^^^^^"
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_place() {
    let phases = "phases:\n  build:\n    commands: [x]\n";
    let cases = [
        ("env:\n  parameter-store:\n    A: /a\n", "`env.parameter-store`", 6),
        ("env:\n  secrets-manager:\n    A: a\n", "`env.secrets-manager`", 6),
        ("env:\n  git-credential-helper: yes\n", "`env.git-credential-helper`", 6),
        ("batch:\n  fast-fail: true\n", "`batch`", 5),
        ("run-as: nobody\n", "`run-as`", 5),
        ("cache:\n  paths: [a]\n", "`cache`", 5),
        ("reports:\n  r:\n    files: [a]\n", "`reports`", 5),
        ("proxy:\n  logs: yes\n", "`proxy.logs`", 6),
        (
            "artifacts:\n  files: [a]\n  secondary-artifacts:\n    b: {files: [c]}\n",
            "`artifacts.secondary-artifacts`",
            7,
        ),
    ];
    for (extra, name, line) in cases {
        let shown = failure(&format!("version: 0.2\n{phases}{extra}"));
        assert!(shown.contains(&format!("{name} is not supported")), "{extra}: {shown}");
        assert!(shown.contains(&format!("buildspec.yml:{line}:")), "{extra}: {shown}");
        assert!(shown.contains('^'), "{shown}");
    }
    for retry in ["RETRY", "Retry-3-.*timed out.*"] {
        let text = format!("version: 0.2\nphases:\n  build:\n    on-failure: {retry}\n    commands: [x]\n");
        assert!(failure(&text).contains("`on-failure: RETRY` is not supported"));
    }
}

#[test]
fn empty_sections_ask_for_nothing() {
    let text = "version: 0.1\nenv:\n  parameter-store: {}\ncache:\n  paths: []\nartifacts:\nphases:\n  install: {}\n";
    let spec = parse(text).unwrap();
    assert_eq!(spec.version, Version::V0_1);
    assert_eq!(spec.artifacts, None);
}

#[test]
fn bad_documents() {
    for (text, expected) in [
        ("", "must be a map"),
        ("- a\n", "must be a map"),
        ("version: 0.2\n", "no `phases`"),
        ("phases:\n  build:\n", "no `version`"),
        ("version: 0.3\nphases:\n  build:\n", "unknown buildspec version `0.3`"),
        (
            "version: 0.2\nphases:\n  deploy:\n    commands: [x]\n",
            "unknown phase `deploy`",
        ),
        ("version: 0.2\nphases:\n", "`phases` is empty"),
        ("version: 0.2\nphases:\n  build: [x]\n", "`build` must be a map"),
        (
            "version: 0.2\nphases:\n  build:\n    commands: {a: b}\n",
            "must be a list of commands",
        ),
        (
            "version: 0.2\nenv:\n  shell: fish\nphases:\n  build:\n",
            "`env.shell` must be",
        ),
        (
            "version: 0.2\nenv:\n  variables:\n    A: [x]\nphases:\n  build:\n",
            "must be text, but is a list",
        ),
        (
            "version: 0.2\nenv:\n  variables:\n    A-B: x\nphases:\n  build:\n",
            "no name for an environment",
        ),
        (
            "version: 0.2\nenv:\n  variables:\n    CODEBUILD_X: x\nphases:\n  build:\n",
            "reserved",
        ),
        (
            "version: 0.2\nphases:\n  build:\nartifacts:\n  name: x\n",
            "`artifacts` has no `files`",
        ),
        ("version: 0.2\nphases:\n  build:\n  - x\n\tb", "-->"),
        ("version: 0.2\nversion: 0.2\nphases:\n  build:\n", "-->"),
    ] {
        let shown = failure(text);
        assert!(shown.contains(expected), "{text:?}: {shown}");
    }
}

proptest! {
    #[test]
    fn any_text_ends_without_a_panic(text in "[ a-z0-9:\\-\\[\\]{}&*!|>'\"#%@,?~\\n\\t\u{e9}]{0,200}") {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn commands_come_back_as_written(commands in proptest::collection::vec("[ -~\u{e9}]{0,40}", 1..6)) {
        let quoted: Vec<String> = commands.iter().map(|c| format!("      - '{}'\n", c.replace('\'', "''"))).collect();
        let text = format!("version: 0.2\nphases:\n  build:\n    commands:\n{}", quoted.concat());
        let spec = parse(&text).unwrap();
        prop_assert_eq!(&spec.phase(PhaseName::Build).commands, &commands);
    }
}
