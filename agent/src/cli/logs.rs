//! `happy logs`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::time::Duration;

use crate::cli::LogsArgs;
use crate::cli::daemon::Interrupts;
use crate::cli::output::{Form, reader_gone, say};
use crate::store::{Home, MAX_LOG};
use crate::trouble::Trouble;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// `happy logs`.
pub async fn logs(home: &Home, form: Form, args: LogsArgs) -> Result<u8, Trouble> {
    let path = home.log();
    let mut file = std::fs::File::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Trouble::new(
            format!("There is no log at {} yet.", path.display()),
            "It begins with the first start of the daemon: `happy up` or `happy daemon start`.",
        ),
        _ => Trouble::file("read", &path, &error),
    })?;
    let print = |line: &str| match form {
        Form::Text => say(line),
        Form::Json => say(&serde_json::json!({ "line": line }).to_string()),
    };
    let unreadable = |error| Trouble::file("read", &path, &error);
    let lines = args.lines.min(MAX_LOG as usize);
    let mut last = VecDeque::new();
    for line in BufReader::new(&file).lines() {
        if last.len() == lines {
            last.pop_front();
        }
        last.push_back(line.map_err(unreadable)?);
    }
    last.iter().take(lines).for_each(|line| print(line));
    if !args.follow {
        return Ok(0);
    }
    let (mut at, mut rest) = (file.stream_position().map_err(unreadable)?, String::new());
    let mut interrupts = Interrupts::new();
    let mut gone = std::pin::pin!(reader_gone());
    loop {
        tokio::select! {
            () = &mut gone => return Ok(0),
            () = interrupts.next() => return Ok(0),
            () = tokio::time::sleep(LOOK) => {}
        }
        let len = std::fs::metadata(&path).map_or(0, |facts| facts.len());
        if len < at {
            // The log was set aside and begun anew.
            file = std::fs::File::open(&path).map_err(unreadable)?;
            at = 0;
        }
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let mut added = Vec::new();
        file.by_ref().take(MAX_LOG).read_to_end(&mut added).map_err(unreadable)?;
        at += added.len() as u64;
        rest.push_str(&String::from_utf8_lossy(&added));
        while let Some(end) = rest.find('\n') {
            print(&rest[..end]);
            rest.drain(..=end);
        }
    }
}
