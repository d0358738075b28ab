//! The QR code of an invitation link, for a terminal and for a page (PROTOCOL 4).
//!
//! A code of version 5 with a quiet zone of four modules takes 45 columns and 23 rows, so that 80 × 24 have room for text beside it.

use std::fmt::Write;

use qrcode::{Color, EcLevel, QrCode, Version, bits::Bits};
use thiserror::Error;

/// The quiet zone that scanners want, in modules.
pub const QUIET: usize = 4;
/// The quiet zone that is still read by nearly all, for small terminals.
pub const SMALL_QUIET: usize = 2;
/// The largest version: 37 modules.
const MAX_VERSION: i16 = 5;

// Exactly black and white: the sixteen basic colours belong to the user's theme, which may be grey on grey.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const RESET: &str = "\x1b[0m";

/// A QR code: dark and light modules in a square.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    width: usize,
    dark: Vec<bool>,
}

/// The rows of the code in escape sequences for a terminal, with the full quiet zone.
///
/// # Errors
/// When the link is none, or its address is too long.
pub fn terminal(link: &str) -> Result<Vec<String>, QrError> {
    Code::new(link).map(|code| code.terminal(QUIET))
}

/// The rows of the code in half blocks without colours, for black text on white.
///
/// # Errors
/// When the link is none, or its address is too long.
pub fn plain(link: &str) -> Result<Vec<String>, QrError> {
    Code::new(link).map(|code| code.plain(QUIET))
}

/// The code as an SVG document.
///
/// # Errors
/// When the link is none, or its address is too long.
pub fn svg(link: &str) -> Result<String, QrError> {
    Code::new(link).map(|code| code.svg(QUIET))
}

impl Code {
    /// Encodes a link, in the smallest version that holds it.
    ///
    /// # Errors
    /// When the link is none, or its address is too long.
    pub fn new(link: &str) -> Result<Self, QrError> {
        let (address, digits) = link.split_once('#').ok_or(QrError::NotALink)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(QrError::NotALink);
        }
        (1..=MAX_VERSION).find_map(|version| encode(address, digits, version)).ok_or(QrError::AddressTooLong)
    }

    /// Modules of a side, without quiet zone.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the module is dark. Outside of the code everything is light.
    #[must_use]
    pub fn is_dark(&self, column: usize, row: usize) -> bool {
        column < self.width && row < self.width && self.dark[row * self.width + column]
    }

    /// Rows for a terminal, black on white whatever its theme. Each takes `width + 2 · quiet` columns and shows two rows of modules.
    #[must_use]
    pub fn terminal(&self, quiet: usize) -> Vec<String> {
        self.plain(quiet).iter().map(|row| format!("{BLACK_ON_WHITE}{row}{RESET}")).collect()
    }

    /// The same rows without colours.
    #[must_use]
    pub fn plain(&self, quiet: usize) -> Vec<String> {
        let side = self.width + 2 * quiet;
        // What is left of the quiet zone wraps to a huge number, which is outside of the code too.
        let dark = |column: usize, row: usize| self.is_dark(column.wrapping_sub(quiet), row.wrapping_sub(quiet));
        let half_blocks = |row: usize| {
            (0..side).map(move |column| match (dark(column, row), dark(column, row + 1)) {
                (false, false) => ' ',
                (true, false) => '▀',
                (false, true) => '▄',
                (true, true) => '█',
            })
        };
        (0..side).step_by(2).map(|row| half_blocks(row).collect()).collect()
    }

    /// An SVG document without a size of its own: it fills what it is put into.
    #[must_use]
    pub fn svg(&self, quiet: usize) -> String {
        let side = self.width + 2 * quiet;
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" shape-rendering="crispEdges"><rect width="{side}" height="{side}" fill="#fff"/><path fill="#000" d=""##
        );
        for row in 0..self.width {
            let mut column = 0;
            while column < self.width {
                let run = (column..self.width).take_while(|at| self.is_dark(*at, row)).count();
                if run > 0 {
                    // Writing to a string cannot fail.
                    let _ = write!(svg, "M{} {}h{run}v1h-{run}z", column + quiet, row + quiet);
                }
                column += run.max(1);
            }
        }
        svg + r#""/></svg>"#
    }
}

/// Two segments, because digits among bytes would cost eight bits each. `None` when the version is too small.
fn encode(address: &str, digits: &str, version: i16) -> Option<Code> {
    let mut bits = Bits::new(Version::Normal(version));
    bits.push_byte_data(format!("{address}#").as_bytes()).ok()?;
    bits.push_numeric_data(digits.as_bytes()).ok()?;
    bits.push_terminator(EcLevel::L).ok()?;
    let code = QrCode::with_bits(bits, EcLevel::L).ok()?;
    let dark = code.to_colors().into_iter().map(|color| color == Color::Dark).collect();
    Some(Code { width: code.width(), dark })
}

/// A link does not become a QR code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QrError {
    /// Not an invitation link.
    #[error("this is not an invitation link")]
    NotALink,
    /// It would not fit into a terminal of 80 × 24.
    #[error(
        "the address is too long for a QR code that fits into a terminal; use a name of at most 39 characters for the relay"
    )]
    AddressTooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link as long as they get, with this many characters between `https://` and `/#`.
    fn link(host: usize) -> String {
        let mut host = "relay.".repeat(host / 6) + &"x".repeat(host % 6);
        if host.ends_with('.') {
            host.replace_range(host.len() - 1.., "x");
        }
        format!("https://{host}/#{}", "1234567890".repeat(14).split_at(133).0)
    }

    /// Looks at a picture, four pixels per module, as a phone would.
    fn scan(side: usize, dark: impl Fn(usize, usize) -> bool) -> String {
        let pixel = |x: usize, y: usize| if dark(x / 4, y / 4) { 0 } else { 255 };
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(side * 4, side * 4, pixel);
        let grids = picture.detect_grids();
        assert_eq!(grids.len(), 1, "one code in the picture");
        grids[0].decode().unwrap().1
    }

    #[test]
    fn the_rows_of_a_terminal_can_be_scanned() {
        for (host, quiet) in [(5, QUIET), (20, QUIET), (39, QUIET), (39, SMALL_QUIET)] {
            let link = link(host);
            let rows = Code::new(&link).unwrap().terminal(quiet);
            let cells: Vec<Vec<char>> = rows
                .iter()
                .map(|row| row.strip_prefix(BLACK_ON_WHITE).unwrap().strip_suffix(RESET).unwrap().chars().collect())
                .collect();
            let side = cells[0].len();
            let dark = |x: usize, y: usize| match cells[y / 2][x] {
                ' ' => false,
                '█' => true,
                '▀' => y.is_multiple_of(2),
                '▄' => !y.is_multiple_of(2),
                other => panic!("{other}"),
            };
            assert_eq!(scan(side, dark), link);
        }
    }

    #[test]
    fn the_shapes_of_the_svg_can_be_scanned() {
        let link = link(21);
        let svg = svg(&link).unwrap();
        let side: usize = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let mut picture = vec![vec![false; side]; side];
        for run in path.split('M').skip(1) {
            let (x, rest) = run.split_once(' ').unwrap();
            let (y, rest) = rest.split_once('h').unwrap();
            let (length, rest) = rest.split_once("v1h-").unwrap();
            assert_eq!(rest, format!("{length}z"));
            let (x, y, length): (usize, usize, usize) =
                (x.parse().unwrap(), y.parse().unwrap(), length.parse().unwrap());
            picture[y][x..x + length].fill(true);
        }
        assert_eq!(scan(side, |x, y| picture[y][x]), link);
    }

    #[test]
    fn the_largest_code_leaves_room_for_text_in_80_by_24() {
        let code = Code::new(&link(39)).unwrap();
        assert_eq!(code.width(), 37);
        let rows = code.plain(QUIET);
        assert_eq!((rows.len(), rows[0].chars().count()), (23, 45));
        let rows = code.plain(SMALL_QUIET);
        assert_eq!((rows.len(), rows[0].chars().count()), (21, 41));
        assert!(Code::new(&link(8)).unwrap().width() < 37, "a short address gives a smaller code");
    }

    #[test]
    fn an_address_that_is_too_long_is_told_so() {
        assert_eq!(Code::new(&link(40)).map(drop), Err(QrError::AddressTooLong));
        assert_eq!(terminal(&link(200)), Err(QrError::AddressTooLong));
    }

    #[test]
    fn other_text_is_no_link() {
        for text in ["", "https://relay.example", "https://relay.example/#", "https://relay.example/#12x"] {
            assert_eq!(Code::new(text), Err(QrError::NotALink));
        }
    }

    #[test]
    fn the_quiet_zone_is_light_on_all_sides() {
        let rows = plain(&link(20)).unwrap();
        let side = rows[0].chars().count();
        assert!(rows[..2].iter().all(|row| row.trim().is_empty()));
        assert!(rows[rows.len() - 2..].iter().all(|row| row.trim().is_empty()));
        assert!(rows.iter().all(|row| row.starts_with("    ") && row.ends_with("    ") && row.chars().count() == side));
    }
}
