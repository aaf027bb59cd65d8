//! The mounts of a RUN are read or refused with a place, and what they expand to is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_builder::dockerfile::mount::Mount;
use roadstead_builder::dockerfile::{self, Kind, words};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Without line feeds all of it is one flag, or several.
    let text = text.replace(['\n', '\r', '\0'], " ");
    let file = match dockerfile::parse("Dockerfile", &format!("FROM a\nRUN --mount={text} x\n")) {
        Ok(file) => file,
        Err(error) => return assert!(error.to_string().contains("Dockerfile:2:")),
    };
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.to_owned());
    for instruction in &file.stages[0].instructions {
        let Kind::Run { mounts, .. } = &instruction.kind else { continue };
        for mount in mounts {
            let resolved = mount.resolve(|word| words::expand(word, '\\', &lookup));
            match resolved {
                Ok(Mount::Secret { id, access, .. } | Mount::Ssh { id, access, .. }) => {
                    assert!(!id.is_empty() && access.mode <= 0o7777);
                }
                Ok(Mount::Cache { access, .. }) => assert!(access.mode <= 0o7777),
                Ok(Mount::Tmpfs { size, .. }) => assert_ne!(size, Some(0)),
                Ok(Mount::Bind { source, .. }) => assert!(!source.is_empty()),
                Err(message) => assert!(!message.is_empty()),
            }
        }
    }
});
