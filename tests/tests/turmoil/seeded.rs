//! Everything that is random in a world comes from its seed: our own choices, and what programs ask of the operating system.
//!
//! The libraries, the hash maps of the standard library and our own drivers ask `getrandom` of libc. It is defined again here, and the
//! linker prefers this one. The thread of a world draws from its seed, every other thread from the system as before. (`mad-turmoil` does this
//! for a whole process, once, and stops all its clocks; here several worlds run at a time, each on its own thread.)

#![allow(unsafe_code, reason = "a function of libc is defined")]

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// What this thread draws from, if it is that of a world. It has no destructor, for hash maps are made in those of others.
    static DRAWN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on everything that is random on this thread follows from the seed.
pub fn seed_thread(seed: u64) {
    DRAWN.set(Some(seed ^ 0x5eed_5eed_5eed_5eed));
}

/// As `getrandom(2)`.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if buffer.is_null() || length == 0 {
        // A question whether there is such a function.
        return 0;
    }
    // SAFETY: the caller promises it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    if let Some(state) = DRAWN.get() {
        let mut dice = Dice(state);
        for chunk in bytes.chunks_mut(8) {
            let drawn = dice.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        DRAWN.set(Some(dice.0));
    } else {
        let read = std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, bytes));
        if read.is_err() {
            return -1;
        }
    }
    length as isize
}

/// SplitMix64: a few lines, and the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds shall not begin alike.
        let mut dice = Self(seed);
        Self(dice.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; zero for a bound of zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }

    /// A time below this one, in whole milliseconds.
    pub fn within(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.below(most.as_millis() as u64))
    }

    /// Often short, seldom up to the bound.
    pub fn mostly_short(&mut self, most: Duration) -> Duration {
        let most = most / [20, 20, 4, 1][self.below(4) as usize];
        self.within(most)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
