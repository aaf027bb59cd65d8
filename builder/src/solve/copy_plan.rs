//! What a COPY or an ADD is to do, with all its words expanded.

use super::error::{BuildError, Result};
use super::history;
use super::step::{StageRun, word};
use crate::cache::key::KeyBuilder;
use crate::context::files::Choice;
use crate::context::ignore::Ignore;
use crate::context::remote::Remote;
use crate::dockerfile::CopySource;
use crate::dockerfile::instruction::Transfer;
use crate::rootfs::copy::Chmod;
use roadstead_registry_client::Digest;
use std::path::Path;

/// A copy with all its words expanded.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// In the order of the instruction, as each may overwrite what came before.
    pub(super) sources: Vec<Source>,
    pub(super) inline: Vec<(String, Vec<u8>)>,
    pub(super) destination: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<(String, Chmod)>,
    pub(super) link: bool,
    pub(super) choice: Choice,
    /// Whether archives of the context are unpacked, and those that are fetched.
    pub(super) unpack: bool,
    pub(super) unpack_fetched: bool,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: Option<bool>,
    /// What the history says.
    pub(super) created_by: String,
    /// Everything of it that the result depends on, besides the files.
    words: Vec<String>,
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A path or pattern in the context, the stage or the image.
    Path(String),
    /// Something that is fetched.
    Remote(Remote),
}

impl Plan {
    /// Copies all there is to the root.
    pub(super) fn whole() -> Self {
        let mut plan = Self {
            sources: vec![Source::Path("/".to_owned())],
            inline: Vec::new(),
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            link: false,
            choice: Choice::default(),
            unpack: false,
            unpack_fetched: false,
            checksum: None,
            keep_git_dir: None,
            created_by: String::new(),
            words: Vec::new(),
        };
        plan.words = plan.dependencies(&[]);
        plan
    }

    /// Adds what the result depends on, besides the files.
    pub(super) fn add_to(&self, key: &mut KeyBuilder) {
        key.add_all("words", self.words.iter());
        key.add("inline", self.inline.len().to_string());
        for (name, content) in &self.inline {
            key.add("name", name).add("content", content);
        }
    }

    /// The checksum of a file that is fetched by http.
    pub(super) fn digest(&self) -> Result<Option<Digest>> {
        let wrong = |text: &str| BuildError::Other(format!("invalid `--checksum={text}`: expected sha256:HEX"));
        let parse = |text: &String| text.parse().map_err(|_| wrong(text));
        self.checksum.as_ref().map(parse).transpose()
    }
}

impl StageRun<'_> {
    pub(super) fn plan(&self, transfer: &Transfer, add: bool) -> Result<Plan> {
        let mut sources = Vec::new();
        let mut written = Vec::new();
        for source in &transfer.sources {
            if let CopySource::Path(path) = source {
                let path = self.expand(path)?;
                if path.is_empty() {
                    return Err(BuildError::Other("a source is empty after expansion".into()));
                }
                sources.push(source_of(&path, transfer, add)?);
                written.push(path);
            }
        }
        let inline = self.inline(transfer)?;
        let to = self.expand(&transfer.destination)?;
        let destination = self.destination(&to)?;
        if sources.len() + inline.len() > 1 && !destination.ends_with('/') {
            return Err(BuildError::Other(
                "with more than one source, the destination must end with a `/`".into(),
            ));
        }
        let chmod = transfer.chmod.as_ref().map(|text| self.chmod(text)).transpose()?;
        let chown = transfer.chown.as_ref().map(|text| self.expand(text)).transpose()?;
        let checksum = transfer.checksum.as_ref().map(|text| self.expand(text)).transpose()?;
        check_checksum(checksum.as_deref(), &sources, inline.len())?;
        let exclude = transfer.exclude.iter().map(|text| self.expand(text));
        let exclude = exclude.collect::<Result<Vec<_>>>()?;
        let ignore = Ignore::patterns(exclude.iter().map(String::as_str));
        let ignore = ignore.map_err(|error| {
            let number = error.line;
            BuildError::Other(format!(
                "invalid `--exclude={}`",
                exclude.get(number - 1).map_or("", String::as_str)
            ))
        })?;
        let mut plan = Plan {
            sources,
            inline,
            destination,
            chown,
            // BuildKit makes a layer of its own only without a mode.
            link: transfer.link && chmod.is_none(),
            chmod,
            choice: Choice {
                parents: transfer.parents,
                exclude: ignore,
            },
            unpack: transfer.unpack.unwrap_or(add),
            unpack_fetched: transfer.unpack.unwrap_or(false),
            checksum,
            keep_git_dir: transfer.keep_git_dir,
            created_by: String::new(),
            words: Vec::new(),
        };
        plan.created_by = plan.history(add, &written, &to);
        plan.words = plan.dependencies(&exclude);
        Ok(plan)
    }

    fn inline(&self, transfer: &Transfer) -> Result<Vec<(String, Vec<u8>)>> {
        let mut inline = Vec::new();
        for source in &transfer.sources {
            let CopySource::Inline(heredoc) = source else { continue };
            let body = if heredoc.expand {
                self.scope
                    .expand_heredoc(&heredoc.content, &self.state, self.escape())
                    .map_err(word)?
            } else {
                heredoc.content.clone()
            };
            inline.push((heredoc.name.clone(), body.into_bytes()));
        }
        Ok(inline)
    }

    fn chmod(&self, text: &str) -> Result<(String, Chmod)> {
        let text = self.expand(text)?;
        let message =
            format!("invalid `--chmod={text}`: expected an octal mode such as 755 or clauses such as u=rwX,go=rX");
        let mode = Chmod::parse(&text).ok_or(BuildError::Other(message))?;
        Ok((text, mode))
    }

    /// Makes the destination absolute; a trailing slash, which means a directory, stays.
    fn destination(&self, text: &str) -> Result<String> {
        if text.is_empty() {
            return Err(BuildError::Other("the destination is empty after expansion".into()));
        }
        let joined = Path::new("/").join(&self.state.working_dir).join(text);
        let directory =
            text.ends_with('/') || matches!(text, "." | "..") || text.ends_with("/.") || text.ends_with("/..");
        let cleaned = crate::beneath::clean(&joined);
        let slash = if directory && !cleaned.as_os_str().is_empty() {
            "/"
        } else {
            ""
        };
        Ok(format!("/{}{slash}", cleaned.display()))
    }
}

impl Plan {
    /// The history's text; `to` is the destination as the Dockerfile has it, variables expanded.
    fn history(&self, add: bool, written: &[String], to: &str) -> String {
        let mut text = if add { "ADD" } else { "COPY" }.to_owned();
        let parents = self.choice.parents.then(|| "--parents".to_owned());
        let chown = self.chown.as_ref().map(|owner| format!("--chown={owner}"));
        let chmod = self.chmod.as_ref().map(|(mode, _)| format!("--chmod={mode}"));
        let flags = parents.into_iter().chain(chown).chain(chmod);
        let sources = written
            .iter()
            .map(|source| crate::context::remote::git::without_credentials(source).0);
        let inline = self.inline.iter().map(|(name, _)| format!("<<{name}"));
        for word in flags.chain(sources).chain(inline).chain([to.to_owned()]) {
            text.push(' ');
            text.push_str(&word);
        }
        text + history::MARK
    }

    fn dependencies(&self, exclude: &[String]) -> Vec<String> {
        let mut words = vec![
            format!("destination {}", self.destination),
            format!("chown {:?}", self.chown),
            format!("chmod {:?}", self.chmod.as_ref().map(|(text, _)| text)),
            format!("link {}", self.link),
            format!("parents {}", self.choice.parents),
            format!("unpack {} {}", self.unpack, self.unpack_fetched),
        ];
        words.extend(exclude.iter().map(|pattern| format!("exclude {pattern}")));
        words
    }
}

fn source_of(path: &str, transfer: &Transfer, add: bool) -> Result<Source> {
    let remote = match transfer.from {
        None => Remote::parse(path)?,
        Some(_) => None,
    };
    match remote {
        Some(remote) if add => Ok(Source::Remote(remote)),
        Some(Remote::Http(_)) => Err(BuildError::Other(
            "source can't be a URL for COPY: ADD fetches URLs".into(),
        )),
        Some(Remote::Git(_)) => Err(BuildError::Other(
            "source can't be a git repository for COPY: ADD fetches repositories".into(),
        )),
        None => Ok(Source::Path(path.to_owned())),
    }
}

fn check_checksum(checksum: Option<&str>, sources: &[Source], inline: usize) -> Result<()> {
    match (checksum, sources) {
        (None, _) => Ok(()),
        (Some(_), [Source::Remote(_)]) if inline == 0 => Ok(()),
        (Some(_), [Source::Path(_)]) => Err(BuildError::Other(
            "`--checksum` requires a source by http, https or git".into(),
        )),
        (Some(_), _) => Err(BuildError::Other(
            "`--checksum` can't be specified for several sources".into(),
        )),
    }
}
