//! Checks and outlines of whatever parses: they end, and point at lines of the file.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use roadstead_builder::dockerfile::check::{BaseImage, Input, Options, check};
use roadstead_builder::dockerfile::{self, outline};
use roadstead_registry_client::Platform;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (options, text) = text.split_once('\0').unwrap_or(("experimental=all", text));
    let Ok(file) = dockerfile::parse("Dockerfile", text) else { return };
    let (given, platform) = (BTreeMap::new(), Platform::host());
    let input = Input {
        build_args: &given,
        platform: &platform,
        target: None,
        all_stages: true,
        ignored: &|path| path.len() % 2 == 0,
        find_base: &|name, _| (name.len() % 2 == 0).then(BaseImage::default),
    };
    let lines = text.lines().count();
    for finding in check(&file, &input, &Options::parse(options).unwrap_or_default()) {
        assert!((1..=lines).contains(&finding.span.line) && finding.span.line <= finding.last_line);
    }
    assert_eq!(outline::targets(&file).len(), file.stages.len());
    drop(outline::outline(&file, &given, &platform, None));
});
