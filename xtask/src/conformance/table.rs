//! Holds `docs/dockerfile.md` to the tests that it names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::case;
use crate::workspace::root;

/// One data row of a table.
#[derive(Debug)]
struct Row {
    line: usize,
    cells: Vec<String>,
    /// Whether its table says what is taken.
    says_taken: bool,
}

/// Reads the data rows of all tables. A table begins with its head and a line of dashes.
fn rows(text: &str) -> Vec<Row> {
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    let mut says_taken = None;
    for (at, line) in lines.iter().enumerate() {
        if !line.starts_with('|') {
            says_taken = None;
            continue;
        }
        let cells = cells(line);
        match says_taken {
            None => says_taken = Some(cells.get(1).is_some_and(|cell| cell == "taken")),
            Some(_) if line.starts_with("|---") => {}
            Some(says_taken) => rows.push(Row {
                line: at + 1,
                cells,
                says_taken,
            }),
        }
    }
    rows
}

/// Splits a row at its bars; one behind a backslash is part of a cell.
fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    let cells = inner.replace("\\|", "\0");
    cells.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The text between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Says what is wrong with a row.
fn faults(row: &Row, cases: &BTreeSet<String>) -> Vec<String> {
    let [_, taken, tests] = row.cells.as_slice() else {
        return vec![format!("a row has {} cells, not 3", row.cells.len())];
    };
    let mut faults = Vec::new();
    let reason = |word: &str| taken.strip_prefix(word).is_some_and(|reason| !reason.trim().is_empty());
    if row.says_taken && taken != "yes" && !reason("no:") && !reason("differs:") {
        faults.push(format!("`{taken}` is neither yes nor no or differs with a reason"));
    }
    if tests.is_empty() && !(row.says_taken && reason("no:")) {
        faults.push("no test is named".to_owned());
    }
    for name in quoted(tests) {
        let exists = match name.contains("::") {
            true => has_function(name),
            false => cases.contains(name),
        };
        if !exists {
            faults.push(format!("there is no `{name}`"));
        }
    }
    faults
}

/// Looks for the function that a name such as `it::mounts::name` means.
fn has_function(name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else {
        return false;
    };
    let (first, rest) = module.split_once("::").unwrap_or((module, ""));
    let (directory, rest) = match first {
        "it" => ("tests/tests/it".to_owned(), rest),
        "jobs" => ("agent/tests/it".to_owned(), rest),
        "registry" => ("registry-client/tests/registry".to_owned(), rest),
        name => (format!("{}/src", name.replace('_', "-")), rest),
    };
    let file = root().join(directory).join(rest.replace("::", "/"));
    let wanted = format!("fn {function}(");
    let holds = |path: PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&wanted));
    holds(file.with_extension("rs")) || holds(file.join("mod.rs"))
}

fn cases() -> BTreeSet<String> {
    let cases = case::read_all(&root().join("tests/conformance")).unwrap();
    cases.into_iter().map(|case| case.name).collect()
}

fn all_faults(text: &str) -> Vec<String> {
    let cases = cases();
    let rows = rows(text);
    let of = |row: &Row| {
        let line = row.line;
        faults(row, &cases)
            .into_iter()
            .map(move |fault| format!("line {line}: {fault}"))
    };
    rows.iter().flat_map(of).collect()
}

#[test]
fn the_page_names_tests_that_exist() {
    let page: &Path = &root().join("docs/dockerfile.md");
    let text = std::fs::read_to_string(page).unwrap();
    assert!(rows(&text).len() > 300);
    let faults = all_faults(&text);
    assert!(faults.is_empty(), "{}:\n{}", page.display(), faults.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
    let head = "| what | taken | test |\n|---|---|---|\n";
    for row in [
        "| `a\\|b` | yes | `copy/file-to-file` `it::mounts::a_secret_is_found_nowhere` |",
        "| a | no: nobody wants it | |",
        "| a | differs: slower | `builder::dockerfile::words::expands_every_form` `registry_client::ecr::lookalikes_are_not_ecr` |",
    ] {
        assert_eq!(all_faults(&format!("{head}{row}\n")), [""; 0], "{row}");
    }
    for (row, want) in [
        ("| a | yes | `copy/nope` |", "there is no `copy/nope`"),
        ("| a | yes | `it::mounts::nope` |", "there is no `it::mounts::nope`"),
        ("| a | yes | `it::nope::nope` |", "there is no `it::nope::nope`"),
        ("| a | yes | `copy` |", "there is no `copy`"),
        ("| a | yes | |", "no test is named"),
        ("| a | no | |", "neither yes nor no"),
        ("| a | no: | |", "neither yes nor no"),
        ("| a | perhaps | `copy/file-to-file` |", "neither yes nor no"),
        ("| a | yes |", "2 cells"),
    ] {
        let found = all_faults(&format!("{head}{row}\n")).join("\n");
        assert!(found.starts_with("line 3: ") && found.contains(want), "{row}: {found}");
    }
}
