//! Small files that tell when they are damaged: a line with what they are and a digest, then their content.
//!
//! The digest covers also what the file is and whose it is. So a file that was cut off, changed in any bit, written by an older
//! version, or moved to another name does not open: the caller goes on as if there were none.

use roadstead_registry_client::Digest;

/// Writes `content` so that [`open`] can tell whether it is still what was written.
///
/// `form` changes when the meaning of the content does; `owner` is what the file is about.
pub(crate) fn seal(form: &str, owner: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{form} {}\n", check(form, owner, content).hex()).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// Gives the content of what [`seal`] wrote for the same owner in the same form.
pub(crate) fn open<'a>(form: &str, owner: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, content) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let expected = format!("{form} {}", check(form, owner, content).hex());
    (line == expected.as_bytes()).then_some(content)
}

fn check(form: &str, owner: &str, content: &[u8]) -> Digest {
    let mut framed = Vec::with_capacity(content.len() + 128);
    for part in [form.as_bytes(), owner.as_bytes(), content] {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    Digest::of(&framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_was_written_opens() {
        let bytes = seal("record/1", "a", b"content\n");
        assert_eq!(open("record/1", "a", &bytes), Some(b"content\n".as_slice()));
        assert_eq!(open("record/2", "a", &bytes), None);
        assert_eq!(open("record/1", "b", &bytes), None);
        for at in 0..bytes.len() {
            assert_eq!(open("record/1", "a", &bytes[..at]), None);
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(open("record/1", "a", &damaged), None, "bit {bit} of byte {at}");
            }
        }
        assert_eq!(open("record/1", "a", &[&bytes[..], b"x"].concat()), None);
    }
}
