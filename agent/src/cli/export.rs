//! `happy export`: a session or a recording as text, as a page, as an asciicast, or as the bytes it printed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use happy_cast::{Event, Header, Writer};
use happy_rpc::{Attached, Session, SessionAttach};
use happy_screen::{Color, MAX_SNAPSHOT, Row, Run, Screen, Underline};
use happy_wire::terminal::{LABEL, TerminalMessage};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::client::{Channel, Client, Incoming};
use crate::cli::daemon::connect;
use crate::cli::output::{Form, aside, say};
use crate::cli::view::not_written;
use crate::cli::{ExportArgs, ExportFormat, play, record, sessions};
use crate::store::Home;
use crate::trouble::Trouble;

/// The rows of history that are asked for: more than a session keeps.
const ALL_ROWS: u32 = 100_000;
/// A screen is fed no more than this between two looks at its history, so that no row is missed: the six bytes of one sequence push up to 1,000 of
/// them.
const PIECE: usize = 32;
/// The rows that a screen of ours keeps between these looks.
const KEPT_ROWS: usize = 8192;
/// The most that an answer of a session may take: all that is asked for is there already.
const PATIENCE: Duration = Duration::from_secs(30);
/// While the log turns its oldest bytes go: so far behind them is begun, in turn.
const MARGINS: [u64; 4] = [0, 256 << 10, 1 << 20, 4 << 20];

/// `happy export`.
pub async fn export(home: &Home, form: Form, args: ExportArgs) -> Result<u8, Trouble> {
    let format = args.format.unwrap_or_else(|| {
        match args.to.as_deref().and_then(Path::extension).and_then(|extension| extension.to_str()) {
            Some("cast") => ExportFormat::Cast,
            Some("html" | "htm") => ExportFormat::Html,
            Some("raw" | "log") => ExportFormat::Raw,
            _ => ExportFormat::Text,
        }
    });
    let out = Out::open(args.to.as_deref())?;
    let mut export = Export { sink: Sink::new(format, args.screen, out), size: None };
    let done = match is_file(&args.what) {
        true => file(Path::new(&args.what), &mut export),
        false => session(home, &args, format, &mut export).await,
    };
    let done = done.and_then(|()| export.sink.finish());
    if let (Err(_), Some(to)) = (&done, &args.to) {
        // We have made it, and it is not what was wanted.
        let _ = std::fs::remove_file(to);
    }
    done?;
    if let Some(to) = args.to {
        #[derive(Serialize)]
        struct Exported {
            file: PathBuf,
            format: ExportFormat,
        }
        form.result(&Exported { file: record::absolute(to)?, format }, |exported| {
            say(&exported.file.display().to_string());
        });
    }
    Ok(0)
}

/// Whether a recording is meant, and not a session.
fn is_file(what: &str) -> bool {
    what == "-" || what.contains('/') || what.ends_with(".cast")
}

/// Where it is written.
struct Out(Box<dyn Write + Send>);

impl Out {
    fn open(to: Option<&Path>) -> Result<Self, Trouble> {
        let Some(to) = to else { return Ok(Self(Box::new(BufWriter::new(io::stdout())))) };
        // Neither over what is there nor through a link.
        let file = File::options().write(true).create_new(true).mode(0o600).open(to).map_err(|error| {
            let reason = crate::trouble::reason(&error);
            Trouble::new(
                format!("{} cannot be made: {reason}.", to.display()),
                "Give the name of a file that is not there yet.",
            )
        })?;
        Ok(Self(Box::new(BufWriter::new(file))))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.0.write_all(bytes).map_err(|error| not_written(&error))
    }
}

/// What is exported, piece by piece.
struct Export {
    sink: Sink,
    size: Option<(u16, u16)>,
}

/// What becomes of it.
enum Sink {
    /// Rows as they leave the screen, then the screen.
    Rows {
        rows: Rows,
        screen: Option<Box<Screen>>,
        written: u64,
        only_screen: bool,
    },
    Cast {
        writer: Writer,
        lines: Vec<u8>,
        at: u64,
        out: Out,
    },
    Raw(Out),
}

impl Sink {
    fn new(format: ExportFormat, only_screen: bool, out: Out) -> Self {
        match format {
            ExportFormat::Cast => Self::Cast { writer: Writer::default(), lines: Vec::new(), at: 0, out },
            ExportFormat::Raw => Self::Raw(out),
            ExportFormat::Text | ExportFormat::Html => {
                let is_html = format == ExportFormat::Html;
                let rows = Rows { out, is_html, is_begun: false, line: String::new(), blank: 0, joins: !only_screen };
                Self::Rows { rows, screen: None, written: 0, only_screen }
            }
        }
    }

    fn begin(&mut self, header: &Header) -> Result<(), Trouble> {
        match self {
            Self::Rows { screen, .. } => *screen = Some(Box::new(Screen::new(header.cols, header.rows, KEPT_ROWS))),
            Self::Cast { out, .. } => out.put(&header.to_line())?,
            Self::Raw(_) => {}
        }
        Ok(())
    }

    fn output(&mut self, ms: u64, bytes: &[u8]) -> Result<(), Trouble> {
        match self {
            Self::Raw(out) => out.put(bytes),
            Self::Cast { writer, lines, at, out } => {
                *at = ms;
                writer.output(ms, bytes, lines);
                out.put(lines)?;
                lines.clear();
                Ok(())
            }
            Self::Rows { rows, screen: Some(screen), written, only_screen } => {
                for piece in bytes.chunks(PIECE) {
                    screen.feed(piece);
                    if !*only_screen {
                        rows.history(screen, written)?;
                    }
                }
                Ok(())
            }
            Self::Rows { screen: None, .. } => Ok(()),
        }
    }

    fn event(&mut self, ms: u64, event: Event) -> Result<(), Trouble> {
        match (self, event) {
            (sink, Event::Output(text)) => return sink.output(ms, text.as_bytes()),
            (Self::Rows { rows: lines, screen: Some(screen), written, only_screen }, Event::Resize(cols, rows)) => {
                screen.resize(cols, rows);
                if !*only_screen {
                    lines.history(screen, written)?;
                }
            }
            (Self::Cast { writer, lines, at, out }, event) => {
                *at = ms;
                match event {
                    Event::Resize(cols, rows) => writer.resize(ms, cols, rows, lines),
                    Event::Mark(label) => writer.mark(ms, &label, lines),
                    Event::Exit(status) => writer.exit(ms, status.parse().unwrap_or_default(), lines),
                    Event::Output(_) => {}
                }
                out.put(lines)?;
                lines.clear();
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Trouble> {
        let out = match self {
            Self::Raw(out) => out,
            Self::Cast { writer, lines, at, out } => {
                writer.end(*at, lines);
                out.put(lines)?;
                out
            }
            Self::Rows { rows, screen, written, only_screen } => {
                if let Some(screen) = screen {
                    if !*only_screen {
                        rows.history(screen, written)?;
                    }
                    for row in 0..screen.size().1 {
                        rows.put(&screen.row(row))?;
                    }
                }
                rows.end()?;
                &mut rows.out
            }
        };
        out.0.flush().map_err(|error| not_written(&error))
    }
}

/// Rows as lines of text, or as a page.
struct Rows {
    out: Out,
    is_html: bool,
    is_begun: bool,
    /// What the next row goes on.
    line: String,
    /// Blank lines that stand at the end unless something comes after them.
    blank: usize,
    /// Rows that are one line become one.
    joins: bool,
}

/// The longest line that is made of rows that go on; a program can print one without an end.
const MAX_JOINED: usize = 1 << 20;

impl Rows {
    /// Rows that have left the screen since.
    fn history(&mut self, screen: &Screen, written: &mut u64) -> Result<(), Trouble> {
        let start = screen.scrollback_start();
        *written = (*written).max(start);
        while *written < screen.scrollback_total() {
            let row = usize::try_from(*written - start).ok().and_then(|index| screen.scrollback_row(index));
            self.put(&row.unwrap_or_default())?;
            *written += 1;
        }
        Ok(())
    }

    fn put(&mut self, row: &Row) -> Result<(), Trouble> {
        match self.is_html {
            true => row.runs.iter().for_each(|run| html_run(run, &mut self.line)),
            false => self.line.push_str(&row.text()),
        }
        match row.wrapped && self.joins && self.line.len() < MAX_JOINED {
            true => Ok(()),
            false => self.end_line(),
        }
    }

    fn end_line(&mut self) -> Result<(), Trouble> {
        self.begin()?;
        let line = std::mem::take(&mut self.line);
        let line = if self.is_html { &line } else { line.trim_end() };
        if line.is_empty() {
            self.blank += 1;
            return Ok(());
        }
        let mut blank = std::mem::take(&mut self.blank);
        while blank > 0 {
            let now = blank.min(1024);
            self.out.put(&[b'\n'; 1024][..now])?;
            blank -= now;
        }
        self.out.put(line.as_bytes())?;
        self.out.put(b"\n")
    }

    fn begin(&mut self) -> Result<(), Trouble> {
        match self.is_html && !std::mem::replace(&mut self.is_begun, true) {
            true => self.out.put(HTML_HEAD.as_bytes()),
            false => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Trouble> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        self.begin()?;
        if self.is_html { self.out.put(HTML_END.as_bytes()) } else { Ok(()) }
    }
}

const HTML_HEAD: &str = "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Terminal</title>\n\
<style>body { background: #101014; color: #e6e6e6 } pre { font-family: monospace; line-height: 1.2 }</style>\n<pre>";
const HTML_END: &str = "</pre>\n";

/// The sixteen colours that a theme would give: those of xterm.
const THEME: [&str; 16] = [
    "#000000", "#cd0000", "#00cd00", "#cdcd00", "#0000ee", "#cd00cd", "#00cdcd", "#e5e5e5", "#7f7f7f", "#ff0000",
    "#00ff00", "#ffff00", "#5c5cff", "#ff00ff", "#00ffff", "#ffffff",
];

fn css(color: Color) -> Option<String> {
    Some(match color {
        Color::Default => return None,
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        Color::Indexed(index @ 0..16) => THEME[usize::from(index)].to_owned(),
        Color::Indexed(index @ 16..232) => {
            let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
            let cube = index - 16;
            format!("#{:02x}{:02x}{:02x}", level(cube / 36), level(cube / 6 % 6), level(cube % 6))
        }
        Color::Indexed(index) => {
            let grey = 8 + 10 * (index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    })
}

/// A run as HTML. Its text is a program's, and stays text.
fn html_run(run: &Run, out: &mut String) {
    let style = run.style;
    let (mut fg, mut bg) = (css(style.fg), css(style.bg));
    if style.inverse {
        (fg, bg) = (Some(bg.unwrap_or("#101014".into())), Some(fg.unwrap_or("#e6e6e6".into())));
    }
    let underline = match style.underline {
        Underline::None => None,
        Underline::Single => Some("underline"),
        Underline::Double => Some("underline double"),
        Underline::Curly => Some("underline wavy"),
        Underline::Dotted => Some("underline dotted"),
        Underline::Dashed => Some("underline dashed"),
    };
    // A colour and a style are those of all lines of an element.
    let line_color = css(style.underline_color).filter(|_| underline.is_some());
    let lines: Vec<&str> = [
        style.overline.then_some("overline"),
        style.strikethrough.then_some("line-through"),
        underline,
        line_color.as_deref(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let rules: Vec<String> = [
        fg.map(|color| format!("color:{color}")),
        bg.map(|color| format!("background:{color}")),
        style.bold.then(|| "font-weight:bold".into()),
        style.faint.then(|| "opacity:.6".into()),
        style.italic.then(|| "font-style:italic".into()),
        (!lines.is_empty()).then(|| format!("text-decoration:{}", lines.join(" "))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !rules.is_empty() {
        out.push_str(&format!("<span style=\"{}\">", rules.join(";")));
    }
    if let Some(link) = &run.link {
        out.push_str("<a href=\"");
        push_html(link, out);
        out.push_str("\">");
    }
    match style.concealed {
        true => out.extend(std::iter::repeat_n(' ', usize::from(run.columns))),
        false => push_html(&run.text, out),
    }
    if run.link.is_some() {
        out.push_str("</a>");
    }
    if !rules.is_empty() {
        out.push_str("</span>");
    }
}

/// Text, as text and as the value of an attribute.
fn push_html(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
}

/// A recording.
fn file(path: &Path, export: &mut Export) -> Result<(), Trouble> {
    let mut reader = play::open(path)?;
    export.sink.begin(reader.header())?;
    while let Some(timed) = reader.next_event().map_err(|error| play::not_a_cast(path, &error))? {
        let ms = u64::try_from(timed.at.as_millis()).unwrap_or(u64::MAX);
        tokio::task::block_in_place(|| export.sink.event(ms, timed.event))?;
    }
    Ok(())
}

async fn session(home: &Home, args: &ExportArgs, format: ExportFormat, export: &mut Export) -> Result<(), Trouble> {
    let client = connect(home, args.machine.machine.as_deref()).await?;
    let session = sessions::find(&client, &args.what).await?;
    match format {
        ExportFormat::Text | ExportFormat::Html => {
            let screen = snapshot(&client, &session).await?;
            if let Sink::Rows { screen: shown, .. } = &mut export.sink {
                *shown = Some(Box::new(screen));
            }
            Ok(())
        }
        ExportFormat::Cast | ExportFormat::Raw => {
            if format == ExportFormat::Cast {
                aside("happy: when each byte was printed is not known: the recording shows all of it at once");
            }
            log(&client, &session, export).await
        }
    }
}

/// Looks at a session from an offset on, without a say in it.
async fn look(client: &Client, session: &Session, from: Option<u64>) -> Result<(Attached, Channel), Trouble> {
    let channel = client.open(LABEL).await.map_err(|failure| client.explain(failure, false))?;
    let request = SessionAttach {
        session: session.id,
        channel: channel.number,
        writer: Uuid::new_v4(),
        name: crate::store::host_name(),
        from,
        scrollback: ALL_ROWS,
        lossless: false,
        credit: false,
        cols: session.cols,
        rows: session.rows,
        take_control: false,
    };
    let attached = client.call(request).await.map_err(|failure| client.explain(failure, false))?;
    Ok((attached, channel))
}

/// The next message; its bytes.
async fn message(channel: &mut Channel) -> Result<Vec<u8>, Trouble> {
    let next = tokio::time::timeout(PATIENCE, channel.next()).await.map_err(|_| {
        Trouble::new(
            format!("The session has sent nothing for {} seconds.", PATIENCE.as_secs()),
            "See whether its machine is there, and try again.",
        )
    })?;
    match next {
        Some(Incoming::Message(message)) => Ok(message),
        Some(Incoming::Closed { reason, .. }) => Err(Trouble::new(
            format!(
                "The session was not shown to its end: {}.",
                if reason.is_empty() { "it is gone" } else { &reason }
            ),
            "Try again.",
        )),
        None => Err(Trouble::new("The daemon ended.", "Start it with `happy daemon start`, and try again.")),
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(format!("The session cannot be read: {error}."), "Upgrade the older of the two sides.")
}

/// The screen with all history that is kept.
async fn snapshot(client: &Client, session: &Session) -> Result<Screen, Trouble> {
    let (_, mut channel) = look(client, session, None).await?;
    let mut bytes = Vec::new();
    loop {
        let message = message(&mut channel).await?;
        if let TerminalMessage::Snapshot { part, parts, bytes: more, .. } =
            TerminalMessage::decode(&message).map_err(|error| unreadable(&error))?
        {
            if part == 0 {
                bytes.clear();
            }
            if bytes.len() + more.len() > MAX_SNAPSHOT {
                return Err(unreadable(&"its screen is too large"));
            }
            bytes.extend_from_slice(more);
            if part + 1 == parts {
                break;
            }
        }
    }
    client.close(channel.number).await;
    Screen::restore(&bytes, ALL_ROWS as usize).map_err(|error| unreadable(&error))
}

/// What is kept of the output, up to what had been printed when it was asked for.
async fn log(client: &Client, session: &Session, export: &mut Export) -> Result<(), Trouble> {
    for margin in MARGINS {
        // The oldest that is kept may go before it is asked for.
        let session = sessions::find(client, &session.id.to_string()).await?;
        let kept_from = session.kept_from.unwrap_or(0);
        let from = if kept_from == 0 { 0 } else { (kept_from + margin).min(session.output_offset) };
        let (attached, mut channel) = look(client, &session, Some(from)).await?;
        let whole = follow(&session, from, attached.session.output_offset, &mut channel, export).await;
        client.close(channel.number).await;
        if whole? {
            return Ok(());
        }
    }
    Err(Trouble::new(
        "The session prints so fast that its oldest output goes before it can be read.",
        "Record it with `happy record`, or stop it for a moment.",
    ))
}

/// Takes output up to `end`; `false` when its beginning is gone.
async fn follow(
    session: &Session,
    from: u64,
    end: u64,
    channel: &mut Channel,
    export: &mut Export,
) -> Result<bool, Trouble> {
    // What begins somewhere may begin within a sequence or a character; a line begins with neither.
    let mut is_line_wanted = from > 0;
    let mut position = from;
    while position < end || export.size.is_none() {
        let message = message(channel).await?;
        match TerminalMessage::decode(&message).map_err(|error| unreadable(&error))? {
            TerminalMessage::Gap { .. } | TerminalMessage::Snapshot { .. } if position == from => return Ok(false),
            TerminalMessage::Gap { .. } | TerminalMessage::Snapshot { .. } => {
                return Err(Trouble::new(
                    "A part of the output went before it could be read.",
                    "Export it again when the session prints less.",
                ));
            }
            TerminalMessage::Resized { cols, rows, .. } => match export.size.replace((cols, rows)) {
                None => {
                    let header = Header {
                        cols,
                        rows,
                        timestamp: Some(session.created_at / 1000),
                        title: Some(format!("{} (without times)", session.name)),
                        command: (!session.command.is_empty()).then(|| session.command.join(" ")),
                        idle_time_limit: None,
                    };
                    export.sink.begin(&header)?;
                }
                Some(before) if before == (cols, rows) => {}
                Some(_) => export.sink.event(0, Event::Resize(cols, rows))?,
            },
            TerminalMessage::Output { offset, bytes } => {
                let new = bytes.get(usize::try_from(position.saturating_sub(offset)).unwrap_or(usize::MAX)..);
                let new = new.unwrap_or_default();
                position += new.len() as u64;
                let new = match is_line_wanted {
                    false => new,
                    true => match new.iter().position(|byte| *byte == b'\n') {
                        None => continue,
                        Some(line) => &new[line + 1..],
                    },
                };
                is_line_wanted = false;
                tokio::task::block_in_place(|| export.sink.output(0, new))?;
            }
            TerminalMessage::Exited { .. } => break,
            _ => {}
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use happy_screen::Style;

    use super::*;

    #[test]
    fn a_recording_is_told_from_a_session() {
        for (what, wanted) in [
            ("./x", true),
            ("a/b", true),
            ("x.cast", true),
            ("-", true),
            ("1a2b", false),
            ("vim", false),
            ("x.txt", false),
        ] {
            assert_eq!(is_file(what), wanted, "{what}");
        }
    }

    #[test]
    fn what_a_program_prints_stays_text_in_a_page() {
        let html = |text: &str, style: Style, link: Option<&str>| {
            let link = link.map(Into::into);
            let run = Run { text: text.into(), style, columns: text.len() as u16, wide: false, link };
            let mut out = String::new();
            html_run(&run, &mut out);
            out
        };
        let plain = Style::default();
        assert_eq!(
            html("<script>alert(1)</script>&amp;", plain, None),
            "&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;"
        );
        assert_eq!(
            html("<x>", plain, Some("https://a.example/\"onclick=\"<")),
            "<a href=\"https://a.example/&quot;onclick=&quot;&lt;\">&lt;x&gt;</a>"
        );
        assert_eq!(html("hidden", Style { concealed: true, ..plain }, None), "      ");
        let style = Style { fg: Color::Indexed(196), inverse: true, bold: true, underline: Underline::Single, ..plain };
        assert_eq!(
            html("x", style, None),
            "<span style=\"color:#101014;background:#ff0000;font-weight:bold;text-decoration:underline\">x</span>"
        );
        let red = Color::Indexed(9);
        let style = Style { underline: Underline::Curly, underline_color: red, overline: true, ..plain };
        assert_eq!(html("x", style, None), "<span style=\"text-decoration:overline underline wavy #ff0000\">x</span>");
        assert_eq!(
            (css(Color::Indexed(231)), css(Color::Indexed(255))),
            (Some("#ffffff".into()), Some("#eeeeee".into()))
        );
    }
}
