//! What a build shows: the tree on a terminal, lines elsewhere, documents for machines, and what is said of a step that failed.

use crate::binary::roadstead;
use crate::site::{Outcome, Site};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Two steps, the second of which writes to both outputs, steers the terminal and fails.
const FAILING: &str = "FROM base\nRUN echo first\n# why\nRUN for i in 1 2 3; do echo said $i; done; \\\n  printf '\\033[2J\\033]0;title\\007odd\\n' >&2; exit 3\nRUN echo never\n";

/// Builds on a terminal of 24 rows and 100 columns.
fn on_terminal(site: &Site, flags: &str, environment: &[(&str, &str)]) -> Outcome {
    let context = site.context();
    let line = format!(
        "stty rows 24 cols 100; exec {} build {flags} {}",
        roadstead().display(),
        context.display()
    );
    let mut command = Command::new("script");
    site.prepare(&mut command).args(["-qec", &line, "/dev/null"]);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    let output = command.envs(environment.iter().copied()).output();
    let output = output.expect("script of bsdutils is needed");
    site.assert_clean();
    Outcome {
        status: output.status.code(),
        stdout: Vec::new(),
        log: String::from_utf8(output.stdout).unwrap(),
    }
}

/// The documents of `--progress=rawjson`; other lines must come after all of them.
fn documents(log: &str) -> (Vec<Value>, String) {
    let (mut documents, mut rest) = (Vec::new(), String::new());
    for line in log.lines() {
        match serde_json::from_str(line) {
            Ok(document) if rest.is_empty() => documents.push(document),
            _ => rest.push_str(&format!("{line}\n")),
        }
    }
    (documents, rest)
}

/// The last state of each vertex by its digest, and the order in which they began.
fn vertices(documents: &[Value]) -> Vec<Value> {
    let (mut order, mut last) = (Vec::new(), BTreeMap::new());
    for vertex in documents.iter().filter_map(|d| d["vertexes"].as_array()).flatten() {
        let digest = vertex["digest"].as_str().unwrap().to_owned();
        if last.insert(digest.clone(), vertex.clone()).is_none() {
            order.push(digest);
        }
    }
    order.iter().map(|digest| last[digest].clone()).collect()
}

/// The excerpt and the error of `FAILING`.
fn ending(site: &Site) -> String {
    let rule = "--------------------";
    let command = r#""/bin/sh -c for i in 1 2 3; do echo said $i; done;   printf '\\033[2J\\033]0;title\\007odd\\n' >&2; exit 3""#;
    format!(
        "{}:4\n{rule}\n   3 |     # why\n   4 | >>> RUN for i in 1 2 3; do echo said $i; done; \\\n   5 | >>>   printf '\\033[2J\\033]0;title\\007odd\\n' >&2; exit 3\n   6 |     RUN echo never\n{rule}\nERROR: failed to build: failed to solve: process {command} did not complete successfully: exit code: 3\n",
        site.context().join("Dockerfile").display()
    )
}

#[test]
fn a_tree_on_a_terminal() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN for i in 1 2 3 4 5 6 7 8; do echo said $i; sleep 0.1; done\n");
    let log = on_terminal(&site, "-t x", &[]).good().log;
    assert!(
        log.contains("[+] Building ") && log.contains(" FINISHED\r\n"),
        "{log:?}"
    );
    assert!(log.contains(" => => # said 8"), "{log:?}");
    assert!(log.contains("\x1b[34m => [2/2] RUN for i in 1 2 3 4"), "{log:?}");
    assert!(log.contains(" => => naming to docker.io/library/x:latest"), "{log:?}");
    let last = |what: &str| log.rfind(what).unwrap();
    assert!(
        last("\x1b[?25h") > last("\x1b[?25l") && last("\x1b[?7h") > last("\x1b[?7l"),
        "{log:?}"
    );
    let log = on_terminal(&site, "", &[("NO_COLOR", "1")]).good().log;
    assert!(
        log.contains(" => CACHED [2/2] RUN for") && !log.contains("\x1b[3"),
        "{log:?}"
    );
    for (flags, term) in [("--progress=plain", "xterm"), ("", "dumb")] {
        let log = on_terminal(&site, flags, &[("TERM", term)]).good().log;
        assert!(log.contains("#3 CACHED\r\n") && !log.contains('\x1b'), "{log:?}");
    }
    let log = site.build(&["--progress=tty"]).bad(2);
    assert!(log.contains("standard error is no terminal"), "{log}");
}

#[test]
fn a_failure_on_a_terminal() {
    let site = Site::new();
    site.dockerfile(FAILING);
    let log = on_terminal(&site, "", &[]).bad(1).replace("\r\n", "\n");
    let (tree, end) = log.split_once("------\n").unwrap();
    assert!(tree.contains("\x1b[31m => ERROR [3/4] RUN for"), "{log:?}");
    assert!(!tree.contains("\x1b[2J") && !tree.contains("\x1b]"), "{log:?}");
    assert!(
        end.starts_with(" > [3/4] RUN for i in 1 2 3; do echo said $i; done;"),
        "{log:?}"
    );
    let said: Vec<&str> = end
        .lines()
        .skip(1)
        .take(5)
        .map(|l| l.split_once(' ').map_or(l, |(_, l)| l))
        .collect();
    let mut sorted = said[..4].to_vec();
    sorted.sort_unstable();
    assert_eq!(
        (sorted, said[4]),
        (vec!["odd", "said 1", "said 2", "said 3"], "------"),
        "{end:?}"
    );
    assert!(end.ends_with(&format!("------\n{}", ending(&site))), "{end}");
    assert!(!end.contains('\x1b'), "{end:?}");
}

#[test]
fn a_failure_in_lines() {
    let site = Site::new();
    site.dockerfile(FAILING);
    let log = site.build(&[]).bad(1);
    assert!(log.ends_with(&format!("------\n{}", ending(&site))), "{log}");
    for once in [
        "\n > [3/4] RUN for",
        " ERROR: process \"/bin/sh -c for",
        ">>> RUN for",
        "\nERROR: ",
    ] {
        assert_eq!(log.matches(once).count(), 1, "{once:?}: {log}");
    }
    assert!(
        !log.contains("error: ") && !log.contains('^') && !log.contains("\x1b[2J"),
        "{log}"
    );
    let log = site.build(&["-q"]).bad(1);
    assert_eq!(log, ending(&site));
    // What is no step's failure keeps its caret.
    let log = site.error_of("FROM base\nRUNN x\n");
    assert!(
        log.contains("Dockerfile:2:1\n") && log.contains("^^^^") && !log.contains(">>>"),
        "{log}"
    );
}

#[test]
fn documents_for_machines() {
    let site = Site::new();
    site.dockerfile("FROM base\nRUN echo out; echo err >&2\nRUN echo again\n");
    site.build(&[]).good();
    site.dockerfile("FROM base\nRUN echo out; echo err >&2\nRUN echo more; echo less >&2\n");
    let (all, rest) = documents(
        &site
            .build(&["--progress=rawjson", "--build-arg", "UNUSED=1"])
            .good()
            .log,
    );
    assert_eq!(rest, "");
    let vertices_found = vertices(&all);
    for vertex in &vertices_found {
        assert!(vertex["digest"].as_str().unwrap().starts_with("sha256:"), "{vertex}");
        let times = [&vertex["started"], &vertex["completed"]].map(|time| time.as_str().unwrap());
        assert!(
            times[0] <= times[1] && times[1].ends_with('Z') && times[0].as_bytes()[10] == b'T',
            "{vertex}"
        );
        assert!(vertex.get("error").is_none(), "{vertex}");
    }
    let find = |name: &str| vertices_found.iter().find(|v| v["name"] == name).unwrap();
    assert_eq!(find("[2/3] RUN echo out; echo err >&2")["cached"], true);
    let run = find("[3/3] RUN echo more; echo less >&2");
    assert!(run.get("cached").is_none());
    let logs: Vec<&Value> = all.iter().filter_map(|d| d["logs"].as_array()).flatten().collect();
    let mut said: Vec<_> = logs
        .iter()
        .map(|log| (log["stream"].as_u64(), log["data"].as_str()))
        .collect();
    said.sort_unstable();
    // `more` and `less`, each with its line feed.
    assert_eq!(said, [(Some(1), Some("bW9yZQo=")), (Some(2), Some("bGVzcwo="))]);
    assert!(
        logs.iter()
            .all(|log| log["vertex"] == run["digest"] && log["timestamp"].is_string())
    );
    let all_of = |kind: &str| all.iter().filter(|d| d.get(kind).is_some()).count();
    assert_eq!((all_of("warnings"), all_of("statuses")), (1, 2));
}

#[test]
fn documents_of_a_failure() {
    let site = Site::new();
    site.dockerfile(FAILING);
    let (all, rest) = documents(&site.build(&["--progress=rawjson"]).bad(1));
    assert_eq!(rest, ending(&site));
    let vertices = vertices(&all);
    assert!(
        vertices.iter().all(|vertex| vertex["completed"].is_string()),
        "{vertices:?}"
    );
    let failed: Vec<&Value> = vertices.iter().filter(|vertex| vertex.get("error").is_some()).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        failed[0]["error"].as_str().unwrap().ends_with("exit code: 3"),
        "{failed:?}"
    );
}
