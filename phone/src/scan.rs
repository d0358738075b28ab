//! Reads QR codes from a picture, for browsers without a reader of their own.

use quircs::Quirc;
use wasm_bindgen::prelude::wasm_bindgen;

/// Larger pictures are not looked at; the caller scales its frames down to 640 pixels.
const MAX_SIDE: usize = 4096;

/// The texts of the codes in a picture of RGBA pixels. A code that cannot be read is left out: the next frame may do.
#[wasm_bindgen(js_name = readQrCodes)]
pub fn read_qr_codes(rgba: &[u8], width: usize, height: usize) -> Vec<String> {
    if width > MAX_SIDE || height > MAX_SIDE || rgba.len() != width * height * 4 {
        return Vec::new();
    }
    let grey: Vec<u8> = rgba.chunks_exact(4).map(luminance).collect();
    let mut found = texts(&grey, width, height);
    if found.is_empty() {
        // Light modules on dark: a terminal that inverts its colours.
        let inverted: Vec<u8> = grey.iter().map(|value| !value).collect();
        found = texts(&inverted, width, height);
    }
    found
}

/// Brightness by the weights of ITU-R BT.601, in 256ths.
fn luminance(pixel: &[u8]) -> u8 {
    let weigh = |index: usize, weight: u32| pixel.get(index).map_or(0, |channel| u32::from(*channel) * weight);
    u8::try_from((weigh(0, 77) + weigh(1, 150) + weigh(2, 29)) >> 8).unwrap_or(u8::MAX)
}

fn texts(grey: &[u8], width: usize, height: usize) -> Vec<String> {
    Quirc::default()
        .identify(width, height, grey)
        .filter_map(|code| String::from_utf8(code.ok()?.decode().ok()?.payload).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code as a camera would see it: some pixels a module, a quiet zone, on grey.
    fn picture(text: &str, dark: u8, light: u8) -> (Vec<u8>, usize) {
        const SCALE: usize = 5;
        const QUIET: usize = 4;
        let code = modules_of(text);
        let modules = code.len();
        let side = (modules + 2 * QUIET) * SCALE;
        let mut rgba = Vec::with_capacity(side * side * 4);
        for y in 0..side {
            for x in 0..side {
                let module = |at: usize| (at / SCALE).checked_sub(QUIET);
                let set = module(y)
                    .zip(module(x))
                    .is_some_and(|(y, x)| code.get(y).is_some_and(|row| row.get(x) == Some(&true)));
                let value = if set { dark } else { light };
                rgba.extend([value, value, value, 255]);
            }
        }
        (rgba, side)
    }

    fn modules_of(text: &str) -> Vec<Vec<bool>> {
        let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).unwrap();
        code.to_colors()
            .chunks(code.width())
            .map(|row| row.iter().map(|c| *c == qrcode::Color::Dark).collect())
            .collect()
    }

    #[test]
    fn a_code_is_read_dark_on_light_and_light_on_dark() {
        let link = format!("https://relay.example:8443/#{}", "1234567890".repeat(13));
        for (dark, light) in [(20, 230), (235, 25)] {
            let (rgba, side) = picture(&link, dark, light);
            assert_eq!(read_qr_codes(&rgba, side, side), [link.as_str()]);
        }
    }

    #[test]
    fn a_picture_of_nothing_or_of_the_wrong_size_gives_nothing() {
        assert!(read_qr_codes(&[128; 64 * 64 * 4], 64, 64).is_empty());
        assert!(read_qr_codes(&[0; 10], 64, 64).is_empty());
        assert!(read_qr_codes(&[], usize::MAX, usize::MAX).is_empty());
        assert!(read_qr_codes(&[], 0, 0).is_empty());
    }
}
