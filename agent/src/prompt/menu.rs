//! Menus: choices below each other, one of them marked.

use happy_rpc::PromptKind;

use super::{
    Choice, Found, MAX_CHOICES, Press, View, collapse, dialog, indent_of, inner, is_caret, is_frame, is_rule,
    line::numbered, question_above,
};

/// Rows below a menu that may be hints or belong to its frame.
const BELOW: usize = 8;

/// Rows of one choice: its label, wrapped, and what is said of it.
const ROWS_OF_CHOICE: usize = 6;

/// One choice of a menu.
struct Item {
    row: usize,
    /// The column where the label, or its number, begins.
    column: usize,
    number: Option<u32>,
    is_marked: bool,
    label: String,
}

pub(super) fn find(view: &View) -> Option<Found> {
    let last = view.last()?;
    // The lowest mark counts: what is above it has been answered, or is not asked now.
    let marked = (view.top()..=last).rev().filter_map(|row| item(view, row)).find(|item| item.is_marked)?;
    let items = items(view, &marked);
    let numbers: Option<Vec<u32>> = items.iter().map(|item| item.number).collect();
    let (first, end) = (items.first()?.row, end(view, items.last()?));
    if items.len() < 2 || items.len() > MAX_CHOICES || items.iter().filter(|item| item.is_marked).count() != 1 {
        return None;
    }
    let hints = below(view, end)?;
    let indent = indent_of(&view.rows[marked.row]);
    let mut asked = question_above(view, first, indent)?;
    asked.is_whole &= !view.rows[end..].iter().any(|row| is_more_above(row));
    let seen = dialog(view, first, indent, end);
    let question = asked.text;
    let at = items.iter().position(|item| item.is_marked)?;
    match numbers {
        Some(numbers) => {
            if !numbers.iter().copied().eq(1..=items.len() as u32) {
                return None;
            }
            let choice =
                |item: &Item| Choice::new(&item.label, vec![Press::Text(item.number.unwrap_or_default().to_string())]);
            let choices = items.iter().map(choice).collect();
            Some(Found { kind: PromptKind::Numbers, question, choices, seen, is_whole: asked.is_whole, is_line: false })
        }
        // Without numbers it may be any list; only what says how it is used is a menu.
        None if items.iter().all(|item| item.number.is_none())
            && (hints || tells_keys(&question) || is_clack(view, &items)) =>
        {
            let choices = items.iter().enumerate().map(|(index, item)| {
                let mut keys = vec![if index < at { Press::Up } else { Press::Down }; index.abs_diff(at)];
                keys.push(Press::Enter);
                Choice::new(&item.label, keys)
            });
            let choices = choices.collect();
            Some(Found { kind: PromptKind::Arrows, question, choices, seen, is_whole: asked.is_whole, is_line: false })
        }
        None => None,
    }
}

/// A row as a choice, if it may be one.
fn item(view: &View, row: usize) -> Option<Item> {
    let text = view.rows.get(row)?;
    // Columns count from the left edge, the frame included.
    let body: String = text
        .trim_end()
        .trim_end_matches(is_frame)
        .trim_end()
        .chars()
        .map(|c| if is_frame(c) { ' ' } else { c })
        .collect();
    let indent = body.chars().take_while(|c| *c == ' ').count();
    let rest = body.trim_start();
    let mark = rest.chars().next()?;
    let is_marked = is_caret(mark) && rest[mark.len_utf8()..].starts_with(' ');
    let is_unmarked = matches!(mark, '○' | '◯') && rest[mark.len_utf8()..].starts_with(' ');
    let (column, label) = match is_marked || is_unmarked {
        true => {
            let label = rest[mark.len_utf8()..].trim_start();
            (indent + rest.chars().count() - label.chars().count(), label)
        }
        false => (indent, rest),
    };
    if label.is_empty() {
        return None;
    }
    let (number, label) = match numbered(label) {
        Some((number, label)) => (Some(number), label),
        None => (None, label),
    };
    Some(Item { row, column, number, is_marked, label: label.to_owned() })
}

/// The choices around the marked one.
fn items(view: &View, marked: &Item) -> Vec<Item> {
    let sibling = |row: usize| {
        let other = item(view, row)?;
        (other.column == marked.column && other.number.is_some() == marked.number.is_some()).then_some(other)
    };
    let mut items: Vec<Item> = Vec::new();
    let (mut row, mut gap) = (marked.row, 0);
    while let Some(above) = row.checked_sub(1).filter(|above| *above >= view.top()) {
        row = above;
        match sibling(row).filter(|other| follows(other, items.first().unwrap_or(marked))) {
            Some(other) => {
                items.insert(0, other);
                gap = 0;
            }
            None if belongs(view, row, marked) && gap < ROWS_OF_CHOICE && marked.number != Some(1) => gap += 1,
            None => break,
        }
        if items.first().is_some_and(|item| item.number == Some(1)) {
            break;
        }
    }
    items.push(Item { label: marked.label.clone(), ..*marked });
    let (mut row, mut gap) = (marked.row + 1, 0);
    while row < view.rows.len() {
        match sibling(row).filter(|other| items.last().is_some_and(|last| follows(last, other))) {
            Some(other) => {
                items.push(other);
                gap = 0;
            }
            None if belongs(view, row, marked) && gap < ROWS_OF_CHOICE => gap += 1,
            // A line may set the last choices apart.
            None if is_rule(&view.rows[row])
                && sibling(row + 1)
                    .zip(items.last())
                    .is_some_and(|(next, last)| next.number.is_some() && follows(last, &next)) => {}
            None => break,
        }
        row += 1;
    }
    for index in 0..items.len() {
        let upto = items.get(index + 1).map_or(usize::MAX, |next| next.row);
        let more = continuation(view, &items[index], upto);
        items[index].label.push_str(&more);
    }
    items
}

/// Whether one choice comes right after another.
fn follows(one: &Item, next: &Item) -> bool {
    match (one.number, next.number) {
        (Some(one), Some(next)) => one + 1 == next,
        (None, None) => next.row == one.row + 1,
        _ => false,
    }
}

/// A row between choices: more of the one above it, or nothing. A list without numbers has nothing between.
fn belongs(view: &View, row: usize, marked: &Item) -> bool {
    let text = &view.rows[row];
    let body: String = text.chars().map(|c| if is_frame(c) { ' ' } else { c }).collect();
    let indent = body.chars().take_while(|c| *c == ' ').count();
    marked.number.is_some() && !is_rule(text) && (body.trim().is_empty() || indent > marked.column)
}

/// The rest of a label that did not fit into its row, and what is said of the choice.
fn continuation(view: &View, item: &Item, upto: usize) -> String {
    let mut more = String::new();
    for row in item.row + 1..upto.min(view.rows.len()).min(item.row + ROWS_OF_CHOICE + 1) {
        let next = &view.rows[row];
        let joined = view.wrapped.get(row - 1) == Some(&true);
        let text = inner(next).trim();
        if text.is_empty() || is_rule(next) || item.number.is_none() || !(joined || belongs(view, row, item)) {
            break;
        }
        more.push(' ');
        more.push_str(text);
    }
    more
}

/// The row after the last choice.
fn end(view: &View, last: &Item) -> usize {
    let mut row = last.row + 1;
    while row < view.rows.len()
        && row - last.row < ROWS_OF_CHOICE
        && !inner(&view.rows[row]).trim().is_empty()
        && !is_rule(&view.rows[row])
        && belongs(view, row, last)
    {
        row += 1;
    }
    row
}

/// What stands below a menu: `None` if it is something else than hints and the end of a frame, else whether hints say how it is used.
fn below(view: &View, end: usize) -> Option<bool> {
    let rows = view.rows.get(end..).unwrap_or_default();
    let mut hints = false;
    let mut closed = false;
    let mut count = 0;
    for (index, row) in rows.iter().enumerate() {
        let text = collapse(inner(row));
        closed |= is_rule(row);
        if text.is_empty() || is_rule(row) || is_more_above(row) {
            continue;
        }
        count += 1;
        // Somebody could type there.
        let is_at_cursor = view.is_cursor_visible && view.cursor == end + index;
        let is_input = text.starts_with(is_caret) || text.ends_with(['$', '#', '%']);
        if count > BELOW || is_at_cursor || is_input {
            return None;
        }
        match tells_keys(&text) {
            true => hints = true,
            // Below its frame a program may show how it is.
            false if closed && is_status(row) => {}
            false => return None,
        }
    }
    // The cursor below everything stands at a prompt that prints nothing, or where something runs on.
    let is_below = view.is_cursor_visible && view.cursor >= end && view.cursor >= view.rows.len();
    (!is_below || hints).then_some(hints)
}

/// A line that says which keys do what.
fn tells_keys(text: &str) -> bool {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric() && !"↑↓←→⇆⏎↵".contains(c)).collect();
    let has = |names: &[&str]| words.iter().any(|word| names.contains(word));
    let keys =
        has(&["enter", "return", "esc", "escape", "tab", "ctrl", "space", "arrow", "arrows", "↑", "↓", "↑↓", "⏎", "↵"]);
    keys && has(&[
        "select", "confirm", "cancel", "submit", "navigate", "move", "choose", "back", "toggle", "amend", "explain",
        "exit", "keys", "filter", "edit", "continue", "quit", "accept",
    ]) || lower.contains("use arrow")
        || lower.contains("arrow-keys")
}

/// A row that says that the dialog begins above the screen, as `↑ 48 more lines`.
fn is_more_above(row: &str) -> bool {
    let row = row.trim();
    row.strip_prefix("↑ ").and_then(|rest| rest.split_once(' ')).is_some_and(|(count, rest)| {
        count.chars().all(|c| c.is_ascii_digit()) && matches!(rest, "more line" | "more lines")
    })
}

/// A row of a program's own status: parts with much room between them, or a spinner.
fn is_status(row: &str) -> bool {
    let row = row.trim();
    row.starts_with(|c: char| ('\u{2800}'..='\u{28ff}').contains(&c)) || row.contains("    ")
}

/// `◆` above and `└` below: prompts of the clack library, with ● at one choice and ○ at the others.
fn is_clack(view: &View, items: &[Item]) -> bool {
    let starts = |row: Option<usize>, mark: char| {
        row.and_then(|row| view.rows.get(row)).is_some_and(|row| row.trim_start().starts_with(mark))
    };
    let (first, last) = (items.first().map(|item| item.row), items.last().map(|item| item.row));
    starts(first.and_then(|row| row.checked_sub(1)), '◆') && starts(last.map(|row| row + 1), '└')
}
