//! Base64url without padding, for the 32 public bytes of a device id. Not for secrets: it looks up tables.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Characters of 32 encoded bytes.
pub(crate) const CHARACTERS: usize = 43;

pub(crate) fn encode(bytes: &[u8; 32]) -> [u8; CHARACTERS] {
    std::array::from_fn(|i| {
        // Character i covers the six bits from bit 6·i on; the last one is filled up with two zeros.
        let (byte, shift) = (i * 6 / 8, i * 6 % 8);
        let pair = u16::from_be_bytes([bytes[byte], bytes.get(byte + 1).copied().unwrap_or(0)]);
        ALPHABET[usize::from(pair >> (10 - shift) & 0x3F)]
    })
}

/// `None` for anything but the one text that [`encode`] gives.
pub(crate) fn decode(text: &str) -> Option<[u8; 32]> {
    let text: &[u8; CHARACTERS] = text.as_bytes().try_into().ok()?;
    let (mut bytes, mut filled, mut bits, mut held) = ([0; 32], 0, 0_u32, 0_u32);
    for character in text {
        let value = ALPHABET.iter().position(|letter| letter == character)?;
        held = held << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes[filled] = (held >> bits) as u8;
            filled += 1;
            held &= (1 << bits) - 1;
        }
    }
    // Two bits are left over. Were they free, one device would have four names.
    (held == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_text() {
        let bytes: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(&encode(&bytes), b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        assert_eq!(decode("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9"), None, "spare bits must be zero");
        assert_eq!(decode("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), None);
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32]) {
            prop_assert_eq!(decode(std::str::from_utf8(&encode(&bytes)).unwrap()), Some(bytes));
        }

        #[test]
        fn only_one_text_per_id(text in "[A-Za-z0-9_+/=-]{42,44}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(&encode(&bytes)[..], text.as_bytes());
            }
        }
    }
}
