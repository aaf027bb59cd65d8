//! `RUN --mount`: one CSV record of `key=value` fields, as the Dockerfile reference has them ("RUN --mount").

use super::instruction::near;
use super::{Span, csv};
use std::path::{Path, PathBuf};

/// One `--mount` as written. Its values may hold variables, save for `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    fields: Vec<String>,
    /// A stage or an image that it takes files from.
    pub from: Option<String>,
    /// Where it stands.
    pub span: Span,
}

/// A mount with all values expanded. Paths inside are as given: a relative one is meant from WORKDIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Shows files of the context, a stage or an image.
    Bind {
        /// Where to.
        target: PathBuf,
        /// Path below the root of where the files come from.
        source: String,
        /// Whether the command may write; what it writes is discarded.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Where to.
        target: PathBuf,
        /// Its name; the target when not given.
        id: String,
        /// Path below the root of `from` that a new one is filled from.
        source: String,
        /// Whether the command may write.
        writable: bool,
        /// What happens when two commands want it at once.
        sharing: Sharing,
        /// Owner and mode of a new one.
        access: Access,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Where to.
        target: PathBuf,
        /// Its limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, a variable, or both.
    Secret {
        /// Its name on the command line.
        id: String,
        /// The file, if it is to be one.
        target: Option<PathBuf>,
        /// The variable, if it is to be one.
        variable: Option<String>,
        /// Whether it is an error that it was not given.
        required: bool,
        /// Owner and mode of the file.
        access: Access,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Its name on the command line.
        id: String,
        /// Where to; a path that tells the sockets of one command apart when not given.
        target: Option<PathBuf>,
        /// Whether it is an error that it was not given.
        required: bool,
        /// Owner and mode of the socket.
        access: Access,
    },
}

/// What happens when two commands want one cache mount at once. A greater one is stricter: who holds a locked cache has it alone, as with
/// a private one, and has what the others left in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// Both use it.
    Shared,
    /// The second gets another directory.
    Private,
    /// The second waits.
    Locked,
}

/// Owner and mode of what a mount makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// All keys by their first name, and the types that have them.
const KEYS: [(&str, &[&str]); 14] = [
    ("type", &TYPES),
    ("from", &["bind", "cache"]),
    ("source", &["bind", "cache", "secret"]),
    ("target", &TYPES),
    ("readonly", &["bind", "cache"]),
    ("readwrite", &["bind", "cache"]),
    ("id", &["cache", "secret", "ssh"]),
    ("sharing", &["cache"]),
    ("mode", &["cache", "secret", "ssh"]),
    ("uid", &["cache", "secret", "ssh"]),
    ("gid", &["cache", "secret", "ssh"]),
    ("size", &["tmpfs"]),
    ("required", &["secret", "ssh"]),
    ("env", &["secret"]),
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// The agent that a mount without an id means.
const DEFAULT_AGENT: &str = "default";

impl MountFlag {
    /// Reads the flag's value. What holds no variable is checked at once.
    pub(super) fn parse(value: &str, span: Span) -> Result<Self, String> {
        let fields = csv::record(&unquote(value)).map_err(|e| format!("in `--mount`, {e}"))?;
        let mut from = None;
        let mut variables = false;
        for field in &fields {
            match field.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("from") => {
                    if value.contains('$') {
                        return Err(format!(
                            "variables are not expanded in `from={value}`: name a stage instead"
                        ));
                    }
                    from = Some(value.to_owned()).filter(|value| !value.is_empty());
                }
                Some((_, value)) => variables |= value.contains('$'),
                None => {}
            }
        }
        let flag = Self { fields, from, span };
        if !variables {
            flag.resolve(|value| Ok::<_, String>(value.to_owned()))?;
        }
        Ok(flag)
    }

    /// Lists the values as written.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        let pairs = self.fields.iter().filter_map(|field| field.split_once('='));
        pairs.map(|(_, value)| value)
    }

    /// Expands the values, and tells what is to be mounted.
    ///
    /// # Errors
    /// Says which key or value is wrong.
    pub fn resolve<E: ToString>(&self, expand: impl Fn(&str) -> Result<String, E>) -> Result<Mount, String> {
        let mut given = Given::default();
        for field in &self.fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(expand(value).map_err(|e| e.to_string())?)),
                None => (field.as_str(), None),
            };
            given.add(&key.to_ascii_lowercase(), value)?;
        }
        given.mount()
    }
}

/// The fields by their keys.
#[derive(Debug, Default)]
struct Given(Vec<(&'static str, String)>);

impl Given {
    fn add(&mut self, key: &str, value: Option<String>) -> Result<(), String> {
        let name = match key {
            "src" => "source",
            "dst" | "destination" => "target",
            "ro" => "readonly",
            "rw" => "readwrite",
            other => other,
        };
        let Some((name, _)) = KEYS.iter().find(|(known, _)| *known == name) else {
            let keys = KEYS.iter().map(|(known, _)| *known);
            return Err(format!("unknown key `{key}` in `--mount`{}", near(key, keys)));
        };
        let value = match value {
            Some(value) => value,
            // These say yes by being there.
            None if matches!(*name, "readonly" | "readwrite" | "required") => "true".to_owned(),
            None => return Err(format!("`{key}` in `--mount` needs a value: {key}=...")),
        };
        self.0.push((name, value));
        Ok(())
    }

    /// The last one counts, as with docker.
    fn text(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(name, _)| *name == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, String> {
        self.text(key)
            .map(|text| match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(format!("`{key}` in `--mount` takes true or false, not `{text}`")),
            })
            .transpose()
    }

    fn number(&self, key: &str, radix: u32) -> Result<Option<u32>, String> {
        self.text(key)
            .map(|text| {
                u32::from_str_radix(text, radix)
                    .map_err(|_| format!("`{key}` in `--mount` takes a number, not `{text}`"))
            })
            .transpose()
    }

    fn access(&self, mode: u32) -> Result<Access, String> {
        Ok(Access {
            uid: self.number("uid", 10)?.unwrap_or(0),
            gid: self.number("gid", 10)?.unwrap_or(0),
            mode: self.number("mode", 8)?.unwrap_or(mode) & 0o7777,
        })
    }

    fn target(&self, kind: &str) -> Result<PathBuf, String> {
        match self.text("target") {
            None => Err(format!("a mount of type {kind} needs a target: target=/path")),
            Some(path) => target(path),
        }
    }

    fn writable(&self, otherwise: bool) -> Result<bool, String> {
        match (self.boolean("readonly")?, self.boolean("readwrite")?) {
            (Some(_), Some(_)) => Err("`readonly` and `readwrite` in `--mount` do not go together".to_owned()),
            (Some(readonly), None) => Ok(!readonly),
            (None, Some(readwrite)) => Ok(readwrite),
            (None, None) => Ok(otherwise),
        }
    }

    fn mount(&self) -> Result<Mount, String> {
        let kind = self.text("type").unwrap_or("bind").to_ascii_lowercase();
        if !TYPES.contains(&kind.as_str()) {
            return Err(format!("unknown mount type `{kind}`{}", near(&kind, TYPES.into_iter())));
        }
        for (key, _) in &self.0 {
            let types = KEYS.iter().find(|(known, _)| known == key).map(|(_, types)| *types);
            if !types.unwrap_or_default().contains(&kind.as_str()) {
                return Err(format!("a mount of type {kind} has no `{key}`"));
            }
        }
        let source = || self.text("source").unwrap_or("/").to_owned();
        match kind.as_str() {
            "cache" => {
                let target = self.target("cache")?;
                Ok(Mount::Cache {
                    id: self.text("id").map_or_else(|| clean_id(&target), str::to_owned),
                    target,
                    source: source(),
                    writable: self.writable(true)?,
                    sharing: self.sharing()?,
                    access: self.access(0o755)?,
                })
            }
            "tmpfs" => Ok(Mount::Tmpfs {
                target: self.target("tmpfs")?,
                size: self.text("size").map(bytes).transpose()?,
            }),
            "secret" => self.secret(),
            "ssh" => Ok(Mount::Ssh {
                id: self.text("id").unwrap_or(DEFAULT_AGENT).to_owned(),
                target: self.text("target").map(target).transpose()?,
                required: self.boolean("required")?.unwrap_or(false),
                access: self.access(0o600)?,
            }),
            _ => Ok(Mount::Bind {
                target: self.target("bind")?,
                source: source(),
                writable: self.writable(false)?,
            }),
        }
    }

    fn secret(&self) -> Result<Mount, String> {
        let given = self.text("target").map(target).transpose()?;
        let base = given
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        let Some(id) = self.text("source").or(self.text("id")).or(base).map(str::to_owned) else {
            return Err("a secret mount needs an id or a target: id=NAME".to_owned());
        };
        let variable = self.text("env").map(str::to_owned);
        let usual = || Path::new("/run/secrets").join(Path::new(&id).file_name().unwrap_or_default());
        Ok(Mount::Secret {
            // A variable is in place of the usual file, not of one that is asked for.
            target: given.or_else(|| variable.is_none().then(usual)),
            variable,
            required: self.boolean("required")?.unwrap_or(false),
            access: self.access(0o400)?,
            id,
        })
    }

    fn sharing(&self) -> Result<Sharing, String> {
        match self.text("sharing").unwrap_or("shared") {
            "shared" => Ok(Sharing::Shared),
            "private" => Ok(Sharing::Private),
            "locked" => Ok(Sharing::Locked),
            other => {
                let near = near(other, ["shared", "private", "locked"].into_iter());
                Err(format!(
                    "`sharing={other}` in `--mount` is not one of shared, private and locked{near}"
                ))
            }
        }
    }
}

fn target(path: &str) -> Result<PathBuf, String> {
    if crate::beneath::clean(Path::new(path)).as_os_str().is_empty() && path.starts_with('/') {
        return Err(format!("cannot mount on `{path}`"));
    }
    Ok(PathBuf::from(path))
}

fn clean_id(target: &Path) -> String {
    let root = if target.is_absolute() { "/" } else { "" };
    format!("{root}{}", crate::beneath::clean(target).display())
}

/// Reads a size as docker does: bytes, or with k, m, g or t for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`size` in `--mount` takes bytes such as 1048576 or 64m, not `{text}`");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match digits.strip_suffix(['k', 'm', 'g', 't']) {
        Some(rest) if digits.ends_with('k') => (rest, 10),
        Some(rest) if digits.ends_with('m') => (rest, 20),
        Some(rest) if digits.ends_with('g') => (rest, 30),
        Some(rest) => (rest, 40),
        None => (digits, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(bad)
}

/// Takes off the quotes of the flag's word, which keep white space in it; the record's own quotes must be escaped.
fn unquote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut chars, mut quote) = (text.chars(), None);
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mount(value: &str) -> Result<Mount, String> {
        MountFlag::parse(value, Span::default())?.resolve(|text| Ok::<_, String>(text.replace("$D", "/dir")))
    }

    #[test]
    fn each_type_has_its_defaults() {
        let root = Access {
            uid: 0,
            gid: 0,
            mode: 0o755,
        };
        assert_eq!(
            mount("target=/x"),
            Ok(Mount::Bind {
                target: "/x".into(),
                source: "/".into(),
                writable: false
            })
        );
        assert_eq!(
            mount("type=cache,dst=/root/.npm/"),
            Ok(Mount::Cache {
                target: "/root/.npm/".into(),
                id: "/root/.npm".into(),
                source: "/".into(),
                writable: true,
                sharing: Sharing::Shared,
                access: root,
            })
        );
        assert_eq!(
            mount("type=tmpfs,target=$D/t,size=64m"),
            Ok(Mount::Tmpfs {
                target: "/dir/t".into(),
                size: Some(64 << 20)
            })
        );
        let secret = Access { mode: 0o400, ..root };
        let usual = Mount::Secret {
            id: "a/key".into(),
            target: Some("/run/secrets/key".into()),
            variable: None,
            required: false,
            access: secret,
        };
        assert_eq!(mount("type=secret,id=a/key"), Ok(usual.clone()));
        assert_eq!(mount("type=secret,src=a/key"), Ok(usual));
        let Ok(Mount::Secret { id, target, .. }) = mount("type=secret,target=/root/.npmrc,required") else {
            panic!("no secret")
        };
        assert_eq!((id.as_str(), target), (".npmrc", Some("/root/.npmrc".into())));
        let Ok(Mount::Secret { target, variable, .. }) = mount("type=secret,id=t,env=TOKEN") else {
            panic!("no secret")
        };
        assert_eq!((target, variable.as_deref()), (None, Some("TOKEN")));
        let ssh = |id: &str, target: Option<&str>, required, access| Mount::Ssh {
            id: id.into(),
            target: target.map(PathBuf::from),
            required,
            access,
        };
        let socket = Access { mode: 0o600, ..root };
        assert_eq!(mount("type=ssh"), Ok(ssh("default", None, false, socket)));
        let access = Access {
            uid: 5,
            gid: 6,
            mode: 0o660,
        };
        assert_eq!(
            mount("type=ssh,id=github,target=$D/agent,required,uid=5,gid=6,mode=660"),
            Ok(ssh("github", Some("/dir/agent"), true, access))
        );
    }

    #[test]
    fn quotes_and_names_are_read_as_docker_does() {
        assert_eq!(
            mount("TYPE=BIND,Dst=/x,RW").unwrap(),
            mount("target=/x,readwrite=true").unwrap()
        );
        assert_eq!(mount("\"target=/a b\",ro").unwrap(), mount("'target=/a b'").unwrap());
        assert_eq!(
            mount("'target=\"/x'").unwrap_err(),
            "in `--mount`, `target=\"/x` holds a quote within an unquoted field"
        );
        let flag = MountFlag::parse("from=one,target=$D", Span::default()).unwrap();
        assert_eq!(flag.from.as_deref(), Some("one"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, want) in [
            ("type=cash,target=/x", "unknown mount type `cash`: did you mean cache?"),
            ("tagret=/x", "did you mean target?"),
            ("type=cache", "needs a target"),
            ("target=/", "cannot mount on `/`"),
            ("target", "needs a value"),
            ("type=bind,target=/x,size=3", "a mount of type bind has no `size`"),
            ("type=tmpfs,target=/x,size=-3", "takes bytes"),
            ("type=cache,target=/x,mode=9", "takes a number"),
            ("type=cache,target=/x,sharing=lockd", "did you mean locked?"),
            ("type=secret", "needs an id"),
            ("type=ssh,source=/x", "a mount of type ssh has no `source`"),
            ("type=ssh,env=X", "a mount of type ssh has no `env`"),
            ("type=shh", "did you mean ssh?"),
            ("type=bind,target=/x,required", "a mount of type bind has no `required`"),
            ("from=$x,target=/x", "variables are not expanded"),
            ("target=/x,ro,rw", "do not go together"),
            ("target=/x,rw=perhaps", "takes true or false"),
        ] {
            let error = mount(value).unwrap_err();
            assert!(error.contains(want), "{value}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in "((type|target|id|mode|size|from|=|,|\"|'|\\\\|\\$|cache|secret|/|[a-z0-9\u{e9}]){0,3}){0,9}") {
            drop(mount(&value));
        }
    }
}
