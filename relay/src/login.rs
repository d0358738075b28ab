//! Checking a login (`PROTOCOL 7`): the challenge is fresh, and the signature covers the name under which the device
//! believes to have dialled, so a relay in the middle cannot pass on the challenge of another.

use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::relay::{Credential, LOGIN_LABEL, ToRelay, login_message};
use tokio::time::Duration;

use crate::access::Access;
use crate::mailbox::Ending;
use crate::metrics::LoginResult;

/// `PROTOCOL 7`, Access: after a restart of the relay a phone may come before its machine does.
const VOUCH_RETRY_MS: u32 = 5_000;

/// A device that has proven its key on this connection. Only [`check`] makes one.
pub(crate) struct Proven {
    device: DeviceId,
    epoch: u64,
    ticket: Option<[u8; 32]>,
    enrolled: bool,
    /// The name of the relay that it has signed, by its place among those of this connection.
    name: usize,
}

impl Proven {
    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it has shown that its owner was given an enrolment secret of this relay.
    pub(crate) fn enrolled(&self) -> bool {
        self.enrolled
    }

    pub(crate) fn name(&self) -> usize {
        self.name
    }

    pub(crate) fn ticket(&self) -> Option<&[u8; 32]> {
        self.ticket.as_ref()
    }
}

/// A login that is not accepted: how it is counted and what the device is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) result: LoginResult,
    pub(crate) ending: Ending,
}

impl Refusal {
    pub(crate) const fn new(result: LoginResult, code: Code, retry_after_ms: u32, text: &'static str) -> Self {
        Self { result, ending: Ending { code, retry_after_ms, text, drain: false } }
    }

    pub(crate) const MALFORMED: Refusal = Refusal::new(
        LoginResult::Malformed,
        Code::MALFORMED,
        0,
        "the first frame must be a Login of protocol version 1",
    );
    pub(crate) const SIGNATURE: Refusal = Refusal::new(
        LoginResult::BadSignature,
        Code::LOGIN_REFUSED,
        0,
        "the login is not signed for this relay; dial it by its own name",
    );
    /// A network that stood still for a while, most often: the next attempt is worth making soon, and a guest's ticket is as good as before.
    pub(crate) const LATE: Refusal = Refusal::new(LoginResult::Late, Code::SILENT, 0, "the login came too late");
    /// Its invitation may be one of another node, which cannot be asked.
    pub(crate) const APART: Refusal = Refusal::new(
        LoginResult::Late,
        Code::SILENT,
        0,
        "the node of this relay where the invitation is cannot be reached now; it is tried again",
    );
    pub(crate) const OLDER: Refusal =
        Refusal::new(LoginResult::OlderEpoch, Code::DISPLACED, 0, "a newer connection of this device is live");
    pub(crate) const TICKET: Refusal = Refusal::new(
        LoginResult::UnknownTicket,
        Code::LOGIN_REFUSED,
        0,
        "the invitation is not open at this relay; it may have expired",
    );
    pub(crate) const ENROLMENT: Refusal = Refusal::new(
        LoginResult::BadEnrolment,
        Code::NOT_PERMITTED,
        0,
        "the enrolment key is not one of this relay's; ask its operator, then `happy relay enroll`",
    );
    pub(crate) const NOT_ENROLLED: Refusal = Refusal::new(
        LoginResult::NotAdmitted,
        Code::NOT_PERMITTED,
        0,
        "this relay is for enrolled machines; ask its operator for a secret, then `happy relay enroll`",
    );
    pub(crate) const NOT_VOUCHED: Refusal = Refusal::new(
        LoginResult::NotAdmitted,
        Code::NOT_PERMITTED,
        VOUCH_RETRY_MS,
        "no machine that is enrolled at this relay has named this device; it may come in a moment",
    );
    pub(crate) const GUESTS: Refusal =
        Refusal::new(LoginResult::TooManyGuests, Code::TOO_MANY, 5_000, "too many devices are using this invitation");
    /// `PROTOCOL 7`, Rates: more logins came than can be checked.
    fn crowded(again: Duration) -> Refusal {
        let retry_after_ms = u32::try_from(again.as_millis()).unwrap_or(u32::MAX);
        let text = "many devices are coming back at once; this is your turn";
        Self::new(LoginResult::Crowded, Code::RESTARTING, retry_after_ms, text)
    }

    pub(crate) const FULL: Refusal =
        Refusal::new(LoginResult::Full, Code::RESTARTING, 5_000, "the relay is full; come back later");
    pub(crate) const CLOSING: Refusal =
        Refusal::new(LoginResult::Closing, Code::RESTARTING, 1_000, "the relay is restarting");
}

/// Reads and checks the first frame. `admit` says whether there is time for it, or when there will be; `names` are the names this relay goes by on this connection.
pub(crate) fn check(
    access: &Access,
    admit: impl FnOnce() -> Result<(), Duration>,
    names: &[String],
    nonce: &[u8; 32],
    frame: &[u8],
) -> Result<Proven, Refusal> {
    let Ok(ToRelay::Login { device, epoch, client_nonce, credential, signature }) = ToRelay::decode(frame) else {
        return Err(Refusal::MALFORMED);
    };
    admit().map_err(Refusal::crowded)?;
    let message = |name: &String| login_message(name, nonce, &device, epoch, &client_nonce, &credential);
    let mut messages = names.iter().map(message).enumerate();
    let signed = messages.find(|(_, message)| device.verify(LOGIN_LABEL, message, &signature).is_ok());
    let Some((name, message)) = signed else { return Err(Refusal::SIGNATURE) };
    let enrolled = match &credential {
        Credential::Enrolment { key, signature } => {
            let enrolment = access.key(key).ok_or(Refusal::ENROLMENT)?;
            enrolment.key.verify(&message, signature).map_err(|_| Refusal::ENROLMENT)?;
            true
        }
        Credential::None | Credential::Ticket(_) => false,
    };
    Ok(Proven { device, epoch, ticket: credential.ticket().copied(), enrolled, name })
}
