//! Git addresses as the Dockerfile reference has them: `URL#ref:directory`, and since Dockerfile 1.18 `URL?ref=…&subdir=…`.

use super::RemoteError;
use super::git::without_credentials;

/// Names files in a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// The repository, as git takes it; it may hold a login.
    pub remote: String,
    /// Branch, tag, full name of a ref, or commit; the repository's default branch when absent.
    pub reference: Option<String>,
    /// A directory in it.
    pub subdir: Option<String>,
    /// Beginning of the commit's hash that is expected.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; they are when absent.
    pub submodules: Option<bool>,
    /// Whether files have the time of the commit.
    pub commit_time: bool,
    /// Whether the commit of `checksum` is fetched rather than the ref.
    pub fetch_by_commit: bool,
}

impl GitRef {
    /// Reads an address. `None` means that it is no git address: BuildKit takes `git://`, `ssh://`, `user@host:path`, and http and
    /// https when the path ends in `.git`.
    ///
    /// # Errors
    /// A query or a fragment that says what cannot be.
    pub fn parse(text: &str) -> Result<Option<Self>, RemoteError> {
        if !is_git(text) {
            return Ok(None);
        }
        let wrong = |reason: String| RemoteError::Address {
            address: without_credentials(text).0,
            reason,
        };
        if text.chars().any(char::is_control) || text.starts_with('-') {
            return Err(wrong("it has a control character or begins with `-`".to_owned()));
        }
        super::check_address(text)?;
        let (rest, fragment) = text.split_once('#').map_or((text, ""), |(rest, part)| (rest, part));
        let (remote, query) = rest.split_once('?').map_or((rest, ""), |(rest, part)| (rest, part));
        let mut git = Self {
            remote: remote.to_owned(),
            ..Self::default()
        };
        git.read_fragment(fragment).map_err(wrong)?;
        git.read_query(query).map_err(wrong)?;
        if let Some(reference) = &git.reference {
            check_reference(reference).map_err(wrong)?;
        }
        if let Some(checksum) = &git.checksum {
            check_commit(checksum).map_err(wrong)?;
        }
        Ok(Some(git))
    }

    fn read_fragment(&mut self, fragment: &str) -> Result<(), String> {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let (reference, subdir) = (decoded(reference)?, decoded(subdir)?);
        self.reference = Some(reference).filter(|text| !text.is_empty());
        self.subdir = Some(subdir).filter(|text| !text.is_empty());
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut known: Vec<&str> = Vec::new();
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            if known.contains(&key) {
                return Err(format!("query `{key}` is given twice"));
            }
            known.push(key);
            let value = decoded(value)?;
            if value.is_empty() && !matches!(key, "submodules" | "keep-git-dir" | "fetch-by-commit") {
                return Err(format!("query `{key}` has no value"));
            }
            match key {
                "ref" => once(&mut self.reference, "ref", value)?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "subdir" => once(&mut self.subdir, "subdir", value)?,
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(boolean(key, &value)?),
                "submodules" => self.submodules = Some(boolean(key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = boolean(key, &value)?,
                "mtime" => self.commit_time = mtime(&value)?,
                _ => return Err(format!("unexpected query `{key}`")),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("a branch conflicts with a tag".to_owned());
        }
        if let Some(reference) = tag.or(branch) {
            once(&mut self.reference, "ref", reference)?;
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }
}

fn is_git(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return is_scp_like(text);
    };
    let path = rest.split(['#', '?']).next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "git" | "ssh" => true,
        "http" | "https" => path.ends_with(".git") && path.contains('/'),
        _ => false,
    }
}

/// `user@host:path`.
fn is_scp_like(text: &str) -> bool {
    let name = |text: &str, more: &[char]| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || more.contains(&c))
    };
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    name(user, &['.']) && name(host, &['.']) && !path.is_empty() && !path.starts_with(':')
}

fn once(place: &mut Option<String>, what: &str, value: String) -> Result<(), String> {
    match place {
        Some(other) if *other != value => Err(format!("{what} conflicts: `{other}` and `{value}`")),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name))
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("query `{key}` takes true or false, not `{value}`")),
    }
}

fn mtime(value: &str) -> Result<bool, String> {
    match value {
        "checkout" => Ok(false),
        "commit" => Ok(true),
        _ => Err(format!("query `mtime` takes checkout or commit, not `{value}`")),
    }
}

/// Undoes percent encoding.
pub(super) fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err("a `%` without two digits after it".to_owned());
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is no UTF-8 when decoded".to_owned())?;
    match text.chars().any(char::is_control) {
        true => Err("it has a control character when decoded".to_owned()),
        false => Ok(text),
    }
}

/// Refuses what git would not take as a name, or take as an option or a rule for names.
fn check_reference(reference: &str) -> Result<(), String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    let fits = !reference.starts_with(['-', '+']) && !reference.contains("..") && !reference.contains("@{");
    match fits && reference.len() <= 250 && !reference.contains(bad) {
        true => Ok(()),
        false => Err(format!("`{reference}` is no branch, tag or commit")),
    }
}

/// Checks the beginning of a commit's hash.
pub(crate) fn check_commit(text: &str) -> Result<(), String> {
    let fits = (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match fits {
        true => Ok(()),
        false => Err(format!(
            "`{text}` is no hash of a commit: 7 to 64 hexadecimal digits are"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn git(text: &str) -> GitRef {
        GitRef::parse(text).unwrap().unwrap()
    }

    #[test]
    fn what_is_git_and_what_is_not() {
        for text in [
            "https://example.org/a.git",
            "https://example.org/a.git#main",
            "git://h/a",
            "ssh://git@h:22/a",
            "git@example.org:a/b.git#v1:sub",
        ] {
            assert!(GitRef::parse(text).unwrap().is_some(), "{text}");
        }
        for text in [
            "a.git",
            "./git@x:y",
            "https://example.org/a.tar.gz",
            "https://h.git",
            "http://h/a.git/b",
            "a@b",
            "a:b",
            "ftp://h/a.git",
        ] {
            assert!(GitRef::parse(text).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn fragments_and_queries() {
        let one = git("https://h/a.git#v1:sub/dir");
        assert_eq!(
            (one.remote.as_str(), one.reference.as_deref(), one.subdir.as_deref()),
            ("https://h/a.git", Some("v1"), Some("sub/dir"))
        );
        let one = git("https://h/a.git?tag=v2&subdir=x%20y&keep-git-dir&submodules=0&mtime=commit");
        assert_eq!(one.reference.as_deref(), Some("refs/tags/v2"));
        assert_eq!(one.subdir.as_deref(), Some("x y"));
        assert_eq!(
            (one.keep_git_dir, one.submodules, one.commit_time),
            (Some(true), Some(false), true)
        );
        let one = git("https://h/a.git?commit=0123456789&fetch-by-commit=true");
        assert_eq!((one.reference, one.fetch_by_commit), (Some("0123456789".into()), true));
        assert_eq!(
            git("https://h/a.git?branch=b#refs/heads/b").reference.as_deref(),
            Some("refs/heads/b")
        );
        for (bad, want) in [
            ("https://h/a.git?ref=a#b", "ref conflicts"),
            ("https://h/a.git?tag=a&branch=b", "conflicts with a tag"),
            ("https://h/a.git?nope=1", "unexpected query `nope`"),
            ("https://h/a.git?ref=", "has no value"),
            ("https://h/a.git?ref=a&ref=a", "given twice"),
            ("https://h/a.git?mtime=now", "checkout or commit"),
            ("https://h/a.git?commit=xyz", "no hash of a commit"),
            ("https://h/a.git#--upload-pack=x", "no branch"),
            ("https://h/a.git#a^{}", "no branch"),
            ("https://h/a.git#a%", "two digits"),
            ("https://u:hunter2@h/a.git?nope=1", "https://h/a.git"),
        ] {
            let error = GitRef::parse(bad).unwrap_err().to_string();
            assert!(error.contains(want) && !error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(https://|git@|git://)?[a-z@:/.%?&=#{}~-]{0,24}") {
            drop(GitRef::parse(&text));
        }
    }
}
