//! Why a connection, a link or a channel ended (`PROTOCOL 13`).

use std::fmt;

/// A close code. Codes that this version does not know keep their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u16);

impl Code {
    /// Goodbye, no fault.
    pub const GOODBYE: Code = Code(4000);
    /// Malformed, or out of place.
    pub const MALFORMED: Code = Code(4400);
    /// The login was refused: bad signature, unknown ticket, or late.
    pub const LOGIN_REFUSED: Code = Code(4401);
    /// Not permitted here.
    pub const NOT_PERMITTED: Code = Code(4403);
    /// No sign of life.
    pub const SILENT: Code = Code(4408);
    /// Displaced by a newer connection of the same device.
    pub const DISPLACED: Code = Code(4409);
    /// This device was removed.
    pub const REMOVED: Code = Code(4410);
    /// A frame was too large.
    pub const TOO_LARGE: Code = Code(4413);
    /// Too many connections or frames.
    pub const TOO_MANY: Code = Code(4429);
    /// Restarting or full.
    pub const RESTARTING: Code = Code(4503);

    /// What happened, as a sentence for a person.
    pub fn explain(self) -> &'static str {
        match self {
            Code::GOODBYE => "the other side said goodbye",
            Code::MALFORMED => "the other side received something malformed",
            Code::LOGIN_REFUSED => "the login was refused",
            Code::NOT_PERMITTED => "this is not permitted here",
            Code::SILENT => "there was no sign of life",
            Code::DISPLACED => "a newer connection of this device took over",
            Code::REMOVED => "this device was removed; pair it again",
            Code::TOO_LARGE => "a frame was too large",
            Code::TOO_MANY => "too many connections or frames; try again later",
            Code::RESTARTING => "the relay is restarting or full",
            _ => "the connection ended for a reason this version does not know",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.explain(), self.0)
    }
}
