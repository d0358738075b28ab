//! Reads from a screen whether a program waits for a person, and for what.
//!
//! It is a guess, and people are told so. What is wrong with it costs differently: a question that is not seen is answered by hand, as
//! ever; prose that is taken for a question puts buttons under it which type into whatever stands there. So everything here asks for
//! proof, and what it is not sure of is nothing ([`find`] gives `None`):
//!
//! - only the viewport counts, and of it what stands at the bottom; never history,
//! - a question in a line ([`line`]) ends where the cursor is, and nothing stands after it,
//! - a menu ([`menu`]) has a mark at one of its choices, a question above, and nothing below but hints and a frame,
//! - a password is asked for when the terminal does not echo what is typed. It has no choices, so it never becomes a button.
//!
//! Pure: no clock, no I/O. Rows that the terminal has wrapped are one line, and runs of blanks are one blank, so the width matters little.

mod button;
mod line;
mod menu;

use happy_rpc::PromptKind;
use happy_screen::keys::{self, Key, KeyCode};
use happy_screen::{Modes, Screen};
use serde::{Deserialize, Serialize};

/// The most choices of a question.
pub const MAX_CHOICES: usize = 9;

/// The most bytes of a question, and of the label of a choice, as people are shown them. What does not fit whole has no choices, since nobody
/// should agree to what they have not seen.
pub const MAX_QUESTION: usize = 800;
/// See [`MAX_QUESTION`].
pub const MAX_LABEL: usize = 240;

/// Rows from the bottom that are looked at.
const ROWS: usize = 40;

/// How the terminal treats what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tty {
    /// Line by line (`ICANON`): a program gets nothing before Enter.
    pub canonical: bool,
    /// The terminal shows what is typed (`ECHO`).
    pub echo: bool,
}

/// A question that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Found {
    /// What is asked for.
    pub kind: PromptKind,
    /// The question and what belongs to it, one line for each row, without frames.
    pub question: String,
    /// What can be answered; none for a password, and none when not all of it can be shown.
    pub choices: Vec<Choice>,
    /// What else it is told by from another of the same words: the rows of the dialog as far as they are on the screen, and for a question
    /// in a line everything above it.
    pub seen: String,
    /// The whole dialog is on the screen, and is told.
    pub is_whole: bool,
    /// It is asked in a line, and answered there.
    pub is_line: bool,
}

impl Found {
    fn new(kind: PromptKind, question: impl Into<String>, choices: Vec<Choice>) -> Self {
        Self { kind, question: question.into(), choices, seen: String::new(), is_whole: true, is_line: true }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Choice {
    /// As the program calls it.
    pub label: String,
    /// What is typed for it.
    pub keys: Vec<Press>,
    /// Enter follows if the program has done nothing but show what was typed.
    pub enter_if_shown: bool,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the key of its name")]
pub enum Press {
    Text(String),
    Enter,
    Up,
    Down,
    Left,
    Right,
}

impl Choice {
    fn new(label: &str, keys: Vec<Press>) -> Self {
        Self { label: collapse(label), keys, enter_if_shown: false }
    }

    /// The bytes that a program expects in these modes.
    pub fn bytes(&self, modes: &Modes) -> Vec<u8> {
        let press = |code: KeyCode| keys::encode(modes, Key::from(code));
        let bytes = self.keys.iter().map(|key| match key {
            Press::Text(text) => text.clone().into_bytes(),
            Press::Enter => press(KeyCode::Enter),
            Press::Up => press(KeyCode::Up),
            Press::Down => press(KeyCode::Down),
            Press::Left => press(KeyCode::Left),
            Press::Right => press(KeyCode::Right),
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

/// What is looked at.
#[derive(Debug, Clone)]
pub struct View {
    /// The rows, without blank ends and without blank rows at the bottom.
    rows: Vec<String>,
    /// The row goes on in the next one.
    wrapped: Vec<bool>,
    /// The row of the cursor.
    cursor: usize,
    /// What stands before and after the cursor in its row.
    before: String,
    after: String,
    is_cursor_visible: bool,
    /// Nothing has been scrolled off above the first row.
    is_all: bool,
    tty: Tty,
}

impl View {
    /// What a screen shows.
    pub fn of(screen: &Screen, tty: Tty) -> Self {
        let (_, count) = screen.size();
        let rows: Vec<_> = (0..count).map(|row| screen.row(row)).collect();
        let wrapped = rows.iter().map(|row| row.wrapped).collect();
        let cursor = screen.cursor();
        let (mut before, mut after, mut column) = (String::new(), String::new(), 0);
        for run in rows.get(usize::from(cursor.row)).iter().flat_map(|row| &row.runs) {
            // A run has as many characters as columns, or half of them; marks stand on the character before.
            let chars = run.text.chars().count().max(1) as u16;
            let (width, start) = ((run.columns / chars).max(1), column);
            for (index, c) in run.text.chars().enumerate() {
                let at = start + width.saturating_mul(index as u16);
                if at < cursor.col || (at == cursor.col && cursor.pending_wrap) { &mut before } else { &mut after }
                    .push(c);
            }
            column += run.columns;
        }
        // Blanks at the end of a row are in no run.
        before.extend(std::iter::repeat_n(' ', usize::from(cursor.col.saturating_sub(column))));
        let mut rows: Vec<String> = rows.iter().map(|row| row.text().trim_end().to_owned()).collect();
        rows.truncate(rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1));
        let is_cursor_visible = cursor.visible;
        let is_all = screen.scrollback_total() == 0 && !screen.modes().alternate_screen;
        Self { is_all, rows, wrapped, cursor: cursor.row.into(), before, after, is_cursor_visible, tty }
    }

    /// The row of the cursor as far as the cursor: where a program shows what is typed.
    pub fn typed_line(&self) -> &str {
        self.before.trim_end()
    }

    /// The blanks between what a program asks and the cursor.
    pub fn gap(&self) -> &str {
        &self.before[self.before.trim_end().len()..]
    }

    /// The first row that is looked at.
    fn top(&self) -> usize {
        self.rows.len().saturating_sub(ROWS)
    }

    /// The last row that is not blank.
    fn last(&self) -> Option<usize> {
        self.rows.len().checked_sub(1)
    }

    /// The line that ends in this row: rows that the terminal has wrapped are joined. Also its first row.
    fn line_up_to(&self, row: usize) -> (usize, String) {
        let mut first = row;
        while first > self.top() && self.wrapped.get(first - 1) == Some(&true) {
            first -= 1;
        }
        (first, self.rows.get(first..=row).map(<[String]>::concat).unwrap_or_default())
    }
}

/// What waits there for a person, if anything does.
pub fn find(view: &View) -> Option<Found> {
    let in_line = || line::find(view).map(|found| Found { seen: everything_above(view), ..found });
    let mut found = in_line().or_else(|| menu::find(view)).or_else(|| button::find(view))?;
    let can_be_answered = found.kind == PromptKind::Password
        || found.choices.len() >= 2
        || found.choices.len() == 1 && found.choices[0].keys == [Press::Enter];
    if !can_be_answered || found.choices.len() > MAX_CHOICES || found.question.is_empty() {
        return None;
    }
    if !found.is_whole
        || found.question.len() > MAX_QUESTION
        || found.choices.iter().any(|choice| choice.label.len() > MAX_LABEL)
    {
        found.choices.clear();
    }
    found.question = cut(&found.question, MAX_QUESTION);
    Some(found)
}

/// Runs of blanks become one.
fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The beginning of a text, with a mark when it is not all.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.len() <= most {
        true => text.to_owned(),
        false => format!("{}…", text[..text.floor_char_boundary(most)].trim_end()),
    }
}

/// Characters that frames are drawn with.
fn is_frame(c: char) -> bool {
    matches!(c, '\u{2500}'..='\u{259f}' | '|')
}

/// A row without the frame at its sides.
fn inner(row: &str) -> &str {
    row.trim().trim_start_matches(is_frame).trim_end_matches(is_frame).trim_end()
}

/// A row that is nothing but a frame: it separates what is above from what is below.
fn is_rule(row: &str) -> bool {
    let row = row.trim();
    // A title may stand in it.
    let drawn = row.chars().filter(|c| is_frame(*c)).count();
    drawn >= 3
        && row.starts_with(is_frame)
        && row.ends_with(is_frame)
        && (drawn * 2 >= row.chars().count())
        && !row.starts_with(SIDES)
}

/// The marks that menus put at the choice which Enter takes, and shells and input boxes before what is typed.
fn is_caret(c: char) -> bool {
    matches!(c, '❯' | '›' | '>' | '●' | '▸' | '➤' | '→' | '▶' | '»' | '◉' | '*')
}

/// The question above a row.
struct Asked {
    text: String,
    /// The whole dialog is on the screen, and is told.
    is_whole: bool,
}

/// The question above row `first`, whose choices begin in column `indent`: everything from the edge of the dialog on. Without one it is what follows the first row
/// that asks, and not whole. `None` when nothing asks.
fn question_above(view: &View, first: usize, indent: usize) -> Option<Asked> {
    /// Rows above that may belong to it when it has no edge.
    const REACH: usize = 16;
    let edge = edge_above(view, first, indent);
    let begin = edge.unwrap_or_else(|| view.top().max(first.saturating_sub(REACH)));
    let lines = (begin..first).map(|row| collapse(inner(&view.rows[row])));
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    let asks_at = lines.iter().position(|line| asks(line))?;
    let lines = if edge.is_some() { &lines[..] } else { &lines[asks_at..] };
    Some(Asked { text: lines.join("\n"), is_whole: edge.is_some() })
}

/// The first row of a dialog whose choices begin in row `first` and column `indent`; `None` when it may begin above what is looked at. What is asked about is drawn
/// further in than the choices, or between the sides of a frame, and whatever it looks like, it is no edge.
fn edge_above(view: &View, first: usize, indent: usize) -> Option<usize> {
    let has_sides = |row: usize| view.rows[row].trim_start().starts_with(SIDES);
    let is_inside = first > 0 && has_sides(first - 1);
    let mut row = first;
    while row > view.top() {
        row -= 1;
        let text = &view.rows[row];
        if is_dotted(text) {
            // Between two lines of dots stands what is asked about, whatever it looks like.
            row = view.top() + view.rows[view.top()..row].iter().rposition(|row| is_dotted(row))?;
        } else if is_inside {
            if !has_sides(row) {
                return Some(row + 1);
            }
        } else if indent_of(text) <= indent {
            if text.trim_start().starts_with(['◆', '?']) {
                // As the clack library, and inquirer, begin.
                return Some(row);
            }
            if is_rule(text) || is_said(text) || line::is_typed(text) {
                return Some(row + 1);
            }
        }
    }
    // With nothing above it the screen itself is an edge.
    (row == 0 && view.is_all && !is_inside).then_some(0)
}

fn indent_of(row: &str) -> usize {
    row.chars().take_while(|c| *c == ' ').count()
}

/// Everything on the screen down to the cursor.
fn everything_above(view: &View) -> String {
    let rows = &view.rows[..view.rows.len().min(view.cursor + 1)];
    rows.iter().map(|row| collapse(row)).collect::<Vec<_>>().join("\n")
}

/// The rows of a dialog from its edge, or from the top of the screen, up to the end of its choices, of which the first stands in row `first`.
fn dialog(view: &View, first: usize, indent: usize, end: usize) -> String {
    let begin = edge_above(view, first, indent).unwrap_or(0);
    view.rows[begin..end.min(view.rows.len())].iter().map(|row| collapse(row)).collect::<Vec<_>>().join("\n")
}

/// The sides of a frame.
const SIDES: [char; 4] = ['│', '┃', '║', '|'];

/// What lines within a dialog are drawn with.
const DOTTED: [char; 6] = ['╌', '╍', '┄', '┅', '┈', '┉'];

fn is_dotted(row: &str) -> bool {
    is_rule(row) && row.contains(DOTTED)
}

/// What somebody typed, or said, before.
fn is_said(row: &str) -> bool {
    let text = inner(row).trim_start();
    text.starts_with(['•', '⏺', '✻', '⎿']) || text.strip_prefix(is_caret).is_some_and(|rest| rest.starts_with(' '))
}

/// Words with which programs ask, for those that do so without a question mark.
const ASKING: [&str; 14] = [
    "do you want",
    "would you like",
    "allow",
    "permission",
    "approve",
    "confirm",
    "select",
    "choose",
    "pick",
    "which",
    "trust",
    "proceed",
    "continue",
    "what is your",
];

/// Whether a line asks for something.
fn asks(line: &str) -> bool {
    let lower = line.to_lowercase();
    let ends = line.trim_end_matches(['"', '\'', ')', ' ']);
    ends.ends_with('?')
        || line.contains("? ")
        || (ASKING.iter().any(|word| lower.contains(word)) && line.chars().count() <= 100)
}
