//! Screens in full colour, as programs print them: a sequence and a character for each cell.

/// What fills a screen of so many columns and rows.
pub type Picture = fn(u16, u16) -> String;

/// From what is easy to what nothing makes small.
pub const ALL: [(&str, Picture); 6] = [
    ("ramps", ramps),
    ("rainbow", rainbow),
    ("plasma", plasma),
    ("rainbow of text", lolcat),
    ("half blocks", half_blocks),
    ("a random colour each", random),
];

fn paint(cols: u16, rows: u16, mut cell: impl FnMut(u16, u16) -> String) -> String {
    let row = |row| (0..cols).map(|col| cell(col, row)).collect::<String>();
    (0..rows).map(row).collect::<Vec<_>>().join("\r\n")
}

fn foreground([r, g, b]: [u8; 3], ch: char) -> String {
    format!("\x1b[38;2;{r};{g};{b}m{ch}")
}

fn background([r, g, b]: [u8; 3]) -> String {
    format!("\x1b[48;2;{r};{g};{b}m ")
}

/// Each channel goes up evenly. `cargo xtask bench terminal` prints this one.
fn ramps(cols: u16, rows: u16) -> String {
    paint(cols, rows, |col, row| foreground([(row * 4) as u8, col as u8, (row + col) as u8], '#'))
}

/// All hues, once around in a row and shifted from row to row.
fn rainbow(cols: u16, rows: u16) -> String {
    paint(cols, rows, |col, row| {
        let hue = (f64::from(col) / f64::from(cols) + f64::from(row) / f64::from(rows)) * 6.0;
        let channel = |shift: f64| {
            let at = (hue + shift) % 6.0;
            (((at - 3.0).abs() - 1.0).clamp(0.0, 1.0) * 255.0) as u8
        };
        background([channel(0.0), channel(4.0), channel(2.0)])
    })
}

fn plasma_at(x: f64, y: f64) -> [u8; 3] {
    let wave = |value: f64| ((value.sin() + 1.0) * 127.5) as u8;
    [wave(x / 60.0 + y / 20.0), wave(y / 25.0 - x / 90.0), wave((x * x + 9.0 * y * y).sqrt() / 50.0)]
}

/// Waves of colour that cross each other.
fn plasma(cols: u16, rows: u16) -> String {
    paint(cols, rows, |col, row| background(plasma_at(f64::from(col), f64::from(row) * 2.0)))
}

/// What `lolcat` makes of text.
fn lolcat(cols: u16, rows: u16) -> String {
    let words = "the quick brown fox jumps over the lazy dog and runs on ".as_bytes();
    paint(cols, rows, |col, row| {
        let at = f64::from(col) / 30.0 + f64::from(row) / 10.0;
        let wave = |shift: f64| ((at + shift).sin() * 127.0 + 128.0) as u8;
        let letter = words[usize::from(col + 7 * row) % words.len()];
        foreground([wave(0.0), wave(2.0), wave(4.0)], char::from(letter))
    })
}

/// Two points of a picture in each cell.
fn half_blocks(cols: u16, rows: u16) -> String {
    paint(cols, rows, |col, row| {
        let [r, g, b] = plasma_at(f64::from(col), f64::from(row) * 2.0 + 1.0);
        format!("\x1b[48;2;{r};{g};{b}m{}", foreground(plasma_at(f64::from(col), f64::from(row) * 2.0), '▀'))
    })
}

/// No colour has to do with the next.
fn random(cols: u16, rows: u16) -> String {
    let mut state = 1_u32;
    paint(cols, rows, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [r, g, b, _] = state.to_be_bytes();
        foreground([r, g, b], '#')
    })
}
