//! What the running calls of one caller may hold.

use std::sync::Arc;

use happy_rpc::{CallError, Command, ErrorCode, Request};
use happy_wire::call::MAX_OUTSTANDING;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the running calls of one caller hold in all, bytes. The body of a call (256 KiB) is dropped before the call runs, and what was
/// read from it counts here: a few hundred bytes for an honest call, and a few megabytes for a list of a hundred thousand
/// arguments. With this bound the calls of a caller take 4 MiB, however it fills them.
const HELD_BYTES: usize = 4 * 1024 * 1024;
/// What a string or an entry of a list counts beside its bytes: its place, its allocation, and the room that lists grow by.
const ENTRY_COST: usize = 96;

/// The running calls of one caller.
#[derive(Debug)]
pub struct Load {
    /// `PROTOCOL 10`: the calls that one caller may have outstanding.
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// What a call has of that, until it is answered.
#[derive(Debug)]
pub struct Share {
    _call: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Load {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self { calls: Arc::new(Semaphore::new(MAX_OUTSTANDING)), bytes: Arc::new(Semaphore::new(HELD_BYTES)) }
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

/// What a request holds beside the fixed size of its type, rather more than less.
fn held_by(request: &Request) -> usize {
    let text = |text: &str| text.len() + ENTRY_COST;
    match request {
        Request::SessionCreate(create) => {
            let command = create.command.iter().map(|word| text(word));
            let env = create.env.iter().flatten().map(|(name, value)| text(name) + text(value));
            let cwd = create.cwd.iter().map(|path| path.as_os_str().len() + ENTRY_COST);
            let name = create.name.iter().map(|name| text(name));
            command.chain(env).chain(cwd).chain(name).sum()
        }
        Request::SessionAttach(attach) => text(&attach.name),
        Request::DeviceRevoke(revoke) => text(&revoke.device),
        // Once more as a paste.
        Request::SessionType(typed) => 2 * text(&typed.text),
        // Ids and numbers.
        Request::MachineInfo(_)
        | Request::DeviceList(_)
        | Request::EventsFollow(_)
        | Request::SessionList(_)
        | Request::SessionDetach(_)
        | Request::SessionKill(_)
        | Request::SessionTakeControl(_)
        | Request::TerminalResize(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use happy_rpc::{Call, SessionCreate, SessionList};

    use super::*;

    /// The largest body that a link carries.
    const BODY: usize = happy_link::MAX_BODY;

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
        assert_eq!(code(load.admit(&SessionList {}.to_body())), Err(ErrorCode::Busy));
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
        assert_eq!(code(load.admit(&SessionList {}.to_body())), Ok(()));
        drop(running);

        // Many empty words take far more memory than their body, and one such call is all that runs.
        let many = create(vec![String::new(); BODY / 3 - 100]);
        assert!(many.len() <= BODY);
        let alone = load.admit(&many);
        assert!(alone.is_ok());
        assert_eq!(code(load.admit(&many)), Err(ErrorCode::Busy));
    }
}
