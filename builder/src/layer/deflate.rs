//! Whole deflate streams made into parts of a longer one.
//!
//! The fastest library that compresses well gives streams that end: their last block says that nothing follows. Here a stream's
//! blocks are walked through, without inflating them, to find that bit and the place where the stream ends. The bit is cleared and an
//! empty stored block appended, as a sync flush does, so that the next stream begins on a byte. Source: RFC 1951, section 3.2.

/// Symbols of literals and lengths.
const LITERALS: usize = 288;
/// Symbols of distances.
const DISTANCES: usize = 32;
/// The symbol that ends a block.
const END: usize = 256;
/// The order in which the lengths of the code-length code are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_EXTRA: [u8; 29] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];
const DISTANCE_EXTRA: [u8; 30] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];

/// Makes a complete stream one after which another one can stand. `None` when it is no complete stream.
pub(super) fn make_joinable(stream: &mut Vec<u8>) -> Option<()> {
    let (last_header, end) = Walk::new(stream).walk()?;
    if end.div_ceil(8) != stream.len() {
        return None;
    }
    *stream.get_mut(last_header / 8)? &= !(1 << (last_header % 8));
    // The three bits of the stored block's header are zero, as the rest of the last byte is.
    stream.resize((end + 3).div_ceil(8), 0);
    stream.extend_from_slice(&[0, 0, 0xff, 0xff]);
    Some(())
}

/// What a symbol, or two after each other, take of the stream.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    /// The bits of the code; none is no code.
    code: u8,
    /// The bits of the code and those that follow.
    bits: u8,
    /// Whether a distance comes next or the block ends.
    next: Next,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Symbol,
    Distance,
    End,
}

/// A code as a table over the bits that come next.
#[derive(Debug, Default)]
struct Code {
    steps: Vec<Step>,
    mask: usize,
}

impl Code {
    /// Makes the table out of the lengths of all codes; `what` says how many bits follow a symbol's code, and what comes then.
    fn new(lengths: &[u8], what: impl Fn(usize) -> (u8, Next)) -> Option<Self> {
        let longest = lengths.iter().copied().max().filter(|longest| *longest > 0)?;
        let size = 1usize << longest;
        let mut steps = vec![Step::default(); size];
        let mut value = 0usize;
        for code in 1..=longest {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, own)| **own == code) {
                let (more, next) = what(symbol);
                let bits = code + more;
                // Codes are written with their highest bit first.
                let first = value.reverse_bits() >> (usize::BITS - u32::from(code));
                for at in (first..size).step_by(1 << code) {
                    *steps.get_mut(at)? = Step { code, bits, next };
                }
                value += 1;
            }
            value <<= 1;
        }
        Some(Self { steps, mask: size - 1 })
    }

    fn literals(lengths: &[u8]) -> Option<Self> {
        let single = Self::new(lengths, |symbol| match symbol.checked_sub(END + 1) {
            Some(length) => (LENGTH_EXTRA.get(length).copied().unwrap_or_default(), Next::Distance),
            None if symbol == END => (0, Next::End),
            None => (0, Next::Symbol),
        })?;
        let together = (0..single.steps.len()).map(|at| single.two(at));
        let steps = together.collect::<Option<_>>()?;
        Some(Self { steps, ..single })
    }

    /// Takes a literal and what follows it as one, where the code of both is within the table's bits.
    fn two(&self, at: usize) -> Option<Step> {
        let first = *self.steps.get(at)?;
        if first.code == 0 || first.next != Next::Symbol {
            return Some(first);
        }
        let second = *self.steps.get(at >> first.code)?;
        let code = first.code + second.code;
        Some(match second.code > 0 && self.mask >> code.saturating_sub(1) > 0 {
            true => Step {
                code,
                bits: first.bits + second.bits,
                next: second.next,
            },
            false => first,
        })
    }

    fn distances(lengths: &[u8]) -> Option<Self> {
        Self::new(lengths, |symbol| {
            (DISTANCE_EXTRA.get(symbol).copied().unwrap_or_default(), Next::Symbol)
        })
    }
}

/// A walk over a stream, bit by bit.
struct Walk<'a> {
    stream: &'a [u8],
    /// Bits behind.
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(stream: &'a [u8]) -> Self {
        Self { stream, at: 0 }
    }

    /// Gives the place of the last block's header, and the end.
    fn walk(mut self) -> Option<(usize, usize)> {
        loop {
            let header = self.at;
            let is_last = self.take(1)? == 1;
            match self.take(2)? {
                0 => self.stored()?,
                1 => self.fixed()?,
                2 => self.dynamic()?,
                _ => return None,
            }
            if is_last {
                return Some((header, self.at));
            }
        }
    }

    /// The next bits, at least 56 of them; zeros follow the end.
    fn peek(&self) -> u64 {
        let (from, shift) = (self.at / 8, self.at % 8);
        let bytes = match self.stream.get(from..from + 8) {
            Some(eight) => eight.try_into().unwrap_or_default(),
            None => {
                let rest = self.stream.get(from..).unwrap_or_default();
                let mut eight = [0; 8];
                eight.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                eight
            }
        };
        u64::from_le_bytes(bytes) >> shift
    }

    fn take(&mut self, count: usize) -> Option<usize> {
        let value = self.peek() & ((1 << count) - 1);
        self.at += count;
        (self.at <= self.stream.len() * 8).then_some(usize::try_from(value).ok()?)
    }

    fn stored(&mut self) -> Option<()> {
        self.at = self.at.next_multiple_of(8);
        let length = self.take(16)?;
        self.take(16)?;
        self.at += length * 8;
        (self.at <= self.stream.len() * 8).then_some(())
    }

    fn fixed(&mut self) -> Option<()> {
        let mut lengths = [8u8; LITERALS];
        lengths.get_mut(144..256)?.fill(9);
        lengths.get_mut(256..280)?.fill(7);
        self.symbols(&Code::literals(&lengths)?, Some(&Code::distances(&[5; DISTANCES])?))
    }

    fn dynamic(&mut self) -> Option<()> {
        let (literals, distances, count) = (self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4);
        let mut lengths = [0u8; ORDER.len()];
        for place in ORDER.iter().take(count) {
            *lengths.get_mut(*place)? = u8::try_from(self.take(3)?).ok()?;
        }
        let lengths = self.code_lengths(&lengths, literals + distances)?;
        let (literals, distances) = lengths.split_at_checked(literals)?;
        // A block of literals alone has no distances.
        let distances = Code::distances(distances);
        self.symbols(&Code::literals(literals)?, distances.as_ref())
    }

    /// Reads the lengths of both codes, which are written in a code of their own.
    fn code_lengths(&mut self, own: &[u8], count: usize) -> Option<Vec<u8>> {
        // What the table has no room for is the symbol itself: here it is found by its place among equal lengths.
        let symbols = canonical(own);
        let mut lengths = Vec::with_capacity(count);
        while lengths.len() < count {
            let symbol = self.symbol(&symbols)?;
            let (value, times) = match symbol {
                16 => (*lengths.last()?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (u8::try_from(length).ok()?, 1),
            };
            lengths.extend(std::iter::repeat_n(value, times));
        }
        (lengths.len() == count).then_some(lengths)
    }

    /// Reads one symbol of a small code, bit by bit.
    fn symbol(&mut self, symbols: &[(u8, usize, usize)]) -> Option<usize> {
        let mut code = 0;
        for length in 1..=7u8 {
            code = code << 1 | self.take(1)?;
            let found = symbols.iter().find(|(own, value, _)| *own == length && *value == code);
            if let Some((_, _, symbol)) = found {
                return Some(*symbol);
            }
        }
        None
    }

    /// Walks to the end of a block.
    fn symbols(&mut self, literals: &Code, distances: Option<&Code>) -> Option<()> {
        let end = self.stream.len() * 8;
        while self.at <= end {
            let mut bits = self.peek();
            // Two codes within the table's 15 bits and what follows the second take at most 20, with a distance 48: one look is enough.
            let step = literals.steps.get(usize::try_from(bits).ok()? & literals.mask)?;
            if step.code == 0 {
                return None;
            }
            self.at += usize::from(step.bits);
            match step.next {
                Next::Symbol => {}
                Next::End => return (self.at <= end).then_some(()),
                Next::Distance => {
                    bits >>= step.bits;
                    let distances = distances?;
                    let step = distances.steps.get(usize::try_from(bits).ok()? & distances.mask)?;
                    if step.code == 0 {
                        return None;
                    }
                    self.at += usize::from(step.bits);
                }
            }
        }
        None
    }
}

/// Gives each symbol its length and code, as all lengths together decide them.
fn canonical(lengths: &[u8]) -> Vec<(u8, usize, usize)> {
    let mut symbols = Vec::with_capacity(lengths.len());
    let mut code = 0;
    for length in 1..=7u8 {
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, own)| **own == length) {
            symbols.push((length, code, symbol));
            code += 1;
        }
        code <<= 1;
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read as _;

    fn deflate(bytes: &[u8], level: i32) -> Vec<u8> {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap());
        let mut out = vec![0; compressor.deflate_compress_bound(bytes.len())];
        let size = compressor.deflate_compress(bytes, &mut out).unwrap();
        out.truncate(size);
        out
    }

    /// Joins the parts, ends them, and inflates the whole by another library.
    fn joined(parts: &[Vec<u8>], level: i32) -> Vec<u8> {
        let mut stream = Vec::new();
        for part in parts {
            let mut one = deflate(part, level);
            make_joinable(&mut one).unwrap();
            stream.extend(one);
        }
        stream.extend([3, 0]);
        let mut out = Vec::new();
        flate2::read::DeflateDecoder::new(&stream[..])
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    fn text(seed: u64, size: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let words: Vec<String> = (0..400u32)
            .map(|n| format!("w{}", n.wrapping_mul(2_654_435_761)))
            .collect();
        let mut out = Vec::new();
        while out.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            out.extend_from_slice(words[usize::try_from(state % 400).unwrap()].as_bytes());
            out.push(b" \n;"[usize::try_from(state >> 60).unwrap() % 3]);
        }
        out.truncate(size);
        out
    }

    #[test]
    fn every_level_and_kind_of_block() {
        let noise: Vec<u8> = (0..300_000u32)
            .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        for level in 0..=12 {
            for parts in [
                vec![vec![], b"a".to_vec(), vec![]],
                vec![text(1, 1 << 20), text(2, 70_000), noise.clone(), vec![0; 200_000]],
            ] {
                assert!(joined(&parts, level) == parts.concat(), "level {level}");
            }
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for bad in [&b""[..], b"\x07", b"\x05\x00", b"\xff\xff\xff\xff"] {
            assert_eq!(make_joinable(&mut bad.to_vec()), None, "{bad:?}");
        }
        let mut cut = deflate(&text(3, 50_000), 1);
        cut.truncate(cut.len() / 2);
        assert_eq!(make_joinable(&mut cut), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn parts_come_back(
            parts in prop::collection::vec((any::<u64>(), 0usize..40_000, prop::collection::vec(any::<u8>(), 0..2000)), 1..6),
            level in 0i32..=12,
        ) {
            let parts: Vec<Vec<u8>> = parts.into_iter().map(|(seed, size, noise)| [text(seed, size), noise].concat()).collect();
            prop_assert!(joined(&parts, level) == parts.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = bytes;
            prop_assert!(make_joinable(&mut bytes).is_none_or(|()| bytes.ends_with(&[0, 0, 0xff, 0xff])));
        }
    }
}
