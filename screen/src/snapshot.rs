//! A screen as bytes, from which an equal screen can be made (PROTOCOL 10.1, message Snapshot).
//!
//! | field | type |
//! |---|---|
//! | `HS` | 2 bytes |
//! | version | u8 = 1 |
//! | columns, rows | u16 each |
//! | flags: bits 0–1 what a combining mark would join (0 nothing, 1 the character before the cursor, 2 the one under it), bit 2 the newest row of history continues in the first row | u8 |
//! | parser: state, begun character, and the begun sequence or OSC if there is one | see `parser` |
//! | ledger: modes, keyboard stacks, saved modes, margins, waiting cursor, titles, directory | see `ledger` |
//! | characters with marks that cells show | varint count, each u16 id and text |
//! | cells, cursor, pen, tabs, saved cursors: VT text of the engine | varint length, UTF-8 |
//! | rows that ever went to the history | u64 |
//! | rows of history, oldest first | varint count, each varint length and row as in `row` |
//!
//! Numbers are big-endian, varints LEB128 in their shortest form; a text is a varint length and UTF-8. The engine's text
//! is what makes the snapshot small (runs of equal cells and of blanks are repetitions) and exact: it holds the main
//! screen and, while it is shown, the alternate one. It is not trusted: see `Engine::check_dump`.

use crate::clusters::{MAX_CLUSTER, StandIns};
use crate::codec::{Malformed, Reader, Writer};
use crate::engine::{Active, Engine};
use crate::interpreter::{Interpreter, Joint};
use crate::ledger::Ledger;
use crate::parser::Parser;
use crate::row::Row;
use crate::screen::{Screen, clamp_size};

const MAGIC: &[u8] = b"HS";
/// The version that is written. Others are refused: the two sides of a link agree on a release before they get here.
pub const SNAPSHOT_VERSION: u8 = 1;
/// No screen that people look at comes near: 200 × 60 cells with two RGB colours each take 500 KB, and the history is at
/// most 16 MiB.
pub const MAX_SNAPSHOT: usize = 64 << 20;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another program's bytes, or damaged ones.
    #[error("this is not a terminal snapshot, or it is damaged; ask for another one")]
    Malformed,
    /// Another release's.
    #[error("the terminal snapshot has version {0}, and this program reads version 1; update the older side")]
    Version(u8),
    /// More than [`MAX_SNAPSHOT`].
    #[error("the terminal snapshot has {0} bytes, which is more than 64 MiB")]
    TooLarge(usize),
}

impl From<Malformed> for SnapshotError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Screen {
    /// The whole state and the newest `scrollback_rows` rows of history, as bytes. It may be taken between any two bytes
    /// of the stream: the restored screen, fed with the rest, becomes what this one becomes.
    pub fn snapshot(&self, scrollback_rows: usize) -> Vec<u8> {
        let state = &self.state;
        let (cols, rows) = self.size();
        let mut out = Writer(MAGIC.to_vec());
        out.u8(SNAPSHOT_VERSION);
        out.u16(cols);
        out.u16(rows);
        let joint = Joint::ALL.iter().position(|joint| *joint == state.joint).unwrap_or(0) as u8;
        out.u8(joint | u8::from(state.continued) << 2);
        self.parser.encode(&mut out);
        state.ledger.encode(&mut out);

        let cells = state.engine.dump();
        let marked: StandIns = cells.chars().collect();
        let entries = state.clusters.entries(&marked);
        out.varint(entries.len() as u64);
        for (id, text) in entries {
            out.u16(id);
            out.bytes(text.as_bytes());
        }
        out.bytes(cells.as_bytes());

        out.u64(state.history.total);
        let history = state.history.newest(scrollback_rows);
        out.varint(history.len() as u64);
        for row in history {
            out.bytes(row);
        }
        out.0
    }

    /// Makes the screen of a snapshot, with a history of at most `scrollback_limit` rows. The bytes may be anybody's:
    /// they are checked before they cost more than a few times their size or the size of the screen.
    pub fn restore(snapshot: &[u8], scrollback_limit: usize) -> Result<Self, SnapshotError> {
        if snapshot.len() > MAX_SNAPSHOT {
            return Err(SnapshotError::TooLarge(snapshot.len()));
        }
        let mut input = Reader(snapshot);
        if input.take(MAGIC.len())? != MAGIC {
            return Err(SnapshotError::Malformed);
        }
        let version = input.u8()?;
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (cols, rows) = (input.u16()?, input.u16()?);
        if (cols, rows) != clamp_size(cols, rows) {
            return Err(SnapshotError::Malformed);
        }
        let flags = input.u8()?;
        let joint = *Joint::ALL.get(usize::from(flags & 3)).ok_or(Malformed)?;
        if flags >> 3 != 0 {
            return Err(SnapshotError::Malformed);
        }
        let parser = Parser::decode_state(&mut input)?;
        let ledger = Ledger::decode(&mut input, cols, rows)?;

        let mut state = Interpreter::new(cols, rows, scrollback_limit);
        state.ledger = ledger;
        state.joint = joint;
        state.continued = flags & 4 != 0;
        for _ in 0..input.count(snapshot.len())? {
            let id = input.u16()?;
            if !state.clusters.insert(id, input.text(MAX_CLUSTER)?) {
                return Err(SnapshotError::Malformed);
            }
        }
        state.clusters.seal();
        let cells = input.text(snapshot.len())?;
        if !Active::check_dump(cells, cols, rows) {
            return Err(SnapshotError::Malformed);
        }
        if state.continued {
            state.engine.feed(&Active::continue_line(cols, rows), &mut |_, _| {});
        }
        state.engine.feed(cells, &mut |_, _| {});
        restore_history(&mut state, &mut input)?;
        if !input.is_empty() {
            return Err(SnapshotError::Malformed);
        }
        Ok(Self::with_state(parser, state))
    }
}

fn restore_history(state: &mut Interpreter, input: &mut Reader<'_>) -> Result<(), Malformed> {
    let total = input.u64()?;
    let length = input.0.len();
    let count = input.count(length)?;
    for _ in 0..count {
        let row = input.bytes(length)?;
        Row::decode(row)?;
        state.history.push(row);
    }
    if total < count as u64 {
        return Err(Malformed);
    }
    state.history.total = total;
    Ok(())
}
