//! Beside a holder that shows a session of tmux: sees to sizes, history and the end, in control mode.
//!
//! What viewers see is drawn by a client of tmux in the holder's terminal. This one is shown nothing (`no-output`) and counts for no size; it
//! hears what changes, and gives the commands. An idle session wakes neither.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep_until};

use super::client::{Control, Env};
use super::control::{Answer, Event, quoted};
use super::history::{self, History, Kept, Plan};
use super::server::{Server, client_size};
use super::{Origin, SessionId, TmuxError};
use crate::holder::pretence;
use crate::holder::server::Holder;
use crate::holder::size::Size;
use crate::holder::spec::SCROLLBACK_ROWS;

/// How long a client stays when nobody looks: a phone that was away for a moment goes on at the exact byte.
pub const LINGER: Duration = Duration::from_secs(60);

/// History is looked at when nothing was printed for so long.
const QUIET: Duration = Duration::from_millis(300);

/// And at the latest after so long.
const BUSY: Duration = Duration::from_secs(3);

/// Rows that are fetched beyond those that are new: some more may come in between.
const SLACK: usize = 64;

/// How long tmux's client may take to go when it is hung up.
const GRACE_MS: u32 = 2_000;

/// How long that one may take to go by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// Who decides the size while no viewer does, as viewers are told.
pub const DESK: &str = "tmux";

/// A holder's guest: which session it shows, and how tmux is reached.
#[derive(Debug, Clone)]
pub struct Guest {
    server: Server,
    origin: Origin,
    env: Env,
    /// The client in the terminal was attached at some time.
    was_attached: Rc<Cell<bool>>,
}

impl Guest {
    /// Looks for the program, and whether the session is there.
    ///
    /// # Errors
    /// [`TmuxError`]; [`TmuxError::NoSession`] when it has ended.
    pub async fn new(origin: Origin, env: Env) -> Result<Self, TmuxError> {
        let server = Server::new(origin.socket.clone(), env.clone()).await?;
        let guest = Self { server, origin, env, was_attached: Rc::default() };
        if guest.server.has(&guest.origin).await? { Ok(guest) } else { Err(TmuxError::NoSession) }
    }

    /// Whether the session is there, now that its client has gone, and whoever looked may attach again. When that cannot be said, it is: they will
    /// see. Not when the client was never attached: it would fail again, and has said why.
    ///
    /// `ended_well`: it says so with its exit code, which may be known before anybody has heard that it was attached.
    pub async fn goes_on(&self, ended_well: bool) -> bool {
        (ended_well || self.was_attached.get()) && self.server.has(&self.origin).await.unwrap_or(true)
    }

    /// A companion, attached.
    ///
    /// # Errors
    /// [`TmuxError`].
    pub async fn companion(&self) -> Result<Companion, TmuxError> {
        let Origin { program, socket, session, .. } = &self.origin;
        let session_word = session.to_string();
        let words = ["attach-session", "-E", "-f", "ignore-size,no-output", "-t", &session_word];
        let control = Control::start(program, socket, &self.env, &words)?;
        let mut companion = Companion {
            control,
            origin: self.origin.clone(),
            shown: *session,
            heard: Heard::default(),
            client: None,
            place: None,
            was_attached: Rc::clone(&self.was_attached),
            history: History::default(),
            is_counted: false,
            due: None,
            leave_at: None,
            was_watched: false,
        };
        companion.place = Some(companion.look().await?.ok_or(TmuxError::NoSession)?);
        Ok(companion)
    }
}

/// How a session looks at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Of a client that shows the window whole.
    size: Size,
    /// The history of the pane that is typed into.
    kept: Kept,
    /// Somebody else's client counts for the size.
    has_desk: bool,
    /// There are clients besides ours.
    has_others: bool,
    /// tmux ends the session with its last client.
    ends_unattached: bool,
}

/// What was heard and not heeded yet.
#[derive(Debug, Default)]
struct Heard {
    /// Something has changed.
    news: bool,
    /// Our client in the terminal is attached.
    attached: bool,
    /// It was led to this session.
    led_to: Option<SessionId>,
}

impl Heard {
    fn take(&mut self, event: &Event, client: Option<&str>) {
        match event {
            Event::Shows(Some(who), session) if Some(who.as_str()) == client => {
                (self.attached, self.news, self.led_to) = (true, true, Some(*session));
            }
            Event::Shows(..) | Event::Sessions | Event::Detached | Event::Layout => self.news = true,
            Event::Answer(_) | Event::Exit | Event::Other => {}
        }
    }
}

/// When the history is to be looked at.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    latest: Instant,
    /// The end of the output when that was decided.
    offset: u64,
}

/// See the module.
pub struct Companion {
    control: Control,
    origin: Origin,
    /// The session that our client shows: who looks may lead it to another one.
    shown: SessionId,
    heard: Heard,
    /// Our client, by its terminal.
    client: Option<String>,
    place: Option<Place>,
    was_attached: Rc<Cell<bool>>,
    history: History,
    /// Our client counts for the size.
    is_counted: bool,
    due: Option<Due>,
    leave_at: Option<Instant>,
    was_watched: bool,
}

impl Companion {
    /// The size of a client that shows the current window whole.
    pub fn size(&self) -> Size {
        self.place.map_or(Size::clamped(80, 24), |place| place.size)
    }

    /// Who decides the size before any viewer comes; without it the first one would take it from the desk.
    pub fn outside(&self) -> Option<&'static str> {
        self.place.is_some_and(|place| place.has_desk).then_some(DESK)
    }

    /// Sees to the session until it has ended or nobody looks any more; then the client in the terminal is ended too.
    pub async fn run(mut self, holder: Rc<Holder>) {
        self.client = holder.pty.name();
        let ended = self.follow(&holder).await;
        tracing::debug!("the control client of {} has ended: {ended:?}", self.origin.session);
        if !matches!(ended, Err(TmuxError::NoSession)) {
            // Whatever has ended this one mostly ends the other, which says why.
            tokio::time::sleep(FAREWELL).await;
        }
        // Without this one nobody would see to sizes and history. Whoever looks attaches again, to a new pair. And where the session has ended and
        // its client has not, that shows another one by now.
        if holder.kill(Signal::HUP.as_raw().unsigned_abs(), GRACE_MS).is_ok() {
            // It was us, and none of the viewers: for none of them it is over.
            holder.state.borrow_mut().forget_typist();
        }
    }

    async fn follow(&mut self, holder: &Holder) -> Result<(), TmuxError> {
        let wakes = holder.state.borrow().wakes();
        let mut status = wakes.status.subscribe();
        self.heard.news = true;
        loop {
            if self.catch_up(holder).await? {
                return Ok(());
            }
            let (due, leave_at) = (self.due.map(|due| due.at), self.leave_at);
            tokio::select! {
                event = self.control.next() => match event? {
                    Some(event) => self.heard.take(&event, self.client.as_deref()),
                    None => return Ok(()),
                },
                _ = status.changed() => {}
                () = wakes.activity.notified(), if due.is_none() => self.arm(holder),
                () = at(due) => self.on_due(holder).await?,
                // Kept by tmux's option, it is looked at again when tmux has something to tell.
                () = at(leave_at.filter(|at| *at > Instant::now())) => {}
            }
        }
    }

    /// Heeds what has changed. Whether it is time to leave.
    async fn catch_up(&mut self, holder: &Holder) -> Result<bool, TmuxError> {
        let (is_controlled, is_watched, was_watched) = {
            let state = holder.state.borrow();
            (state.is_controlled(), state.is_watched(), state.was_watched())
        };
        if was_watched && !std::mem::replace(&mut self.was_watched, was_watched) {
            self.leave_at = None;
        }
        self.was_attached.set(self.was_attached.get() || self.heard.attached);
        if self.heard.attached && is_controlled != self.is_counted {
            self.count(holder, is_controlled).await?;
        }
        while std::mem::take(&mut self.heard.news) {
            if let Some(session) = self.heard.led_to.take().filter(|session| *session != self.shown) {
                self.shown = session;
                // To be told of the windows there.
                self.command(&format!("switch-client -t {}", quoted(&session.to_string()))).await?;
            }
            let Some(place) = self.look().await? else {
                if self.shown == self.origin.session {
                    return Err(TmuxError::NoSession);
                }
                self.shown = self.origin.session;
                self.heard.news = true;
                continue;
            };
            let pane = |place: Place| (place.kept.pane, place.kept.width);
            if self.place.map(pane) != Some(pane(place)) {
                self.arm(holder);
            }
            self.place = Some(place);
            self.adopt(holder, place);
        }
        if is_watched {
            self.leave_at = None;
        } else {
            // Whoever it was started for is on the way until somebody has come.
            let wait = if was_watched { linger() } else { LINGER };
            let leave_at = *self.leave_at.get_or_insert_with(|| Instant::now() + wait);
            if Instant::now() >= leave_at && self.leave().await? {
                let mut state = holder.state.borrow_mut();
                // Somebody may have come while tmux was asked. From here on nobody is let in.
                if !state.is_watched() {
                    state.on_client_left();
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Takes over sizes that others have decided.
    fn adopt(&self, holder: &Holder, place: Place) {
        let mut state = holder.state.borrow_mut();
        state.on_outside(place.has_desk.then_some(DESK));
        if state.follow_size(place.size)
            && let Err(error) = holder.pty.resize(place.size)
        {
            tracing::debug!("the size of the terminal cannot be set: {error}");
        }
    }

    /// Lets our client count for the size, or not.
    async fn count(&mut self, holder: &Holder, counts: bool) -> Result<(), TmuxError> {
        let Some(client) = &self.client else { return Ok(()) };
        let flag = if counts { "!ignore-size" } else { "ignore-size" };
        let answer = self.command(&format!("refresh-client -t {} -f {}", quoted(client), quoted(flag))).await?;
        if !answer.ok {
            tracing::debug!("tmux says of our client: {}", answer.text());
            self.heard.attached = false;
            return Ok(());
        }
        self.is_counted = counts;
        // With a new flag tmux does not look at the sizes, with this it does, and takes the client for the one that was used last.
        let pid = holder.state.borrow().pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::WINCH);
        }
        self.heard.news = true;
        Ok(())
    }

    /// Whether nothing keeps us. When tmux would end the session with its last client, we stay until there is another one.
    async fn leave(&mut self) -> Result<bool, TmuxError> {
        let place = self.look().await?;
        Ok(place.is_none_or(|place| place.has_others || !place.ends_unattached))
    }

    async fn command(&mut self, line: &str) -> Result<Answer, TmuxError> {
        self.control.give(line).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, TmuxError> {
        let Self { control, heard, client, .. } = self;
        control.answer(|event| heard.take(&event, client.as_deref())).await
    }

    /// How the session looks; none when it has ended.
    async fn look(&mut self) -> Result<Option<Place>, TmuxError> {
        const FORMAT: &str = "#{pid} #{start_time} #{session_id} #{window_width} #{window_height} #{status} #{destroy-unattached} #{pane_id} #{pane_width} #{history_size} #{history_limit}";
        let session = self.shown.to_string();
        let (window, session) = (quoted(&format!("{session}:")), quoted(&session));
        let place = self.command(&format!("display-message -p -t {window} {}", quoted(FORMAT))).await?;
        let clients =
            self.command(&format!("list-clients -t {session} -F '#{{client_tty}} #{{client_flags}}'")).await?;
        if !place.ok || !clients.ok {
            return Ok(None);
        }
        let text = place.text();
        let words: Vec<&str> = text.split(' ').collect();
        let life = format!("{} {}", self.origin.life.pid, self.origin.life.start);
        let [pid, start, id, cols, rows, status, ends, ..] = words[..] else { return Err(TmuxError::Protocol(text)) };
        // Asked for what is not there, tmux speaks of something else.
        if id != self.shown.to_string() || format!("{pid} {start}") != life {
            return Ok(None);
        }
        let (Some(cols), Some(rows), Some(kept)) = (number(cols), number(rows), kept(&words[7..])) else {
            return Err(TmuxError::Protocol(text));
        };
        let (cols, rows) = client_size((cols, rows), status);
        let mut place = Place {
            size: Size::clamped(cols, rows),
            kept,
            has_desk: false,
            has_others: false,
            ends_unattached: ends != "off" && ends != "0",
        };
        let ours = self.client.as_deref().unwrap_or_default();
        for line in &clients.lines {
            let line = String::from_utf8_lossy(line);
            let (tty, flags) = line.split_once(' ').unwrap_or((&line, ""));
            let flags: Vec<&str> = flags.split(',').collect();
            // Ours: the one in the terminal, and those in control mode that are shown nothing and have no size.
            let is_quiet = flags.contains(&"no-output") && flags.contains(&"ignore-size");
            if tty == ours && !ours.is_empty() || is_quiet {
                continue;
            }
            place.has_others = true;
            place.has_desk |= !flags.contains(&"ignore-size");
        }
        Ok(Some(place))
    }

    /// Decides when to look at the history: soon, but not while it is printed all the time.
    fn arm(&mut self, holder: &Holder) {
        let state = holder.state.borrow();
        if !state.asks_history() {
            return;
        }
        let wait = if self.history.is_empty() { Duration::ZERO } else { QUIET };
        let now = Instant::now();
        self.due = Some(Due { at: now + wait, latest: now + BUSY, offset: state.output_offset() });
    }

    async fn on_due(&mut self, holder: &Holder) -> Result<(), TmuxError> {
        let Some(due) = self.due.take() else { return Ok(()) };
        let offset = holder.state.borrow().output_offset();
        let at = Instant::now() + QUIET;
        if offset != due.offset && at < due.latest && !self.history.is_empty() {
            self.due = Some(Due { at, offset, ..due });
            return Ok(());
        }
        self.heard.news = true;
        let Some(place) = self.look().await? else { return Ok(()) };
        match self.history.plan(place.kept) {
            Plan::Nothing => Ok(()),
            Plan::Append(new) => self.load_newest(holder, place.kept, new).await,
            Plan::Anew => self.load_all(holder, place.kept).await,
        }
    }

    /// Adds what has come since, or begins anew when it does not follow.
    async fn load_newest(&mut self, holder: &Holder, before: Kept, new: usize) -> Result<(), TmuxError> {
        let first = self.history.with_seam(new) + SLACK;
        let Some((now, rows)) = self.fetch(before.pane, first as u64, 1).await? else { return Ok(()) };
        let appended = match self.history.plan(now) {
            Plan::Append(new) => self.history.append(now, new, &rows),
            Plan::Nothing => return Ok(()),
            Plan::Anew => None,
        };
        match appended {
            Some(rows) => holder.state.borrow_mut().on_other_history(false, vec![rows]),
            None => self.load_all(holder, now).await?,
        }
        Ok(())
    }

    /// Everything that tmux keeps of a pane, from its newest rows on, as far as we keep any.
    async fn load_all(&mut self, holder: &Holder, before: Kept) -> Result<(), TmuxError> {
        let page = history::rows_at_once(before.width) as u64;
        let Some((mut kept, rows)) = self.fetch(before.pane, page, 1).await? else {
            // Too much at once, or the pane has gone: only what comes from here on, or it would be fetched again at every output.
            self.history.begin(before, &[]);
            holder.state.borrow_mut().on_other_history(true, Vec::new());
            return Ok(());
        };
        self.history.begin(kept, &rows);
        let mut pages = vec![history::encode(kept.width, &rows, rows.len())];
        // The rows of a pane are counted from its oldest: the number stays while none are dropped.
        let mut low = kept.size - rows.len() as u64;
        let mut count = rows.len() as u64;
        while low > 0 && count < u64::from(SCROLLBACK_ROWS) {
            let below = kept.size - low;
            let Some((now, mut rows)) = self.fetch(before.pane, below + page, below + 1).await? else { break };
            if now.size < kept.size || now.width != kept.width {
                break;
            }
            // What came in between has moved the page down.
            rows.truncate(rows.len().saturating_sub((now.size - kept.size) as usize));
            if rows.is_empty() {
                break;
            }
            (kept, low, count) = (now, low.saturating_sub(rows.len() as u64), count + rows.len() as u64);
            pages.push(history::encode(kept.width, &rows, rows.len()));
        }
        pages.reverse();
        holder.state.borrow_mut().on_other_history(true, pages);
        Ok(())
    }

    /// Rows above the screen of a pane, from the `first` to the `last`, where 1 is the newest; and what there was at that moment. None when they
    /// cannot be had.
    async fn fetch(&mut self, pane: u64, first: u64, last: u64) -> Result<Option<(Kept, Vec<Vec<u8>>)>, TmuxError> {
        let format = "#{pane_id} #{pane_width} #{history_size} #{history_limit}";
        // In one line: nothing happens in between, so it is known how many rows come.
        let line = format!(
            "display-message -p -t '%{pane}' '{format}' ; capture-pane -p -e -t '%{pane}' -S -{first} -E -{last}"
        );
        self.control.give(&line).await?;
        let answer = self.answer().await?;
        if !answer.ok {
            return Ok(None);
        }
        let text = answer.text();
        let kept = kept(&text.split(' ').collect::<Vec<_>>()).filter(|kept| kept.pane == pane);
        if let Some(kept) = kept {
            self.control.expect_rows(history::lines_for(kept.size, first, last));
        }
        let rows = self.answer().await?;
        let Some(kept) = kept.filter(|_| rows.ok && !rows.is_cut) else { return Ok(None) };
        let mut rows = rows.lines;
        rows.truncate((kept.size.min(first) + 1).saturating_sub(last) as usize);
        Ok(Some((kept, rows)))
    }
}

fn linger() -> Duration {
    pretence::get().linger_ms.map_or(LINGER, Duration::from_millis)
}

fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

fn kept(words: &[&str]) -> Option<Kept> {
    let [pane, width, size, limit] = words else { return None };
    let pane = number(pane.strip_prefix('%')?)?;
    Some(Kept { pane, width: number(width)?, size: number(size)?, limit: number(limit)? })
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
