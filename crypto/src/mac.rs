//! HMAC-SHA-256 (RFC 2104) with a key that is scheduled once, and the expansion of HKDF (RFC 5869) on top of it.
//!
//! A message of the ratchet needs six codes over a few dozen bytes each. With the hasher of a library every one of them copies and then wipes
//! a buffer and two states byte by byte, which together cost as much as half of the hashing; and the key of a chain's headers
//! would be scheduled anew for every message, genuine or forged. What all outputs of an expansion share is put into their blocks once. The
//! compression function is the library's.

use std::slice::from_ref;

use sha2::{Digest, Sha256, block_api::compress256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::wipe::Wiped;

/// Bytes that the hash takes at a time.
const BLOCK: usize = 64;
/// Bytes of a code.
const CODE: usize = 32;
/// Bytes of the length of a message, with which its last block ends.
const LENGTH: usize = 8;
/// The most bytes of info that leave an output's message in two blocks, with the output before it, a number and the padding.
const INFO: usize = 2 * BLOCK - (CODE + 1) - (1 + LENGTH);

/// A key after both of its blocks were hashed. Whoever has it can compute codes, but not the key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct MacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl MacKey {
    /// A key of any length; one that is longer than a block is hashed first.
    pub fn new(key: &[u8]) -> Self {
        let mut block = Wiped([0; BLOCK]);
        match block.0.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            None => block.0[..CODE].copy_from_slice(&Sha256::digest(key)),
        }
        let mut scheduled = |pad: u8| {
            block.0.iter_mut().for_each(|byte| *byte ^= pad);
            compressed(&INITIAL, from_ref(&block.0))
        };
        Self { inner: scheduled(0x36), outer: scheduled(0x36 ^ 0x5C) }
    }

    /// `HMAC(key, parts)`.
    pub fn code(&self, parts: &[&[u8]]) -> [u8; CODE] {
        let mut block = Wiped([0; BLOCK]);
        let mut state = self.inner;
        let (mut filled, mut length) = (0, BLOCK);
        for mut part in parts.iter().copied() {
            length += part.len();
            while let Some((now, rest)) = part.split_at_checked(BLOCK - filled) {
                block.0[filled..].copy_from_slice(now);
                compress256(&mut state, from_ref(&block.0));
                (part, filled) = (rest, 0);
            }
            block.0[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        block.0[filled] = 0x80;
        block.0[filled + 1..].fill(0);
        if filled >= BLOCK - LENGTH {
            compress256(&mut state, from_ref(&block.0));
            block.0.fill(0);
        }
        block.0[BLOCK - LENGTH..].copy_from_slice(&bits(length));
        compress256(&mut state, from_ref(&block.0));
        let mut code = [0; CODE];
        self.finish(&mut state, &mut code);
        code
    }

    /// The codes of two messages of one byte. Neither half of one waits for the other's, so a processor can work on both at once.
    pub fn pair(&self, messages: [u8; 2]) -> [[u8; CODE]; 2] {
        let inner = messages.map(|byte| {
            let mut block = const { last_block(1) };
            block[0] = byte;
            compressed(&self.inner, from_ref(&block))
        });
        inner.map(|mut state| {
            let mut code = [0; CODE];
            self.finish(&mut state, &mut code);
            code
        })
    }

    /// `Expand(key, info, output.len())`.
    pub fn expand(&self, info: &[&[u8]], output: &mut [u8]) {
        let length: usize = info.iter().map(|part| part.len()).sum();
        assert!(
            output.len() <= 255 * CODE && length <= INFO,
            "RFC 5869 ends there, and no output or info of this protocol is as long"
        );
        // previous code ‖ info ‖ number ‖ padding, up to two blocks, which begin behind the place of the code where there is none before.
        let mut message = Wiped([0; 3 * BLOCK]);
        let mut number_at = CODE;
        for part in info {
            message.0[number_at..number_at + part.len()].copy_from_slice(part);
            number_at += part.len();
        }
        message.0[number_at + 1] = 0x80;
        let mut start = CODE;
        for part in output.chunks_mut(CODE) {
            message.0[number_at] += 1;
            let end = start + (number_at + 2 + LENGTH - start).next_multiple_of(BLOCK);
            let text = &mut message.0[start..end];
            text[end - start - LENGTH..].copy_from_slice(&bits(BLOCK + number_at + 1 - start));
            let mut state = compressed(&self.inner, text.as_chunks().0);
            text[end - start - LENGTH..].fill(0);
            start = 0;
            self.finish(&mut state, &mut message.0[..CODE]);
            part.copy_from_slice(&message.0[..part.len()]);
        }
    }

    /// From the inner hash, which is wiped, to the code.
    fn finish(&self, inner: &mut [u32; 8], code: &mut [u8]) {
        let mut block = Wiped(const { last_block(CODE) });
        put(&mut block.0, inner);
        inner.zeroize();
        let mut state = compressed(&self.outer, from_ref(&block.0));
        put(code, &state);
        state.zeroize();
    }
}

/// A state after these blocks.
fn compressed(state: &[u32; 8], blocks: &[[u8; BLOCK]]) -> [u32; 8] {
    let mut state = *state;
    compress256(&mut state, blocks);
    state
}

/// Puts a hash at the beginning of these bytes.
fn put(bytes: &mut [u8], hash: &[u32; 8]) {
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(hash) {
        *bytes = word.to_be_bytes();
    }
}

/// A block that ends a message after the block of the key and `filled` bytes, which are to be put at its beginning.
const fn last_block(filled: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[filled] = 0x80;
    [block[BLOCK - 2], block[BLOCK - 1]] = (8 * (BLOCK + filled) as u16).to_be_bytes();
    block
}

/// The length of a message in bits, as it stands at the end of its last block.
fn bits(bytes: usize) -> [u8; LENGTH] {
    (8 * bytes as u64).to_be_bytes()
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
            let ours = MacKey::new(&key).code(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(&ours[..], &theirs.into_bytes()[..]);
        }

        #[test]
        fn expansions_are_those_of_the_library(
            key: [u8; 32],
            info in prop::collection::vec(any::<u8>(), 0..=INFO),
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

    /// The last byte of a block is where padding goes wrong.
    #[test]
    fn every_length_of_a_message_up_to_three_blocks() {
        // Miri takes seconds for what the processor does in no time.
        for length in (0..=3 * BLOCK).step_by(if cfg!(miri) { 31 } else { 1 }) {
            let message = vec![5; length];
            let theirs = Hmac::<Sha256>::new_from_slice(b"key").unwrap().chain_update(&message).finalize();
            assert_eq!(MacKey::new(b"key").code(&[&message])[..], theirs.into_bytes()[..], "{length}");
        }
    }

    #[test]
    fn both_codes_of_a_pair_are_the_single_ones() {
        let key = MacKey::new(&[7; 32]);
        assert_eq!(key.pair([1, 2]), [key.code(&[&[1]]), key.code(&[&[2]])]);
    }

    /// Each length ends the two kinds of message, with and without the output before, at another place.
    #[test]
    fn every_length_of_an_info() {
        for length in 0..=86 {
            let (info, mut ours, mut theirs) = (vec![5; length], [0; 3 * CODE], [0; 3 * CODE]);
            MacKey::new(&[7; 32]).expand(&[&info], &mut ours);
            hkdf::Hkdf::<Sha256>::from_prk(&[7; 32]).unwrap().expand(&info, &mut theirs).unwrap();
            assert_eq!(ours, theirs, "{length}");
        }
    }

    #[test]
    #[should_panic(expected = "RFC 5869")]
    fn an_info_that_is_too_long_is_refused() {
        MacKey::new(&[7; 32]).expand(&[&[0; 86], &[0]], &mut [0; CODE]);
    }

    #[test]
    #[should_panic(expected = "RFC 5869")]
    fn an_output_that_is_too_long_is_refused() {
        MacKey::new(&[7; 32]).expand(&[], &mut [0; 255 * CODE + 1]);
    }
}
