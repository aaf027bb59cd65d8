//! Ignore files and COPY patterns: matching ends, and an exception never excludes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_builder::context::{ignore::Ignore, pattern::Pattern};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rules, path) = text.split_once('\0').unwrap_or((text, "a/b"));
    if let Ok(ignore) = Ignore::parse(rules) {
        let excluded = ignore.excludes(path.as_bytes());
        assert!(!excluded || rules.lines().any(|line| !line.trim_start().starts_with('!')));
    }
    if let Ok(pattern) = Pattern::for_copy(rules) {
        assert_eq!(pattern.matches(path.as_bytes()), pattern.matches(path.as_bytes()));
    }
});
