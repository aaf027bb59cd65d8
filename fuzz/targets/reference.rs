//! Image names: one prints, in full and as docker does, as something that parses to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roadstead_registry_client::Reference;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    assert_eq!(
        reference.to_string().parse::<Reference>().ok().as_ref(),
        Some(&reference)
    );
    assert_eq!(
        reference.familiar().parse::<Reference>().ok().as_ref(),
        Some(&reference)
    );
    let name = reference.without_tag();
    assert_eq!(reference.name().parse::<Reference>().ok().as_ref(), Some(&name));
    let canonical: Reference = reference.canonical().parse().expect("a canonical name is a name");
    assert_eq!(canonical.name(), reference.name());
    assert_eq!(canonical.digest(), reference.digest());
    // It becomes part of URLs and of paths.
    assert!(name.to_string().len() <= 255);
    let path = reference.repository();
    assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path}");
    assert!(!text.contains(['?', '#', '%', '\\', '\0']) && text.is_ascii(), "{text}");
    assert!(!reference.registry().contains(['/', '@']), "{}", reference.registry());
});
