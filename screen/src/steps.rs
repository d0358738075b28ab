//! Colours that change from cell to cell, each as the step from the one before (PROTOCOL 10.1.1).
//!
//! The parts of a step are added to red, green and blue modulo 256. Before the first one the last step is 0.
//!
//! | first byte | step |
//! |---|---|
//! | 0–124 | the last step, each part of it more by −2 to 2: 25·(r+2) + 5·(g+2) + b+2 |
//! | 125–160 | one part ±3 to ±8: 125 + 12·part + 2·(size−3) + 1 if negative |
//! | 161–237 | each part −13 to 13: with the next byte, 161·256 + 729·(r+13) + 27·(g+13) + b+13 |
//! | 238 | three bytes, which are the colour; the step is 0 then |
//! | 239–254 | the last step again, 1 to 16 times |
//! | 255 | the same, 17 times and as often as the varint that follows says |

use crate::cell::RGB;
use crate::codec::{Malformed, Reader, Writer};

const SINGLE: u32 = 125;
const PAIR: u32 = 161;
const WHOLE: u8 = 238;
const AGAIN: u8 = 239;
const AGAIN_LONG: u8 = 255;
/// How often [`AGAIN_LONG`] repeats at least.
const LONG: usize = 17;

/// Red, green and blue.
type Parts = [i32; 3];

fn parts(color: u32) -> Parts {
    let [_, r, g, b] = color.to_be_bytes();
    [r, g, b].map(i32::from)
}

fn step(from: u32, to: u32) -> Parts {
    let ([r, g, b], [x, y, z]) = (parts(from), parts(to));
    // The shortest way around 256.
    [x - r, y - g, z - b].map(|part| i32::from(part as i8))
}

fn add(color: u32, step: Parts) -> u32 {
    let ([r, g, b], [x, y, z]) = (parts(color), step);
    let [r, g, b] = [r + x, g + y, b + z].map(|part| part as u8);
    RGB | u32::from_be_bytes([0, r, g, b])
}

/// Whether the step takes two bytes at most, whatever was the last one.
pub(crate) fn is_small(from: u32, to: u32) -> bool {
    step(from, to).iter().all(|part| part.abs() <= 13)
}

fn write_step(step: Parts, last: Parts, to: u32, out: &mut Writer) {
    let [r, g, b] = step;
    let more = [0, 1, 2].map(|part| step[part] - last[part]);
    if more.iter().all(|part| part.abs() <= 2) {
        return out.u8(more.iter().fold(0, |code, part| 5 * code + part + 2) as u8);
    }
    let mut moved = step.iter().enumerate().filter(|(_, part)| **part != 0);
    if let (Some((index, part)), None) = (moved.next(), moved.next())
        && (3..=8).contains(&part.abs())
    {
        let sign = i32::from(*part < 0);
        return out.u8((SINGLE as i32 + 12 * index as i32 + 2 * (part.abs() - 3) + sign) as u8);
    }
    if step.iter().all(|part| part.abs() <= 13) {
        return out.u16((PAIR as i32 * 256 + 729 * (r + 13) + 27 * (g + 13) + b + 13) as u16);
    }
    let [_, r, g, b] = to.to_be_bytes();
    [WHOLE, r, g, b].into_iter().for_each(|byte| out.u8(byte));
}

/// Writes the steps from a colour to each of the others. All are RGB.
pub(crate) fn write(from: u32, colors: impl Iterator<Item = u32>, out: &mut Writer) {
    let (mut color, mut last, mut again) = (from, [0; 3], 0);
    for next in colors {
        let now = step(color, next);
        color = next;
        if now == last {
            again += 1;
            continue;
        }
        write_again(again, out);
        again = 0;
        let start = out.0.len();
        write_step(now, last, next, out);
        last = if out.0.get(start) == Some(&WHOLE) { [0; 3] } else { now };
    }
    write_again(again, out);
}

fn write_again(times: usize, out: &mut Writer) {
    match times {
        0 => {}
        1..LONG => out.u8(AGAIN + (times - 1) as u8),
        _ => {
            out.u8(AGAIN_LONG);
            out.varint((times - LONG) as u64);
        }
    }
}

/// Reads `count` colours, which come after `color`, onto the end of a list.
pub(crate) fn read(
    mut color: u32,
    count: usize,
    input: &mut Reader<'_>,
    colors: &mut Vec<u32>,
) -> Result<(), Malformed> {
    let end = colors.len() + count;
    let mut last = [0; 3];
    while colors.len() < end {
        let mut times = 1;
        match input.u8()? {
            byte @ 0..SMALL_END => {
                let more = digits(u32::from(byte), 5, 2);
                last = [0, 1, 2].map(|part| last[part] + more[part]);
            }
            byte @ SMALL_END..SINGLE_END => {
                let code = i32::from(byte) - SINGLE as i32;
                let size = 3 + code % 12 / 2;
                last = [0; 3];
                last[(code / 12) as usize] = if code % 2 == 1 { -size } else { size };
            }
            byte @ SINGLE_END..WHOLE => {
                let code = (u32::from(byte) - PAIR) * 256 + u32::from(input.u8()?);
                if code >= 27 * 27 * 27 {
                    return Err(Malformed);
                }
                last = digits(code, 27, 13);
            }
            WHOLE => {
                color = RGB | u32::from_be_bytes([0, input.u8()?, input.u8()?, input.u8()?]);
                colors.push(color);
                last = [0; 3];
                continue;
            }
            AGAIN_LONG => times = LONG + input.count(count)?,
            byte => times = usize::from(byte - AGAIN) + 1,
        }
        if times > end - colors.len() {
            return Err(Malformed);
        }
        for _ in 0..times {
            color = add(color, last);
            colors.push(color);
        }
    }
    Ok(())
}

const SMALL_END: u8 = SINGLE as u8;
const SINGLE_END: u8 = PAIR as u8;

fn digits(code: u32, base: u32, zero: i32) -> Parts {
    [code / (base * base), code / base % base, code % base].map(|digit| digit as i32 - zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(from: u32, colors: &[u32]) -> Vec<u8> {
        let mut out = Writer::default();
        write(from, colors.iter().copied(), &mut out);
        let (mut input, mut back) = (Reader(&out.0), vec![7]);
        assert_eq!(read(from, colors.len(), &mut input, &mut back), Ok(()));
        assert!(input.is_empty());
        assert_eq!(&back[1..], colors);
        out.0
    }

    fn rgb(r: u8, g: u8, b: u8) -> u32 {
        RGB | u32::from_be_bytes([0, r, g, b])
    }

    #[test]
    fn each_step_takes_the_bytes_of_the_table() {
        let from = rgb(100, 100, 100);
        for (to, bytes) in [
            (rgb(100, 100, 100), &[239][..]),
            (rgb(98, 102, 101), &[23]),
            (rgb(103, 100, 100), &[125]),
            (rgb(100, 92, 100), &[148]),
            (rgb(103, 101, 100), &[208, 23]),
            (rgb(87, 113, 100), &[163, 203]),
            (rgb(114, 100, 100), &[238, 114, 100, 100]),
        ] {
            assert_eq!(round(from, &[to]), bytes, "{to:x}");
        }
    }

    #[test]
    fn a_ramp_is_one_step_again_and_again_and_wraps_around() {
        let ramp: Vec<u32> = (1..=200_u8).map(|n| rgb(n.wrapping_mul(2), 7, 255 - n)).collect();
        assert_eq!(round(rgb(0, 7, 255), &ramp), [111, 255, 0xb6, 1]);
        let plateau = [rgb(200, 0, 0), rgb(200, 0, 0), rgb(200, 0, 0)];
        assert_eq!(round(rgb(0, 0, 0), &plateau), [238, 200, 0, 0, 240], "the step of a whole colour is 0");
    }

    #[test]
    fn every_step_comes_back() {
        let from = rgb(128, 5, 250);
        for n in 0..20_000_u32 {
            let [_, r, g, b] = n.wrapping_mul(2_654_435_761).to_be_bytes();
            let near = add(from, [i32::from(r) % 14, -(i32::from(g) % 14), i32::from(b) % 14]);
            round(from, &[near, rgb(r, g, b), from]);
            assert_eq!(is_small(from, near), round(from, &[near]).len() <= 2);
        }
    }

    #[test]
    fn hostile_steps_are_refused() {
        for bytes in [&[][..], &[161], &[237, 255], &[238, 1, 2], &[243], &[255, 0], &[255, 0xff, 0xff, 0xff, 0x7f]] {
            assert_eq!(read(rgb(0, 0, 0), 4, &mut Reader(bytes), &mut Vec::new()), Err(Malformed), "{bytes:?}");
        }
    }
}
