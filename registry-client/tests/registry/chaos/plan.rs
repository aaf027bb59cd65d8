//! What is drawn for a round: an image, and what goes wrong with it on its way.

use std::time::Duration;

use crate::proxy::{Action, Head};

/// Random numbers that a seed repeats (xorshift64*).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, round: u64) -> Self {
        // Seeds that are near each other must not give rounds that are (splitmix64).
        let mut state = seed ^ round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(state | 1)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Draws a number below another.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.draw() >> 11) % end as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    LookUp,
    Open,
    Send,
    Commit,
    Name,
    ReadManifest,
    ReadBlob,
}

const PUSH: [Step; 5] = [Step::LookUp, Step::Open, Step::Send, Step::Commit, Step::Name];
const PULL: [Step; 2] = [Step::ReadManifest, Step::ReadBlob];

impl Step {
    pub(super) fn of(head: &Head) -> Option<Self> {
        Some(match head.method.as_str() {
            "HEAD" => Self::LookUp,
            "POST" => Self::Open,
            "PATCH" => Self::Send,
            "PUT" if head.target.contains("/uploads/") => Self::Commit,
            "PUT" => Self::Name,
            "GET" if head.target.contains("/manifests/") => Self::ReadManifest,
            "GET" if head.target.contains("/blobs/") => Self::ReadBlob,
            _ => return None,
        })
    }

    /// Counts the requests of this kind that are made when nothing goes wrong.
    fn count(self, blobs: usize) -> usize {
        match self {
            Self::Name | Self::ReadManifest => 1,
            _ => blobs,
        }
    }
}

/// Something that passes: tried again, the same request succeeds.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Close,
    Lose,
    Answer(&'static str, &'static str),
    CutRequest,
    StaleRange,
    Cut,
    Stall,
    Shorten,
}

const ANYWHERE: [Fault; 8] = [
    Fault::Close,
    Fault::Lose,
    Fault::Answer("408 Request Timeout", ""),
    Fault::Answer("429 Too Many Requests", "Retry-After: 1\r\n"),
    Fault::Answer("500 Internal Server Error", ""),
    Fault::Answer("502 Bad Gateway", ""),
    Fault::Answer("503 Service Unavailable", "Retry-After: 0\r\n"),
    Fault::Answer("504 Gateway Timeout", ""),
];

impl Fault {
    fn draw(dice: &mut Dice, step: Step) -> Self {
        let special: &[Self] = match step {
            Step::Send => &[Self::CutRequest, Self::StaleRange],
            Step::ReadManifest => &[Self::Cut, Self::Stall],
            Step::ReadBlob => &[Self::Cut, Self::Stall, Self::Shorten],
            _ => &[],
        };
        if special.is_empty() || dice.one_in(3) {
            dice.pick(&ANYWHERE)
        } else {
            dice.pick(special)
        }
    }
}

/// A fault and the requests it meets: some of one kind, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    step: Step,
    first: usize,
    count: usize,
    fault: Fault,
    /// Where in a body, in parts of 65536.
    place: u64,
}

impl Planned {
    pub(super) fn meets(&self, step: Step, number: usize) -> bool {
        self.step == step && (self.first..self.first + self.count).contains(&number)
    }

    /// Says what becomes of a request. A configuration is too small to be taken up again: one that is short is wrong.
    pub(super) fn action(&self, length: u64, is_layer: bool) -> Action {
        let place = (length * self.place) >> 16;
        match self.fault {
            Fault::Close => Action::Close,
            Fault::Lose => Action::Lose,
            Fault::Answer(status, headers) => Action::answer(status, headers, ""),
            Fault::CutRequest => Action::CutRequest(place),
            Fault::StaleRange => Action::Rewrite("201 Created", ("Range", "0-0")),
            Fault::Shorten if is_layer => Action::Shorten(place),
            Fault::Cut | Fault::Shorten => Action::Cut(place),
            Fault::Stall => Action::Stall(place, Duration::from_millis(200)),
        }
    }
}

/// What goes wrong with a push or a pull, and can be got over.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) faults: Vec<Planned>,
    /// Whether a token is asked for; and the request by which it has expired.
    pub(super) asks_for_token: bool,
    pub(super) expires_at: Option<usize>,
    /// Whether blobs are read from another place.
    pub(super) redirects: bool,
}

impl Plan {
    pub(super) fn for_push(dice: &mut Dice, blobs: usize) -> Self {
        Self::draw(dice, &PUSH, blobs)
    }

    pub(super) fn for_pull(dice: &mut Dice, blobs: usize) -> Self {
        let mut plan = Self::draw(dice, &PULL, blobs);
        plan.redirects = dice.one_in(2);
        plan
    }

    fn draw(dice: &mut Dice, steps: &[Step], blobs: usize) -> Self {
        // An operation is tried five times: four faults in a row are the most it gets over.
        let is_streak = dice.one_in(16);
        let (faults, count) = if is_streak { (1, 4) } else { (1 + dice.below(2), 1) };
        let mut plan = Self {
            asks_for_token: dice.one_in(2),
            ..Self::default()
        };
        for _ in 0..faults {
            let step = dice.pick(steps);
            plan.faults.push(Planned {
                step,
                first: dice.below(step.count(blobs)),
                count,
                fault: Fault::draw(dice, step),
                place: dice.draw() >> 48,
            });
        }
        // A token that expires costs a try of an upload.
        if plan.asks_for_token && !is_streak && dice.one_in(2) {
            let requests: usize = steps.iter().map(|step| step.count(blobs)).sum();
            plan.expires_at = Some(1 + dice.below(requests));
        }
        plan
    }
}

/// Something that no other try makes good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoil {
    /// Bytes change on their way to the registry.
    Upload,
    Manifest,
    Config,
    LayerBit,
    LayerEnd,
}

impl Spoil {
    pub(super) fn draw(dice: &mut Dice) -> Option<Self> {
        let all = [
            Self::Upload,
            Self::Manifest,
            Self::Config,
            Self::LayerBit,
            Self::LayerEnd,
        ];
        dice.one_in(4).then(|| dice.pick(&all))
    }
}
