//! What viewers draw: rows, history, changes, and the painting of a real terminal.

mod common;

use common::{history, restored, screen, state};
use happy_screen::{
    Color, DEFAULT_SCROLLBACK, Modes, Screen, Style, Underline, leave_vt, render_begun, render_rows, render_vt,
};

fn seq(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|n| format!("{n}\r\n").into_bytes()).collect()
}

#[test]
fn history_keeps_the_newest_rows_in_order() {
    let mut screen = Screen::new(80, 24, DEFAULT_SCROLLBACK);
    let stream = seq(100_000);
    let scrolled: usize = stream.chunks(4096).map(|piece| screen.feed(piece).scrolled_off).sum();
    assert_eq!(scrolled, 100_000 - 23);
    assert_eq!(screen.scrollback_total(), 99_977);
    assert_eq!(screen.row(22).text(), "100000");
    assert_eq!(screen.row(23).text(), "");
    let texts: Vec<String> = history(&screen).iter().map(|row| row.text()).collect();
    let expected: Vec<String> = (89_978..=99_977).map(|n| n.to_string()).collect();
    assert_eq!(texts, expected);
    assert_eq!(screen.scrollback_row(DEFAULT_SCROLLBACK), None);

    let part = Screen::restore(&screen.snapshot(100), 50).expect("our own snapshot");
    assert_eq!(part.scrollback_len(), 50);
    assert_eq!(part.scrollback_row(49).map(|row| row.text()).as_deref(), Some("99977"));
    assert_eq!(part.scrollback_total(), 99_977);
}

#[test]
fn the_history_of_ten_thousand_log_lines_is_small_in_a_snapshot() {
    let mut screen = Screen::new(120, 40, DEFAULT_SCROLLBACK);
    for n in 0..10_100 {
        screen.feed(
            format!("2026-11-05T12:00:{:02} \x1b[32mINFO\x1b[0m request {n} handled in 3 ms by a worker\r\n", n % 60)
                .as_bytes(),
        );
    }
    let bytes = screen.snapshot(usize::MAX).len();
    assert!(bytes < 1_000_000, "{bytes}");
}

#[test]
fn clearing_the_history_is_told_and_done() {
    let mut screen = screen(20, 3, &seq(10));
    assert!(screen.scrollback_len() > 0);
    let feed = screen.feed(b"\x1b[H\x1b[2J\x1b[3J");
    assert!(feed.history_cleared);
    assert_eq!(screen.scrollback_len(), 0);
    assert!(screen.take_changes().history_cleared);
    assert!(!screen.take_changes().history_cleared);
}

#[test]
fn rows_carry_styles_and_mark_wide_characters() {
    let screen = screen(20, 2, "a\x1b[1;31;48;2;1;2;3m界界\x1b[0;7;9mb\x1b[0;38;5;200;3;4mc".as_bytes());
    let row = screen.row(0);
    let style = Style::default();
    let parts: Vec<_> = row.runs.iter().map(|run| (run.text.as_str(), run.columns, run.wide, run.style)).collect();
    assert_eq!(
        parts,
        [
            ("a", 1, false, style),
            ("界界", 4, true, Style { fg: Color::Indexed(1), bg: Color::Rgb(1, 2, 3), bold: true, ..style }),
            ("b", 1, false, Style { inverse: true, strikethrough: true, ..style }),
            ("c", 1, false, Style { fg: Color::Indexed(200), italic: true, underline: Underline::Single, ..style }),
        ]
    );
    assert_eq!(screen.text(), "a界界bc");
}

/// Terminals fill what they erase with the background and nothing else; underlines and bars of inverse blanks are what one sees otherwise.
#[test]
fn erased_cells_have_a_background_and_nothing_else() {
    let pen = "\x1b[1;4;7;31;44m";
    let blue = Style { bg: Color::Indexed(4), ..Style::default() };
    for (what, row, columns) in [
        ("x\x1b[K", 0, 1..10),
        ("abc\x1b[2D\x1b[X", 0, 1..2),
        ("abc\x1b[2D\x1b[@", 0, 1..2),
        ("abc\x1b[2D\x1b[P", 0, 9..10),
        ("abc\x1b[L", 0, 0..10),
        ("abc\x1b[S", 2, 0..10),
        ("abc\x1b[T", 0, 0..10),
        ("abc\x1b[2J", 2, 0..10),
        ("\x1b[HM\x1bM", 0, 0..10),
        ("\x1b[3HM\n", 2, 0..10),
        ("\x1b[3HM\x1bE", 2, 0..10),
        ("\x1b[3H0123456789a", 2, 1..10),
        ("\x1b[3H012345678界", 2, 2..10),
        ("\x1b[3H0\x1b[12b", 2, 3..10),
        ("\x1b[1;2r\x1b[2H0123456789abc", 1, 3..10),
        ("\x1b[?1049h", 1, 0..10),
    ] {
        let screen = screen(10, 3, format!("{pen}{what}").as_bytes());
        let mut column = 0;
        for run in screen.row(row).runs {
            let run_columns = column..column + run.columns;
            column = run_columns.end;
            if columns.contains(&run_columns.start) {
                assert_eq!((run.text.trim(), run.style), ("", blue), "{what:?}");
            } else if !run.text.trim().is_empty() {
                assert_eq!(
                    run.style,
                    Style { bold: true, underline: Underline::Single, inverse: true, fg: Color::Indexed(1), ..blue },
                    "{what:?}"
                );
            }
        }
        assert!(column >= columns.end, "{what:?}: {column} columns");
        assert_eq!(restored(&screen).row(row), screen.row(row));
    }
    let printed = screen(10, 2, b"\x1b[4ma b\rc");
    assert!(
        printed.row(0).runs.iter().all(|run| run.style.underline == Underline::Single && run.text == "c b"),
        "blanks that are printed are not erased"
    );
}

/// As in xterm and xterm.js: what follows a full row is written below its end, not at the beginning of the row after the next.
#[test]
fn moving_to_another_row_ends_a_pending_wrap() {
    for (stream, expected) in [
        ("0123456789\nx", "0123456789\n         x"),
        ("0123456789\x0bx", "0123456789\n         x"),
        ("0123456789\x1bDx", "0123456789\n         x"),
        ("\n0123456789\x1bMx", "         x\n0123456789"),
        ("0123456789\x1bEx", "0123456789\nx"),
        ("0123456789\r\nx", "0123456789\nx"),
        ("01234567\t*\t*", "01234567 *\n*"),
        ("01234567\x1b[I*\x1b[2I*", "01234567 *\n*"),
    ] {
        for piece in [1, 100] {
            let mut screen = Screen::new(10, 3, 0);
            stream.as_bytes().chunks(piece).for_each(|piece| drop(screen.feed(piece)));
            assert_eq!(screen.text(), expected, "{stream:?}");
        }
    }
}

#[test]
fn the_pen_outlives_what_it_erases() {
    for stream in [
        "\x1b[7m\n\n\nx",
        "\x1b[7m\x1b[?1049h\x1b[?1049lx",
        "\x1b[7m\x1b7\x1b[0;32m\x1b[K\x1b8x",
        "\x1b[7m0123456789x\x1b[K\x1b[Jx",
    ] {
        let screen = screen(10, 2, stream.as_bytes());
        let row = screen.row(screen.cursor().row);
        let last = row.runs.iter().rfind(|run| !run.text.trim().is_empty()).map(|run| run.style);
        assert_eq!(last, Some(Style { inverse: true, ..Style::default() }), "{stream:?}");
    }
}

#[test]
fn attributes_stand_beside_each_other() {
    let screen =
        screen(40, 2, b"\x1b[1;2ma\x1b[22;8mb\x1b[28;53mc\x1b[0;4:3;58:2::1:2:3md\x1b[4:2;59me\x1b[24;58;5;9mf");
    let style = Style::default();
    let looks: Vec<_> = screen.row(0).runs.iter().map(|run| run.style).collect();
    let expected = [
        Style { bold: true, faint: true, ..style },
        Style { concealed: true, ..style },
        Style { overline: true, ..style },
        Style { underline: Underline::Curly, underline_color: Color::Rgb(1, 2, 3), ..style },
        Style { underline: Underline::Double, ..style },
        Style { underline_color: Color::Indexed(9), ..style },
    ];
    assert_eq!(looks, expected);
    assert_eq!(state(&restored(&screen)), state(&screen));
}

#[test]
fn links_are_those_of_the_web_and_go_with_their_text() {
    let mut screen = screen(
        10,
        3,
        b"no \x1b]8;id=1;https://a.example/x\x1b\\here and\x1b[1m there\x1b]8;;\x07 no \x1b]8;;file:///etc/passwd\x07file\x1b]8;;javascript:x\x07!",
    );
    let links = |row: happy_screen::Row| -> Vec<(String, Option<String>)> {
        row.runs.iter().map(|run| (run.text.clone(), run.link.as_deref().map(str::to_owned))).collect()
    };
    let (link, text) = (Some("https://a.example/x".to_owned()), str::to_owned);
    assert_eq!(links(screen.row(0)), [(text("no "), None), (text("here an"), link.clone())]);
    assert_eq!(links(screen.row(1)), [(text("d"), link.clone()), (text(" there"), link.clone()), (text(" no"), None)]);
    assert_eq!(links(screen.row(2)), [(text(" file!"), None)]);
    assert_eq!(state(&restored(&screen)), state(&screen));
    screen.feed(b"\x1b[3;1H\n");
    assert_eq!(links(history(&screen).remove(0)), [(text("no "), None), (text("here an"), link)]);
}

#[test]
fn national_sets_are_designated_locked_and_shifted() {
    for (stream, text) in [
        ("\x1b(A#\x1b(B#", "£#"),
        ("\x1b)0q\x0eq\x0fq", "q─q"),
        ("\x1b*K\x1bn[]\x0f[]", "ÄÜ[]"),
        ("\x1b+0\x1bOqq", "─q"),
        ("\x1b*0\x1b+K\x1bNx\x1bO{x", "│äx"),
        ("\x1b(0q\x1b7\x1b(Bq\x1b8q", "──"),
        ("\x1b(0e\u{301}", "␊\u{301}"),
        ("\x1b(0\x1b[!pq", "q"),
    ] {
        assert_eq!(screen(20, 1, stream.as_bytes()).text(), text, "{stream:?}");
    }
}

#[test]
fn the_last_character_is_repeated_and_only_that() {
    for (stream, text) in [
        ("ab\x1b[3b", "abbbb"),
        ("ab\x1b[b\x1b[b", "abb"),
        ("ab\x1b[D\x1b[3b", "ab"),
        ("界\x1b[2b", "界界界"),
        ("e\u{301}\x1b[2b", "e\u{301}e\u{301}e\u{301}"),
        ("a\x1b[9b", "aaaaaaaaaa"),
        ("a\x1b[65535b", "aaaaaaaaaa\na"),
    ] {
        assert_eq!(screen(10, 2, stream.as_bytes()).text(), text, "{stream:?}");
    }
}

#[test]
fn what_is_deleted_does_not_go_to_the_history_and_what_scrolls_does() {
    for (stream, kept) in [
        ("\x1b[H\x1b[2M", 0),
        ("\x1b[H\x1b[2L", 0),
        ("\x1b[2S", 2),
        ("\x1b[1;2r\x1b[2;1H\n", 1),
        ("\x1b[2;3r\x1b[3;1H\n", 0),
    ] {
        let mut screen = screen(10, 3, b"1\r\n2\r\n3");
        screen.feed(stream.as_bytes());
        assert_eq!(screen.scrollback_len(), kept, "{stream:?}");
    }
}

#[test]
fn a_narrower_window_takes_blank_rows_first_and_lines_stay_lines() {
    let mut screen = screen(12, 6, "$ a long line\r\n한국어 문장입니다\r\n$ ".as_bytes());
    assert_eq!(screen.text(), "$ a long lin\ne\n한국어 문장\n입니다\n$");
    let cursor = screen.cursor();
    screen.resize(11, 6);
    assert_eq!((screen.text().as_str(), screen.scrollback_len()), ("$ a long li\nne\n한국어 문장\n입니다\n$", 0));
    screen.resize(6, 6);
    assert_eq!((screen.text().as_str(), screen.scrollback_len()), ("ng lin\ne\n한국어\n 문장\n입니다\n$", 1));
    screen.resize(40, 6);
    assert_eq!(screen.text(), "ng line\n한국어 문장입니다\n$");
    assert_eq!((screen.cursor().col, screen.cursor().row), (cursor.col, 2));
}

#[test]
fn what_waits_behind_a_full_screen_program_is_where_it_was_after_a_resize() {
    let mut screen = screen(12, 5, b"a line that is longer\r\n$ vim\x1b[?1049h\x1b[Hvim");
    screen.resize(8, 5);
    screen.feed(b"\x1b[?1049l!");
    assert_eq!(screen.text(), "a line t\nhat is l\nonger\n$ vim!");
}

#[test]
fn a_wrap_that_is_pending_stays_so_when_the_line_is_wrapped_anew() {
    let mut screen = screen(8, 4, b"abcdefgh");
    assert!(screen.cursor().pending_wrap);
    screen.resize(4, 4);
    assert!(screen.cursor().pending_wrap);
    screen.feed(b"i");
    assert_eq!(screen.text(), "abcd\nefgh\ni");
    screen.resize(20, 4);
    screen.feed(b"j");
    assert_eq!(screen.text(), "abcdefghij");
}

#[test]
fn without_wrapping_the_last_column_is_written_again_and_a_wide_character_has_no_place_there() {
    assert_eq!(screen(4, 2, "\x1b[?7labcdef".as_bytes()).text(), "abcf");
    assert_eq!(screen(4, 2, "\x1b[?7labc界d".as_bytes()).text(), "abcd");
    assert_eq!(screen(4, 2, "\x1b[?7lab界界\u{301}".as_bytes()).text(), "ab界");
}

#[test]
fn combining_marks_take_no_column() {
    let screen = screen(20, 3, "e\u{301}x n\u{303}\u{323}\r\n\u{1112}\u{1161}\u{11ab}|\r\n⚠\u{fe0f} ok".as_bytes());
    assert_eq!(screen.row(0).text(), "e\u{301}x n\u{303}\u{323}");
    assert_eq!(screen.row(0).columns(), 4);
    assert_eq!((screen.row(1).text().as_str(), screen.row(1).columns()), ("\u{1112}\u{1161}\u{11ab}|", 3));
    assert_eq!((screen.row(2).text().as_str(), screen.row(2).columns()), ("⚠\u{fe0f} ok", 4));
    assert_eq!(restored(&screen).row(1), screen.row(1));
}

#[test]
fn more_clusters_than_the_table_holds_are_swept_not_lost() {
    let mut screen = Screen::new(20, 3, DEFAULT_SCROLLBACK);
    for base in 0x4e00..0x4e00 + 20_000u32 {
        let base = char::from_u32(base).expect("a CJK character");
        screen.feed(format!("{base}\u{302}\r\n").as_bytes());
    }
    assert_eq!(screen.row(1).text(), "\u{9c1f}\u{302}");
    assert!(history(&screen).iter().all(|row| row.text().ends_with('\u{302}')));
}

#[test]
fn wrapped_rows_say_so() {
    let screen = screen(4, 4, b"abcdefgh\r\nij");
    assert_eq!([0, 1, 2].map(|row| screen.row(row).wrapped), [true, false, false]);
}

#[test]
fn changes_name_the_rows_that_differ_after_the_shift() {
    let mut screen = screen(20, 4, b"one\r\ntwo\r\nthree\r\nfour");
    let first = screen.take_changes();
    assert!(first.all);
    assert_eq!(first.rows, [0, 1, 2, 3]);

    assert_eq!(screen.take_changes(), Default::default(), "nothing happened");
    screen.feed(b"\x1b[2;1HTWO");
    assert_eq!(screen.take_changes().rows, [1]);
    screen.feed(b"\x1b[2;1HTWO\x1b[?25l");
    assert_eq!(screen.take_changes().rows, [], "the same again is no change");

    screen.feed(b"\x1b[4;5H\r\nfive\r\nsix");
    let changes = screen.take_changes();
    assert_eq!((changes.scrolled_off, changes.all), (2, false));
    assert_eq!(changes.rows, [2, 3]);

    screen.feed(&seq(100));
    let changes = screen.take_changes();
    assert_eq!((changes.scrolled_off, changes.rows.len()), (100, 4));

    screen.feed(b"\x1b[?1049h");
    assert_eq!(screen.take_changes().rows.len(), 3, "the last row was blank before and is now");
    screen.resize(21, 5);
    assert!(screen.take_changes().all);
    assert!(restored(&screen).take_changes().all);
}

/// A viewer that draws only what it is told must show what a viewer that looks at everything shows.
#[test]
fn a_viewer_that_follows_changes_sees_the_screen() {
    let mut screen = screen(12, 5, b"");
    let mut drawn: Vec<happy_screen::Row> = Vec::new();
    let mut stream = Vec::new();
    for n in 0..400u32 {
        stream.extend(
            match n % 9 {
                0 => format!("\x1b[{};{}Hx", n % 5 + 1, n % 11 + 1),
                1 => "\x1b[1;3r\x1b[3;1H\n\n\x1b[r".into(),
                2 => "\x1b[2J".into(),
                3 => "\x1b[?1049halt".into(),
                4 => "\x1b[?1049l".into(),
                5 => "\x1b[2L".into(),
                _ => format!("line {n}\r\n"),
            }
            .into_bytes(),
        );
    }
    for (index, piece) in stream.chunks(7).enumerate() {
        screen.feed(piece);
        if index % 3 == 0 {
            let changes = screen.take_changes();
            drawn.drain(..changes.scrolled_off.min(drawn.len()));
            drawn.resize(5, happy_screen::Row::default());
            for row in changes.rows {
                drawn[usize::from(row)] = screen.row(row);
            }
            let shown: Vec<_> = (0..5).map(|row| screen.row(row)).collect();
            assert_eq!(drawn, shown, "piece {index}");
        }
    }
}

#[test]
fn a_shell_screen_fits_in_four_kilobytes() {
    let mut stream = Vec::new();
    for n in 0..40 {
        stream.extend(format!("\x1b[01;32mmax@workstation\x1b[00m:\x1b[01;34m~/src/happy\x1b[00m$ ls -la --color\r\ndrwxr-xr-x 12 max max 4096 Nov  5 12:{n:02} \x1b[01;34msome-directory\x1b[0m\r\n-rw-r--r--  1 max max {n:5} Nov  5 11:58 Cargo.toml\r\n").into_bytes());
    }
    let screen = screen(80, 24, &stream);
    let bytes = screen.snapshot(0).len();
    assert!(bytes <= 4096, "{bytes}");
    assert!(Screen::new(80, 24, 0).snapshot(0).len() <= 64);
}

/// Shows `screen` on a terminal (another screen stands in for it) that was left in a wild state.
fn painted(screen: &Screen) -> Screen {
    let (cols, rows) = screen.size();
    let mut terminal = Screen::new(cols, rows, 0);
    terminal.feed(b"junk\x1b[3;4r\x1b[?6h\x1b[4h\x1b(0\x1b[7;41m\x1b[?1003;1006h\x1b[20h\x1b=");
    terminal.feed(&render_vt(screen));
    terminal
}

#[test]
fn a_painted_terminal_looks_and_goes_on_like_the_screen() {
    for stream in [
        "plain\r\n\x1b[31mred\x1b[1;44m and more \x1b[38;2;9;8;7mrgb \x1b[94;107;3;9mx",
        "\x1b[?1h\x1b=\x1b[?1002;1006;1004;2004h\x1b[4 q\x1b[>5u\x1b]2;title\x07",
        "shell $ vim\x1b[?1049h\x1b[2;4r\x1b[?25l\x1b[H~\r\n~ 界 e\u{301}\x1b[4;2H\x1b[32m",
        "0123456789012345678\x1b[35m9",
        "012345678901234567界",
        "012345678901234567e\u{301}e\u{301}",
        "\x1b[2;4r\x1b[?6h\x1b[2;2Hin\x1b(0\x1b[4h",
        "\x1b[?7l\x1b[20h\x1b)0\x0equ",
        "\x1b[41m\x1b[2J\x1b[3;3Hx",
        "\x1b[1;2;8;53mx\x1b[0;4:3;58:5:9my\x1b[4:5;58:2::1:2:3mz",
        "\x1b]8;;https://a\x1b\\link\x1b[3;1H\x1b]8;;https://b\x1b\\0123456789012345678\x1b[1m9",
        "\x1b*K\x1b+0\x1bn[\x1bO",
        "\x1b[?5h\x1b(A#",
    ] {
        let mut screen = screen(20, 5, stream.as_bytes());
        let mut terminal = painted(&screen);
        let comparable = |screen: &Screen| {
            let rows: Vec<Vec<_>> = (0..5).map(|row| screen.row(row).runs).collect();
            (rows, screen.cursor(), *screen.modes(), screen.title().to_owned())
        };
        assert_eq!(comparable(&terminal), comparable(&screen), "{stream:?}");
        for more in ["q+\r\n", "y\x1b[?1049l", "z"] {
            screen.feed(more.as_bytes());
            terminal.feed(more.as_bytes());
            assert_eq!(comparable(&terminal), comparable(&screen), "{stream:?} then {more:?}");
        }
    }
}

#[test]
fn a_painted_terminal_goes_on_in_the_middle_of_a_sequence_or_a_character() {
    let whole = "a\x1b[38;2;1:2;65535;3mb界\x1b]2;title\x1b\\é\x1b[?1;25;7lx\x1b[?1$py\x1b(0q\x1b(B\x1b#8\x1b[1\x01;2Hz\x1b[2??h9\x1bP0;1q#0\x1b\\w\x1b[>1u\x1b_G\x07;\x1b\\v";
    let long = format!("{whole}\x1b]52;c;{}\x07u\x1b[{}m!", "AAAA".repeat(2_000), "1;".repeat(50));
    let comparable = |screen: &Screen| {
        let rows: Vec<Vec<_>> = (0..5).map(|row| screen.row(row).runs).collect();
        (rows, screen.cursor(), *screen.modes(), screen.title().to_owned())
    };
    for stream in [whole, &long] {
        let wanted = comparable(&screen(20, 5, stream.as_bytes()));
        for cut in (0..stream.len()).filter(|cut| cut % 97 == 0 || *cut < 300 || *cut > stream.len() - 200) {
            let (before, after) = stream.as_bytes().split_at(cut);
            let before = screen(20, 5, before);
            let mut terminal = painted(&before);
            terminal.feed(&render_begun(&before));
            terminal.feed(after);
            assert_eq!(comparable(&terminal), wanted, "cut before {:?}", after.escape_ascii().to_string());
        }
    }
}

#[test]
fn painted_rows_look_like_the_screen_and_change_no_mode() {
    let stream =
        "\x1b[?1;1003;1006;2004;7h\x1b=\x1b[>9u\x1b[2;3r\x1b[4h\x1b[41m界\x1b[3;19Hab\x1b[0mcd\x1b[5;1Hlast\x1b[?25l";
    let mut screen = screen(20, 5, stream.as_bytes());
    let mut terminal = Screen::new(20, 5, 0);
    terminal.feed("junk to be painted over\r\n".repeat(3).as_bytes());
    terminal.feed(&render_rows(&screen, 0..5));
    let rows = |screen: &Screen| (0..5).map(|row| screen.row(row).runs).collect::<Vec<_>>();
    assert_eq!(rows(&terminal), rows(&screen));
    assert_eq!(*terminal.modes(), Modes { cursor_visible: false, ..Modes::default() });
    screen.feed(b"\x1b[?25h\x1b[5;2Hx");
    terminal.feed(&render_rows(&screen, [4]));
    assert_eq!((rows(&terminal), terminal.cursor()), (rows(&screen), screen.cursor()));
}

#[test]
fn leaving_gives_the_terminal_back() {
    let mut terminal = screen(20, 5, b"\x1b[?1049h\x1b[?1;1002;1006;1004;2004;2026;6h\x1b[?7;25l\x1b[4;20h\x1b=\x1b[4 q\x1b[>5u\x1b(0\x0e\x1b[31m\x1b[2;3r");
    terminal.feed(&leave_vt(None));
    assert_eq!(*terminal.modes(), happy_screen::Modes::default());
    terminal.feed(b"q");
    assert_eq!(terminal.row(4).runs.first().map(|run| (run.text.as_str(), run.style)), Some(("q", Style::default())));
}

#[test]
fn sizes_are_clamped() {
    for (given, expected) in [((0, 0), (2, 1)), ((1, 1), (2, 1)), ((65535, 65535), (1000, 1000)), ((80, 24), (80, 24))]
    {
        assert_eq!(Screen::new(given.0, given.1, 0).size(), expected);
        let mut screen = screen(40, 10, "wide 界界界 text that is long enough to wrap at least once".as_bytes());
        screen.resize(given.0, given.1);
        assert_eq!(screen.size(), expected);
        assert_eq!(state(&restored(&screen)), state(&screen));
    }
}

#[test]
fn a_screen_may_move_to_another_thread() {
    let screen = screen(20, 2, b"here");
    let text = std::thread::spawn(move || screen.text()).join().expect("no panic");
    assert_eq!(text, "here");
}
