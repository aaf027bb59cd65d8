//! Logical lines to typed instructions. What cannot be honoured is refused here, with its place.

use super::instruction_flags::{Cursor, duration_ns};
use super::lexer::{Extent, Line, RawHeredoc};
use super::mount::MountFlag;
use super::transfer::transfer;
pub use super::transfer::{CopySource, Transfer};
use super::{DockerfileError, SourceText, Span};
use std::sync::Arc;

type Result<T> = std::result::Result<T, Box<DockerfileError>>;

/// Holds a heredoc of COPY, ADD or RUN.
pub type Heredoc = RawHeredoc;

/// Names the network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What the caller has set for all commands; the builder's own when nothing is set.
    #[default]
    Default,
    /// The builder's own.
    Host,
    /// Nothing but a loopback interface.
    None,
}

/// Holds one instruction: what it says and where it stands.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// What it says.
    pub kind: Kind,
    /// The joined text as written, for progress and history.
    pub text: String,
    /// Its first physical line.
    pub span: Span,
    /// Where it ends, and what stands above it.
    pub extent: Extent,
}

/// Holds a command in shell form or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// One string for the stage's shell.
    Shell(String),
    /// The words themselves.
    Exec(Vec<String>),
}

/// Holds the values of HEALTHCHECK; durations in nanoseconds as in the image config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `None` for `HEALTHCHECK NONE`.
    pub command: Option<Command>,
    /// `--interval`.
    pub interval: i64,
    /// `--timeout`.
    pub timeout: i64,
    /// `--start-period`.
    pub start_period: i64,
    /// `--start-interval`.
    pub start_interval: i64,
    /// `--retries`.
    pub retries: u32,
}

/// Tells the instructions apart. Words are as written, before expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the variants and fields are the instructions and words of the Dockerfile reference"
)]
pub enum Kind {
    From {
        image: String,
        platform: Option<String>,
        name: Option<String>,
        image_span: Span,
    },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run {
        command: Command,
        heredocs: Vec<Heredoc>,
        mounts: Vec<MountFlag>,
        network: Network,
    },
    Copy(Transfer),
    Add(Transfer),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Cmd(Command),
    Entrypoint(Command),
    Healthcheck(Healthcheck),
    Stopsignal(String),
    Shell(Vec<String>),
    Maintainer(String),
    Onbuild(String),
}

impl Instruction {
    /// Moves it to another place: a trigger stands where its image is named.
    pub(super) fn moved_to(mut self, span: Span) -> Self {
        self.span = span;
        self.extent = Extent {
            last_line: span.line,
            ..Extent::default()
        };
        if let Kind::Run { mounts, .. } = &mut self.kind {
            mounts.iter_mut().for_each(|mount| mount.span = span);
        }
        self
    }
}

impl Kind {
    /// Lists the stages and images that the instruction takes files from.
    #[must_use]
    pub fn sources(&self) -> Vec<&str> {
        match self {
            Self::Copy(copy) => copy.from.as_deref().into_iter().collect(),
            Self::Run { mounts, .. } => mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Gives `line` its type.
pub(super) fn parse(source: &Arc<SourceText>, line: &Line, escape: char) -> Result<Instruction> {
    let mut cursor = Cursor::new(source, line, escape);
    let Some((keyword, span)) = cursor.word() else {
        return Err(cursor.error(line.whole(), "empty instruction"));
    };
    let keyword = keyword.to_ascii_uppercase();
    let has_flags = matches!(keyword.as_str(), "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK");
    if !has_flags && KEYWORDS.contains(&keyword.as_str()) {
        cursor.no_flags(&keyword)?;
    }
    let kind = match keyword.as_str() {
        "FROM" => from(&mut cursor)?,
        "ARG" => arg(&cursor)?,
        "ENV" => Kind::Env(pairs(&cursor, "ENV")?),
        "LABEL" => Kind::Label(pairs(&cursor, "LABEL")?),
        "RUN" => run(&mut cursor)?,
        "COPY" => Kind::Copy(transfer(&mut cursor, "COPY")?),
        "ADD" => Kind::Add(transfer(&mut cursor, "ADD")?),
        "WORKDIR" => Kind::Workdir(text(&cursor, "WORKDIR")?),
        "USER" => Kind::User(text(&cursor, "USER")?),
        "EXPOSE" => Kind::Expose(list(&cursor, "EXPOSE", false)?),
        "VOLUME" => Kind::Volume(list(&cursor, "VOLUME", true)?),
        "CMD" => Kind::Cmd(command(&cursor, "CMD", true)?),
        "ENTRYPOINT" => Kind::Entrypoint(command(&cursor, "ENTRYPOINT", true)?),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(&mut cursor)?),
        "STOPSIGNAL" => Kind::Stopsignal(text(&cursor, "STOPSIGNAL")?),
        "SHELL" => Kind::Shell(shell(&cursor)?),
        "MAINTAINER" => Kind::Maintainer(text(&cursor, "MAINTAINER")?),
        "ONBUILD" => Kind::Onbuild(onbuild(&mut cursor)?),
        _ => return Err(unknown(&cursor, &keyword, span)),
    };
    Ok(Instruction {
        kind,
        text: line.text.clone(),
        span: line.whole(),
        extent: line.extent.clone(),
    })
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn unknown(cursor: &Cursor<'_>, keyword: &str, span: Span) -> Box<DockerfileError> {
    let error = DockerfileError::new(cursor.source, span, format!("unknown instruction `{keyword}`"));
    Box::new(match nearest(keyword, KEYWORDS.into_iter()) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    })
}

/// Finds the word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known
        .map(|known| (distance(known, word), known))
        .filter(|(distance, _)| *distance <= 2);
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Ends a message with the word that was probably meant.
pub(crate) fn near<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!(": did you mean {near}?"))
}

/// Counts the edits between two short words (Levenshtein).
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(32).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (left + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            left = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// Reads the instruction that ONBUILD keeps for the stages that will stand on this one.
fn onbuild(cursor: &mut Cursor<'_>) -> Result<String> {
    let trigger = text(cursor, "ONBUILD")?;
    let Some((keyword, place)) = cursor.word() else {
        return Err(needs_argument(cursor, "ONBUILD"));
    };
    let keyword = keyword.to_ascii_uppercase();
    match keyword.as_str() {
        "ONBUILD" | "FROM" | "MAINTAINER" => {
            Err(cursor.error(place, format!("{keyword} isn't allowed as an ONBUILD trigger")))
        }
        known if !KEYWORDS.contains(&known) => Err(unknown(cursor, known, place)),
        _ => Ok(cursor.line.heredocs.iter().fold(trigger, |text, heredoc| {
            format!("{text}\n{}{}", heredoc.written, heredoc.name)
        })),
    }
}

pub(super) fn needs_argument(cursor: &Cursor<'_>, keyword: &str) -> Box<DockerfileError> {
    cursor.error(cursor.line.whole(), format!("{keyword} requires at least one argument"))
}

fn text(cursor: &Cursor<'_>, keyword: &str) -> Result<String> {
    let text = cursor.rest().trim();
    if text.is_empty() {
        Err(needs_argument(cursor, keyword))
    } else {
        Ok(text.to_owned())
    }
}

fn from(cursor: &mut Cursor<'_>) -> Result<Kind> {
    let mut platform = None;
    for flag in cursor.flags()? {
        match flag.name.as_str() {
            "platform" => platform = cursor.flag_text(&flag)?,
            _ => return Err(cursor.unknown_flag("FROM", &flag, &["platform"])),
        }
    }
    let words = cursor.words();
    let name = match words.as_slice() {
        [_] => None,
        [_, (word, span), (name, name_span)] => {
            if !word.eq_ignore_ascii_case("as") {
                return Err(cursor.error(
                    *span,
                    format!("expected `AS` between image and stage name, found `{word}`"),
                ));
            }
            Some(stage_name(cursor, name, *name_span)?)
        }
        _ => {
            let whole = cursor.line.whole();
            return Err(cursor.error(
                whole,
                "FROM requires either one or three arguments: FROM image [AS name]",
            ));
        }
    };
    let (image, image_span) = words[0].clone();
    Ok(Kind::From {
        image,
        platform,
        name,
        image_span,
    })
}

fn stage_name(cursor: &Cursor<'_>, name: &str, span: Span) -> Result<String> {
    let name = name.to_ascii_lowercase();
    let mut chars = name.chars();
    let good = chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if !good {
        let message =
            format!("invalid stage name `{name}`: it must begin with a letter and hold letters, digits, `-_.`");
        return Err(cursor.error(span, message));
    }
    Ok(name)
}

fn arg(cursor: &Cursor<'_>) -> Result<Kind> {
    let mut args = Vec::new();
    for (word, span) in cursor.words() {
        let (name, value) = word
            .split_once('=')
            .map_or((word.as_str(), None), |(n, v)| (n, Some(v.to_owned())));
        if !is_variable_name(name) {
            return Err(cursor.error(span, format!("invalid ARG name `{name}`")));
        }
        args.push((name.to_owned(), value));
    }
    if args.is_empty() {
        Err(needs_argument(cursor, "ARG"))
    } else {
        Ok(Kind::Arg(args))
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains(['$', '"', '\'', '{', '}'])
}

/// Reads `k=v k2="v 2"` or the legacy form `k the rest`.
fn pairs(cursor: &Cursor<'_>, keyword: &str) -> Result<Vec<(String, String)>> {
    let words = cursor.words();
    let Some((first, span)) = words.first() else {
        return Err(needs_argument(cursor, keyword));
    };
    if !first.contains('=') {
        let value = cursor.rest().trim_start().get(first.len()..).unwrap_or("").trim();
        if value.is_empty() {
            return Err(cursor.error(
                *span,
                format!("{keyword} `{first}` has no value: write {keyword} {first}=value"),
            ));
        }
        return Ok(vec![(first.clone(), value.to_owned())]);
    }
    let mut pairs = Vec::with_capacity(words.len());
    for (word, span) in &words {
        match word.split_once('=') {
            Some(("", _)) => return Err(cursor.error(*span, format!("{keyword} names can not be blank"))),
            Some((name, value)) => pairs.push((name.to_owned(), value.to_owned())),
            None => {
                let message = format!("syntax error: can't find `=` in `{word}`; it must be of the form: name=value");
                return Err(cursor.error(*span, message));
            }
        }
    }
    Ok(pairs)
}

/// Most mounts of one RUN: each is work for the kernel, and no honest file comes near.
const MAX_MOUNTS: usize = 1000;
/// Why `--security=insecure` is refused.
const INSECURE: &str = "a RUN never gets more than a container's capabilities and system calls";
/// Why `--device` is refused.
const DEVICE: &str = "a RUN sees no devices of the machine";

fn run(cursor: &mut Cursor<'_>) -> Result<Kind> {
    let (mut mounts, mut network) = (Vec::new(), Network::Default);
    for flag in cursor.flags()? {
        match (flag.name.as_str(), flag.value.as_deref()) {
            ("mount", _) if mounts.len() == MAX_MOUNTS => {
                let message = format!("a RUN takes at most {MAX_MOUNTS} mounts");
                return Err(cursor.error(flag.span, message));
            }
            ("mount", _) => {
                let value = cursor.flag_value(&flag)?;
                mounts.push(MountFlag::parse(&value, flag.span).map_err(|message| cursor.error(flag.span, message))?);
            }
            ("network", Some("none")) => network = Network::None,
            ("network", Some("default")) => network = Network::Default,
            ("network", Some("host")) => network = Network::Host,
            ("network", _) => {
                let message = "`--network` of RUN is one of default, none and host";
                return Err(cursor.error(flag.span, message));
            }
            // What RUN gets anyway.
            ("security", Some("sandbox")) => {}
            ("security", Some("insecure")) => return Err(cursor.not_honoured(&flag, INSECURE)),
            ("security", _) => {
                return Err(cursor.error(flag.span, "`--security` of RUN is one of sandbox and insecure"));
            }
            ("device", _) => return Err(cursor.not_honoured(&flag, DEVICE)),
            _ => return Err(cursor.unknown_flag("RUN", &flag, &["mount", "network", "security", "device"])),
        }
    }
    let command = command(cursor, "RUN", false)?;
    Ok(Kind::Run {
        command,
        heredocs: cursor.line.heredocs.clone(),
        mounts,
        network,
    })
}

fn command(cursor: &Cursor<'_>, keyword: &str, empty_exec: bool) -> Result<Command> {
    let text = cursor.rest().trim();
    if text.is_empty() {
        return Err(needs_argument(cursor, keyword));
    }
    match cursor.json()? {
        Some(words) if words.is_empty() && !empty_exec => Err(needs_argument(cursor, keyword)),
        Some(words) => {
            if words.iter().any(|w| w.contains('\0')) {
                return Err(cursor.error(cursor.rest_span(), "an argument holds a NUL character"));
            }
            Ok(Command::Exec(words))
        }
        None => Ok(Command::Shell(text.to_owned())),
    }
}

const HEALTHCHECK_FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];

fn list(cursor: &Cursor<'_>, keyword: &str, json: bool) -> Result<Vec<String>> {
    let written = if json { cursor.json()? } else { None };
    let words = match written {
        Some(words) => words,
        None => cursor.words().into_iter().map(|(word, _)| word).collect(),
    };
    if words.is_empty() {
        return Err(needs_argument(cursor, keyword));
    }
    if words.iter().any(String::is_empty) {
        return Err(cursor.error(
            cursor.rest_span(),
            format!("{keyword} specified can not be an empty string"),
        ));
    }
    Ok(words)
}

fn healthcheck(cursor: &mut Cursor<'_>) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let flags = cursor.flags()?;
    let Some((kind, span)) = cursor.word() else {
        return Err(needs_argument(cursor, "HEALTHCHECK"));
    };
    if kind.eq_ignore_ascii_case("none") {
        if !flags.is_empty() || !cursor.rest().is_empty() {
            return Err(cursor.error(span, "HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(check);
    }
    if !kind.eq_ignore_ascii_case("cmd") {
        return Err(cursor.error(span, format!("unknown type `{kind}` in HEALTHCHECK (try CMD)")));
    }
    for flag in &flags {
        let value = cursor.flag_value(flag)?;
        let place = match flag.name.as_str() {
            "interval" => &mut check.interval,
            "timeout" => &mut check.timeout,
            "start-period" => &mut check.start_period,
            "start-interval" => &mut check.start_interval,
            "retries" => {
                let retries = value.parse().ok();
                let message = format!("`--retries` takes a whole number of at least 0, not `{value}`");
                check.retries = retries.ok_or_else(|| cursor.error(flag.span, message))?;
                continue;
            }
            _ => return Err(cursor.unknown_flag("HEALTHCHECK", flag, &HEALTHCHECK_FLAGS)),
        };
        let nanoseconds = duration_ns(&value).filter(|ns| *ns == 0 || *ns >= 1_000_000);
        let message = format!(
            "`--{}` takes a duration of at least 1ms such as `30s`, not `{value}`",
            flag.name
        );
        *place = nanoseconds.ok_or_else(|| cursor.error(flag.span, message))?;
    }
    check.command = Some(command(cursor, "HEALTHCHECK CMD", false)?);
    Ok(check)
}

fn shell(cursor: &Cursor<'_>) -> Result<Vec<String>> {
    match cursor.json()? {
        Some(words) if !words.is_empty() => Ok(words),
        _ => Err(cursor.error(
            cursor.rest_span(),
            "SHELL requires the arguments to be in JSON form: SHELL [\"/bin/sh\", \"-c\"]",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse as parse_file;
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Kind {
        let file = parse_file("Dockerfile", &format!("FROM scratch\n{line}\n")).unwrap();
        file.stages[0].instructions[0].kind.clone()
    }

    fn fault(line: &str) -> String {
        parse_file("Dockerfile", &format!("FROM scratch\n{line}\n"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn typed() {
        assert_eq!(
            one("ENV a=1 b=\"x y\""),
            Kind::Env(vec![("a".into(), "1".into()), ("b".into(), "\"x y\"".into())])
        );
        assert_eq!(one("ENV a the rest "), Kind::Env(vec![("a".into(), "the rest".into())]));
        assert_eq!(one("cmd [\"a\"]"), Kind::Cmd(Command::Exec(vec!["a".into()])));
        assert_eq!(one("CMD [a]"), Kind::Cmd(Command::Shell("[a]".into())));
        assert_eq!(
            one("EXPOSE 80 443/tcp"),
            Kind::Expose(vec!["80".into(), "443/tcp".into()])
        );
        let Kind::Copy(copy) = one("COPY --chown=a:b --chmod=755 x y /z/") else {
            panic!("not a COPY")
        };
        assert_eq!(
            (copy.sources.len(), copy.destination.as_str(), copy.chown.as_deref()),
            (2, "/z/", Some("a:b"))
        );
        let Kind::Copy(copy) = one("COPY <<a << b /z/\n1\na\n2\nb") else {
            panic!("not a COPY")
        };
        assert_eq!(copy.sources.len(), 2);
        let Kind::Healthcheck(check) = one("HEALTHCHECK --interval=5m --retries=2 CMD [\"x\"]") else {
            panic!("not one")
        };
        assert_eq!((check.interval, check.retries), (300_000_000_000, 2));
    }

    #[test]
    fn errors_show_file_line_and_caret() {
        assert_eq!(
            fault("RUN --mount=type=cash,target=/x make"),
            "unknown mount type `cash`: did you mean cache?\n --> Dockerfile:2:5\n  |\n2 | RUN --mount=type=cash,target=/x make\n  |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^"
        );
        for (line, want) in [
            ("COPY a", "at least one source"),
            ("COPY a b c", "must be a directory"),
            ("COPY --from=$x a b", "not expanded in `--from`"),
            ("COPY --nope a b", "unknown flag"),
            ("ADD --parents a /", "unknown flag `--parents` for ADD"),
            ("COPY --checksum=sha256:x a /", "unknown flag `--checksum` for COPY"),
            ("ADD --unpack=maybe a /", "takes true or false"),
            ("ONBUILD", "at least one argument"),
            ("ONBUILD ONBUILD RUN x", "isn't allowed as an ONBUILD trigger"),
            ("ONBUILD from x", "isn't allowed as an ONBUILD trigger"),
            ("ONBUILD RUNN x", "unknown instruction `RUNN`"),
            ("FROMM x", "unknown instruction"),
            ("SHELL bash", "JSON form"),
            ("ENV a=1 b", "can't find `=`"),
            ("HEALTHCHECK --interval=5 CMD x", "duration"),
            ("FROM a b", "either one or three"),
            ("RUN", "at least one argument"),
        ] {
            let text = fault(line);
            assert!(text.contains(want) && text.contains("Dockerfile:2:"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "((FROM|RUN|COPY|ENV|HEALTHCHECK|ARG|ADD|#|\\\\|<<E|\"|'|\\$|\n| |--|=|[a-z\u{e9}]){0,3}){0,12}") {
            if let Err(e) = parse_file("Dockerfile", &text) {
                prop_assert!(e.to_string().contains("Dockerfile:"));
            }
        }
    }
}
