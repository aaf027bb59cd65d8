//! A Dockerfile parses or is refused with a place; its words expand or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_builder::dockerfile::{self, words};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match dockerfile::parse("Dockerfile", text) {
        Ok(file) => assert!(!file.stages.is_empty()),
        Err(error) => assert!(error.to_string().contains("Dockerfile:")),
    }
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.to_owned());
    for escape in ['\\', '`'] {
        drop(words::expand(text, escape, &lookup));
        drop(words::expand_split(text, escape, &lookup));
        drop(words::expand_heredoc(text, escape, &lookup));
    }
});
