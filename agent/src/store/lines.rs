//! What the files of keys have in common: text with a heading, whose keys they are, one line each, and a sum that tells damage.
//!
//! The sum is no protection from anybody who can write to the folder; nothing there is. It tells a file that the disk has cut or
//! changed from a whole one, so that no key is forgotten in silence.

use std::fmt::Write as _;
use std::path::Path;

use happy_crypto::DeviceId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::store::file;
use crate::trouble::Trouble;

const OWNER: &str = "of ";
const SUM: &str = "sum ";
/// Heading, owner and sum are shorter than this together.
const FRAME: usize = 512;

/// Writes the file in one step, readable by its owner only.
pub(super) fn write(
    path: &Path,
    heading: &str,
    owner: DeviceId,
    longest: usize,
    lines: &[Zeroizing<String>],
) -> Result<(), Trouble> {
    // Room for all of it: a buffer that grows leaves copies of its content behind.
    let mut text = Zeroizing::new(String::with_capacity(FRAME + lines.len() * (longest + 1)));
    // Writing to a string does not fail.
    let _ = writeln!(text, "{heading}\n{OWNER}{owner}");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let sum = sum_of(&text);
    let _ = writeln!(text, "{SUM}{sum}");
    file::replace(path, text.as_bytes(), file::PRIVATE)
}

/// What such a file holds.
pub(super) struct Lines {
    /// Whose keys they are.
    pub owner: DeviceId,
    /// One each.
    pub lines: Vec<Zeroizing<String>>,
}

/// Takes a file apart; none when it is damaged.
pub(super) fn parse(bytes: &[u8], heading: &str) -> Option<Lines> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body_and_end = &text[..body.len() + 1];
    (sum.strip_prefix(SUM)? == sum_of(body_and_end)).then_some(())?;
    let mut lines = body.lines();
    (lines.next()? == heading).then_some(())?;
    let owner = lines.next()?.strip_prefix(OWNER)?.parse().ok()?;
    Some(Lines { owner, lines: lines.map(|line| Zeroizing::new(line.to_owned())).collect() })
}

fn sum_of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Appends without growing a buffer that would leave a copy behind: the caller reserved enough.
pub(super) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
    }
}

pub(super) fn read_hex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0; N]);
    (text.len() == 2 * N).then_some(())?;
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_any_bit_flipped_or_cut_anywhere_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let owner = DeviceId::from_bytes([9; 32]);
        let lines = ["00", "ff"].map(|line| Zeroizing::new(line.to_owned()));
        write(&path, "heading", owner, 2, &lines).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let read = parse(&whole, "heading").unwrap();
        assert_eq!((read.owner, &read.lines[..]), (owner, &lines[..]));
        assert!(parse(&whole, "another heading").is_none());
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged, "heading").is_none(), "bit {bit}");
        }
        assert!((0..whole.len()).all(|length| parse(&whole[..length], "heading").is_none()));
    }
}
