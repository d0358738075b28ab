//! Viewers that say what they have drawn: none is sent more than it can show, and none is shown anything but what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use happy::session::{AttachRequest, Sessions, ViewerReceiver, ViewerSender};
use happy_rpc::{Session, SessionCreate};
use happy_screen::{FramePart, Frames, Pages, Screen};
use happy_wire::terminal::{DRAWN_EVERY, TerminalMessage, WINDOW};

use crate::support::{Glass, Home, request, sh, soon};

/// A viewer that draws so many bytes a second, and what it was sent.
pub struct Drawer {
    pub sender: ViewerSender,
    receiver: ViewerReceiver,
    bytes_a_second: f64,
    /// It has drawn everything that came before this moment at its pace.
    busy_until: Instant,
    pub screen: Screen,
    offset: u64,
    told: u64,
    frames: Frames,
    pub pages: Pages,
    pub kept_from: u64,
    /// How many bytes of messages it has drawn, how many frames and gaps were among them.
    drawn: u64,
    pub shown: usize,
    gaps: usize,
    typed: u64,
}

impl Drawer {
    pub async fn attach(sessions: &Sessions, session: &Session, bytes_a_second: f64) -> Self {
        let request = AttachRequest { credit: true, ..request(session) };
        let viewer = soon("attaching", sessions.attach(request)).await.unwrap();
        let (attached, sender, receiver) = viewer.split();
        assert!(attached.credit);
        Self {
            sender,
            receiver,
            bytes_a_second,
            busy_until: Instant::now(),
            screen: Screen::new(80, 24, 0),
            offset: 0,
            told: 0,
            frames: Frames::default(),
            pages: Pages::default(),
            kept_from: 0,
            drawn: 0,
            shown: 0,
            gaps: 0,
            typed: attached.input_offset,
        }
    }

    async fn type_in(&mut self, bytes: &[u8]) {
        self.sender.send(&TerminalMessage::Input { offset: self.typed, bytes }.to_vec()).await.unwrap();
        self.typed += bytes.len() as u64;
    }

    /// Takes what comes, for at most so long; draws it, and says so.
    pub async fn step(&mut self, patience: Duration) {
        let Ok(message) = tokio::time::timeout(patience, self.receiver.recv()).await else {
            return self.tell(true).await;
        };
        let message = message.unwrap().expect("the attachment has ended");
        self.drawn += message.len() as u64;
        let effort = Duration::from_secs_f64(message.len() as f64 / self.bytes_a_second);
        self.busy_until = self.busy_until.max(Instant::now()) + effort;
        tokio::time::sleep_until(self.busy_until.into()).await;
        let is_screen = self.take(&message);
        self.tell(is_screen).await;
    }

    async fn tell(&mut self, now: bool) {
        let fresh = self.offset - self.told;
        if fresh >= DRAWN_EVERY || (now && fresh > 0) {
            self.told = self.offset;
            self.sender.send(&TerminalMessage::Drawn { offset: self.offset }.to_vec()).await.unwrap();
        }
    }

    /// Whether it was a screen.
    fn take(&mut self, message: &[u8]) -> bool {
        match TerminalMessage::decode(message).unwrap() {
            TerminalMessage::Output { offset, bytes } => {
                assert_eq!(offset, self.offset, "output is lost or doubled");
                self.offset += bytes.len() as u64;
                assert!(self.offset - self.told <= WINDOW, "more than the window");
                self.screen.feed(bytes);
            }
            TerminalMessage::Gap { from, .. } => {
                assert_eq!(from, self.offset);
                self.gaps += 1;
            }
            TerminalMessage::Snapshot { offset, parts: 1, bytes, .. } => {
                assert_eq!((self.offset, self.shown), (0, 0), "a snapshot later than at first");
                self.screen = Screen::restore(bytes, 10_000).unwrap();
                assert!(self.screen.scrollback_len() <= 24, "{} rows of history", self.screen.scrollback_len());
                self.offset = offset;
                return true;
            }
            TerminalMessage::Frame { offset, base, kept_from, part, parts, bytes } => {
                assert!(base.is_none() || self.offset == self.told, "a frame before the last one was drawn");
                let Some(snapshot) = self.frames.take(FramePart { offset, base, part, parts, bytes }).unwrap() else {
                    return false;
                };
                let mut old = std::mem::replace(&mut self.screen, Screen::restore(snapshot, 10_000).unwrap());
                self.pages.look_at(self.screen.scrollback_total());
                self.pages.insert_all(old.take_history());
                self.kept_from = kept_from;
                self.offset = offset;
                self.shown += 1;
                return true;
            }
            TerminalMessage::History { first, kept_from, bytes } => {
                self.pages.insert_page(first, bytes).unwrap();
                self.kept_from = kept_from;
            }
            TerminalMessage::Resized { .. } | TerminalMessage::InputTaken { .. } => {}
            other => panic!("{other:?}"),
        }
        false
    }

    /// Draws until nothing more comes and everything that was printed is there.
    async fn come_to_rest(&mut self, home: &Home, session: &Session) {
        soon("a viewer to come to rest", async {
            while home.status(session.id).unwrap().output_offset != self.offset {
                self.step(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Asks for the rows of history that it lacks, newest first, until it has all that there is.
    pub async fn ask_for_history(&mut self) {
        let mut pages = std::mem::take(&mut self.pages);
        pages.insert_all(self.screen.take_history());
        self.pages = pages;
        let mut before = self.screen.scrollback_total();
        self.pages.look_at(before);
        loop {
            while before > self.kept_from && self.pages.row(before - 1).is_some() {
                before -= 1;
            }
            if before <= self.kept_from {
                return;
            }
            let wanted = TerminalMessage::HistoryWanted { before, rows: 500 };
            self.sender.send(&wanted.to_vec()).await.unwrap();
            soon("a page", async {
                while self.pages.row(before - 1).is_none() && before > self.kept_from {
                    self.step(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }
}

/// The screen as the holder has it, with its history.
async fn holder_screen(sessions: &Sessions, session: &Session) -> Screen {
    let mut glass = Glass::attach(sessions, AttachRequest { scrollback: 10_000, ..request(session) }).await;
    while glass.snapshots == 0 {
        glass.next().await;
    }
    let (_, snapshot) = glass.snapshot.take().unwrap();
    Screen::restore(&snapshot, 10_000).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_flood_a_slow_viewer_sees_an_interrupt_within_its_window_and_holds_up_nobody() {
    let home = Home::new();
    let sessions = home.open().await;
    let command = vec!["/bin/sh".to_owned()];
    let session =
        sessions.create(SessionCreate { command, cwd: Some("/".into()), ..Default::default() }).await.unwrap();
    let mut slow = Drawer::attach(&sessions, &session, 1e6).await;
    let mut fast = Drawer::attach(&sessions, &session, 1e12).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let watching = Arc::clone(&is_over);
    let watching = tokio::spawn(async move {
        while !watching.load(Ordering::Relaxed) {
            fast.step(Duration::from_millis(5)).await;
        }
        fast
    });
    slow.type_in(b"yes\n").await;
    let printed = soon("the flood", async {
        loop {
            slow.step(Duration::from_millis(5)).await;
            let printed = home.status(session.id).unwrap().output_offset;
            if slow.shown >= 5 && printed > 3 * slow.drawn {
                return printed;
            }
        }
    })
    .await;

    let (pressed, before) = (Instant::now(), slow.drawn);
    slow.type_in(b"\x03").await;
    soon("the prompt", async {
        while !slow.screen.text().ends_with('$') {
            slow.step(Duration::from_millis(5)).await;
        }
    })
    .await;
    let (took, behind) = (pressed.elapsed(), slow.drawn - before);
    is_over.store(true, Ordering::Relaxed);
    let mut fast = watching.await.unwrap();
    println!(
        "{printed} bytes printed, {before} drawn slowly, {} fast; {} frames in {} gaps; ^C took {took:?} and {behind} bytes",
        fast.drawn, slow.shown, slow.gaps
    );
    // What comes at 1 MB/s in 0.2 s: the clock of a busy machine proves nothing. Of it the window is two thirds, and what is drawn in the
    // pause before a frame a sixth.
    assert!(behind <= 200_000, "{behind} bytes came before the prompt");
    assert!(fast.offset > before, "the fast viewer was held up at {}", fast.offset);

    slow.come_to_rest(&home, &session).await;
    fast.come_to_rest(&home, &session).await;
    let shown = holder_screen(&sessions, &session).await;
    assert!(slow.screen.snapshot(0) == shown.snapshot(0), "another screen:\n{}", slow.screen.text());
    assert!(fast.screen.snapshot(0) == shown.snapshot(0), "another screen:\n{}", fast.screen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_viewers_of_different_speeds_end_with_the_same_screen_and_the_same_history() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("read go; seq 1 400000; read end")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let mut typist = Glass::attach(&sessions, request(&session)).await;
    for n in 0..20 {
        // From 60 kB/s to 30 MB/s.
        let mut viewer = Drawer::attach(&sessions, &session, 6e4 * 1.39_f64.powi(n)).await;
        viewer.step(Duration::from_secs(9)).await;
        tasks.spawn(async move {
            while !viewer.screen.text().contains("\n400000") {
                viewer.step(Duration::from_millis(20)).await;
            }
            (n, viewer)
        });
    }
    typist.type_in(b"go\n").await;
    let mut viewers = soon("twenty viewers", tasks.join_all()).await;
    viewers.sort_by_key(|(n, _)| *n);
    let shown = holder_screen(&sessions, &session).await;
    let start = shown.scrollback_start();
    let history: Vec<_> = (0..shown.scrollback_len()).map(|index| shown.scrollback_row(index).unwrap()).collect();
    assert_eq!(history.len(), 10_000);
    for (n, viewer) in &mut viewers {
        viewer.come_to_rest(&home, &session).await;
        assert!(
            viewer.screen.snapshot(0) == shown.snapshot(0),
            "viewer {n} has another screen:\n{}",
            viewer.screen.text()
        );
        viewer.bytes_a_second = 1e9;
        viewer.ask_for_history().await;
        assert_eq!(viewer.kept_from, start);
        for (number, row) in (start..).zip(&history) {
            assert_eq!(viewer.pages.row(number).as_ref(), Some(row), "viewer {n}, row {number}");
        }
    }
    let (slowest, fastest) = (&viewers[0].1, &viewers[19].1);
    println!("the slowest was shown {} frames, the fastest {}", slowest.shown, fastest.shown);
    assert!(slowest.shown > 0 && slowest.gaps > 0, "nobody was slow");
}
