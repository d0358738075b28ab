//! A recording of the corpus while it is made.

use std::time::Instant;

use happy_cast::{Header, Writer};

/// An asciicast, and what of it is counted.
#[derive(Debug)]
pub struct Cast {
    lines: Vec<u8>,
    writer: Writer,
    begin: Instant,
    output: usize,
    marks: usize,
}

impl Cast {
    /// An empty one.
    #[must_use]
    pub fn new(title: &str, command: &str, cols: u16, rows: u16) -> Self {
        let header =
            Header { cols, rows, title: Some(title.into()), command: Some(command.into()), ..Header::default() };
        Self { lines: header.to_line(), writer: Writer::default(), begin: Instant::now(), output: 0, marks: 0 }
    }

    /// The program has printed these bytes.
    pub fn output_bytes(&mut self, bytes: &[u8]) {
        self.output += bytes.len();
        self.writer.output(self.now(), bytes, &mut self.lines);
    }

    /// The terminal has another size now.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        self.writer.resize(self.now(), cols, rows, &mut self.lines);
    }

    /// Nothing moves: a place to compare screens.
    pub fn mark(&mut self) {
        self.writer.mark(self.now(), "", &mut self.lines);
        self.marks += 1;
    }

    /// How many bytes the program has printed.
    #[must_use]
    pub fn output(&self) -> usize {
        self.output
    }

    /// Whether it has printed none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.output == 0
    }

    /// How many marks there are.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks
    }

    /// The recording as a file.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.writer.end(self.now(), &mut self.lines);
        self.lines
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }
}
