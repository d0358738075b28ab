//! How the module of a phone and that of a machine are called: one buffer each, for the argument of a call, the randomness that it may
//! draw, and its result.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// More than any message here.
pub const ARGUMENT: usize = 4_096;
/// More than any call draws.
pub const RANDOMNESS: usize = 512;

/// The argument, then the randomness; the result takes the place of the argument.
pub struct Exchange([u8; ARGUMENT + RANDOMNESS]);

impl Exchange {
    pub const fn new() -> Self {
        Self([0; ARGUMENT + RANDOMNESS])
    }

    pub fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// The length of the result, or -1.
    pub fn call(&mut self, length: usize, does: impl FnOnce(&[u8], &mut Given<'_>) -> Option<Vec<u8>>) -> isize {
        let (argument, randomness) = self.0.split_at(ARGUMENT);
        let Some(argument) = argument.get(..length) else { return -1 };
        let Some(result) = does(argument, &mut Given(randomness)) else { return -1 };
        let Some(place) = self.0[..ARGUMENT].get_mut(..result.len()) else { return -1 };
        place.copy_from_slice(&result);
        result.len() as isize
    }
}

/// Randomness from the other side of the call.
pub struct Given<'a>(&'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (given, rest) = self.0.split_at(out.len());
        out.copy_from_slice(given);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}
