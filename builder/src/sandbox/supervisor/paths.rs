//! Which paths are the supervisor's to answer: those below /proc and /sys, and what leads there.

/// A tree that the root has no files of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// `/proc`.
    Proc,
    /// `/sys`.
    Sys,
}

impl Tree {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Sys => "sys",
        }
    }
}

/// A path below one of the trees, its parts by name; neither `.` nor `..` is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) tree: Tree,
    pub(super) parts: Vec<Vec<u8>>,
}

impl Inside {
    fn new(tree: Tree, parts: &[&[u8]]) -> Self {
        Self {
            tree,
            parts: parts.iter().map(|part| part.to_vec()).collect(),
        }
    }
}

/// Tells whether a relative path may lead to one of the trees from a directory that is in none of them.
pub(super) fn may_enter(path: &[u8]) -> bool {
    if path.starts_with(b"..") {
        return true;
    }
    let first = path
        .split(|byte| *byte == b'/')
        .find(|part| !part.is_empty() && *part != b".");
    matches!(first, Some(b"proc" | b"sys" | b"dev" | b"etc" | b".."))
}

/// Finds the tree that an absolute path leads to. `follows` says whether a link at its end counts.
///
/// `..` goes up by name: only links of the command's own making could make that another place, and such a path is then one that is not
/// found, or one of its own files.
pub(super) fn find(path: &[u8], follows: bool) -> Option<Inside> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    match parts.split_first()? {
        (&b"proc", rest) => Some(Inside::new(Tree::Proc, rest)),
        (&b"sys", rest) => Some(Inside::new(Tree::Sys, rest)),
        (&b"dev", rest) => device(rest, follows),
        // A link to /proc/self/mounts nearly everywhere.
        (&b"etc", [b"mtab"]) if follows => Some(Inside::new(Tree::Proc, &[b"self", b"mounts"])),
        _ => None,
    }
}

/// The links of /dev that lead to the descriptors of whoever asks.
fn device(rest: &[&[u8]], follows: bool) -> Option<Inside> {
    let of = |parts: &[&[u8]]| Some(Inside::new(Tree::Proc, parts));
    let (name, below) = rest.split_first()?;
    if below.is_empty() && !follows {
        return None;
    }
    match *name {
        b"fd" => {
            let mut parts: Vec<&[u8]> = vec![b"self", b"fd"];
            parts.extend(below);
            of(&parts)
        }
        b"stdin" if below.is_empty() => of(&[b"self", b"fd", b"0"]),
        b"stdout" if below.is_empty() => of(&[b"self", b"fd", b"1"]),
        b"stderr" if below.is_empty() => of(&[b"self", b"fd", b"2"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, follows: bool) -> String {
        match find(path.as_bytes(), follows) {
            None => "-".to_owned(),
            Some(Inside { tree, parts }) => {
                let parts: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(part)).collect();
                format!("{}:{}", tree.name(), parts.join("/"))
            }
        }
    }

    #[test]
    fn what_is_below_the_trees() {
        for (path, want) in [
            ("/proc", "proc:"),
            ("//proc/./self//exe", "proc:self/exe"),
            ("/usr/../proc/1/root", "proc:1/root"),
            ("/proc/self/../cpuinfo", "proc:cpuinfo"),
            ("/../../sys/class", "sys:class"),
            ("/processes", "-"),
            ("/proc/..", "-"),
            ("/proc/../etc/shadow", "-"),
            ("/dev/fd/3", "proc:self/fd/3"),
            ("/dev/fd/3/x", "proc:self/fd/3/x"),
            ("/dev/stdout", "proc:self/fd/1"),
            ("/dev/null", "-"),
            ("/etc/mtab", "proc:self/mounts"),
            ("/etc/mtab/x", "-"),
            ("/", "-"),
        ] {
            assert_eq!(shown(path, true), want, "{path}");
        }
        for path in ["/dev/fd", "/dev/stdin", "/etc/mtab"] {
            assert_eq!(shown(path, false), "-", "{path}");
        }
        assert_eq!(shown("/dev/fd/0", false), "proc:self/fd/0");
    }

    #[test]
    fn which_relative_paths_are_looked_at() {
        for path in ["proc", "./proc/self", "..", "../proc", "sys/x", ".//dev/fd", "etc/mtab"] {
            assert!(may_enter(path.as_bytes()), "{path}");
        }
        for path in ["a/../proc", "procs", "usr/lib", ""] {
            assert!(!may_enter(path.as_bytes()), "{path}");
        }
    }
}
