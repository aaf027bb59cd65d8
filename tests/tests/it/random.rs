//! Numbers for tests that draw their cases, and how many cases there are.

/// Numbers that are the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// Rounds and seed of the part `part`; `cargo xtask soak` sets others, and whoever repeats a failure. They are printed.
#[expect(clippy::print_stderr, reason = "whoever looks into a failure needs the seed")]
pub(crate) fn rounds_and_seed(part: &str, rounds: u64) -> (u64, u64) {
    let (rounds_variable, seed_variable) = (format!("ROADSTEAD_{part}_ROUNDS"), format!("ROADSTEAD_{part}_SEED"));
    let number = |variable: &str, otherwise: u64| {
        let given = std::env::var(variable).ok();
        given.map_or(otherwise, |text| text.parse().unwrap())
    };
    let (rounds, seed) = (number(&rounds_variable, rounds), number(&seed_variable, 1));
    eprintln!("{rounds_variable}={rounds} {seed_variable}={seed}");
    (rounds, seed)
}
