//! Random Dockerfiles with contexts: the differential fuzzer's cases. The same seed gives the same case.

use crate::draw::Draw;

use super::case::Case;

const NAMES: [&str; 9] = [
    "a",
    "b",
    "c.txt",
    "dir",
    "sub",
    "x y",
    "n\u{e4}me",
    "long.name.tar",
    ".hidden",
];
const DESTINATIONS: [&str; 16] = [
    "/",
    "/out",
    "/out/",
    "out",
    "./",
    ".",
    "/a/b/c/",
    "/data",
    "/data/",
    "/lib/x",
    "/lib/",
    "/absolute/y",
    "/dead",
    "/up/../z",
    "/usr/up/here",
    "/file",
];
const MODES: [&str; 8] = ["755", "0644", "4711", "u+x", "go-rwx", "a=rX", "u=rw,go=r", "+t"];
const OWNERS: [&str; 9] = [
    "app",
    "app:staff",
    "1000",
    "1000:50",
    "0:0",
    "root:more",
    ":staff",
    "12:app",
    "app:0",
];
const WORDS: [&str; 20] = [
    "$A",
    "${B}",
    "${A:-d}",
    "${A:+s}",
    "${NO-x}",
    "\"$A b\"",
    "'$A'",
    "\\$A",
    "a${A}b",
    "${A#o}",
    "${A##*e}",
    "${B%o}",
    "${B%%o*}",
    "${A/n/N}",
    "${B//o/0}",
    "${NO:-${A}}",
    "plain",
    "$PATH",
    "\"q\\\"q\"",
    "${A+${B:+z}}",
];
const COMMANDS: [&str; 16] = [
    "echo 1 > /run-made",
    "mkdir -p /made/dir && echo 2 > /made/dir/f",
    "rm -rf /data",
    "rm -f /file /a /out",
    "ln -s /data /to-data",
    "chmod 711 /tmp",
    "mv /data /moved",
    "ln /file /hard || true",
    "chown 1000:50 /etc || true",
    "rm -rf /data && mkdir /data && echo new > /data/new",
    "echo $A-$B > /vars",
    "touch /etc/passwd || true",
    "cp -a /etc /copy-of-etc",
    "env | grep -v -e HOSTNAME -e PWD -e HOME | sort > /env",
    "id > /id",
    "pwd > /tmp/pwd",
];

/// A random case as parts that can be taken away one by one.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) context: Vec<String>,
    pub(super) lines: Vec<String>,
}

impl Parts {
    /// Makes the case of a seed.
    pub(super) fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let context = context(&mut draw);
        let mut lines = Vec::new();
        if draw.chance(30) {
            lines.push(format!("ARG {}={}", draw.one(&["A", "B"]), draw.one(&["one", "two"])));
        }
        let stages = 1 + draw.below(3);
        for stage in 0..stages {
            self::stage(&mut draw, stage, &mut lines);
        }
        Self { context, lines }
    }

    /// The case that these parts make.
    pub(super) fn case(&self, name: &str) -> Case {
        Case {
            name: name.to_owned(),
            context: self
                .context
                .iter()
                .map(|line| format!("{{ {line}; }} 2>/dev/null || true\n"))
                .collect(),
            dockerfile: Some(self.lines.join("\n") + "\n"),
            ..Case::default()
        }
    }
}

fn context(draw: &mut Draw) -> Vec<String> {
    let mut lines = vec!["mkdir -p dir/sub 'x y'; echo a > a; echo dir > dir/b; echo sub > dir/sub/c.txt; tar -cf arch.tar dir; tar -czf arch.tgz a"
            .to_owned(),
    ];
    for number in 0..draw.below(7) {
        let directory = draw.one(&[".", "dir", "dir/sub", "'x y'"]);
        let name = draw.one(&NAMES);
        let path = format!("{directory}/'{name}'");
        lines.push(match draw.below(9) {
            0 => format!(
                "[ -e {path} ] || ln -s '{}' {path}",
                draw.one(&["a", "dir", "../a", "/etc/passwd", "nowhere", "../../.."])
            ),
            1 => format!("[ -e {path} ] || ln a {path}"),
            2 => format!("[ -e {path} ] || mkdir {path}"),
            3 => format!("chmod {} dir/b", draw.one(&["600", "4755", "000", "1777"])),
            4 => "tar -C dir --owner=3 --group=4 -cf arch.tar . 2>/dev/null || true".to_owned(),
            5 => "tar -C dir -czf arch.tgz b".to_owned(),
            // Never through a link: it may lead out of the context, to this machine's own files.
            6 => format!("[ -L {path} ] || touch -d '200{number}-01-01' {path}"),
            _ => format!("[ -L {path} ] || [ -d {path} ] || echo {number} > {path}"),
        });
    }
    if draw.chance(25) {
        let patterns = [
            "dir",
            "dir/*",
            "!dir/b",
            "**/*.txt",
            "*",
            "!a",
            "dir/sub",
            "!dir/sub/c.txt",
            "# no",
            "/a",
            "x y",
            "!**/b",
        ];
        for _ in 0..=draw.below(3) {
            let line = format!("echo '{}' >> .dockerignore", draw.one(&patterns));
            // The same pattern again after its exception: docker's client sends names without content.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

fn stage(draw: &mut Draw, number: usize, lines: &mut Vec<String>) {
    let mut bases = vec!["busybox", "furnished", "configured", "scratch"];
    let names = ["s0", "s1", "s2"];
    bases.extend(names.iter().take(number));
    let base = draw.one(&bases);
    lines.push(format!("FROM {base} AS {}", names.get(number).copied().unwrap_or("s")));
    let runs = base != "scratch";
    for _ in 0..1 + draw.below(6) {
        let line = instruction(draw, number, runs);
        lines.push(line);
    }
    if base == "scratch" {
        lines.push("COPY a /always".to_owned());
    }
}

fn instruction(draw: &mut Draw, stage: usize, runs: bool) -> String {
    match draw.below(20) {
        0..=6 => copy(draw, stage),
        7 => format!(
            "ADD {} {}",
            draw.one(&["arch.tar", "arch.tgz", "a", "*.t*", "dir"]),
            draw.one(&DESTINATIONS)
        ),
        8..=10 if runs => run(draw),
        11 => format!(
            "ENV {}={} C={}",
            draw.one(&["A", "B"]),
            draw.one(&WORDS),
            draw.one(&WORDS)
        ),
        12 => format!(
            "ARG {}={}",
            draw.one(&["A", "B"]),
            draw.one(&["one", "two", "$A", "${B:-z}"])
        ),
        13 => format!("LABEL l.{}={}", draw.one(&["a", "b"]), draw.one(&WORDS)),
        14 => format!(
            "WORKDIR {}",
            draw.one(&["/w", "rel", "/data/sub", "/lib/new", "..", "/a b", "/w/$A"])
        ),
        15 => format!(
            "USER {}",
            draw.one(&["app", "1000", "0", "app:staff", "root", "1000:7"])
        ),
        16 => format!(
            "EXPOSE {}",
            draw.one(&["80", "80/udp 81", "8000-8002", "$A", "443/tcp"])
        ),
        17 => format!("VOLUME {}", draw.one(&["/v", "[\"/v\", \"/w x\"]", "/a /b"])),
        18 => configuration(draw).to_owned(),
        _ => heredoc(draw),
    }
}

fn configuration<'a>(draw: &mut Draw) -> &'a str {
    draw.one(&[
        "CMD echo $A",
        "CMD [\"echo\", \"a\"]",
        "ENTRYPOINT [\"/bin/sh\"]",
        "ENTRYPOINT exec top",
        "STOPSIGNAL SIGTERM",
        "STOPSIGNAL 9",
        "SHELL [\"/bin/sh\", \"-ec\"]",
        "HEALTHCHECK --interval=1m --retries=3 CMD [\"true\"]",
        "HEALTHCHECK NONE",
        "MAINTAINER somebody",
        "ONBUILD RUN true",
    ])
}

fn copy(draw: &mut Draw, stage: usize) -> String {
    let mut line = "COPY".to_owned();
    if draw.chance(25) {
        line += &format!(" --chown={}", draw.one(&OWNERS));
    }
    if draw.chance(20) {
        line += &format!(" --chmod={}", draw.one(&MODES[..3]));
    }
    let from_stage = stage > 0 && draw.chance(40);
    let from_image = !from_stage && draw.chance(20);
    if from_stage {
        line += &format!(" --from=s{}", draw.below(stage));
    } else if from_image {
        line += " --from=furnished";
    }
    let sources = match from_stage || from_image {
        true => [
            "/data",
            "/data/one",
            "/lib",
            "/absolute",
            "/deep/a",
            "/etc/pass*",
            "/data/link",
            "/sticky",
            "/owned",
            "/data/*",
            "/deep/*/b",
        ],
        false => [
            "a",
            "dir",
            "dir/",
            ".",
            "*",
            "dir/*",
            "*.txt",
            "dir/s?b",
            "./dir/../a",
            "/dir/b",
            "../a",
        ],
    };
    let count = if draw.chance(15) { 2 } else { 1 };
    for _ in 0..count {
        line += &format!(" {}", draw.one(&sources));
    }
    let destination = draw.one(&DESTINATIONS);
    let slash = if count > 1 && !destination.ends_with('/') {
        "/"
    } else {
        ""
    };
    format!("{line} {destination}{slash}")
}

fn run(draw: &mut Draw) -> String {
    let command = draw.one(&COMMANDS);
    // Most commands may fail: what comes after them is to be compared as well.
    let command = &match draw.chance(85) {
        true => format!("{{ {command}; }} 2>/dev/null || true"),
        false => command.to_owned(),
    };
    match draw.below(5) {
        0 => format!("RUN <<EOF\n{command}\n{}\nEOF", draw.one(&COMMANDS)),
        1 => format!("RUN {command} ; \\\n    # a comment\n    {}", draw.one(&COMMANDS)),
        2 => format!("RUN [\"/bin/sh\", \"-c\", \"{command}\"]"),
        _ => format!("RUN {command}"),
    }
}

fn heredoc(draw: &mut Draw) -> String {
    let delimiter = draw.one(&["EOF", "'EOF'", "\"EOF\"", "-EOF"]);
    let end = match delimiter {
        "-EOF" => "\tEOF",
        _ => "EOF",
    };
    let body = [draw.one(&WORDS), draw.one(&WORDS)].join(" ");
    format!(
        "COPY <<{delimiter} {}\n\t{body}\nsecond line\n{end}",
        draw.one(&["/here", "/here/", "/h/e/re", "/data/one"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{capture, program};

    /// The scripts run as whoever calls, beside that one's files.
    #[test]
    fn no_context_writes_through_its_links() {
        let base = std::env::temp_dir().join(format!("xtask-generate-{}", std::process::id()));
        let outside = base.join("outside");
        let mut tried = 0;
        for (seed, script) in (1..).map(|seed| (seed, Parts::draw(seed).case("random/case").context)) {
            if !writes_to_a_link(&script) {
                continue;
            }
            let inside = base.join(format!("context-{seed}"));
            std::fs::create_dir_all(&inside).unwrap();
            std::fs::write(&outside, "mine").unwrap();
            let before = std::fs::metadata(&outside).unwrap().modified().unwrap();
            let script = script.replace("/etc/passwd", &outside.to_string_lossy());
            capture(program("sh").args(["-euc", &script]).current_dir(&inside)).unwrap();
            let after = std::fs::metadata(&outside).unwrap().modified().unwrap();
            assert_eq!(std::fs::read(&outside).unwrap(), b"mine", "seed {seed}: {script}");
            assert_eq!(after, before, "seed {seed}: {script}");
            tried += 1;
            if tried == 20 {
                break;
            }
        }
        std::fs::remove_dir_all(&base).unwrap();
    }

    /// Whether a script names a link that leads out once more.
    fn writes_to_a_link(script: &str) -> bool {
        let mut after = script.split("ln -s '/etc/passwd' ").skip(1);
        after.any(|rest| {
            let (link, rest) = rest.split_once(';').unwrap_or_default();
            rest.contains(&format!("> {link};"))
                || rest.lines().any(|line| line.contains("touch") && line.contains(link))
        })
    }
}
