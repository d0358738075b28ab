//! What happens in a run: events that are drawn from a seed, and that mean something in every state, so that any of them can be
//! left out to find the shortest run that fails.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The initiator.
    Phone,
    /// The responder.
    Machine,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Phone, Self::Machine];

    pub fn other(self) -> Self {
        match self {
            Self::Phone => Self::Machine,
            Self::Machine => Self::Phone,
        }
    }
}

/// What goes wrong at the next step of the storage.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    CrashBeforeCommit,
    /// The process ends while it commits; whether the record was stored shows after.
    CrashInCommit {
        stored: bool,
    },
    CrashAfterCommit,
    /// The record is stored and released, and the application has not seen it.
    CrashBeforeHandling,
    /// The application has stored its effect, and the ratchet does not know.
    CrashAfterHandling,
    /// The storage says no.
    Refuse,
    /// The storage does not know.
    Unsettle {
        stored: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Event {
    Send {
        from: Side,
        kept: bool,
        count: u8,
    },
    Deliver {
        to: Side,
        nth: u8,
    },
    DeliverAll,
    Drop {
        to: Side,
        nth: u8,
    },
    Duplicate {
        to: Side,
        nth: u8,
    },
    Shuffle {
        to: Side,
    },
    Forge {
        to: Side,
        nth: u8,
        at: u16,
    },
    Resend {
        from: Side,
    },
    CrashNow {
        side: Side,
    },
    Fault {
        side: Side,
        fault: Fault,
    },
    Snapshot {
        side: Side,
    },
    RestoreRecord {
        side: Side,
        nth: u8,
    },
    RestoreAll {
        side: Side,
        nth: u8,
    },
    SecondWriter {
        side: Side,
    },
    /// The phone makes a new handshake, whatever else is on its way.
    Reset,
    /// The machine asks for one.
    AskForReset,
    /// Somebody comes with an old copy of the phone's storage.
    Thief {
        nth: u8,
    },
    Revoke,
    Hour {
        side: Side,
    },
}

#[derive(Debug, Clone)]
pub struct Schedule {
    pub seed: u64,
    /// Whether the storage compares generations.
    pub compares: bool,
    pub events: Vec<Event>,
}

impl Schedule {
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw(ChaCha20Rng::seed_from_u64(seed));
        let length = 8 + draw.below(40);
        // Some runs are quiet, so that long orderly stretches come up too.
        let calm = draw.below(4) == 0;
        let compares = draw.below(8) != 0;
        let events = (0..length).map(|_| draw.event(calm)).collect();
        Self { seed, compares, events }
    }
}

struct Draw(ChaCha20Rng);

impl Draw {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.next_u32() % bound
    }

    fn side(&mut self) -> Side {
        Side::BOTH[self.below(2) as usize]
    }

    /// Mostly the first, so that order is common and disorder is not rare.
    fn nth(&mut self) -> u8 {
        if self.below(3) == 0 { self.below(8) as u8 } else { 0 }
    }

    fn event(&mut self, calm: bool) -> Event {
        let side = self.side();
        let choice = if calm { self.below(58) } else { self.below(100) };
        match choice {
            0..=21 => Event::Send { from: side, kept: self.below(2) == 0, count: 1 + self.below(3) as u8 },
            22..=49 => Event::Deliver { to: side, nth: self.nth() },
            50..=54 => Event::DeliverAll,
            55..=57 => Event::Resend { from: side },
            58..=60 => Event::Drop { to: side, nth: self.nth() },
            61..=63 => Event::Duplicate { to: side, nth: self.nth() },
            64..=65 => Event::Shuffle { to: side },
            66..=69 => Event::Forge { to: side, nth: self.nth(), at: self.below(1 << 16) as u16 },
            70..=72 => Event::CrashNow { side },
            73..=83 => Event::Fault { side, fault: self.fault() },
            84..=85 => Event::Snapshot { side },
            86 => Event::RestoreRecord { side, nth: self.below(8) as u8 },
            87 => Event::RestoreAll { side, nth: self.below(8) as u8 },
            88..=89 => Event::SecondWriter { side },
            90..=93 => Event::Reset,
            94..=95 => Event::AskForReset,
            96..=97 => Event::Thief { nth: self.below(8) as u8 },
            98 if self.below(4) == 0 => Event::Revoke,
            _ => Event::Hour { side },
        }
    }

    fn fault(&mut self) -> Fault {
        let stored = self.below(2) == 0;
        match self.below(7) {
            0 => Fault::CrashBeforeCommit,
            1 => Fault::CrashInCommit { stored },
            2 => Fault::CrashAfterCommit,
            3 => Fault::CrashBeforeHandling,
            4 => Fault::CrashAfterHandling,
            5 => Fault::Refuse,
            _ => Fault::Unsettle { stored },
        }
    }
}

/// The shortest run that still fails, as far as leaving out single events and stretches of them leads.
pub fn shrink(schedule: &Schedule, fails: impl Fn(&Schedule) -> bool) -> Schedule {
    let mut shortest = schedule.clone();
    let mut stretch = shortest.events.len().div_ceil(2);
    while stretch > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < shortest.events.len() {
            let mut candidate = shortest.clone();
            candidate.events.drain(at..(at + stretch).min(candidate.events.len()));
            if fails(&candidate) {
                (shortest, shorter) = (candidate, true);
            } else {
                at += stretch;
            }
        }
        if !shorter || stretch > 1 {
            stretch /= 2;
        }
    }
    shortest
}
