//! Whether commands for another processor can run here: the kernel may hand their programs to an interpreter (`binfmt_misc`).

use super::SandboxError;
use roadstead_registry_client::Platform;
use std::path::Path;

/// Where the kernel lists interpreters. Source: Documentation/admin-guide/binfmt-misc.rst of Linux.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// Bytes of a program that interpreters look at: the head of an ELF file.
const HEAD: usize = 20;

/// Checks that programs for `platform` run on this machine.
///
/// # Errors
/// `Foreign` when it is for another operating system, or for another processor without an interpreter that works in a root of its own.
pub fn check(platform: &Platform) -> Result<(), SandboxError> {
    let host = Platform::host();
    let refused = |reason: String| {
        Err(SandboxError::Foreign {
            platform: platform.to_string(),
            host: host.to_string(),
            reason,
        })
    };
    if platform.os != host.os {
        return refused(format!("only {} runs here", host.os));
    }
    // A variant says which extensions are used, which only the program itself can tell of this machine's processor.
    if platform.architecture == host.architecture {
        return Ok(());
    }
    let Some(head) = elf_head(platform) else {
        return refused(format!("`{}` is no processor known here", platform.architecture));
    };
    match find(Path::new(BINFMT_MISC), &head) {
        Found::Usable => Ok(()),
        Found::NotFixed(name) => refused(format!(
            "the interpreter `{name}` is registered without the flag F, so a command in a root of its own cannot find it"
        )),
        Found::None => refused(format!("no interpreter for it is enabled in `{BINFMT_MISC}`")),
    }
}

/// Makes the first bytes of a program. Source: ELF specification, and the machines' numbers in elf.h.
fn elf_head(platform: &Platform) -> Option<[u8; HEAD]> {
    const WIDE: u8 = 2;
    const NARROW: u8 = 1;
    let (class, big_endian, machine) = match platform.architecture.as_str() {
        "amd64" => (WIDE, false, 62),
        "386" => (NARROW, false, 3),
        "arm64" => (WIDE, false, 183),
        "arm" => (NARROW, false, 40),
        "riscv64" => (WIDE, false, 243),
        "ppc64le" => (WIDE, false, 21),
        "ppc64" => (WIDE, true, 21),
        "s390x" => (WIDE, true, 22),
        "mips64le" => (WIDE, false, 8),
        "mips64" => (WIDE, true, 8),
        "loong64" => (WIDE, false, 258),
        _ => return None,
    };
    let number = |value: u16| {
        if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let mut head = [0; HEAD];
    head[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, if big_endian { 2 } else { 1 }, 1]);
    head[16..18].copy_from_slice(&number(2));
    head[18..20].copy_from_slice(&number(machine));
    Some(head)
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    None,
    Usable,
    /// It would be looked for where the command runs.
    NotFixed(String),
}

fn find(directory: &Path, head: &[u8]) -> Found {
    let mut found = Found::None;
    let enabled = std::fs::read_to_string(directory.join("status"));
    if enabled.is_ok_and(|status| status.trim() == "disabled") {
        return found;
    }
    // As if the directory were empty when it cannot be read: then no interpreter is known.
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let Ok(text) = std::fs::read_to_string(entry.path()) else {
            continue;
        };
        match takes(&text, head) {
            Some(true) => return Found::Usable,
            Some(false) => found = Found::NotFixed(entry.file_name().to_string_lossy().into_owned()),
            None => {}
        }
    }
    found
}

/// Tells of a registration that takes such a program whether its interpreter was opened when it was registered.
fn takes(registration: &str, head: &[u8]) -> Option<bool> {
    let mut lines = registration.lines();
    if lines.next() != Some("enabled") {
        return None;
    }
    let (mut offset, mut magic, mut mask, mut flags) = (0usize, Vec::new(), None, "");
    for line in lines {
        match line.split_once(' ') {
            Some(("offset", value)) => offset = value.parse().ok()?,
            Some(("magic", value)) => magic = bytes(value)?,
            Some(("mask", value)) => mask = Some(bytes(value)?),
            Some(("flags:", value)) => flags = value,
            _ => {}
        }
    }
    let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
    let seen = head.get(offset..offset.checked_add(magic.len())?)?;
    let same = seen
        .iter()
        .zip(&magic)
        .zip(&mask)
        .all(|((seen, magic), mask)| seen & mask == magic & mask);
    (same && !magic.is_empty()).then(|| flags.contains('F'))
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
                           magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn head(platform: &str) -> [u8; HEAD] {
        elf_head(&platform.parse().unwrap()).unwrap()
    }

    #[test]
    fn registrations_are_read() {
        assert_eq!(takes(AARCH64, &head("linux/arm64")), Some(true));
        assert_eq!(takes(AARCH64, &head("linux/amd64")), None);
        assert_eq!(takes(&AARCH64.replace("OCF", "OC"), &head("linux/arm64")), Some(false));
        assert_eq!(
            takes(&AARCH64.replace("enabled", "disabled"), &head("linux/arm64")),
            None
        );
        let script = "enabled\ninterpreter /usr/bin/x\nflags: F\nextension .py\n";
        assert_eq!(takes(script, &head("linux/arm64")), None);
        let far = "enabled\nflags: F\noffset 18446744073709551615\nmagic 7f45\n";
        assert_eq!(takes(far, &head("linux/arm64")), None);
        assert_eq!(takes("enabled\nmagic zz\n", &head("linux/arm64")), None);
    }

    #[test]
    fn the_host_needs_none_and_what_nobody_knows_is_refused() {
        check(&Platform::host()).unwrap();
        let error = check(&"linux/vax".parse().unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("linux/vax") && error.contains("no processor known"),
            "{error}"
        );
        let error = check(&"windows/amd64".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("only linux"), "{error}");
    }

    #[test]
    fn no_directory_is_no_interpreter() {
        assert_eq!(find(Path::new("/nowhere"), &head("linux/arm64")), Found::None);
    }
}
