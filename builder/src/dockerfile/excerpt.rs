//! The lines of a Dockerfile around a step that failed, in the form docker shows them.

use super::SourceText;
use std::fmt;
use std::sync::Arc;

const RULE: &str = "--------------------";

/// Displays an instruction, marked with `>>>`, and the lines around it.
#[derive(Debug, Clone)]
pub struct Excerpt {
    source: Arc<SourceText>,
    first: usize,
    last: usize,
}

impl Excerpt {
    pub(super) fn new(source: &Arc<SourceText>, first: usize, last: usize) -> Self {
        Self {
            source: Arc::clone(source),
            first,
            last: last.max(first),
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, first, last } = self;
        // An instruction of several lines tells more by itself.
        let around = if first == last { 2 } else { 1 };
        let shown = first.saturating_sub(around).max(1)..=last.saturating_add(around);
        writeln!(f, "{}:{first}\n{RULE}", source.name)?;
        for (number, line) in (1..).zip(source.text.lines()).filter(|(n, _)| shown.contains(n)) {
            let mark = if (*first..=*last).contains(&number) {
                ">>>"
            } else {
                "   "
            };
            let line: String = line
                .chars()
                .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
                .collect();
            writeln!(f, "{}", format!(" {number:>3} | {mark} {line}").trim_end())?;
        }
        f.write_str(RULE)
    }
}

#[cfg(test)]
mod tests {
    use crate::dockerfile::parse;

    #[test]
    fn an_instruction_stands_among_its_neighbours() {
        let text =
            "FROM a\n\n# why\nRUN one\nRUN two \\\n  # between\n\n  three\nCOPY <<e /x\nbo\x1b[2Jdy\ne\nRUN last";
        let file = parse("sub/Dockerfile", text).unwrap();
        let shown = |at: usize| file.excerpt(&file.stages[0].instructions[at]).to_string();
        let rule = "--------------------";
        assert_eq!(
            shown(0),
            format!(
                "sub/Dockerfile:4\n{rule}\n   2 |\n   3 |     # why\n   4 | >>> RUN one\n   5 |     RUN two \\\n   6 |       # between\n{rule}"
            )
        );
        assert_eq!(
            shown(1),
            format!(
                "sub/Dockerfile:5\n{rule}\n   4 |     RUN one\n   5 | >>> RUN two \\\n   6 | >>>   # between\n   7 | >>>\n   8 | >>>   three\n   9 |     COPY <<e /x\n{rule}"
            )
        );
        assert!(shown(2).contains(
            "\n   8 |       three\n   9 | >>> COPY <<e /x\n  10 | >>> bo [2Jdy\n  11 | >>> e\n  12 |     RUN last\n"
        ));
        assert!(shown(3).ends_with(&format!("\n  11 |     e\n  12 | >>> RUN last\n{rule}")));
    }
}
