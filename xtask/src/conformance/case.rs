//! The files of cases: text that a person writes, one case after the other.
//!
//! `=== name` begins a case, `--- section` a part of it; lines of `#` before the first section say what it is about.
//!
//! | section | holds |
//! |---|---|
//! | `context` | a shell script, run as root in the empty context directory; what it makes elsewhere goes to `..` |
//! | `Dockerfile` | the Dockerfile; without this section the script makes it |
//! | `flags` | flags of `build`, one a line; the directory above the context is the current one |
//! | `fails` | the build fails, and roadstead's message has all of these lines |
//! | `tree` | the oracle is too old: the expected entries upon the base, as `Image::entries` shows them |
//! | `config` | the same for the config: the values that must be there, and of `created image` and `created NN` the times |
//! | `unlike` | `what => why`: differences from the oracle that are meant; `runs again => why`: commands that no cache can spare |
//! | `cage` | `what => why`: differences of the build in a cage from that outside which are meant; `build` where only the cage's must fail |
//!
//! `@HTTP@` and `@GIT@` stand for the addresses of the servers that show the files below `served`.

use std::path::Path;

use crate::error::{Result, TaskError};

/// Said of a case whose commands depend on what is another one each time.
pub(super) const RUNS_AGAIN: &str = "runs again";

/// One Dockerfile with all that belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Case {
    /// File and name, as `copy/links`.
    pub(super) name: String,
    pub(super) context: String,
    pub(super) dockerfile: Option<String>,
    pub(super) flags: Vec<String>,
    pub(super) fails: Option<Vec<String>>,
    pub(super) tree: Option<Vec<String>>,
    pub(super) config: Vec<String>,
    /// What is different on purpose, and why.
    pub(super) unlike: Vec<(String, String)>,
    /// What a cage makes different, and why.
    pub(super) cage: Vec<(String, String)>,
}

impl Case {
    /// Whether the oracle cannot know the answer.
    pub(super) fn is_by_hand(&self) -> bool {
        self.tree.is_some()
    }

    /// Finds the reason for a difference, when it is meant.
    pub(super) fn reason(&self, what: &str) -> Option<&str> {
        reason(&self.unlike, what)
    }

    /// The same for a difference between cage and outside.
    pub(super) fn cage_reason(&self, what: &str) -> Option<&str> {
        reason(&self.cage, what)
    }
}

fn reason<'a>(meant: &'a [(String, String)], what: &str) -> Option<&'a str> {
    let found = meant.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
        Some(start) => what.starts_with(start),
        None => what == pattern,
    });
    found.map(|(_, reason)| reason.as_str())
}

/// Reads every file of cases in the directory, in the order of their names.
pub(super) fn read_all(directory: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(directory).map_err(TaskError::at("read", directory))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cases"));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(TaskError::at("read", &path))?;
        let subject = path.file_stem().unwrap_or_default().to_string_lossy();
        cases.extend(parse(&subject, &text)?);
    }
    Ok(cases)
}

fn parse(subject: &str, text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| TaskError::new(format!("{subject}.cases:{}: {what}", number + 1));
        if let Some(name) = line.strip_prefix("=== ") {
            let name = format!("{subject}/{}", name.trim());
            if cases.iter().any(|case| case.name == name) {
                return Err(wrong("a case of this name is there already"));
            }
            cases.push(Case {
                name,
                ..Case::default()
            });
            section = None;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            return Err(wrong("text before the first case"));
        };
        if let Some(name) = line.strip_prefix("--- ") {
            section = Some(name);
            begin(case, name).ok_or_else(|| wrong("there is no such section"))?;
            continue;
        }
        match section {
            Some(section) => add(case, section, line).ok_or_else(|| wrong("expected `what => why`"))?,
            None if line.is_empty() || line.starts_with('#') => {}
            None => return Err(wrong("text outside of a section")),
        }
    }
    Ok(cases)
}

fn begin(case: &mut Case, section: &str) -> Option<()> {
    match section {
        "Dockerfile" => case.dockerfile = Some(String::new()),
        "fails" => case.fails = Some(Vec::new()),
        "tree" => case.tree = Some(Vec::new()),
        "context" | "flags" | "config" | "unlike" | "cage" => {}
        _ => return None,
    }
    Some(())
}

fn add(case: &mut Case, section: &str, line: &str) -> Option<()> {
    let text = match section {
        "context" => Some(&mut case.context),
        "Dockerfile" => case.dockerfile.as_mut(),
        _ => None,
    };
    if let Some(text) = text {
        text.push_str(line);
        text.push('\n');
        return Some(());
    }
    if line.is_empty() {
        return Some(());
    }
    let lines = match section {
        "flags" => &mut case.flags,
        "config" => &mut case.config,
        "fails" => case.fails.as_mut()?,
        "tree" => case.tree.as_mut()?,
        _ => {
            let (what, why) = line.split_once(" => ")?;
            let meant = if section == "cage" {
                &mut case.cage
            } else {
                &mut case.unlike
            };
            meant.push((what.to_owned(), why.to_owned()));
            return Some(());
        }
    };
    lines.push(line.to_owned());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read() {
        let text = "# all\n\n=== one\n# about\n--- context\necho 1 > a\n--- Dockerfile\nFROM scratch\n\nCOPY a /\n--- flags\n--target=x\n\n--- unlike\n/a => why\n/b* => too\n--- cage\n/c => cage\n=== two\n--- fails\nno such\n";
        let cases = parse("copy", text).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].name, "copy/one");
        assert_eq!(cases[0].dockerfile.as_deref(), Some("FROM scratch\n\nCOPY a /\n"));
        assert_eq!(cases[0].flags, ["--target=x"]);
        assert_eq!(cases[0].reason("/a"), Some("why"));
        assert_eq!(cases[0].reason("/bcd"), Some("too"));
        assert_eq!(cases[0].reason("/ab"), None);
        assert_eq!(cases[0].cage_reason("/c"), Some("cage"));
        assert_eq!(cases[1].fails.as_deref(), Some(&["no such".to_owned()][..]));
        for wrong in [
            "x\n",
            "=== a\nx\n",
            "=== a\n--- nope\n",
            "=== a\n=== a\n",
            "=== a\n--- unlike\nx\n",
        ] {
            assert!(parse("s", wrong).is_err(), "{wrong}");
        }
    }
}
