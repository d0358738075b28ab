//! Randomness that is written down.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

use crate::page::hash;

/// Bytes that follow from a name, and a record of those that were drawn.
pub struct Randomness {
    name: &'static str,
    blocks: u32,
    ready: Vec<u8>,
    drawn: Vec<u8>,
}

impl Randomness {
    /// The sequence of this name: `SHA-256(name ‖ 0) ‖ SHA-256(name ‖ 1) ‖ …`, counted in `u32`.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, blocks: 0, ready: Vec::new(), drawn: Vec::new() }
    }

    /// What was drawn since the last call.
    pub fn drawn(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.drawn)
    }

    /// So many bytes, for whoever is no generic over generators.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        rand_core::Rng::fill_bytes(self, &mut bytes);
        bytes
    }
}

impl TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.take()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.take()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        while self.ready.len() < out.len() {
            self.ready.extend(hash(&[self.name.as_bytes(), &self.blocks.to_be_bytes()]));
            self.blocks += 1;
        }
        let rest = self.ready.split_off(out.len());
        out.copy_from_slice(&self.ready);
        self.drawn.append(&mut self.ready);
        self.ready = rest;
        Ok(())
    }
}

impl TryCryptoRng for Randomness {}
