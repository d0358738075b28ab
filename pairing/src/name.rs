//! Names that people give to devices, and that other people's terminals show.

/// Bytes of a name (PROTOCOL 11).
pub(crate) const MAX_NAME: usize = 64;

/// A name as it may be sent: without control and direction characters, without space around it, at most 64 bytes.
#[must_use]
pub fn clean_name(name: &str) -> String {
    let mut clean: String = name.chars().filter(|character| is_harmless(*character)).collect();
    clean = clean.trim().to_owned();
    clean.truncate(clean.floor_char_boundary(MAX_NAME));
    clean
}

/// Whether a name from another device may be shown: it could otherwise move the cursor, or write itself backwards.
pub(crate) fn is_clean(name: &str) -> bool {
    name.len() <= MAX_NAME && name.chars().all(is_harmless)
}

fn is_harmless(character: char) -> bool {
    let directs = matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{061C}' | '\u{FEFF}');
    !character.is_control() && !directs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_harmless() {
        assert_eq!(clean_name("  Ann's \x1b[2Jphone\r\n"), "Ann's [2Jphone");
        assert_eq!(clean_name("gnp.\u{202E}exe"), "gnp.exe");
        assert_eq!(clean_name(&"é".repeat(40)).len(), 64);
        assert_eq!(clean_name(&"€".repeat(40)).len(), 63);
    }

    #[test]
    fn what_is_cleaned_is_clean() {
        for name in ["\x07bell", "a\u{9b}31mb", "plain", "\u{2066}x", &"€".repeat(99)] {
            assert!(is_clean(&clean_name(name)));
        }
        assert!(!is_clean("\x1b[2J") && !is_clean(&"x".repeat(65)));
    }
}
