//! Commands: calls that take effect at most once, ever (`docs/PROTOCOL.md` §10.2).

use serde::{Deserialize, Serialize};

use crate::{Call, CallError, ErrorCode, Request};

/// The most commands of one caller that are not done.
pub const MAX_COMMANDS: u64 = 1024;

/// How far ahead a command may be wanted, ms: the callee remembers for longer than that what it has done.
pub const MAX_AHEAD_MS: u64 = 7 * 24 * 3600 * 1000;

/// What every reader of JSON reads as the same number.
const LARGEST: u64 = (1 << 53) - 1;

/// Names a command, so that it can be asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// 16 random bytes as base64url, chosen by the caller: its list of commands.
    pub life: String,
    /// Counts the commands of that life from 1.
    pub number: u64,
    /// Nobody asks for the commands up to this number again.
    #[serde(default)]
    pub done: u64,
    /// Unix milliseconds by the callee's clock: later it does not begin. At most [`MAX_AHEAD_MS`] from now.
    pub until: u64,
    /// When it was given, Unix milliseconds by the caller's clock: the same whenever it is asked for again.
    pub given_at: u64,
}

impl Command {
    /// Reads the name out of the body of a request, if it has one.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`].
    pub fn of(body: &[u8]) -> Result<Option<Command>, CallError> {
        #[derive(Deserialize)]
        struct Named {
            command: Option<Command>,
        }
        let malformed =
            |what: String| CallError::new(ErrorCode::Malformed, format!("the command cannot be read: {what}"));
        let named: Named = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        let Some(command) = named.command else { return Ok(None) };
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if command.life.len() != 22 || !command.life.bytes().all(is_base64url) {
            return Err(malformed("its life is not 16 bytes as base64url".to_owned()));
        }
        if command.number == 0 || command.done >= command.number {
            return Err(malformed("its number is not above what is done".to_owned()));
        }
        if command.number.max(command.until).max(command.given_at) > LARGEST {
            return Err(malformed("a number in it is too large".to_owned()));
        }
        Ok(Some(command))
    }

    /// The body of a request that has this name.
    pub fn body(&self, call: impl Call) -> Vec<u8> {
        self.name(&call.into())
    }

    /// The same for any request.
    pub fn name(&self, request: &Request) -> Vec<u8> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            request: &'a Request,
            command: &'a Command,
        }
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(&Whole { request, command: self }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionKill, SessionList};

    fn command(number: u64, done: u64) -> Command {
        Command { life: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(), number, done, until: 5, given_at: 3 }
    }

    #[test]
    fn a_command_is_a_request_with_a_name() {
        let call = SessionKill { session: uuid::Uuid::nil() };
        let body = command(7, 5).body(call);
        assert_eq!(Request::parse(&body), Ok(call.into()));
        assert_eq!(Command::of(&body), Ok(Some(command(7, 5))));
        assert_eq!(Command::of(&SessionList::default().to_body()), Ok(None));
    }

    #[test]
    fn names_that_make_no_sense_are_refused() {
        let refused = |command: Command| Command::of(&command.body(SessionList::default())).unwrap_err().code;
        assert_eq!(refused(command(0, 0)), ErrorCode::Malformed);
        assert_eq!(refused(command(7, 7)), ErrorCode::Malformed);
        assert_eq!(refused(Command { life: "short".to_owned(), ..command(1, 0) }), ErrorCode::Malformed);
        assert_eq!(
            refused(Command { life: "AAAAAAAAAAAAAAAAAAAAA=".to_owned(), ..command(1, 0) }),
            ErrorCode::Malformed
        );
        assert_eq!(refused(Command { until: u64::MAX, ..command(1, 0) }), ErrorCode::Malformed);
        assert_eq!(Command::of(b"[]").unwrap_err().code, ErrorCode::Malformed);
    }
}
