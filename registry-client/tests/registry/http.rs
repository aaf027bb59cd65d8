//! As much of HTTP/1.1 as a proxy needs: headers, and bodies of any framing.

use std::io::{BufRead, Error, ErrorKind, Read, Result, Write};

/// The headers of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(Vec<(String, String)>);

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Headers {
    /// Reads headers up to the empty line after them.
    pub(crate) fn read(reader: &mut impl BufRead) -> Result<Self> {
        let mut headers = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => return Ok(Self(headers)),
            }
        }
    }

    /// Writes headers and the empty line after them.
    pub(crate) fn write(&self, to: &mut impl Write) -> Result<()> {
        for (name, value) in &self.0 {
            write!(to, "{name}: {value}\r\n")?;
        }
        to.write_all(b"\r\n")
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Puts a value in place of those there are.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// Tells how the body ends; `otherwise` is what it means when no header says so.
    pub(crate) fn framing(&self, otherwise: Framing) -> Framing {
        let is_chunked = self
            .get("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        match self.get("content-length").and_then(|text| text.parse().ok()) {
            _ if is_chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }
}

/// Reads the content of a body. A connection that ends before the body does is an error.
pub(crate) struct Body<R> {
    reader: R,
    framing: Framing,
    /// Bytes up to the end of the body, or of the chunk.
    left: u64,
    is_over: bool,
}

impl<R: BufRead> Body<R> {
    pub(crate) fn new(reader: R, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked => 0,
            Framing::UntilClose => u64::MAX,
        };
        Self {
            reader,
            framing,
            left,
            is_over: false,
        }
    }

    fn begin_chunk(&mut self) -> Result<()> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(|_| Error::from(ErrorKind::InvalidData))?;
        if self.left == 0 {
            Headers::read(&mut self.reader)?;
            self.is_over = true;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.framing == Framing::Chunked && self.left == 0 && !self.is_over {
            self.begin_chunk()?;
        }
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut buffer[..room])?;
        match (count, self.framing) {
            (0, Framing::UntilClose) => return Ok(0),
            (0, _) => return Err(ErrorKind::UnexpectedEof.into()),
            _ => self.left -= count as u64,
        }
        if self.framing == Framing::Chunked && self.left == 0 {
            self.reader.read_exact(&mut [0; 2])?;
        }
        Ok(count)
    }
}

/// What is done to a body on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    /// Bytes that pass.
    pub(crate) limit: u64,
    /// Byte of which a bit is turned over.
    pub(crate) flip: Option<u64>,
}

impl Passage {
    pub(crate) const WHOLE: Self = Self {
        limit: u64::MAX,
        flip: None,
    };

    pub(crate) fn up_to(limit: u64) -> Self {
        Self { limit, ..Self::WHOLE }
    }

    /// Passes a body on, piece by piece; tells whether it came to its end.
    pub(crate) fn pass(self, from: &mut impl Read, to: &mut impl Write, framing: Framing) -> Result<bool> {
        let mut buffer = vec![0; 16 * 1024];
        let mut passed = 0;
        loop {
            let room = buffer
                .len()
                .min(usize::try_from(self.limit - passed).unwrap_or(usize::MAX));
            if room == 0 {
                return Ok(false);
            }
            let count = from.read(&mut buffer[..room])?;
            if count == 0 {
                end(to, framing)?;
                return Ok(true);
            }
            let offset = self
                .flip
                .and_then(|byte| usize::try_from(byte.checked_sub(passed)?).ok());
            if let Some(byte) = offset.and_then(|offset| buffer[..count].get_mut(offset)) {
                *byte ^= 1;
            }
            if framing == Framing::Chunked {
                write!(to, "{count:x}\r\n")?;
            }
            to.write_all(&buffer[..count])?;
            if framing == Framing::Chunked {
                to.write_all(b"\r\n")?;
            }
            passed += count as u64;
        }
    }
}

/// Ends a body whose end is told by its content.
pub(crate) fn end(to: &mut impl Write, framing: Framing) -> Result<()> {
    match framing {
        Framing::Chunked => to.write_all(b"0\r\n\r\n"),
        Framing::Length(_) | Framing::UntilClose => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, framing: Framing) -> Result<String> {
        let mut content = String::new();
        Body::new(text.as_bytes(), framing).read_to_string(&mut content)?;
        Ok(content)
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        for (text, framing, content) in [
            ("hello", Framing::Length(3), "hel"),
            ("hello", Framing::UntilClose, "hello"),
            (
                "3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: 1\r\n\r\nmore",
                Framing::Chunked,
                "hello",
            ),
            ("0\r\n\r\n", Framing::Chunked, ""),
        ] {
            assert_eq!(read(text, framing).unwrap(), content, "{text}");
        }
        for (text, framing) in [
            ("hel", Framing::Length(5)),
            ("5\r\nhel", Framing::Chunked),
            ("3\r\nhel\r\n", Framing::Chunked),
            ("", Framing::Chunked),
        ] {
            assert!(read(text, framing).is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_is_passed_on_as_it_is_or_with_what_was_asked_for() {
        let pass = |passage: Passage, framing| {
            let mut sent = Vec::new();
            let is_whole = passage.pass(&mut &b"hello"[..], &mut sent, framing).unwrap();
            (String::from_utf8(sent).unwrap(), is_whole)
        };
        let length = Framing::Length(5);
        assert_eq!(pass(Passage::WHOLE, length), ("hello".to_owned(), true));
        let chunked = pass(Passage::WHOLE, Framing::Chunked);
        assert_eq!(chunked, ("5\r\nhello\r\n0\r\n\r\n".to_owned(), true));
        assert_eq!(pass(Passage::up_to(2), length), ("he".to_owned(), false));
        let flip = Passage {
            flip: Some(1),
            ..Passage::WHOLE
        };
        assert_eq!(pass(flip, length), ("hdllo".to_owned(), true));
    }
}
