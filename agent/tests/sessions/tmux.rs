//! Sessions of a real tmux beside ours, and what its user sees at the desk meanwhile.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use happy::session::{AttachError, AttachRequest, Config, Events, Sessions};
use happy_rpc::{CallError, ErrorCode, Event, Session, SessionCreate, SessionKind, SessionState};
use happy_screen::Screen;
use happy_wire::terminal::TerminalMessage;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use uuid::Uuid;

use crate::credit::Drawer;
use crate::support::*;
use crate::upgrade::pretender;

/// A user's tmux in a folder of its own, with a session `one` of 100 × 30 at the desk's size.
struct Tmux {
    above: tempfile::TempDir,
    conf: String,
}

impl Tmux {
    fn none() -> Self {
        let above = tempfile::Builder::new().prefix("hapmux").tempdir().unwrap();
        // Nothing on the screen changes by itself.
        let conf = "set -g status-interval 0\nset -g status-right ''\nset -g default-shell /bin/sh\nset -g escape-time 0\nset -g assume-paste-time 0\n\
                    setw -g automatic-rename off\nset -g default-command 'exec /bin/sh'\n";
        Self { above, conf: conf.into() }
    }

    fn start() -> Self {
        let tmux = Self::none();
        tmux.run(&["new-session", "-d", "-s", "one", "-x", "100", "-y", "30"]);
        tmux
    }

    fn folder(&self) -> PathBuf {
        happy::tmux::sockets::folder(self.above.path().to_str())
    }

    fn command(&self, server: &str) -> Command {
        let conf = self.above.path().join("conf");
        std::fs::write(&conf, &self.conf).unwrap();
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/").env("PS1", "$ ");
        command.env("TMUX_TMPDIR", self.above.path()).env("LANG", "C.UTF-8").env("ENV", "");
        command.args(["-u", "-f"]).arg(conf).args(["-L", server]);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        self.run_at("default", args)
    }

    #[track_caller]
    fn run_at(&self, server: &str, args: &[&str]) -> String {
        let output = self.command(server).args(args).output().expect("these tests need tmux: apt-get install tmux");
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn has(&self, session: &str) -> bool {
        self.command("default").args(["has-session", "-t", &format!("={session}")]).output().unwrap().status.success()
    }

    fn config(&self, home: &Home) -> Config {
        Config { tmux: vec![self.folder()], ..home.config() }
    }

    async fn open(&self, home: &Home) -> Sessions {
        Sessions::open(self.config(home)).await.unwrap()
    }

    /// The text that a pane shows.
    fn pane(&self, target: &str) -> String {
        self.run(&["capture-pane", "-p", "-t", target])
    }

    /// Waits until tmux says so.
    #[track_caller]
    fn until(&self, target: &str, format: &str, wanted: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = self.run(&["display-message", "-p", "-t", target, format]);
            if now == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{format} stays {now}, and not {wanted}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        for server in ["default", "other"] {
            let _ = self.command(server).arg("kill-server").output();
        }
    }
}

/// The user at the desk: an ordinary client in a terminal.
struct Desk {
    child: Box<dyn Child + Send + Sync>,
    _master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    screen: Screen,
    bytes: usize,
}

impl Desk {
    fn attach(tmux: &Tmux, session: &str, cols: u16, rows: u16) -> Self {
        let pty = native_pty_system().openpty(PtySize { cols, rows, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new("tmux");
        command.args(["-u", "-L", "default", "attach-session", "-t", &format!("={session}")]);
        command.env("TMUX_TMPDIR", tmux.above.path());
        command.env("TERM", "xterm-256color");
        command.env_remove("TMUX");
        let child = pty.slave.spawn_command(command).unwrap();
        let mut reader = pty.master.try_clone_reader().unwrap();
        let (give, output) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n) = reader.read(&mut chunk) {
                if n == 0 || give.send(chunk[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keyboard = pty.master.take_writer().unwrap();
        Self { child, _master: pty.master, keyboard, output, screen: Screen::new(cols, rows, 0), bytes: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Takes what has come, and answers what tmux asks of a terminal.
    fn take(&mut self, patience: Duration) -> bool {
        let Ok(bytes) = self.output.recv_timeout(patience) else { return false };
        self.bytes += bytes.len();
        let fed = self.screen.feed(&bytes);
        let _ = self.keyboard.write_all(&fed.replies);
        true
    }

    #[track_caller]
    fn until(&mut self, what: &str, fits: impl Fn(&Screen) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !fits(&self.screen) {
            self.take(Duration::from_millis(50));
            assert!(Instant::now() < deadline, "{what}: the desk stays at:\n{}", self.screen.text());
        }
    }

    /// All that tmux had to draw has come: it draws in order, and this comes last.
    fn settle(&mut self, tmux: &Tmux, target: &str) -> Vec<u8> {
        let mark = Uuid::new_v4().simple().to_string();
        tmux.run(&["rename-window", "-t", target, &mark]);
        self.until("the mark", |screen| screen.text().contains(&mark[..8]));
        tmux.run(&["rename-window", "-t", target, "w"]);
        self.until("the name", |screen| !screen.text().contains(&mark[..8]));
        self.screen.snapshot(0)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn named(sessions: &[Session], name: &str) -> Session {
    let found = sessions.iter().find(|session| session.name == name);
    found.unwrap_or_else(|| panic!("no session {name} among {sessions:#?}")).clone()
}

/// Waits for an event that fits.
async fn heard(events: &mut Events, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
    soon(what, async {
        loop {
            let event = events.next().await.unwrap();
            if fits(&event) {
                return event;
            }
        }
    })
    .await
}

fn is_named(event: &Event, name: &str) -> bool {
    matches!(event, Event::SessionChanged(session) if session.name == name)
}

/// What a viewer sees.
fn seen(glass: &Glass) -> Option<Screen> {
    let (_, snapshot) = glass.snapshot.as_ref()?;
    let mut screen = Screen::restore(snapshot, 0).unwrap();
    screen.feed(&glass.since_snapshot);
    Some(screen)
}

async fn until_seen(glass: &mut Glass, text: &str) {
    glass.until(text, |glass| seen(glass).is_some_and(|screen| screen.text().contains(text))).await;
}

fn phone(session: &Session) -> AttachRequest {
    AttachRequest { cols: 40, rows: 20, ..request(session) }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_found_and_followed_without_asking() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    assert_eq!(
        (one.kind, one.state, one.viewers, one.controller.as_deref()),
        (SessionKind::Tmux, SessionState::Running, 0, None)
    );
    assert_eq!((one.cols, one.rows), (100, 31), "with the status line");
    assert!(one.created_at > 1_600_000_000_000, "{}", one.created_at);

    let mut events = sessions.subscribe();
    tmux.run(&["new-session", "-d", "-s", "two"]);
    let Event::SessionChanged(two) = heard(&mut events, "a new session", |event| is_named(event, "two")).await else {
        panic!()
    };
    assert_ne!(two.id, one.id);
    tmux.run(&["rename-session", "-t", "=two", "a b;$(x) é"]);
    let Event::SessionChanged(renamed) = heard(&mut events, "a new name", |event| is_named(event, "a b;$(x) é")).await
    else {
        panic!()
    };
    assert_eq!(renamed.id, two.id);
    tmux.run(&["kill-session", "-t", "=a b;$(x) é"]);
    heard(&mut events, "the end", |event| *event == Event::SessionRemoved { session: two.id }).await;

    // Another server, later.
    tmux.run_at("other", &["new-session", "-d", "-s", "three"]);
    heard(&mut events, "another server", |event| is_named(event, "three")).await;
    let three = named(&sessions.list().await, "three");
    tmux.run_at("other", &["kill-server"]);
    heard(&mut events, "its end", |event| *event == Event::SessionRemoved { session: three.id }).await;
    // And the same once more, which is not the same.
    tmux.run_at("other", &["new-session", "-d", "-s", "three"]);
    let Event::SessionChanged(again) = heard(&mut events, "the server again", |event| is_named(event, "three")).await
    else {
        panic!()
    };
    assert_ne!(again.id, three.id);

    // Another daemon knows them by the same ids.
    let other = tmux.open(&Home::new()).await;
    assert_eq!(named(&other.list().await, "one").id, one.id);
    assert_eq!(
        tmux.run(&["list-sessions", "-F", "#{session_attached}"]),
        "0",
        "whoever lists is no client of a session"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_a_folder_that_was_not_there_is_found_when_the_list_is_asked_for() {
    let (home, tmux) = (Home::new(), Tmux::none());
    let sessions = tmux.open(&home).await;
    assert!(sessions.list().await.is_empty());
    tmux.run(&["new-session", "-d", "-s", "late"]);
    soon("the session", async {
        while !sessions.list().await.iter().any(|session| session.name == "late") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_shown_typed_into_and_left_as_it_was() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    until_seen(&mut glass, "[one]").await;
    glass.type_in(b"echo x$((6*7))x\r").await;
    until_seen(&mut glass, "x42x").await;
    assert!(tmux.pane("=one:").contains("x42x"));
    assert_eq!(glass.size, Some((100, 31)));

    // Windows, panes and keys are tmux's own.
    glass.type_in(b"\x02%").await;
    tmux.until("=one:", "#{window_panes}", "2");
    until_seen(&mut glass, "│").await;
    let two = named(&sessions.list().await, "one");
    assert_eq!((two.viewers, two.state), (1, SessionState::Running));

    // It is renamed while somebody looks.
    tmux.run(&["rename-session", "-t", "=one", "work"]);
    until_seen(&mut glass, "[work]").await;
    glass.type_in(b"echo y$((6*7))y\r").await;
    until_seen(&mut glass, "y42y").await;
    let mut events = sessions.subscribe();
    while !is_named(&Event::SessionChanged(sessions.session(one.id).unwrap()), "work") {
        heard(&mut events, "the name", |event| is_named(event, "work")).await;
    }

    // A viewer that comes back goes on at its byte.
    let (offset, writer) = (glass.offset.unwrap(), Uuid::new_v4());
    drop(glass);
    let again = AttachRequest { from: Some(offset), writer, ..phone(&one) };
    let mut glass = Glass::attach(&sessions, again).await;
    glass.type_in(b"echo z$((6*7))z\r").await;
    glass.until("the echo", |glass| glass.shows("z42z")).await;
    assert!(glass.gaps.is_empty() && glass.snapshots == 0);
    drop(glass);
    assert!(tmux.has("work"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desk_does_not_notice_who_looks_and_gets_its_size_back_from_who_took_it() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let mut desk = Desk::attach(&tmux, "one", 120, 35);
    desk.until("the shell", |screen| screen.text().contains("$"));
    desk.press("ls /; tput cols\r");
    desk.until("a line, and the shell again", |screen| screen.text().contains("120\n$"));
    let before = desk.settle(&tmux, "=one:");

    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    assert_eq!(one.controller.as_deref(), Some("tmux"));
    let bytes = desk.bytes;
    // It would take the size if nobody decided it.
    let mut glass = Glass::attach(&sessions, AttachRequest { take_control: true, ..phone(&one) }).await;
    until_seen(&mut glass, "120").await;
    glass.until("the desk's size", |glass| glass.size == Some((120, 35))).await;
    glass.until("who decides", |glass| glass.controller == "tmux").await;
    assert!(!glass.you_control);
    let text = |screen: &Screen| screen.text();
    assert_eq!(seen(&glass).map(|screen| text(&screen)), Some(text(&desk.screen)), "the same picture");
    let attachment = glass.attached.attachment;
    drop(glass);
    soon("the viewer to be gone", async {
        while sessions.list().await.iter().any(|session| session.viewers > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    while desk.take(Duration::from_millis(200)) {}
    assert_eq!(desk.bytes, bytes, "not one byte was drawn at the desk");
    assert!(sessions.take_control(attachment, 40, 20).await.is_err());

    // Somebody who takes the size has it, and the desk sees that.
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    sessions.take_control(glass.attached.attachment, 40, 20).await.unwrap();
    tmux.until("=one:", "#{window_width}x#{window_height}", "40x19");
    glass.until("control", |glass| glass.you_control && glass.size == Some((40, 20))).await;
    glass.type_in(b"clear; tput cols\r").await;
    until_seen(&mut glass, "40").await;
    sessions.resize(glass.attached.attachment, 50, 22).await.unwrap();
    tmux.until("=one:", "#{window_width}x#{window_height}", "50x21");
    glass.type_in(b"clear\r").await;
    drop(glass);
    // Left, it is the desk's again.
    tmux.until("=one:", "#{window_width}x#{window_height}", "120x34");
    desk.press("clear; ls /; tput cols\r");
    desk.until("the old width", |screen| screen.text().contains("120"));
    desk.press("\x0c");
    desk.settle(&tmux, "=one:");
    assert_eq!(tmux.run(&["show-options", "-wv", "-t", "=one:", "window-size"]), "", "nobody has made it manual");
    assert_eq!(Screen::restore(&before, 0).unwrap().size(), desk.screen.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_session_without_a_desk_is_who_takes_it_and_stays() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut glass = Glass::attach(&sessions, AttachRequest { take_control: true, ..phone(&one) }).await;
    assert!(glass.attached.you_control);
    tmux.until("=one:", "#{window_width}x#{window_height}", "40x19");
    until_seen(&mut glass, "[one]").await;
    // Another window, another size: viewers get what tmux shows.
    let mut other = Glass::attach(&sessions, AttachRequest { cols: 90, rows: 30, ..request(&one) }).await;
    other.until("the size", |glass| glass.size == Some((40, 20))).await;
    assert!(!other.you_control);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_in_pages_and_goes_on() {
    let (home, tmux) = (Home::new(), Tmux::start());
    // A program prints what looks like the end of an answer, and each row in its colour.
    let hostile =
        "i=0; while [ $i -lt 500 ]; do i=$((i+1)); printf '\\033[3%dmrow %d\\n%%end 1 %d 1\\n' $((i%8)) $i $i; done";
    tmux.run(&["respawn-pane", "-k", "-t", "=one:", &format!("{hostile}; exec cat")]);
    tmux.until("=one:", "#{history_size}", "971");
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut viewer = Drawer::attach(&sessions, &one, 1e9).await;
    // It asks how far back the history goes, as phones do, and is told when it is there.
    viewer.sender.send(&TerminalMessage::HistoryWanted { before: 0, rows: 0 }.to_vec()).await.unwrap();
    // The client of tmux may draw its screen before or after that. Neither takes the other away.
    soon("the history beside the screen", async {
        while viewer.screen.scrollback_total() < 971 || !viewer.screen.text().contains("row 500") {
            viewer.step(Duration::from_millis(20)).await;
        }
    })
    .await;
    viewer.ask_for_history().await;
    let row = |viewer: &Drawer, n: u64| viewer.pages.row(n).map(|row| row.text()).unwrap_or_default();
    assert_eq!(
        (row(&viewer, 0), row(&viewer, 1), row(&viewer, 970)),
        ("row 1".into(), "%end 1 1 1".into(), "row 486".into())
    );
    let coloured = viewer.pages.row(2).unwrap();
    let mut alike = Screen::new(100, 1, 9);
    alike.feed(b"\x1b[32mrow 2\r\n");
    assert_eq!(Some(coloured), alike.scrollback_row(0));

    // More is printed; what is new follows, and numbers stay.
    tmux.run(&["send-keys", "-t", "=one:", "-l", "more\n"]);
    soon("the new rows", async {
        while viewer.screen.scrollback_total() < 973 {
            viewer.step(Duration::from_millis(20)).await;
        }
    })
    .await;
    viewer.ask_for_history().await;
    assert_eq!(
        (row(&viewer, 0), row(&viewer, 971), row(&viewer, 972)),
        ("row 1".into(), "%end 1 486 1".into(), "row 487".into())
    );
    assert_eq!(viewer.kept_from, 0);

    // Another pane, another history: the old numbers are gone for good.
    tmux.run(&["new-window", "-t", "=one:", "seq 200; exec cat"]);
    soon("the other history", async {
        while viewer.kept_from < 973 || viewer.screen.scrollback_total() < 973 + 171 {
            viewer.step(Duration::from_millis(20)).await;
        }
    })
    .await;
    viewer.ask_for_history().await;
    viewer.pages.forget_before(viewer.kept_from);
    assert_eq!(
        (row(&viewer, 972), row(&viewer, 973), row(&viewer, 973 + 170)),
        (String::new(), "1".into(), "171".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_comes_whole_while_more_is_printed() {
    let (home, mut tmux) = (Home::new(), Tmux::none());
    tmux.conf.push_str("set -g history-limit 20000\n");
    tmux.run(&[
        "new-session",
        "-d",
        "-s",
        "one",
        "-x",
        "100",
        "-y",
        "30",
        "seq 6000; read go; seq 6001 6040; read go; seq 6041 6100; exec cat",
    ]);
    tmux.until("=one:", "#{history_size}", "5971");
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut viewer = Drawer::attach(&sessions, &one, 1e9).await;
    viewer.sender.send(&TerminalMessage::HistoryWanted { before: 0, rows: 0 }.to_vec()).await.unwrap();
    tmux.run(&["send-keys", "-t", "=one:", "Enter"]);
    tmux.run(&["send-keys", "-t", "=one:", "Enter"]);
    soon("the history", async {
        while viewer.screen.scrollback_total() < 6_073 {
            viewer.step(Duration::from_millis(20)).await;
        }
    })
    .await;
    viewer.ask_for_history().await;
    let first = viewer.pages.next(0).unwrap();
    let texts: Vec<String> = (first..viewer.screen.scrollback_total())
        .map(|n| viewer.pages.row(n).unwrap().text())
        .filter(|text| !text.is_empty())
        .collect();
    let wanted: Vec<String> = (1..=6_071).map(|n: u32| n.to_string()).collect();
    assert!(texts == wanted, "{} rows from {:?} to {:?}", texts.len(), texts.first(), texts.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_made_and_ended_and_no_word_reaches_a_shell() {
    let (home, tmux) = (Home::new(), Tmux::none());
    let sessions = tmux.open(&home).await;
    // tmux takes no dot in a name.
    let trap = home.path().join("trap");
    std::fs::create_dir_all(home.path()).unwrap();
    let name = format!("a#(touch {0})$(touch {0});", trap.display());
    let create = |name: &str, command: &[&str]| SessionCreate {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        name: Some(name.to_owned()),
        cwd: Some("/usr".into()),
        tmux: true,
        ..Default::default()
    };
    // There is no server yet.
    let words = ["printf", "<%s>", "a b", "$(id)", "#{pid}", "x;", ";"];
    let script = ["sh", "-c", "\"$@\"; pwd; exec cat", "sh"];
    let one = sessions.create(create(&name, &[&script[..], &words[..]].concat())).await.unwrap();
    assert_eq!((one.kind, one.name.clone()), (SessionKind::Tmux, name.replace('.', "_")));
    let mut glass = Glass::attach(&sessions, AttachRequest { take_control: true, ..request(&one) }).await;
    until_seen(&mut glass, "<a b><$(id)><#{pid}><x;><;>").await;
    until_seen(&mut glass, "/usr").await;

    // A single word is a program, and not a line for a shell.
    let odd = home.path().join("odd; $name");
    std::fs::write(&odd, "#!/bin/sh\necho odd$((6*7))\nexec cat\n").unwrap();
    std::fs::set_permissions(&odd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let two = sessions.create(create("two", &[odd.to_str().unwrap()])).await.unwrap();
    let mut other = Glass::attach(&sessions, request(&two)).await;
    until_seen(&mut other, "odd42").await;
    assert!(!trap.exists());

    let error = CallError::from(sessions.create(create("two", &["cat"])).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("duplicate session"), "{error}");

    let mut events = sessions.subscribe();
    sessions.kill(one.id).await.unwrap();
    assert_eq!(soon("the end", glass.until_exit()).await, happy_wire::terminal::Exit::Code(0));
    drop(glass);
    heard(&mut events, "its removal", |event| *event == Event::SessionRemoved { session: one.id }).await;
    assert!(tmux.has("two") && sessions.list().await.len() == 1);
    assert!(matches!(sessions.attach(request(&one)).await, Err(AttachError::NoSession)));
    assert!(!trap.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_takes_its_sessions_and_viewers_are_told() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let sessions = tmux.open(&home).await;
    let own = sessions.create(sh("exec cat")).await.unwrap();
    let one = named(&sessions.list().await, "one");
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    until_seen(&mut glass, "[one]").await;
    let mut events = sessions.subscribe();
    let pid = tmux.run(&["display-message", "-p", "#{pid}"]).parse().unwrap();
    signal(pid, rustix::process::Signal::KILL);
    glass.until_exit().await;
    assert!(seen(&glass).unwrap().text().contains("server"), "{}", seen(&glass).unwrap().text());
    drop(glass);
    heard(&mut events, "its removal", |event| *event == Event::SessionRemoved { session: one.id }).await;
    let left = sessions.list().await;
    assert_eq!(left.iter().map(|session| session.id).collect::<Vec<_>>(), [own.id]);
    let error = CallError::from(sessions.attach(phone(&one)).await.map(drop).unwrap_err());
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_shows_no_other_one() {
    let (home, tmux) = (Home::new(), Tmux::start());
    tmux.run(&["set-option", "-g", "detach-on-destroy", "off"]);
    tmux.run(&["new-session", "-d", "-s", "secret", "echo other$((6*7)); exec cat"]);
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    until_seen(&mut glass, "[one]").await;
    tmux.run(&["kill-session", "-t", "=one"]);
    glass.until_exit().await;
    assert_eq!(tmux.run(&["list-clients"]), "", "our clients have gone");
    assert!(tmux.has("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_detaches_in_tmux_has_left_and_others_may_attach_again() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut other = Glass::attach(&sessions, phone(&one)).await;
    let mut glass = Glass::attach(&sessions, request(&one)).await;
    until_seen(&mut glass, "[one]").await;
    glass.type_in(b"\x02d").await;
    assert_eq!(glass.until_exit().await, happy_wire::terminal::Exit::Code(0));
    assert!(other.cut_off().await.is_none(), "without a fault");
    drop((glass, other));
    assert_eq!(sessions.session(one.id).unwrap().state, SessionState::Running);
    let mut glass = soon("attaching", Glass::attach(&sessions, phone(&one))).await;
    until_seen(&mut glass, "[one]").await;

    // Somebody who sends all clients away and hangs up their parents (`-P`) does not end the session. No desk: its parent is this test.
    tmux.run(&["detach-client", "-P", "-s", "=one"]);
    assert!(glass.cut_off().await.is_none());
    let mut glass = soon("attaching", Glass::attach(&sessions, phone(&one))).await;
    until_seen(&mut glass, "[one]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looking_leaves_tmux_alone_but_never_ends_a_session() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let program = pretender(&home, "hasty", r#"{"linger_ms": 1}"#);
    let config = Config { holder: vec![program.into(), "holder".into()], ..tmux.config(&home) };
    let sessions = Sessions::open(config).await.unwrap();
    let one = named(&sessions.list().await, "one");
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    until_seen(&mut glass, "[one]").await;
    drop(glass);
    tmux.until("=one:", "#{session_attached}", "0");
    assert_eq!(sessions.list().await.len(), 1);
    soon("the holder to go", async {
        while home.status(one.id).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    })
    .await;

    // This one would end with its last client, which is us once the desk has gone.
    let desk = Desk::attach(&tmux, "one", 80, 24);
    tmux.until("=one:", "#{session_attached}", "1");
    tmux.run(&["set-option", "-t", "=one:", "destroy-unattached", "on"]);
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    until_seen(&mut glass, "[one]").await;
    drop(desk);
    tmux.until("=one:", "#{session_attached}", "2");
    drop(glass);
    soon("nobody to look", async {
        while sessions.list().await[0].viewers > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    glass.type_in(b"echo w$((6*7))w\r").await;
    until_seen(&mut glass, "w42w").await;
    drop(glass);
    // Once the desk is back, it is the desk's affair.
    let mut desk = Desk::attach(&tmux, "one", 80, 24);
    desk.until("the desk", |screen| screen.text().contains("w42w"));
    tmux.until("=one:", "#{session_attached}", "1");
    drop(desk);
    soon("the session's end", async {
        while tmux.has("one") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_come_and_go_and_viewers_go_on() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let sessions = tmux.open(&home).await;
    let one = named(&sessions.list().await, "one");
    let mut glass = Glass::attach(&sessions, phone(&one)).await;
    until_seen(&mut glass, "[one]").await;
    let offset = glass.offset.unwrap();
    drop((glass, sessions));

    tmux.run(&["send-keys", "-t", "=one:", "echo m$((6*7))m", "Enter"]);
    let sessions = tmux.open(&home).await;
    assert_eq!(sessions.list().await.len(), 1);
    let mut glass = Glass::attach(&sessions, AttachRequest { from: Some(offset), ..phone(&one) }).await;
    glass.until("what was printed meanwhile", |glass| glass.shows("m42m")).await;
    assert!(glass.gaps.is_empty() && glass.snapshots == 0);

    // The holder dies: the session does not.
    let holder = home.status(one.id).unwrap().holder;
    let client = home.status(one.id).unwrap().pid.unwrap();
    signal(holder, rustix::process::Signal::KILL);
    let _ = glass.cut_off().await;
    let mut glass = soon("attaching anew", Glass::attach(&sessions, phone(&one))).await;
    until_seen(&mut glass, "m42m").await;
    assert_ne!(home.status(one.id).unwrap().pid.unwrap(), client);
    drop((glass, sessions));

    // A server that went while no daemon was there.
    tmux.run(&["kill-server"]);
    let sessions = tmux.open(&home).await;
    soon("the empty list", async {
        while !sessions.list().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!home.session_dir(one.id).path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tmux_that_is_too_old_is_told_and_nothing_else_suffers() {
    let (home, tmux) = (Home::new(), Tmux::start());
    std::fs::create_dir_all(home.path().join("bin")).unwrap();
    let fake = home.path().join("bin/tmux");
    std::fs::write(&fake, "#!/bin/sh\necho tmux 2.9a\n").unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = tmux.config(&home);
    config.env.insert("PATH".into(), format!("{}:/usr/bin:/bin", home.path().join("bin").display()));
    let sessions = Sessions::open(config).await.unwrap();
    assert!(sessions.list().await.is_empty());
    let create = SessionCreate { tmux: true, ..Default::default() };
    let error = CallError::from(sessions.create(create).await.unwrap_err());
    assert!(error.message.contains("2.9a") && error.message.contains("3.2"), "{error}");
    sessions.create(sh("exec cat")).await.unwrap();
    // Switched off, it says so.
    let off = Home::new().open().await;
    let create = SessionCreate { tmux: true, ..Default::default() };
    assert!(off.create(create).await.unwrap_err().to_string().contains("settings.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_may_write_to_is_not_looked_into() {
    let (home, tmux) = (Home::new(), Tmux::start());
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(&tmux.folder(), 0o777);
    let sessions = tmux.open(&home).await;
    assert!(sessions.list().await.is_empty());
    mode(&tmux.folder(), 0o700);
    assert_eq!(sessions.list().await.len(), 1);
}
