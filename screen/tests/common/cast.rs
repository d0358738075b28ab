//! Reading the recordings: asciicasts, version 3 (`cargo xtask recordings` makes them).

use std::path::Path;

use serde_json::Value;

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

    fn parse(name: &str, text: &str) -> Option<Self> {
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).ok());
        let header = lines.next()??;
        let term = |field: &str| u16::try_from(header["term"][field].as_u64()?).ok();
        let event = |line: Option<Value>| {
            let line = line?;
            let data = line[2].as_str()?;
            Some(match line[1].as_str()? {
                "o" => Event::Output(data.into()),
                "m" => Event::Mark,
                "r" => {
                    let (cols, rows) = data.split_once('x')?;
                    Event::Resize(cols.parse().ok()?, rows.parse().ok()?)
                }
                _ => return None,
            })
        };
        let events = lines.map(event).collect::<Option<Vec<Event>>>()?;
        Some(Self { name: name.to_owned(), size: (term("cols")?, term("rows")?), events })
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
            let text = std::fs::read_to_string(file).expect("text");
            Recording::parse(name, &text).ok_or(name).expect("every recording is an asciicast")
        })
        .collect()
}
