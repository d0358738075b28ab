//! The names of keys as browsers give them (`KeyboardEvent.key`).

use happy_screen::keys::KeyCode;

/// The key of that name; a single character stands for itself. Keys that mean nothing to a program give nothing.
pub fn by_name(name: &str) -> Option<KeyCode> {
    let mut characters = name.chars();
    if let (Some(character), None) = (characters.next(), characters.next()) {
        return Some(KeyCode::Char(character));
    }
    Some(match name {
        "Enter" => KeyCode::Enter,
        "Tab" => KeyCode::Tab,
        "Escape" => KeyCode::Esc,
        "Backspace" => KeyCode::Backspace,
        "ArrowUp" => KeyCode::Up,
        "ArrowDown" => KeyCode::Down,
        "ArrowLeft" => KeyCode::Left,
        "ArrowRight" => KeyCode::Right,
        "Home" => KeyCode::Home,
        "End" => KeyCode::End,
        "PageUp" => KeyCode::PageUp,
        "PageDown" => KeyCode::PageDown,
        "Insert" => KeyCode::Insert,
        "Delete" => KeyCode::Delete,
        _ => KeyCode::F(name.strip_prefix('F')?.parse().ok().filter(|number| (1..=12).contains(number))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_browsers_are_known() {
        for (name, key) in [
            ("a", Some(KeyCode::Char('a'))),
            ("ü", Some(KeyCode::Char('ü'))),
            ("Enter", Some(KeyCode::Enter)),
            ("F", Some(KeyCode::Char('F'))),
            ("F12", Some(KeyCode::F(12))),
            ("F13", None),
            ("Shift", None),
            ("Dead", None),
            ("", None),
        ] {
            assert_eq!(by_name(name), key, "{name}");
        }
    }
}
