//! Words are split, expanded or refused; heredocs end where their name stands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_builder::dockerfile::{self, words};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.to_owned());
    let nothing = |_: &str| None;
    for escape in ['\\', '`'] {
        for known in [&lookup as &dyn Fn(&str) -> Option<String>, &nothing] {
            let whole = words::expand(text, escape, &known);
            let split = words::expand_split(text, escape, &known);
            // One knows no more than the other about what is malformed.
            assert_eq!(whole.is_ok(), split.is_ok(), "{whole:?} {split:?}");
            drop(words::expand_heredoc(text, escape, &known));
        }
        // Without anything to expand, a heredoc stays as it is.
        if !text.contains(['$', '\\', '`']) {
            assert_eq!(words::expand_heredoc(text, escape, &nothing).ok().as_deref(), Some(text));
        }
    }
    // A body that does not hold the name comes back whole.
    let body = text.replace('\0', "");
    if body.lines().all(|line| line != "END") && !body.contains('\r') {
        let file = dockerfile::parse("Dockerfile", &format!("FROM a\nCOPY <<\"END\" /x\n{body}\nEND\n"));
        if let Ok(file) = file {
            let kind = &file.stages[0].instructions[0].kind;
            let dockerfile::Kind::Copy(transfer) = kind else { panic!("{kind:?}") };
            let dockerfile::instruction::CopySource::Inline(heredoc) = &transfer.sources[0] else {
                panic!("{transfer:?}")
            };
            assert_eq!(heredoc.content, format!("{body}\n"));
        }
    }
});
