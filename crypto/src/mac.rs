//! HMAC-SHA-256 (RFC 2104) with a key that is scheduled once, and the expansion of HKDF (RFC 5869) on top of it.
//!
//! A message of the ratchet needs six codes over a few dozen bytes each. With the hasher of a library every one of them copies and then wipes
//! a buffer and two states byte by byte, which together cost as much as half of the hashing; and the key of a chain's headers
//! would be scheduled anew for every message, genuine or forged. The compression function is the library's.

use sha2::{Digest, Sha256, block_api::compress256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that the hash takes at a time.
const BLOCK: usize = 64;
/// Bytes of a code.
const CODE: usize = 32;
/// Where the length stands in the last block.
const LENGTH: usize = BLOCK - 8;

/// A key after both of its blocks were hashed. Whoever has it can compute codes, but not the key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct MacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl MacKey {
    /// A key of any length; one that is longer than a block is hashed first.
    pub fn new(key: &[u8]) -> Self {
        let mut block = Block([0; BLOCK]);
        match block.0.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            None => block.0[..CODE].copy_from_slice(&Sha256::digest(key)),
        }
        let mut scheduled = |pad: u8| {
            block.0.iter_mut().for_each(|byte| *byte ^= pad);
            let mut state = INITIAL;
            block.compress(&mut state);
            state
        };
        Self { inner: scheduled(0x36), outer: scheduled(0x36 ^ 0x5C) }
    }

    /// `HMAC(key, parts)`.
    pub fn code<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; CODE] {
        let mut block = Block([0; BLOCK]);
        let mut state = self.inner;
        let (mut filled, mut length) = (0, BLOCK);
        for mut part in parts {
            length += part.len();
            while let Some((now, rest)) = part.split_at_checked(BLOCK - filled) {
                block.0[filled..].copy_from_slice(now);
                block.compress(&mut state);
                (part, filled) = (rest, 0);
            }
            block.0[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        block.finish(&mut state, filled, length);

        block.put(&state);
        state = self.outer;
        block.finish(&mut state, CODE, BLOCK + CODE);
        block.put(&state);
        state.zeroize();
        std::array::from_fn(|i| block.0[i])
    }

    /// `Expand(key, info, output.len())`.
    pub fn expand(&self, info: &[&[u8]], output: &mut [u8]) {
        assert!(
            output.len() <= 255 * CODE,
            "RFC 5869 ends there, and no output in this protocol is longer than 192 bytes"
        );
        let mut previous = [0; CODE];
        for (number, part) in (1..=u8::MAX).zip(output.chunks_mut(CODE)) {
            let before = if number == 1 { &[][..] } else { &previous };
            let number = [number];
            previous = self.code([before].into_iter().chain(info.iter().copied()).chain([&number[..]]));
            part.copy_from_slice(&previous[..part.len()]);
        }
        wipe(&mut previous);
    }
}

/// A block that wipes itself.
struct Block([u8; BLOCK]);

impl Block {
    fn compress(&self, state: &mut [u32; 8]) {
        compress256(state, std::slice::from_ref(&self.0));
    }

    /// Pads and hashes the end of a message of that length, of which so much stands in the block.
    fn finish(&mut self, state: &mut [u32; 8], filled: usize, length: usize) {
        self.0[filled] = 0x80;
        self.0[filled + 1..].fill(0);
        if filled >= LENGTH {
            self.compress(state);
            self.0.fill(0);
        }
        self.0[LENGTH..].copy_from_slice(&(8 * length as u64).to_be_bytes());
        self.compress(state);
    }

    /// Puts a finished hash at the beginning.
    fn put(&mut self, state: &[u32; 8]) {
        for (bytes, word) in self.0.as_chunks_mut().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Wipes many bytes at a time, where [`Zeroize`] goes byte by byte.
pub(crate) fn wipe<const N: usize>(bytes: &mut [u8; N]) {
    *bytes = [0; N];
    zeroize::optimization_barrier(bytes);
}

/// What SHA-256 begins with (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    proptest! {
        /// RFC 4231, RFC 5869 and Wycheproof are asked in `published`; this asks for every length and every cut.
        #[test]
        fn codes_are_those_of_the_library(
            key in prop::collection::vec(any::<u8>(), 0..150),
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..150), 0..5),
        ) {
            let theirs = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(parts.concat()).finalize();
            let ours = MacKey::new(&key).code(parts.iter().map(Vec::as_slice));
            prop_assert_eq!(&ours[..], &theirs.into_bytes()[..]);
        }

        #[test]
        fn expansions_are_those_of_the_library(
            key: [u8; 32],
            info in prop::collection::vec(any::<u8>(), 0..150),
            cut: prop::sample::Index,
            length in 0_usize..=255 * 32,
        ) {
            let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
            let (start, end) = info.split_at(cut.index(info.len() + 1));
            MacKey::new(&key).expand(&[start, end], &mut ours);
            hkdf::Hkdf::<Sha256>::from_prk(&key).unwrap().expand(&info, &mut theirs).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn wiped_bytes_are_zeros() {
        let mut bytes = [7; 32];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 32]);
    }

    /// The last byte of a block is where padding goes wrong.
    #[test]
    fn every_length_of_a_message_up_to_three_blocks() {
        // Miri takes seconds for what the processor does in no time.
        for length in (0..=3 * BLOCK).step_by(if cfg!(miri) { 31 } else { 1 }) {
            let message = vec![5; length];
            let theirs = Hmac::<Sha256>::new_from_slice(b"key").unwrap().chain_update(&message).finalize();
            assert_eq!(MacKey::new(b"key").code([&message[..]])[..], theirs.into_bytes()[..], "{length}");
        }
    }
}
