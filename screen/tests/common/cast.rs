//! Reading the recordings: asciicasts, version 3 (`cargo xtask recordings` makes them).

use std::path::Path;

use happy_cast::{ReadError, Reader};

/// What happens in a terminal.
#[derive(Debug, Clone)]
pub enum Event {
    /// The program prints.
    Output(Vec<u8>),
    /// The terminal gets another size.
    Resize(u16, u16),
    /// The program is waiting: a place to compare screens.
    Mark,
}

/// A program's output, from its start.
#[derive(Debug)]
pub struct Recording {
    pub name: String,
    pub size: (u16, u16),
    pub events: Vec<Event>,
}

impl Recording {
    /// How many bytes the program has printed.
    pub fn output(&self) -> usize {
        let length = |event: &Event| if let Event::Output(bytes) = event { bytes.len() } else { 0 };
        self.events.iter().map(length).sum()
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes)?;
        let size = (reader.header().cols, reader.header().rows);
        let mut events = Vec::new();
        while let Some(timed) = reader.next_event()? {
            match timed.event {
                happy_cast::Event::Output(text) => events.push(Event::Output(text.into())),
                happy_cast::Event::Mark(_) => events.push(Event::Mark),
                happy_cast::Event::Resize(cols, rows) => events.push(Event::Resize(cols, rows)),
                happy_cast::Event::Exit(_) => {}
            }
        }
        Ok(Self { name: name.to_owned(), size, events })
    }
}

/// All recordings, by name.
pub fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let casts = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cast"));
    casts
        .map(|file| {
            let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            Recording::read(name, &std::fs::read(file).expect("a file")).expect("every recording is an asciicast")
        })
        .collect()
}
