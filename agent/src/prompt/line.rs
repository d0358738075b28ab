//! Questions in a line, answered in the same line: the cursor stands right after them.

use happy_rpc::PromptKind;

use super::{Choice, Found, MAX_QUESTION, Press, View, collapse, inner, is_caret};

/// How far a list of choices may be above the line that asks for one.
const LIST: usize = 24;

pub(super) fn find(view: &View) -> Option<Found> {
    if !view.after.trim().is_empty() || view.before.trim().is_empty() {
        return None;
    }
    // The cursor stands at the end, or a blank after it.
    if view.before.chars().rev().take_while(|c| *c == ' ').count() > 2 {
        return None;
    }
    let is_last = view.last() == Some(view.cursor);
    let (first, line) = view.line_up_to(view.cursor);
    let line = collapse(&line);
    if !view.tty.echo && view.tty.canonical {
        return is_last.then(|| password(&line)).flatten();
    }
    if is_typed(&line) {
        return None;
    }
    if !is_last {
        return keys_below(view, &line);
    }
    yes_or_no(view, first, &line)
        .or_else(|| typed_word(view, first, &line))
        .or_else(|| numbers(view, first, &line))
        .or_else(|| enter(&line))
}

/// Something stands before the cursor that somebody is typing: behind the prompt of a shell, or in an input box.
pub(super) fn is_typed(line: &str) -> bool {
    let Some((prompt, _)) = line
        .match_indices(' ')
        .map(|(at, _)| line.split_at(at))
        .find(|(prompt, _)| prompt.ends_with(['$', '#', '%', '❯', '➜', 'λ', '›', '»', '>']))
    else {
        return line.starts_with(is_caret) && !line.starts_with('*');
    };
    // `#?` of a shell's `select` and `***` of dpkg are no prompts of a shell; a price or a per cent somewhere in a sentence is none either.
    prompt.split(' ').count() <= 2 || prompt.contains(['@', '~', '/'])
}

fn password(line: &str) -> Option<Found> {
    let lower = line.to_lowercase();
    let asks = line.ends_with([':', '?', '>'])
        || ["password", "passphrase", "pin", "secret", "token"].iter().any(|word| lower.contains(word));
    asks.then(|| Found::new(PromptKind::Password, line, Vec::new()))
}

/// What is typed for a word: with Enter where the terminal takes lines. Elsewhere a program may act on the key itself, and Enter would go to its next question.
fn word(view: &View, label: &str, text: &str) -> Choice {
    let text = Press::Text(text.to_owned());
    match view.tty.canonical {
        true => Choice::new(label, vec![text, Press::Enter]),
        false => Choice { enter_if_shown: true, ..Choice::new(label, vec![text]) },
    }
}

/// `Continue? [Y/n]`, and its relatives.
fn yes_or_no(view: &View, first: usize, line: &str) -> Option<Found> {
    let asked = line.trim_end_matches([':', '?', ' ', '.']);
    let asked = asked.strip_suffix(" >").unwrap_or(asked).trim_end_matches([':', '?', ' ']);
    let options = options(asked).or_else(|| is_file_question(line).then(|| vec!["y".to_owned(), "n".to_owned()]))?;
    let choices = options.iter().filter_map(|option| {
        let (label, text) = match option.as_str() {
            "y" | "yes" => ("Yes", option.as_str()),
            "n" | "no" => ("No", option.as_str()),
            "?" | "h" | "help" => return None,
            other => (other, other),
        };
        Some(word(view, label, text))
    });
    let choices = choices.take(super::MAX_CHOICES).collect();
    Some(Found::new(PromptKind::YesNo, with_context(view, first, line), choices))
}

/// The options in the brackets at the end of a question, small; `None` unless yes is among them.
fn options(asked: &str) -> Option<Vec<String>> {
    let mut asked = asked.trim_end();
    // The default, after the options.
    for begins in ["[default", "(default", "[Yes]", "[No]"] {
        let is_last = |at: usize| at > 0 && asked[at..].find([']', ')']) == Some(asked.len() - at - 1);
        if let Some(at) = asked.rfind(begins).filter(|at| is_last(*at)) {
            asked = asked[..at].trim_end();
        }
    }
    if let Some(listed) = marked(asked) {
        return Some(listed);
    }
    let (close, open) =
        [(']', '['), (')', '('), ('>', '<'), ('}', '{')].into_iter().find(|(close, _)| asked.ends_with(*close))?;
    let body = &asked[..asked.len() - close.len_utf8()];
    let at = opening(body, open, close)?;
    let (before, body) = (body[..at].trim(), &body[at + open.len_utf8()..]);
    // Something has to be asked.
    if before.chars().filter(|c| c.is_alphabetic()).count() < 2 {
        return None;
    }
    let body = body.replace(" or ", "/").to_lowercase();
    let options: Vec<String> = match body.as_str() {
        "yn" => vec!["y".into(), "n".into()],
        "y" | "yes" if before.ends_with('?') => vec!["y".into(), "n".into()],
        _ => body.split(['/', ',', '|']).map(|option| option.trim().to_owned()).collect(),
    };
    let fits =
        |option: &String| !option.is_empty() && option.chars().count() <= 14 && !option.contains(char::is_whitespace);
    if options.len() < 2 || !options.iter().all(fits) || !options.iter().any(|option| option == "y" || option == "yes")
    {
        return None;
    }
    // `[fingerprint]` stands for something that is to be typed.
    Some(options.into_iter().filter(|option| option.chars().all(char::is_alphanumeric)).collect())
}

/// Where the bracket begins whose end is left out: `(yes/no/[fingerprint]`.
fn opening(body: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in body.char_indices().rev() {
        if c == close {
            depth += 1;
        } else if c == open {
            if depth == 0 {
                return Some(at);
            }
            depth -= 1;
        }
    }
    None
}

/// `[Y]es, (N)o, (C)ancel`.
fn marked(asked: &str) -> Option<Vec<String>> {
    let from = asked.find(['[', '('])?;
    let letter = |option: &str| {
        let mut chars = option.trim_start().chars();
        let (open, letter, close) = (chars.next()?, chars.next()?, chars.next()?);
        let is_marked = matches!((open, close), ('[', ']') | ('(', ')')) && letter.is_ascii_alphabetic();
        (is_marked && chars.clone().count() <= 14 && chars.next().is_some_and(char::is_lowercase)).then_some(letter)
    };
    let letters: Vec<char> = asked[from..].split([',', '/']).map(letter).collect::<Option<_>>()?;
    // `[n]o, [N]one`: there the case matters.
    let is_mixed = letters.iter().any(char::is_ascii_lowercase) && letters.iter().any(char::is_ascii_uppercase);
    let options = letters.iter().map(|letter| if is_mixed { *letter } else { letter.to_ascii_lowercase() });
    let options: Vec<String> = options.map(String::from).collect();
    (options.len() >= 2 && options.iter().any(|option| option == "y")).then_some(options)
}

/// `rm: remove regular file 'x'?`
fn is_file_question(line: &str) -> bool {
    let Some((program, rest)) = line.split_once(": ") else { return false };
    matches!(program, "rm" | "cp" | "mv" | "ln" | "find" | "rmdir" | "unlink" | "install") && rest.ends_with('?')
}

/// `Only 'yes' will be accepted`: a word that has to be typed.
fn typed_word(view: &View, first: usize, line: &str) -> Option<Found> {
    let near = view.rows.get(first.saturating_sub(6)..first)?.join("\n").to_lowercase();
    let wants_yes = near.contains("only 'yes' will be accepted") && line == "Enter a value:"
        || line.to_lowercase().contains("type 'yes' to") && line.ends_with(':');
    wants_yes.then(|| {
        let question = with_context(view, first, line);
        Found::new(PromptKind::YesNo, question, vec![word(view, "yes", "yes"), word(view, "no", "no")])
    })
}

/// A list with numbers, and a line that asks for one of them.
fn numbers(view: &View, first: usize, line: &str) -> Option<Found> {
    let lower = line.to_lowercase();
    let wants = ["select", "choose", "choice", "option", "number", "enter", "pick", "which"]
        .iter()
        .any(|word| lower.contains(word));
    if !(line == "#?" || wants && line.ends_with([':', '?', '>', ']', ')'])) || line.chars().count() > 120 {
        return None;
    }
    let mut items: Vec<(u32, String)> = Vec::new();
    let mut top = first;
    let lowest = view.top().max(first.saturating_sub(LIST));
    let mut row = first;
    while row > lowest {
        let (begin, line) = view.line_up_to(row - 1);
        let text = inner(&line).trim_start();
        match numbered(text) {
            Some((number, label)) if items.last().is_none_or(|(below, _)| number + 1 == *below) => {
                items.push((number, label.to_owned()));
                top = begin;
            }
            // Blank rows and a line between the list and the question.
            None if text.is_empty() || items.is_empty() && first - row < 2 => {}
            _ => break,
        }
        if items.last().is_some_and(|(number, _)| *number == 1) {
            break;
        }
        row = begin;
    }
    items.reverse();
    if items.len() < 2 || items[0].0 != 1 || items.len() > super::MAX_CHOICES {
        return None;
    }
    let above = (top.saturating_sub(3)..top)
        .rev()
        .map(|row| collapse(&view.rows[row]))
        .find(|row| !row.is_empty())
        .unwrap_or_default();
    let question = if line == "#?" { above } else { [above, line.to_owned()].join("\n").trim().to_owned() };
    let question = if question.is_empty() { "Which one?".to_owned() } else { question };
    let choices = items.iter().map(|(number, label)| word(view, label, &number.to_string())).collect();
    Some(Found::new(PromptKind::Numbers, question, choices))
}

/// `1. Yes`, `2) No`, `[3] Maybe`, `(4) Never`: the number and the text.
pub(super) fn numbered(text: &str) -> Option<(u32, &str)> {
    let (is_bracketed, rest) = match text.strip_prefix(['[', '(']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let number = rest[..digits].parse().ok().filter(|number| *number < 100)?;
    let rest = rest[digits..].strip_prefix(if is_bracketed { &[']', ')'][..] } else { &['.', ')', ':'][..] })?;
    let label = rest.strip_prefix(' ')?.trim();
    (!label.is_empty()).then_some((number, label))
}

/// `Press RETURN to continue`, where anything else stops.
fn enter(line: &str) -> Option<Found> {
    let lower = line.to_lowercase();
    let asks = [
        "press enter to continue",
        "press return to continue",
        "press return/enter to continue",
        "press [enter] to continue",
        "hit enter to continue",
    ];
    let is_asked = asks.iter().any(|words| lower.contains(words)) && !lower.contains("type command");
    let choices = || vec![Choice::new("Continue", vec![Press::Enter])];
    (is_asked && line.chars().count() <= 120).then(|| Found::new(PromptKind::YesNo, line, choices()))
}

/// A question with its keys in the rows below it, as nano has it.
fn keys_below(view: &View, line: &str) -> Option<Found> {
    if !line.ends_with('?') || view.tty.canonical {
        return None;
    }
    let below = view.rows.get(view.cursor + 1..)?;
    let row = |letter: char, word: &str| {
        below.iter().any(|row| row.split_whitespace().take(2).eq([letter.to_string().as_str(), word]))
    };
    let is_asked = below.len() <= 2 && row('Y', "Yes") && row('N', "No");
    let key = |label: &str, key: &str| Choice::new(label, vec![Press::Text(key.to_owned())]);
    is_asked.then(|| Found::new(PromptKind::YesNo, line, vec![key("Yes", "y"), key("No", "n")]))
}

/// A short question with the rows right above it, without which it says little.
fn with_context(view: &View, first: usize, line: &str) -> String {
    /// Rows above that are shown with it.
    const CONTEXT: usize = 4;
    let mut shown = line.to_owned();
    for row in (view.top().max(first.saturating_sub(CONTEXT))..first).rev() {
        let text = collapse(inner(&view.rows[row]));
        if is_typed(&text) || shown.len() + text.len() >= MAX_QUESTION {
            break;
        }
        if !text.is_empty() {
            shown = text + "\n" + &shown;
        }
    }
    shown
}
