//! `happy attach`: a session in this terminal, or its exact bytes in a pipe; through whatever breaks in between.

use std::io::{ErrorKind, IsTerminal};
use std::time::{Duration, Instant};

use happy_rpc::{Attached, ErrorCode, Session, SessionAttach, SessionTakeControl, TerminalResize};
use happy_wire::Code;
use happy_wire::terminal::{DRAWN_EVERY, Exit, LABEL, TerminalMessage};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cli::client::{CallFailure, Channel, Client, Happening, Incoming};
use crate::cli::daemon::{Interrupts, connect};
use crate::cli::output::{self, FAINT, Form, aside, paint};
use crate::cli::typed::Typed;
use crate::cli::view::{Exact, Shown, TerminalView, View, not_written};
use crate::cli::{AttachArgs, record, sessions, stdin, tty};
use crate::holder::spec::RING_BYTES;
use crate::store::Home;
use crate::trouble::Trouble;

/// How long a daemon that went away may take to come back.
const DAEMON_WAIT: Duration = Duration::from_secs(60);
/// Between two attempts to find it.
const RETRY: Duration = Duration::from_millis(200);
/// What ends the input of a program that reads lines.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
/// What is typed while a session cannot be reached is kept so long; later it would come as a surprise.
const KEEP_TYPED: Duration = Duration::from_secs(10);
/// With `--from-start`: how far behind the oldest byte of a full log to begin, in turn; the program goes on printing meanwhile.
const MARGINS: [u64; 4] = [256 << 10, 1 << 20, 4 << 20, 8 << 20];

/// How somebody attaches.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Write exact bytes rather than a screen.
    exact: bool,
    /// When the first byte is gone, begin with the oldest that is not.
    from_start: bool,
    read_only: bool,
    /// The end of standard input is the end of the program's, as if Ctrl-D were pressed.
    ends_input: bool,
    /// Decide the size: always, or never, or (none) if nobody does.
    control: Option<bool>,
    detach_key: u8,
}

impl Manner {
    /// After `happy run`: the whole session is the caller's.
    ///
    /// # Errors
    /// When the settings cannot be read.
    pub fn of_run(home: &Home) -> Result<Manner, Trouble> {
        let exact = !tty::is_interactive();
        let detach_key = detach_key(home, None)?;
        Ok(Manner { exact, from_start: false, read_only: false, ends_input: exact, control: Some(true), detach_key })
    }
}

fn detach_key(home: &Home, given: Option<&str>) -> Result<u8, Trouble> {
    match (given, home.settings()?.detach_key) {
        (Some(key), _) => tty::parse_key(key),
        (None, Some(key)) => tty::parse_key(&key),
        (None, None) => tty::parse_key("ctrl-]"),
    }
}

/// `happy attach`.
pub async fn attach(home: &Home, _: Form, args: AttachArgs) -> Result<u8, Trouble> {
    let manner = Manner {
        exact: args.lossless,
        from_start: args.from_start,
        read_only: args.read_only,
        // The program has others who type.
        ends_input: false,
        control: if args.read_only { Some(false) } else { args.take_control.then_some(true) },
        detach_key: detach_key(home, args.detach_key.as_deref())?,
    };
    let machine = args.machine.machine.as_deref();
    let client = connect(home, machine).await?;
    let session = sessions::find(&client, &args.id).await?;
    if !manner.exact && !tty::is_interactive() {
        return Err(Trouble::new(
            "This is no terminal to show a session in.",
            "Run it in a terminal, or add `--lossless` to write the exact bytes into a pipe.",
        ));
    }
    watch(home, machine, client, session, manner).await
}

/// Shows a session until its program ends or the person leaves; gives the exit code of the process.
pub async fn watch(
    home: &Home,
    machine: Option<&str>,
    client: Client,
    session: Session,
    manner: Manner,
) -> Result<u8, Trouble> {
    // A person at a terminal who pipes the output away still wants Ctrl-C to work here.
    let is_only_read = manner.exact && std::io::stdin().is_terminal();
    let reads = !(manner.read_only || is_only_read);
    if machine.is_none() && std::env::var("HAPPY_SESSION").is_ok_and(|own| own == session.id.to_string()) {
        return Err(Trouble::new(
            "This is the session itself: it would show what it shows, without an end.",
            "Attach from another terminal, or to another session.",
        ));
    }
    if let Some(notice) = record::notice(&session) {
        aside(&notice);
    }
    let is_exact = manner.exact;
    let raw = if manner.exact { None } else { Some(tty::Raw::enter()?) };
    let view = match manner.exact {
        true => View::Exact(Exact::from(0)),
        false => {
            let own = tty::size().unwrap_or((80, 24));
            tty::make_room(own.1);
            // On this machine an echo comes at once.
            let guesses = machine.is_some() && reads;
            View::Terminal(Box::new(TerminalView::new(own, guesses)))
        }
    };
    let mut watcher = Watcher {
        home: home.clone(),
        machine: machine.map(str::to_owned),
        session: session.clone(),
        writer: Uuid::new_v4(),
        typed: Typed::default(),
        // Who may not type may leave.
        keys: (reads || !manner.exact).then(stdin::bytes),
        reads,
        signals: Signals::new()?,
        margins: MARGINS.iter(),
        controls: false,
        takes_control: !manner.exact && manner.control == Some(true),
        ends_with_line: true,
        view,
        manner,
    };
    let outcome = match is_exact {
        // As when it is noticed by writing.
        true => tokio::select! {
            outcome = watcher.run(client) => outcome,
            () = output::reader_gone() => Err(not_written(&ErrorKind::BrokenPipe.into())),
        },
        false => watcher.run(client).await,
    };
    if let View::Terminal(view) = &watcher.view
        && let Some(screen) = view.whole()
    {
        tty::leave_below(screen);
    }
    drop(raw);
    if is_only_read {
        // What was typed meanwhile was for nobody, and above all not for the shell.
        tty::forget_typed();
    }
    match outcome? {
        Left::Ended(exit) => Ok(exit_code(exit)),
        Left::Detached => {
            aside(&sessions::left_line(&session, machine));
            Ok(0)
        }
        Left::Terminated => Ok(130),
    }
}

fn exit_code(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => u8::try_from(code).unwrap_or(1),
        // As shells say it.
        Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        Exit::Unknown => 1,
    }
}

/// Why the watching is over.
enum Left {
    Ended(Exit),
    Detached,
    Terminated,
}

/// What is to be done next.
enum Step {
    On,
    Leave(Left),
    /// The channel is gone; the session is not.
    Again,
    /// So is the daemon.
    DaemonGone,
}

struct Signals {
    resized: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals, Trouble> {
        let resized = signal(SignalKind::window_change()).map_err(|error| {
            Trouble::new(
                format!("Changes of the window's size cannot be seen: {}.", crate::trouble::reason(&error)),
                "Try again.",
            )
        })?;
        Ok(Signals { resized })
    }
}

struct Watcher {
    home: Home,
    machine: Option<String>,
    session: Session,
    writer: Uuid,
    typed: Typed,
    keys: Option<mpsc::Receiver<Vec<u8>>>,
    /// What is typed goes to the session.
    reads: bool,
    signals: Signals,
    margins: std::slice::Iter<'static, u64>,
    controls: bool,
    /// The person wants to decide the size, whoever does now. Once: whoever takes it from here later keeps it.
    takes_control: bool,
    /// What came from standard input so far ends with a whole line.
    ends_with_line: bool,
    view: View,
    manner: Manner,
}

impl Watcher {
    async fn run(&mut self, mut client: Client) -> Result<Left, Trouble> {
        let mut interrupts = Interrupts::new();
        loop {
            let mut waiting = Waiting::new(self);
            let attached = tokio::select! {
                attached = self.attach(&client) => attached?,
                left = waiting.leave(&mut interrupts) => return Ok(left),
            };
            waiting.end(self)?;
            let step = match attached {
                Some((attached, channel)) => self.follow(&client, attached, channel, &mut interrupts).await?,
                None => Step::DaemonGone,
            };
            match step {
                Step::Leave(left) => return Ok(left),
                Step::On | Step::Again => {}
                Step::DaemonGone => {
                    self.note(Some("happy: the daemon is gone; waiting for it"))?;
                    let mut waiting = Waiting::new(self);
                    client = tokio::select! {
                        client = find_again(&self.home, self.machine.as_deref(), "then attach again: the session goes on.") => client?,
                        left = waiting.leave(&mut interrupts) => return Ok(left),
                    };
                    waiting.end(self)?;
                    self.note(None)?;
                }
            }
        }
    }

    /// Attaches; `None` when the daemon is gone.
    async fn attach(&mut self, client: &Client) -> Result<Option<(Attached, Channel)>, Trouble> {
        loop {
            let channel = match client.open(LABEL).await {
                Ok(channel) => channel,
                Err(CallFailure::DaemonGone) => return Ok(None),
                // The other machine is away: it is tried on until the person leaves.
                Err(CallFailure::Refused(_) | CallFailure::Unanswered(_)) if self.machine.is_some() => {
                    self.note(Some("happy: the other machine cannot be reached now; trying on"))?;
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            match client.call(self.request(channel.number)).await {
                Ok(attached) => {
                    self.note(None)?;
                    self.typed.reattached(attached.input_offset);
                    self.view.attached();
                    self.controls = attached.you_control;
                    if std::mem::take(&mut self.takes_control) && !self.controls {
                        self.take_control(client, &attached);
                    }
                    return Ok(Some((attached, channel)));
                }
                Err(CallFailure::DaemonGone) => return Ok(None),
                // Whether it was attached or not: a new attachment takes the place of one with the same writer.
                Err(CallFailure::Unanswered(_)) => client.close(channel.number).await,
                // The channel went with its link, between its opening and this call.
                Err(CallFailure::Refused(error))
                    if error.code == ErrorCode::Conflict && self.machine.is_some() && client.link_up() =>
                {
                    client.close(channel.number).await;
                    if self.has_ended(client).await? {
                        return Err(CallFailure::Refused(error).into());
                    }
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    async fn has_ended(&self, client: &Client) -> Result<bool, Trouble> {
        let session = sessions::find(client, &self.session.id.to_string()).await?;
        Ok(session.state != happy_rpc::SessionState::Running)
    }

    fn request(&self, channel: u32) -> SessionAttach {
        let (cols, rows) = tty::size().unwrap_or((self.session.cols, self.session.rows));
        SessionAttach {
            session: self.session.id,
            channel,
            writer: self.writer,
            name: crate::store::host_name(),
            from: self.view.position(),
            scrollback: 0,
            lossless: self.manner.exact && !self.manner.read_only,
            credit: !self.manner.exact,
            cols,
            rows,
            take_control: !self.manner.exact
                && (self.controls || self.manner.control.unwrap_or(self.session.controller.is_none())),
        }
    }

    /// Follows an attachment until it ends.
    async fn follow(
        &mut self,
        client: &Client,
        attached: Attached,
        mut channel: Channel,
        interrupts: &mut Interrupts,
    ) -> Result<Step, Trouble> {
        let mut told = self.view.position().unwrap_or(0);
        loop {
            let drawn = self.view.drawn().filter(|drawn| attached.credit && *drawn > told);
            if let Some(offset) = drawn.filter(|drawn| drawn - told >= DRAWN_EVERY || channel.is_idle()) {
                told = offset;
                if !client.send(channel.number, TerminalMessage::Drawn { offset }.to_vec()).await {
                    return Ok(Step::DaemonGone);
                }
            }
            while let Some((offset, bytes)) = self.typed.next() {
                let message = TerminalMessage::Input { offset, bytes }.to_vec();
                if !client.send(channel.number, message).await {
                    return Ok(Step::DaemonGone);
                }
            }
            let draw_at = match &self.view {
                View::Terminal(view) => view.draw_at(),
                View::Exact(_) => None,
            };
            let step = tokio::select! {
                incoming = channel.next() => match incoming {
                    Some(Incoming::Message(message)) => self.take(client, &attached, &channel, &message).await?,
                    Some(Incoming::Closed { code, reason }) => closed(Code(code), &reason)?,
                    None => Step::DaemonGone,
                },
                keys = next_keys(&mut self.keys, self.typed.has_room()) => self.type_keys(keys)?,
                _ = self.signals.resized.recv() => self.window_changed(client, &attached),
                () = sleep_until(draw_at) => {
                    if let View::Terminal(view) = &mut self.view {
                        view.on_time()?;
                    }
                    Step::On
                }
                happening = client.event() => match happening {
                    Some(Happening::Link(up)) => {
                        self.note((!up).then_some("happy: the link is down; reconnecting"))?;
                        Step::On
                    }
                    Some(Happening::Event(_)) => Step::On,
                    None => Step::DaemonGone,
                },
                () = interrupts.next() => Step::Leave(Left::Terminated),
            };
            match step {
                Step::On => {}
                Step::Again => {
                    client.close(channel.number).await;
                    return Ok(Step::Again);
                }
                step => return Ok(step),
            }
        }
    }

    async fn take(
        &mut self,
        client: &Client,
        attached: &Attached,
        channel: &Channel,
        message: &[u8],
    ) -> Result<Step, Trouble> {
        let message = TerminalMessage::decode(message).map_err(|error| {
            Trouble::new(
                format!("A message of the session cannot be read: {error}."),
                "Upgrade the older of the two sides.",
            )
        })?;
        match self.view.show(&message)? {
            Shown::Ok => Ok(Step::On),
            Shown::Ended(exit) => {
                if let View::Terminal(view) = &mut self.view {
                    view.draw()?;
                }
                Ok(Step::Leave(Left::Ended(exit)))
            }
            Shown::InputTaken(offset) => {
                self.typed.taken(offset);
                if let View::Terminal(view) = &mut self.view {
                    view.input_taken(offset);
                }
                Ok(Step::On)
            }
            Shown::Resized { you_control } => {
                let given = you_control && !self.controls;
                self.controls = you_control;
                if given {
                    self.window_changed(client, attached);
                }
                Ok(Step::On)
            }
            Shown::Gone { end } => {
                client.close(channel.number).await;
                self.begin_later(client, end).await
            }
        }
    }

    /// The bytes that were asked for are gone: an error, unless the person wants what there is.
    async fn begin_later(&mut self, client: &Client, end: u64) -> Result<Step, Trouble> {
        let position = self.view.position().unwrap_or(0);
        let margin = self.margins.next().filter(|_| self.manner.from_start && position == 0);
        match margin {
            Some(margin) => {
                let session = sessions::find(client, &self.session.id.to_string()).await?;
                // A machine of before does not say it, and keeps so much.
                let kept_from = session.kept_from.unwrap_or(end.saturating_sub(RING_BYTES as u64));
                self.view = View::Exact(Exact::from((kept_from + margin).min(end)));
                // It counts as the beginning until a byte of it has been written.
                self.manner.from_start = true;
                Ok(Step::Again)
            }
            None if position == 0 => Err(Trouble::new(
                format!("The first bytes of this session are no longer kept; it has printed {end}."),
                "Add `--from-start` to begin with the oldest that is kept.",
            )),
            None => Err(Trouble::new(
                format!("Output after byte {position} is no longer kept: the session went on without this reader."),
                "What was written so far is exact; attach again for the rest.",
            )),
        }
    }

    /// Takes what was typed into the session, and shows what its echo will probably be.
    fn push_typed(&mut self, keys: &[u8]) -> Result<(), Trouble> {
        self.typed.push(keys);
        match &mut self.view {
            View::Terminal(view) => view.typed(self.typed.end(), keys),
            View::Exact(_) => Ok(()),
        }
    }

    fn type_keys(&mut self, keys: Option<Vec<u8>>) -> Result<Step, Trouble> {
        let Some(keys) = keys else {
            self.keys = None;
            if !self.reads {
                return Ok(Step::On);
            }
            if self.manner.ends_input {
                // In the middle of a line the first one only ends the line.
                self.typed.push(if self.ends_with_line { &[CTRL_D] } else { &[CTRL_D, CTRL_D] });
            }
            return Ok(Step::On);
        };
        if self.manner.exact {
            self.ends_with_line = keys.ends_with(b"\n");
            self.typed.push(&keys);
            return Ok(Step::On);
        }
        if !self.reads {
            let leaves = |key: &u8| *key == self.manner.detach_key || *key == CTRL_C;
            return Ok(if keys.iter().any(leaves) { Step::Leave(Left::Detached) } else { Step::On });
        }
        match keys.iter().position(|key| *key == self.manner.detach_key) {
            Some(at) => {
                self.typed.push(&keys[..at]);
                Ok(Step::Leave(Left::Detached))
            }
            None => {
                self.push_typed(&keys)?;
                Ok(Step::On)
            }
        }
    }

    /// Attaching gives control only when nobody has it.
    fn take_control(&self, client: &Client, attached: &Attached) {
        let (cols, rows) = tty::size().unwrap_or((self.session.cols, self.session.rows));
        let (client, attachment) = (client.clone(), attached.attachment);
        // Resized says what came of it.
        tokio::spawn(async move { client.call(SessionTakeControl { attachment, cols, rows }).await.map(drop) });
    }

    /// Tells the session the window's size if this viewer decides; draws otherwise.
    fn window_changed(&mut self, client: &Client, attached: &Attached) -> Step {
        let (View::Terminal(view), Some((cols, rows))) = (&mut self.view, tty::size()) else { return Step::On };
        view.resize_own((cols, rows));
        if self.controls {
            let (client, attachment) = (client.clone(), attached.attachment);
            // Its answer says nothing that Resized does not say.
            tokio::spawn(async move { client.call(TerminalResize { attachment, cols, rows }).await.map(drop) });
        }
        Step::On
    }

    fn note(&mut self, text: Option<&str>) -> Result<(), Trouble> {
        match &mut self.view {
            View::Terminal(view) => {
                view.note(text.map(str::to_owned));
                if view.draw_at().is_some() {
                    view.draw()?;
                }
            }
            View::Exact(_) => {
                if let Some(text) = text {
                    aside(&paint(FAINT, text));
                }
            }
        }
        Ok(())
    }
}

/// What a closed channel means.
fn closed(code: Code, reason: &str) -> Result<Step, Trouble> {
    match code {
        Code::REMOVED => Err(Trouble::new(
            "The other machine has removed this one.",
            "`happy devices` says whether for good, and what can be done.",
        )),
        Code::NOT_PERMITTED => Err(Trouble::new(
            format!("The other machine ended this: {reason}."),
            "Ask an owner of that machine for another role.",
        )),
        Code::MALFORMED => Err(Trouble::new(
            format!("The other side did not understand: {reason}."),
            "Upgrade the older of the two sides.",
        )),
        Code::DISPLACED => Err(Trouble::new("Another viewer took the place of this one.", "Attach again.")),
        _ => Ok(Step::Again),
    }
}

async fn next_keys(keys: &mut Option<mpsc::Receiver<Vec<u8>>>, room: bool) -> Option<Vec<u8>> {
    match keys {
        Some(keys) if room => keys.recv().await,
        _ => std::future::pending().await,
    }
}

/// The keyboard while there is nothing to type into.
struct Waiting {
    keys: Option<mpsc::Receiver<Vec<u8>>>,
    detach_key: u8,
    kept: Vec<u8>,
    until: Instant,
}

impl Waiting {
    fn new(watcher: &mut Watcher) -> Waiting {
        let until = Instant::now() + KEEP_TYPED;
        Waiting { keys: watcher.keys.take(), detach_key: watcher.manner.detach_key, kept: Vec::new(), until }
    }

    /// Resolves when the person wants to go.
    async fn leave(&mut self, interrupts: &mut Interrupts) -> Left {
        // What comes out of a pipe can wait there.
        let reads = std::io::stdin().is_terminal();
        loop {
            tokio::select! {
                () = interrupts.next() => return Left::Terminated,
                pressed = next_keys(&mut self.keys, reads) => match pressed {
                    Some(pressed) if pressed.contains(&self.detach_key) => return Left::Detached,
                    Some(pressed) if Instant::now() < self.until => self.kept.extend_from_slice(&pressed),
                    Some(_) => self.kept.clear(),
                    None => self.keys = None,
                },
            }
        }
    }

    fn end(self, watcher: &mut Watcher) -> Result<(), Trouble> {
        watcher.keys = self.keys;
        if Instant::now() < self.until { watcher.push_typed(&self.kept) } else { Ok(()) }
    }
}

/// The daemon, when it is back.
pub(super) async fn find_again(home: &Home, machine: Option<&str>, then: &str) -> Result<Client, Trouble> {
    let deadline = Instant::now() + DAEMON_WAIT;
    loop {
        if let Some(client) = Client::connect(&home.socket(), machine).await? {
            return Ok(client);
        }
        if Instant::now() > deadline {
            return Err(Trouble::new(
                format!("The daemon ended and did not come back within {} seconds.", DAEMON_WAIT.as_secs()),
                format!("Start it with `happy daemon start`, {then}"),
            ));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
