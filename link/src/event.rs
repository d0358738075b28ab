//! What an [`Endpoint`](crate::Endpoint) tells its owner.

use std::time::Duration;

use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::frame::Class;
use happy_wire::relay::{RecordAnswer, RendezvousState, Undelivered};

use crate::calls::{Answer, CallId, RequestId};
use crate::channels::SessionId;
use crate::suite::RefusalReason;

/// Something happened. Events come in the order of their causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The login at the relay succeeded. A guest is told its host.
    RelayUp {
        /// The machine that a guest may talk to.
        host: Option<DeviceId>,
    },
    /// The connection to the relay ended, or an attempt to make one failed.
    RelayDown {
        /// Why, as far as it is known.
        why: RelayDown,
        /// No further attempt follows by itself.
        last: bool,
    },
    /// The relay is about to close the connection.
    Goaway {
        /// Why.
        code: Code,
        /// For a person.
        text: String,
    },
    /// Whether a peer is connected to the relay. Nothing is known of it after [`Event::RelayDown`].
    Presence {
        /// Who.
        peer: DeviceId,
        /// Connected or not.
        here: bool,
    },
    /// Frames pass between this device and the peer, and both have proved who they are.
    LinkUp {
        /// Who.
        peer: DeviceId,
        /// The session is the one from before: channels are open, nothing was lost. It is false exactly once for each session that
        /// comes up, before anything else of it is told: channels of the last one have been closed by then, and what the peer
        /// tells in events has to be asked for anew.
        resumed: bool,
        /// The peer was not restarted since the last session.
        same_life: bool,
    },
    /// Frames do not pass now. What was sent is kept and sent again, unless the session ended.
    LinkDown {
        /// Who.
        peer: DeviceId,
        /// Why.
        why: LinkDown,
    },
    /// The peer refuses this device, signed by itself.
    Refused {
        /// Who.
        peer: DeviceId,
        /// Why.
        reason: RefusalReason,
    },
    /// Somebody came as this peer, with a pair secret that is not known here, and was refused ([`RefusalReason::UnknownSecret`]): the peer with a
    /// state that was restored from an old copy, or somebody else with such a copy, or somebody without any, for nothing proves who sent it.
    /// Told as often as refusals are sent: ten a minute at most.
    StaleDevice {
        /// As whom.
        peer: DeviceId,
    },
    /// There are new pair secrets: store what [`Endpoint::pair_secrets`](crate::Endpoint::pair_secrets) gives, durably and in the place of the
    /// old ones, then call [`Endpoint::pair_secrets_stored`](crate::Endpoint::pair_secrets_stored). Nothing breaks while that has not happened.
    PairSecrets {
        /// With whom they are shared.
        peer: DeviceId,
        /// Which handshake left them.
        session: [u8; 16],
    },
    /// The peer has a new bundle: store what [`Endpoint::bundle`](crate::Endpoint::bundle) gives in the place of the old one.
    NewBundle {
        /// Whose.
        peer: DeviceId,
    },
    /// A packet that belongs to no link: pairing.
    Packet {
        /// Who sent it, written by the relay.
        from: DeviceId,
        /// It came through a rendezvous.
        via_rendezvous: bool,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A packet of [`Endpoint::send_packet`](crate::Endpoint::send_packet) did not reach its receiver.
    Undelivered {
        /// The receiver.
        to: DeviceId,
        /// Why.
        reason: Undelivered,
    },
    /// What has become of a rendezvous.
    Rendezvous {
        /// The hash it was opened with.
        ticket_hash: [u8; 32],
        /// Its state from now on.
        state: RendezvousState,
    },
    /// A relay's answer about a machine record (`PROTOCOL 7`). Nothing in it is proved but by the record itself.
    Record {
        /// Whose.
        machine: DeviceId,
        /// Which, see [`happy_wire::relay::record_kind`].
        kind: u8,
        /// What this answers.
        answer: RecordAnswer,
        /// The machine's last sign of life, Unix milliseconds; 0 when it is not known.
        last_seen: u64,
        /// Of the record; 0 when there is none.
        version: u64,
        /// Empty when there is none.
        sealed: Vec<u8>,
    },
    /// Records of a machine have changed at the relay; of this device itself: they were lost.
    RecordsChanged {
        /// Whose.
        machine: DeviceId,
        /// Bit n - 1 stands for kind n.
        kinds: u8,
    },
    /// The peer asks for something. Answer with [`Endpoint::respond`](crate::Endpoint::respond), also when the link is down by then.
    Request {
        /// Who.
        peer: DeviceId,
        /// Names the request.
        id: RequestId,
        /// JSON.
        body: Vec<u8>,
    },
    /// The peer no longer waits for the answer.
    Cancelled {
        /// Who.
        peer: DeviceId,
        /// Which request.
        id: RequestId,
    },
    /// A command ([`Endpoint::command`](crate::Endpoint::command)) has arrived. Its answer follows, or it is sent again in another session.
    Delivered {
        /// Who has it.
        peer: DeviceId,
        /// Which call.
        id: CallId,
    },
    /// The one answer to a call.
    Answer {
        /// Who was asked.
        peer: DeviceId,
        /// Which call.
        id: CallId,
        /// What came of it.
        answer: Answer,
    },
    /// The peer tells of something that happened there.
    Notice {
        /// Who.
        peer: DeviceId,
        /// JSON.
        body: Vec<u8>,
    },
    /// The peer opened a channel.
    Opened {
        /// Who.
        peer: DeviceId,
        /// The session in which it is open: see [`ChannelName`](crate::ChannelName).
        session: SessionId,
        /// Its number.
        channel: u32,
        /// Its urgency.
        class: Class,
        /// What it is for.
        label: String,
    },
    /// A whole message came. Give its length to [`Endpoint::consumed`](crate::Endpoint::consumed) when it has been dealt with.
    Message {
        /// Who.
        peer: DeviceId,
        /// On which channel.
        channel: u32,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A channel takes messages again after [`SendError::WouldBlock`](crate::SendError::WouldBlock). Channel 0 stands for answers and events.
    Writable {
        /// Who.
        peer: DeviceId,
        /// Which channel.
        channel: u32,
    },
    /// A channel was closed by the peer, or by the link because [too much of its messages was
    /// unfinished](crate::UNFINISHED_BYTES), or ended with its session; not told for channels that the application has closed.
    Closed {
        /// Who.
        peer: DeviceId,
        /// Which channel.
        channel: u32,
        /// Why.
        code: Code,
        /// For a person.
        reason: String,
    },
}

/// Why there is no connection to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayDown {
    /// It could not be reached, or the connection broke.
    Lost,
    /// It ended the connection and said why.
    Told(Code),
    /// This side ended it: silence, nonsense from the relay, or goodbye.
    Ours(Code),
}

/// Why frames do not pass between this device and a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkDown {
    /// The connection to the relay is gone.
    RelayDown,
    /// The relay says that the peer is away, or cannot be reached.
    Away,
    /// The peer has not answered for twenty seconds, although the relay says it is here.
    Silent,
    /// A new session takes the place of the old one.
    Replaced,
    /// The session ended.
    Ended {
        /// Whether the peer ended it.
        by_peer: bool,
        /// Why.
        code: Code,
        /// For a person.
        reason: String,
    },
}

/// Whether and when to dial the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// There is a connection.
    Connected,
    /// Dial at this time.
    At(Duration),
    /// Do not dial again.
    Never(Code),
}

/// How it stands with the connection to the relay, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The relay has let this device in.
    Up,
    /// An attempt is under way.
    Trying,
    /// The next attempt is waited for.
    Waiting {
        /// For so long from now.
        left: Duration,
        /// That is so long after the last attempt, or connection.
        pause: Duration,
        /// The relay has refused, and the next attempt will hardly change that.
        refused: bool,
    },
    /// No attempt follows by itself.
    Ended(Code),
}
