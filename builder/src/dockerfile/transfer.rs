//! COPY and ADD: their flags, sources and destination.

use super::DockerfileError;
use super::instruction::{Heredoc, needs_argument};
use super::instruction_flags::{Cursor, Flag};

type Result<T> = std::result::Result<T, Box<DockerfileError>>;

/// Names what COPY and ADD take from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern below the context, the stage or the image.
    Path(String),
    /// A heredoc: its name becomes the file name.
    Inline(Heredoc),
}

/// Holds the flags and words that COPY and ADD share. Variables are not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// What is copied.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: String,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

const COPY_FLAGS: [&str; 6] = ["from", "chown", "chmod", "link", "parents", "exclude"];
const ADD_FLAGS: [&str; 7] = [
    "chown",
    "chmod",
    "link",
    "exclude",
    "checksum",
    "keep-git-dir",
    "unpack",
];
fn transfer_flag(cursor: &Cursor<'_>, keyword: &str, flag: &Flag, into: &mut Transfer) -> Result<()> {
    match flag.name.as_str() {
        "from" if keyword == "COPY" => {
            let value = cursor.flag_text(flag)?;
            if value.as_ref().is_some_and(|value| value.contains('$')) {
                return Err(cursor.error(
                    flag.span,
                    "variables are not expanded in `--from`: name a stage instead",
                ));
            }
            into.from = value;
        }
        "chown" => into.chown = cursor.flag_text(flag)?,
        "chmod" => into.chmod = cursor.flag_text(flag)?,
        "link" => into.link = cursor.flag_bool(flag)?,
        "parents" if keyword == "COPY" => into.parents = cursor.flag_bool(flag)?,
        "exclude" => into.exclude.push(cursor.flag_value(flag)?),
        "checksum" if keyword == "ADD" => into.checksum = cursor.flag_text(flag)?,
        "keep-git-dir" if keyword == "ADD" => into.keep_git_dir = Some(cursor.flag_bool(flag)?),
        "unpack" if keyword == "ADD" => into.unpack = Some(cursor.flag_bool(flag)?),
        _ => {
            let known = if keyword == "ADD" {
                &ADD_FLAGS[..]
            } else {
                &COPY_FLAGS[..]
            };
            return Err(cursor.unknown_flag(keyword, flag, known));
        }
    }
    Ok(())
}

/// Reads a COPY or an ADD.
pub(super) fn transfer(cursor: &mut Cursor<'_>, keyword: &str) -> Result<Transfer> {
    let mut transfer = Transfer::default();
    for flag in cursor.flags()? {
        transfer_flag(cursor, keyword, &flag, &mut transfer)?;
    }
    let mut words = match cursor.json()? {
        Some(words) => words,
        None => cursor.words().into_iter().map(|(word, _)| word).collect(),
    };
    let Some(destination) = words.pop() else {
        return Err(needs_argument(cursor, keyword));
    };
    if words.is_empty() {
        let whole = cursor.line.whole();
        return Err(cursor.error(
            whole,
            format!("{keyword} requires at least one source and a destination"),
        ));
    }
    if !cursor.line.heredocs.is_empty() && destination.starts_with("<<") {
        let message = format!("{keyword} cannot have a heredoc as its destination");
        return Err(cursor.error(cursor.line.whole(), message));
    }
    transfer.destination = destination;
    let mut heredocs = cursor.line.heredocs.iter();
    let mut skip = false;
    for word in &words {
        if std::mem::take(&mut skip) {
            continue;
        }
        if word.starts_with("<<") && !cursor.line.heredocs.is_empty() {
            // `<< EOF` is two words of one heredoc.
            skip = matches!(word.as_str(), "<<" | "<<-");
            let Some(heredoc) = heredocs.next() else { continue };
            transfer.sources.push(CopySource::Inline(heredoc.clone()));
        } else {
            transfer.sources.push(CopySource::Path(word.clone()));
        }
    }
    let several = transfer.sources.len() > 1;
    if several
        && !transfer.destination.ends_with('/')
        && !transfer.destination.contains('$')
        && !ends_as_directory(&transfer)
    {
        let span = cursor
            .words()
            .last()
            .map_or_else(|| cursor.line.whole(), |(_, span)| *span);
        let message = format!(
            "when using {keyword} with more than one source file, the destination must be a directory and end with a `/`"
        );
        return Err(cursor.error(span, message));
    }
    if transfer.from.is_some() && transfer.sources.iter().any(|s| matches!(s, CopySource::Inline(_))) {
        return Err(cursor.error(cursor.line.whole(), "COPY --from does not go with a heredoc"));
    }
    Ok(transfer)
}

fn ends_as_directory(transfer: &Transfer) -> bool {
    matches!(transfer.destination.as_str(), "." | "..")
        || transfer.destination.ends_with("/.")
        || transfer.destination.ends_with("/..")
}
