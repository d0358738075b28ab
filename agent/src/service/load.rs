//! What the running calls of one caller may hold.

use std::sync::Arc;

use happy_link::MAX_BODY;
use happy_rpc::{CallError, Command, ErrorCode, RecordOptions, Request};
use happy_wire::call::MAX_OUTSTANDING;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the running calls of one caller hold in all, bytes. The body of a call (256 KiB) is dropped before the call runs, and what was
/// read from it counts here: a few hundred bytes for an honest call, and a few megabytes for a list of a hundred thousand
/// arguments. With this bound the calls of a caller take 4 MiB, however it fills them.
const HELD_BYTES: usize = 4 * 1024 * 1024;
/// What a string or an entry of a list counts beside its bytes: its place, its allocation, and the room that lists grow by.
const ENTRY_COST: usize = 96;

/// The answers of one caller that it has not taken yet, bytes: what the line itself keeps comes on top (4 MiB, `happy-link`). Whoever
/// asks and does not read has its further calls wait, and pays with its own answers only. A list of a hundred sessions has 50 KiB, so a
/// caller that reads never waits for this.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// The room that is taken before a call runs whose answer says little more than that it was done, bytes.
const SHORT_ANSWER: usize = 4 * 1024;
/// The same for one that lists something or shows a session: the largest answer, for how long it gets is known only afterwards.
const LONG_ANSWER: usize = MAX_BODY;

/// The running calls of one caller.
#[derive(Debug)]
pub struct Load {
    /// `PROTOCOL 10`: the calls that one caller may have outstanding.
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// What a call has of that, until it is answered.
#[derive(Debug)]
pub struct Share {
    _call: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// Room for an answer, until the caller has taken it.
#[derive(Debug)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// The answer is there and has so many bytes: what it does not need is given back.
    pub fn shrink(&mut self, bytes: usize) {
        let Some(permit) = &mut self.0 else { return };
        drop(permit.split(permit.num_permits().saturating_sub(bytes)));
    }
}

impl Load {
    /// Nothing runs yet.
    pub fn new() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { calls: semaphore(MAX_OUTSTANDING), bytes: semaphore(HELD_BYTES), answers: semaphore(ANSWER_BYTES) }
    }

    /// Waits until the answer to a request has room, in the order of asking.
    pub async fn room(&self, request: &Request) -> Room {
        let bytes = if is_short(request) { SHORT_ANSWER } else { LONG_ANSWER };
        // It is never closed.
        Room(self.answers.clone().acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)).await.ok())
    }

    /// Reads a request, if it may run now.
    ///
    /// # Errors
    /// What the caller is told.
    pub fn admit(&self, body: &[u8]) -> Result<(Request, Option<Command>, Share), CallError> {
        let busy = |_| CallError::new(ErrorCode::Busy, "too many calls are running; wait for one to end");
        let call = self.calls.clone().try_acquire_owned().map_err(busy)?;
        let request = Request::parse(body)?;
        let command = Command::of(body)?;
        // One call alone always may.
        let held = u32::try_from(held_by(&request).min(HELD_BYTES)).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone().try_acquire_many_owned(held).map_err(busy)?;
        Ok((request, command, Share { _call: call, _bytes: bytes }))
    }
}

/// Whether its answer is that it was done, or why not.
fn is_short(request: &Request) -> bool {
    match request {
        Request::DeviceRevoke(_)
        | Request::DeviceRename(_)
        | Request::MachineStop(_)
        | Request::FileWrite(_)
        | Request::GitCommit(_)
        | Request::GitPush(_)
        | Request::SessionDetach(_)
        | Request::SessionKill(_)
        | Request::SessionType(_)
        | Request::SessionTakeControl(_)
        | Request::SessionGiveControl(_)
        | Request::PromptAnswer(_)
        | Request::TerminalResize(_) => true,
        Request::MachineInfo(_)
        | Request::MachineRecordsGet(_)
        | Request::MetricsGet(_)
        | Request::DeviceList(_)
        | Request::EventsFollow(_)
        | Request::FileList(_)
        | Request::FileRead(_)
        | Request::GitStatus(_)
        | Request::GitDiff(_)
        | Request::GitLog(_)
        | Request::SessionPause(_)
        | Request::SessionResume(_)
        | Request::SessionRename(_)
        | Request::SessionList(_)
        | Request::SessionCreate(_)
        | Request::SessionRecord(_)
        | Request::SessionStopRecording(_)
        | Request::PromptList(_)
        | Request::SessionAttach(_) => false,
    }
}

/// What a request holds beside the fixed size of its type, rather more than less.
fn held_by(request: &Request) -> usize {
    let text = |text: &str| text.len() + ENTRY_COST;
    let path_of = |record: &RecordOptions| record.to.as_ref().map_or(0, |to| to.as_os_str().len() + ENTRY_COST);
    match request {
        Request::SessionCreate(create) => {
            let command = create.command.iter().map(|word| text(word));
            let env = create.env.iter().flatten().map(|(name, value)| text(name) + text(value));
            let cwd = create.cwd.iter().map(|path| path.as_os_str().len() + ENTRY_COST);
            let name = create.name.iter().map(|name| text(name));
            let to = create.record.as_ref().map(path_of);
            command.chain(env).chain(cwd).chain(name).chain(to).sum()
        }
        Request::SessionAttach(attach) => text(&attach.name),
        Request::SessionRecord(params) => path_of(&params.record),
        Request::DeviceRevoke(revoke) => text(&revoke.device),
        Request::DeviceRename(rename) => text(&rename.device) + text(&rename.name),
        Request::SessionRename(rename) => text(&rename.name),
        Request::FileList(list) => list.path.iter().chain(&list.after).map(|word| text(word)).sum(),
        Request::FileRead(read) => text(&read.path) + read.stamp.as_ref().map_or(0, |stamp| text(stamp)),
        // Once more as bytes. The file that a part of it goes into is held by few at once.
        Request::FileWrite(write) => text(&write.path) + 2 * text(&write.bytes),
        Request::GitStatus(status) => text(&status.path),
        Request::GitDiff(diff) => {
            [&diff.path].into_iter().chain(&diff.commit).chain(&diff.files).map(|word| text(word)).sum()
        }
        Request::GitLog(log) => [&log.path].into_iter().chain(&log.from).map(|word| text(word)).sum(),
        // Once more on the command line of git.
        Request::GitCommit(commit) => {
            let words = [&commit.path, &commit.message].into_iter().chain(&commit.files);
            words.map(|word| 2 * text(word)).sum()
        }
        Request::GitPush(push) => [&push.path].into_iter().chain(&push.set_upstream).map(|word| text(word)).sum(),
        // Once more as a paste.
        Request::SessionType(typed) => 2 * text(&typed.text),
        // Ids and numbers.
        Request::MachineInfo(_)
        | Request::MachineRecordsGet(_)
        | Request::MetricsGet(_)
        | Request::DeviceList(_)
        | Request::EventsFollow(_)
        | Request::MachineStop(_)
        | Request::SessionPause(_)
        | Request::SessionResume(_)
        | Request::SessionList(_)
        | Request::SessionDetach(_)
        | Request::SessionKill(_)
        | Request::SessionStopRecording(_)
        | Request::SessionTakeControl(_)
        | Request::SessionGiveControl(_)
        | Request::PromptList(_)
        | Request::PromptAnswer(_)
        | Request::TerminalResize(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use happy_rpc::{Call, SessionCreate, SessionList};

    use super::*;

    /// The largest body that a link carries.
    const BODY: usize = MAX_BODY;

    #[tokio::test]
    async fn room_for_answers_is_taken_before_they_are_made_and_given_back_when_they_are_taken() {
        let load = Load::new();
        let list: Request = SessionList::default().into();
        let mut rooms = Vec::new();
        for _ in 0..ANSWER_BYTES / LONG_ANSWER {
            rooms.push(load.room(&list).await);
        }
        let mut one_more = std::pin::pin!(load.room(&list));
        assert!(now(one_more.as_mut()).await.is_none(), "it waits");
        rooms[0].shrink(100);
        assert!(now(one_more.as_mut()).await.is_some());
        rooms[1].shrink(LONG_ANSWER + 1);
        drop(rooms);
        assert_eq!(load.answers.available_permits(), ANSWER_BYTES);
    }

    /// What a future gives now.
    async fn now<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        tokio::time::timeout(std::time::Duration::ZERO, future).await.ok()
    }

    fn code(outcome: Result<(Request, Option<Command>, Share), CallError>) -> Result<(), ErrorCode> {
        outcome.map(drop).map_err(|error| error.code)
    }

    #[test]
    fn the_body_of_a_running_call_is_not_held() {
        let load = Load::new();
        let ballast = "x".repeat(BODY - 100);
        let body = format!(r#"{{"method":"session.list","params":{{"ballast":"{ballast}"}}}}"#);
        let running: Vec<_> = (0..MAX_OUTSTANDING).map(|_| load.admit(body.as_bytes()).unwrap()).collect();
        assert_eq!(load.bytes.available_permits(), HELD_BYTES);
        assert_eq!(code(load.admit(&SessionList::default().to_body())), Err(ErrorCode::Busy));
        drop(running);
        assert_eq!(code(load.admit(b"nonsense")), Err(ErrorCode::Malformed));
        assert_eq!(load.calls.available_permits(), MAX_OUTSTANDING, "what ended or was refused holds nothing");
    }

    #[test]
    fn what_running_calls_hold_has_a_bound() {
        let load = Load::new();
        let create = |command| SessionCreate { command, ..SessionCreate::default() }.to_body();
        let long = create(vec!["x".repeat(BODY - 200)]);
        let running: Vec<_> = std::iter::from_fn(|| load.admit(&long).ok()).collect();
        assert_eq!(running.len(), HELD_BYTES / (BODY - 200 + ENTRY_COST));
        assert_eq!(code(load.admit(&long)), Err(ErrorCode::Busy));
        // What holds nothing still runs.
        assert_eq!(code(load.admit(&SessionList::default().to_body())), Ok(()));
        drop(running);

        // Many empty words take far more memory than their body, and one such call is all that runs.
        let many = create(vec![String::new(); BODY / 3 - 100]);
        assert!(many.len() <= BODY);
        let alone = load.admit(&many);
        assert!(alone.is_ok());
        assert_eq!(code(load.admit(&many)), Err(ErrorCode::Busy));
    }
}
