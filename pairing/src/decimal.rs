//! Bytes as one decimal number: in a QR code ten bits hold three digits, while base64 needs eight bits for six.

/// Nine digits fit into a `u32` and make the conversion nine times shorter.
const CHUNK: u32 = 1_000_000_000;
const CHUNK_DIGITS: usize = 9;

/// The big-endian number, without leading zeros.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut chunks = Vec::new();
    while number.iter().any(|byte| *byte != 0) {
        let mut remainder = 0;
        for byte in &mut number {
            let value = remainder << 8 | u64::from(*byte);
            *byte = (value / u64::from(CHUNK)) as u8;
            remainder = value % u64::from(CHUNK);
        }
        chunks.push(remainder);
    }
    let mut digits: String = chunks.iter().rev().map(|chunk| format!("{chunk:09}")).collect();
    digits.drain(..digits.len() - digits.trim_start_matches('0').len());
    digits
}

/// The number as `N` bytes. `None` when there is another character than a digit, or when it does not fit.
pub(crate) fn decode<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut number = [0; N];
    for chunk in digits.as_bytes().chunks(CHUNK_DIGITS) {
        let mut carry = 0;
        for digit in chunk {
            carry = carry * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        let scale = 10_u64.pow(chunk.len() as u32);
        for byte in number.iter_mut().rev() {
            let value = u64::from(*byte) * scale + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_numbers() {
        assert_eq!(encode(&[0, 0]), "");
        assert_eq!(encode(&[1, 0]), "256");
        assert_eq!(encode(&0x3B9A_CA00_u32.to_be_bytes()), "1000000000");
        assert_eq!(decode("256"), Some([1, 0]));
        assert_eq!(decode::<2>("65536"), None);
        assert_eq!(decode::<2>("12a"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_u128(number: u128) {
            prop_assert_eq!(encode(&number.to_be_bytes()), if number == 0 { String::new() } else { number.to_string() });
            prop_assert_eq!(decode(&number.to_string()), Some(number.to_be_bytes()));
        }
    }
}
