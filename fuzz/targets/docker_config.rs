//! Docker's `config.json`: a login is found for the host it was made for, and no message shows one.
//!
//! The first line is an image's name, the rest is the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_registry_client::Reference;
use roadstead_registry_client::fuzzing::{Login, look_up};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, config) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let name = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
    let name: Reference = name.unwrap_or_else(|| "r.example/team/app".parse().expect("a name"));
    match look_up(config, &name) {
        Ok(Login::Here { key, user, secret }) => {
            let full = name.name();
            let is_prefix = full
                .strip_prefix(&key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            assert!(is_prefix && key.starts_with(name.registry()), "{key} for {full}");
            assert!(!user.is_empty() || !secret.is_empty());
            // Which of several it is must not be left to chance.
            assert_eq!(look_up(config, &name).ok(), Some(Login::Here { key, user, secret }));
        }
        Ok(Login::Helper { name }) => assert!(config.len() >= name.len()),
        Ok(Login::Nowhere) => {}
        Err(error) => {
            let message = error.to_string();
            let says_where = message.contains("it is not valid at line ");
            let says_which = message.contains("the `auth` of `") && message.contains(name.registry());
            assert!(says_where || says_which, "{message}");
            assert!(message.len() <= 200 + name.name().len(), "{message}");
        }
    }
});
