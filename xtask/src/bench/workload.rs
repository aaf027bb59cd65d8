//! The sources of W1, a middling project. The same bytes on every machine.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Result, TaskError};
use crate::workspace::{make, make_empty, write};

/// Files of W1.
pub(super) const FILES: u64 = 5_000;
/// Bytes of W1's files. The figures of different generators can't be compared, so both numbers are checked.
pub(super) const TOTAL_BYTES: u64 = 82_617_516;
/// FNV-1a of W1's files, one after the other.
const CHECKSUM: u64 = 0x1389_d52a_93e5_89da;
/// The file that is edited: the middle one by path.
const EDITED: u64 = 2_499;
const WORDS: usize = 4_096;
/// Bytes of a line before it is ended, about those of source code.
const COLUMNS: usize = 90;

const W1: &str = "\
ARG BASE
FROM ${BASE} AS build
WORKDIR /src
COPY src ./src
RUN find src -name '*.js' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS
RUN mkdir out && for m in src/*; do cat $m/*/*.js > out/$(basename $m).bundle.js; done

FROM ${BASE}
RUN useradd --system --no-log-init --no-create-home app
WORKDIR /app
COPY --from=build /src/SHA256SUMS ./
COPY --from=build /src/out ./out
USER app
CMD [\"cat\", \"SHA256SUMS\"]
";

/// Vigna's xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`, which is small.
    fn below(&mut self, limit: u16) -> usize {
        usize::from(u16::try_from(self.next() % u64::from(limit)).unwrap_or_default())
    }
}

/// Makes text that compresses as sources do: words from a list of 4,096, in lines.
pub(super) struct Generator {
    words: Vec<Vec<u8>>,
}

impl Generator {
    pub(super) fn new() -> Self {
        let mut random = Random(42);
        let words = (0..WORDS).map(|_| {
            let letters = 3 + random.below(9);
            let value = random.next();
            (0..letters)
                .map(|at| b"abcdefghijklmnopqrstuvwxyz"[low_bits(value >> (5 * at)) % 26])
                .collect()
        });
        Self { words: words.collect() }
    }

    /// The file of a number, counted from 0.
    pub(super) fn file(&self, number: u64) -> Vec<u8> {
        let mut random = Random(number + 1);
        // The first outputs of neighbouring seeds are alike.
        for _ in 0..4 {
            random.next();
        }
        let size = 4_096 + random.below(24_609);
        self.text(&mut random, size)
    }

    /// Text of this size, from the seed 7.
    pub(super) fn block(&self, size: usize) -> Vec<u8> {
        self.text(&mut Random(7), size)
    }

    fn text(&self, random: &mut Random, size: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(size + 64);
        let mut column = 0;
        while text.len() < size {
            let value = random.next();
            for at in 0..5 {
                let word = &self.words[low_bits(value >> (12 * at)) & (WORDS - 1)];
                text.extend_from_slice(word);
                column += word.len() + 1;
                text.push(if column > COLUMNS { b'\n' } else { b' ' });
                column = if column > COLUMNS { 0 } else { column };
            }
        }
        text.truncate(size);
        text
    }
}

/// The value, as far as it fits. Taken modulo something small, or masked, and `usize` has 64 bits where this runs.
fn low_bits(value: u64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

fn relative_path(number: u64) -> PathBuf {
    format!("src/m{:02}/p{}/f{number:04}.js", number / 250, number / 50 % 5).into()
}

fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Makes W1's context and checks that it is what every other run had.
pub(crate) fn make_w1(directory: &Path) -> Result<()> {
    make_empty(directory)?;
    let generator = Generator::new();
    let (mut total, mut checksum) = (0, FNV_START);
    for number in 0..FILES {
        let bytes = generator.file(number);
        let path = directory.join(relative_path(number));
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        std::fs::write(&path, &bytes).map_err(TaskError::at("write", &path))?;
        total += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        checksum = fnv(checksum, &bytes);
    }
    if (total, checksum) != (TOTAL_BYTES, CHECKSUM) {
        return Err(TaskError::new(format!(
            "the generator made {total} bytes of FNV-1a {checksum:016x}, not W1"
        )));
    }
    write(&directory.join("Dockerfile"), W1)
}

/// Appends a line to one of W1's files.
pub(crate) fn edit(directory: &Path) -> Result<()> {
    let path = directory.join(relative_path(EDITED));
    let file = OpenOptions::new().append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(b"// edited\n"));
    written.map_err(TaskError::at("append to", &path))
}

/// Takes the edit back.
pub(crate) fn restore(directory: &Path) -> Result<()> {
    let path = directory.join(relative_path(EDITED));
    std::fs::write(&path, Generator::new().file(EDITED)).map_err(TaskError::at("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_makes_w1() {
        let generator = Generator::new();
        let (mut total, mut checksum) = (0, FNV_START);
        for number in 0..FILES {
            let bytes = generator.file(number);
            total += bytes.len();
            checksum = fnv(checksum, &bytes);
        }
        assert_eq!(total, 82_617_516);
        assert_eq!(format!("{checksum:016x}"), "1389d52a93e589da");
    }

    #[test]
    fn paths_are_sorted_as_their_numbers_are() {
        let paths: Vec<PathBuf> = (0..FILES).map(relative_path).collect();
        assert!(paths.is_sorted());
        assert_eq!(paths[2_499], Path::new("src/m09/p4/f2499.js"));
    }
}
