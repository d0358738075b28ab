//! Buttons side by side, as `dialog` and `whiptail` draw them: `< Yes >   < No >`.

use happy_rpc::PromptKind;

use super::{Choice, Found, MAX_CHOICES, Press, View, collapse, dialog, indent_of, inner, is_rule, question_above};

pub(super) fn find(view: &View) -> Option<Found> {
    let last = view.last()?;
    if !is_rule(&view.rows[last]) {
        return None;
    }
    // Which one Enter takes is told by the cursor, which stands in it.
    let row = view.cursor;
    if !(last.saturating_sub(3)..last).contains(&row) {
        return None;
    }
    let text = &view.rows[row];
    let at = view.before.chars().count();
    let mut buttons: Vec<(String, bool)> = Vec::new();
    let mut rest = text.char_indices().enumerate().filter(|(_, (_, c))| *c == '<' || *c == '>');
    while let (Some((first, (from, '<'))), Some((end, (to, '>')))) = (rest.next(), rest.next()) {
        let label = collapse(&text[from + 1..to]);
        if label.is_empty() || label.len() > 20 {
            return None;
        }
        buttons.push((label, (first..=end).contains(&at)));
    }
    let current = buttons.iter().position(|(_, is_current)| *is_current)?;
    // What else is in the row?
    let others = inner(text).split(['<', '>']).step_by(2).any(|between| !between.trim().is_empty());
    // A list above has a choice of its own; only a plain question is answered by a button.
    let labels: Vec<String> = buttons.iter().map(|(label, _)| label.to_lowercase()).collect();
    if others || buttons.len() < 2 || buttons.len() > MAX_CHOICES || !labels.iter().any(|label| label == "yes") {
        return None;
    }
    let frame = (view.top()..row).rev().find(|above| is_rule(&view.rows[*above]))?;
    let indent = indent_of(&view.rows[frame]);
    let asked = question_above(view, frame, indent)?;
    let choices = buttons.iter().enumerate().map(|(index, (label, _))| {
        let mut keys = vec![if index < current { Press::Left } else { Press::Right }; index.abs_diff(current)];
        keys.push(Press::Enter);
        Choice::new(label, keys)
    });
    let (choices, seen) = (choices.collect(), dialog(view, frame, indent, row + 1));
    Some(Found {
        kind: PromptKind::Arrows,
        question: asked.text,
        choices,
        seen,
        is_whole: asked.is_whole,
        is_line: false,
    })
}
