//! Real holders, real terminals, real programs; and a viewer that checks every offset it is told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use happy::holder::protocol::{Status, VERSION, kind};
use happy::holder::spec::SessionDir;
use happy::session::{AttachRequest, Config, Events, Sessions, ViewerError, ViewerReceiver, ViewerSender};
use happy_rpc::{Event, Session, SessionCreate, SessionState};
use happy_wire::terminal::{Exit, TerminalMessage};
use uuid::Uuid;

/// Nothing here takes so long on any machine, unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits, and fails with what it waited for.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A home directory whose holders end with the test, whatever happens.
pub struct Home {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self::below("")
    }

    /// A home in a directory of this name.
    pub fn below(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { path: dir.path().join(name), _dir: dir }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn config(&self) -> Config {
        config(self.path())
    }

    pub async fn open(&self) -> Sessions {
        Sessions::open(self.config()).await.unwrap()
    }

    pub fn session_dir(&self, id: Uuid) -> SessionDir {
        SessionDir::new(self.path().join("sessions").join(id.to_string()))
    }

    pub fn socket(&self, id: Uuid) -> PathBuf {
        self.session_dir(id).description().unwrap().socket
    }

    /// What a holder says of itself, asked behind the daemon's back.
    pub fn status(&self, id: Uuid) -> Option<Status> {
        status_of(&self.session_dir(id).description().ok()?.socket)
    }
}

pub fn config(home: &Path) -> Config {
    Config {
        home: home.to_owned(),
        holder: vec![env!("CARGO_BIN_EXE_happy").into(), "holder".into()],
        env: [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/"), ("PS1", "$ "), ("SHELL", "/bin/sh")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        login: None,
        log: None,
        keep: None,
        projects: true,
        upgrade: false,
        ended: Default::default(),
        tmux: Vec::new(),
    }
}

fn status_of(socket: &Path) -> Option<Status> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(&[0, 0, 0, 2, kind::CONTROL, VERSION]).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    serde_json::from_slice(frame.strip_prefix(&[kind::CONTROLLED, VERSION])?).ok()
}

impl Drop for Home {
    fn drop(&mut self) {
        let Ok(sessions) = std::fs::read_dir(self.path().join("sessions")) else { return };
        for entry in sessions.flatten() {
            let description = SessionDir::new(entry.path()).description();
            let Some(status) = description.ok().and_then(|d| status_of(&d.socket)) else { continue };
            // The terminal closes with its holder, and hangs the program up.
            signal(status.pid.unwrap_or(status.holder), rustix::process::Signal::KILL);
            signal(status.holder, rustix::process::Signal::KILL);
        }
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

/// What starts `/bin/sh -c script`.
pub fn sh(script: &str) -> SessionCreate {
    SessionCreate {
        command: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        cwd: Some("/".into()),
        ..Default::default()
    }
}

pub fn request(session: &Session) -> AttachRequest {
    AttachRequest {
        session: session.id,
        writer: Uuid::new_v4(),
        name: "test".into(),
        from: None,
        scrollback: 1_000,
        lossless: false,
        credit: false,
        cols: 80,
        rows: 24,
        take_control: false,
    }
}

/// Everything from the first byte on.
pub fn from_start(session: &Session) -> AttachRequest {
    AttachRequest { from: Some(0), ..request(session) }
}

/// Waits until a session has ended, and says how.
pub async fn ended(sessions: &Sessions, events: &mut Events, id: Uuid) -> SessionState {
    soon("the end of the session", async {
        loop {
            match sessions.session(id).unwrap().state {
                SessionState::Running => {}
                ended => return ended,
            }
            while !matches!(events.next().await.unwrap(), Event::SessionChanged(changed) if changed.id == id) {}
        }
    })
    .await
}

/// A viewer.
pub struct Glass {
    pub attached: happy_rpc::Attached,
    pub sender: ViewerSender,
    pub receiver: ViewerReceiver,
    /// All output bytes that were sent as such.
    pub output: Vec<u8>,
    /// The next offset; `None` until the first message says it.
    pub offset: Option<u64>,
    pub gaps: Vec<(u64, u64)>,
    pub snapshots: usize,
    /// The last snapshot, whole, and the output since.
    pub snapshot: Option<(u64, Vec<u8>)>,
    pub since_snapshot: Vec<u8>,
    pub size: Option<(u16, u16)>,
    pub resized: usize,
    pub you_control: bool,
    pub controller: String,
    pub taken: u64,
    pub typed: u64,
    pub exit: Option<Exit>,
    parts: Vec<u8>,
}

impl Glass {
    pub async fn attach(sessions: &Sessions, request: AttachRequest) -> Self {
        let viewer = soon("attaching", sessions.attach(request)).await.unwrap();
        let (attached, sender, receiver) = viewer.split();
        Self {
            typed: attached.input_offset,
            taken: 0,
            you_control: attached.you_control,
            controller: attached.session.controller.clone().unwrap_or_default(),
            attached,
            sender,
            receiver,
            output: Vec::new(),
            offset: None,
            gaps: Vec::new(),
            snapshots: 0,
            snapshot: None,
            since_snapshot: Vec::new(),
            size: None,
            resized: 0,
            exit: None,
            parts: Vec::new(),
        }
    }

    /// Takes one message.
    pub async fn next(&mut self) {
        let message = soon("a message", self.receiver.recv()).await.unwrap().expect("the attachment has ended");
        self.take(&message);
    }

    /// Waits until the attachment is cut off, and says why.
    pub async fn cut_off(&mut self) -> Option<ViewerError> {
        loop {
            match soon("the end of the attachment", self.receiver.recv()).await {
                Ok(Some(message)) => self.take(&message),
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    pub fn take(&mut self, message: &Bytes) {
        match TerminalMessage::decode(message).unwrap() {
            TerminalMessage::Output { offset, bytes } => {
                assert!(!bytes.is_empty());
                assert_eq!(offset, self.offset.unwrap_or(offset), "output is lost or doubled");
                self.offset = Some(offset + bytes.len() as u64);
                self.output.extend_from_slice(bytes);
                if self.snapshot.is_some() {
                    self.since_snapshot.extend_from_slice(bytes);
                }
            }
            TerminalMessage::Gap { from, to } => {
                assert_eq!(from, self.offset.unwrap_or(from), "a gap that begins elsewhere");
                self.offset = Some(to);
                self.gaps.push((from, to));
            }
            TerminalMessage::Snapshot { offset, cols, rows, part, parts, bytes } => {
                assert_eq!(offset, self.offset.unwrap_or(offset), "a snapshot of another time");
                self.offset = Some(offset);
                self.size = Some((cols, rows));
                if part == 0 {
                    self.parts.clear();
                }
                self.parts.extend_from_slice(bytes);
                if part + 1 == parts {
                    self.snapshots += 1;
                    self.snapshot = Some((offset, std::mem::take(&mut self.parts)));
                    self.since_snapshot.clear();
                }
            }
            TerminalMessage::Resized { offset, cols, rows, you_control, controller } => {
                assert_eq!(offset, self.offset.unwrap_or(offset), "a size of another time");
                self.offset = Some(offset);
                self.size = Some((cols, rows));
                self.resized += 1;
                self.you_control = you_control;
                self.controller = controller.to_owned();
            }
            TerminalMessage::Exited { offset, exit } => {
                assert_eq!(offset, self.offset.unwrap_or(offset), "output is missing at the end");
                self.exit = Some(exit);
            }
            TerminalMessage::InputTaken { offset } => {
                assert!(offset > self.taken, "an acknowledgement that says nothing new");
                self.taken = offset;
            }
            other => panic!("{other:?} was sent to a viewer without credit"),
        }
    }

    pub async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !done(self) {
                self.next().await;
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            let last = &self.output[self.output.len().saturating_sub(300)..];
            panic!("waited in vain for {what}; at {:?}, last: {:?}", self.offset, String::from_utf8_lossy(last));
        }
    }

    pub async fn until_text(&mut self, text: &str) {
        self.until(text, |glass| glass.shows(text)).await;
    }

    pub fn shows(&self, text: &str) -> bool {
        self.output.windows(text.len()).any(|window| window == text.as_bytes())
    }

    pub async fn until_exit(&mut self) -> Exit {
        self.until("the exit status", |glass| glass.exit.is_some()).await;
        self.exit.unwrap()
    }

    /// Types what comes next.
    pub async fn type_in(&mut self, text: &[u8]) {
        self.type_at(self.typed, text).await;
        self.typed += text.len() as u64;
    }

    pub async fn type_at(&mut self, offset: u64, text: &[u8]) {
        let message = TerminalMessage::Input { offset, bytes: text }.to_vec();
        soon("typing", self.sender.send(&message)).await.unwrap();
    }
}
