//! The screen by itself, for `cargo xtask bench parse`: what the phone does with output, without the way it came.

use happy_screen::Screen;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::viewer::SCROLLBACK;

/// A screen that is fed from JavaScript.
#[wasm_bindgen]
pub struct Parser {
    screen: Screen,
}

#[wasm_bindgen]
impl Parser {
    /// An empty screen that keeps as much history as the phone's.
    #[wasm_bindgen(constructor)]
    pub fn new(cols: u16, rows: u16) -> Self {
        Self { screen: Screen::new(cols, rows, SCROLLBACK) }
    }

    /// Takes output.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.screen.feed(bytes);
    }

    /// What is on the screen, so that one can see that it was parsed.
    pub fn text(&self) -> String {
        self.screen.text()
    }

    /// How many rows have left it.
    #[wasm_bindgen(js_name = historyEnd)]
    pub fn history_end(&self) -> f64 {
        self.screen.scrollback_total() as f64
    }
}
