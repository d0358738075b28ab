//! What the relay counts, as Prometheus text.
//!
//! The books balance: once nothing is queued, frames received from devices and from other nodes are exactly those
//! delivered, handed to other nodes and dropped, by reason. A test asserts it after every scenario.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use happy_wire::relay::Undelivered;

use crate::bus::BusStats;
use crate::certificates::Certificates;
use crate::records::Put;
use crate::wait::Waits;

/// A number of frames and of payload bytes.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    pub(crate) fn add(&self, frames: u64, bytes: u64) {
        self.frames.fetch_add(frames, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn one(&self, payload: usize) {
        self.add(1, payload as u64);
    }
}

/// Why an accepted frame was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    Unreachable,
    NotNamed,
    QueueFull,
    TooLarge,
    NotPermitted,
    /// It came from a connection that a newer one had displaced, or that was already ending.
    SenderEnded,
    /// It waited for a connection that ended.
    ReceiverEnded,
}

impl Drop {
    const ALL: [(Drop, &'static str); 7] = [
        (Drop::Unreachable, "unreachable"),
        (Drop::NotNamed, "not_named"),
        (Drop::QueueFull, "queue_full"),
        (Drop::TooLarge, "too_large"),
        (Drop::NotPermitted, "not_permitted"),
        (Drop::SenderEnded, "sender_ended"),
        (Drop::ReceiverEnded, "receiver_ended"),
    ];
}

impl From<Undelivered> for Drop {
    fn from(reason: Undelivered) -> Self {
        match reason {
            Undelivered::Unreachable | Undelivered::Unknown(_) => Drop::Unreachable,
            Undelivered::NotNamed => Drop::NotNamed,
            Undelivered::QueueFull => Drop::QueueFull,
            Undelivered::TooLarge => Drop::TooLarge,
            Undelivered::NotPermitted => Drop::NotPermitted,
        }
    }
}

/// How an attempt to log in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginResult {
    Accepted,
    BadSignature,
    UnknownTicket,
    TooManyGuests,
    BadEnrolment,
    NotAdmitted,
    OlderEpoch,
    Malformed,
    Late,
    Full,
    Closing,
    /// More logins came than are checked in a second.
    Crowded,
    /// The socket ended before a login came.
    Gone,
}

impl LoginResult {
    const ALL: [(LoginResult, &'static str); 13] = [
        (LoginResult::Accepted, "accepted"),
        (LoginResult::BadSignature, "bad_signature"),
        (LoginResult::UnknownTicket, "unknown_ticket"),
        (LoginResult::TooManyGuests, "too_many_guests"),
        (LoginResult::BadEnrolment, "bad_enrolment"),
        (LoginResult::NotAdmitted, "not_admitted"),
        (LoginResult::OlderEpoch, "older_epoch"),
        (LoginResult::Malformed, "malformed"),
        (LoginResult::Late, "late"),
        (LoginResult::Full, "full"),
        (LoginResult::Closing, "closing"),
        (LoginResult::Crowded, "crowded"),
        (LoginResult::Gone, "gone"),
    ];

    /// Whether it was the device's doing, and worth nothing to anybody: who does much of it is not listened to.
    pub(crate) fn is_failure(self) -> bool {
        use LoginResult::{BadEnrolment, BadSignature, Malformed, NotAdmitted, UnknownTicket};
        matches!(self, BadSignature | UnknownTicket | BadEnrolment | NotAdmitted | Malformed)
    }
}

/// Why a socket was closed before a device was proven on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketRefusal {
    /// As many sockets as allowed have not proven a device, and none of them has to make room for this one.
    Unproven,
    /// As many of this address as allowed have not proven a device.
    Address,
    /// It had not proven a device yet and made room for another.
    MadeRoom,
    /// Too many logins from this address have failed.
    FailedLogins,
    /// As many sockets as allowed exist.
    Full,
    /// The TLS handshake failed or took too long.
    Tls,
    /// Plain HTTP from a peer that must use https.
    Plain,
}

impl SocketRefusal {
    const ALL: [(SocketRefusal, &'static str); 7] = [
        (SocketRefusal::Unproven, "unproven_limit"),
        (SocketRefusal::Address, "address_limit"),
        (SocketRefusal::MadeRoom, "made_room"),
        (SocketRefusal::FailedLogins, "failed_logins"),
        (SocketRefusal::Full, "full"),
        (SocketRefusal::Tls, "tls_handshake"),
        (SocketRefusal::Plain, "plain_http"),
    ];
}

/// What became of records that machines put, in the order of [`Metrics::record_put`].
const PUTS: [&str; 4] = ["stored", "same", "conflict", "refused"];

/// Why a request was no beginning of a websocket: the codes of the answers that `http` gives.
const UPGRADE_REFUSALS: [&str; 7] =
    ["closing", "websocket_only", "websocket_version", "subprotocol", "websocket_key", "host", "origin"];

/// All counters of a relay. They only grow, except `connections`, `unproven` and `rendezvous_open`.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Send frames with a whole head, from devices that had logged in.
    pub(crate) received: Flow,
    /// Written out to the socket of the receiver.
    pub(crate) delivered: Flow,
    /// Given to the bus, for a device at another node.
    pub(crate) to_bus: Flow,
    /// Taken from the bus.
    pub(crate) from_bus: Flow,
    dropped: [Flow; Drop::ALL.len()],
    logins: [AtomicU64; LoginResult::ALL.len()],
    sockets_refused: [AtomicU64; SocketRefusal::ALL.len()],
    records_put: [AtomicU64; PUTS.len()],
    upgrades_refused: [AtomicU64; UPGRADE_REFUSALS.len()],
    pub(crate) connections: AtomicU64,
    /// Sockets that have not proven a device yet.
    pub(crate) unproven: AtomicU64,
    pub(crate) guests: AtomicU64,
    pub(crate) displaced: AtomicU64,
    pub(crate) rendezvous_open: AtomicU64,
    pub(crate) rendezvous_opened: AtomicU64,
    pub(crate) rendezvous_refused: AtomicU64,
    /// Frames of a type that this version does not know; they were skipped.
    pub(crate) unknown_frames: AtomicU64,
    /// Connections closed for a malformed or misplaced frame.
    pub(crate) malformed: AtomicU64,
    /// Connections closed for an oversized frame.
    pub(crate) oversized: AtomicU64,
    /// Connections closed because they took no byte.
    pub(crate) stalled: AtomicU64,
    /// Connections closed because they gave no sign of life.
    pub(crate) silent: AtomicU64,
    /// Connections closed because no enrolled device speaks for them any more.
    pub(crate) unvouched: AtomicU64,
    /// Connections closed because notices (presence, undeliverable) piled up.
    pub(crate) crowded: AtomicU64,
    /// How often a connection was not read for a while because it sent more than it may.
    pub(crate) paced: AtomicU64,
    /// Flushes that wrote at least one payload; delivered frames over this is how well writes are gathered.
    pub(crate) flushes: AtomicU64,
    /// How long frames waited in the queue of their receiver.
    pub(crate) queue_wait: Waits,
    /// Of the listener with TLS, if there is one.
    certificates: OnceLock<Arc<Certificates>>,
}

impl Metrics {
    pub(crate) fn dropped(&self, reason: Drop) -> &Flow {
        &self.dropped[reason as usize]
    }

    pub(crate) fn login(&self, result: LoginResult) {
        self.logins[result as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn socket_refused(&self, reason: SocketRefusal) {
        self.sockets_refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn record_put(&self, put: &Put) {
        let place = match put {
            Put::Stored { .. } => 0,
            Put::Same => 1,
            Put::Conflict(_) => 2,
            Put::Refused => 3,
        };
        self.records_put[place].fetch_add(1, Relaxed);
    }

    /// A request for a websocket was refused with this code.
    pub(crate) fn upgrade_refused(&self, code: &str) {
        let place = UPGRADE_REFUSALS.iter().position(|known| *known == code);
        debug_assert!(place.is_some(), "{code} has no counter");
        if let Some(counter) = place.and_then(|place| self.upgrades_refused.get(place)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// A listener shows these. The first one's are told: a program has one.
    pub(crate) fn shows(&self, certificates: Arc<Certificates>) {
        let _taken = self.certificates.set(certificates);
    }

    /// Prometheus text, version 0.0.4, with what the bus has to say.
    pub(crate) fn render(&self, bus: Option<&BusStats>) -> String {
        let mut page = Page(String::with_capacity(4096));
        page.single(
            "connections",
            "gauge",
            "Devices connected now, guests included, and streams of updates.",
            &self.connections,
        );
        page.single("unproven", "gauge", "Sockets that have not proven a device yet.", &self.unproven);
        page.family("logins_total", "counter", "Attempts to log in, by result.");
        for (result, label) in LoginResult::ALL {
            page.labelled("logins_total", "result", label, &self.logins[result as usize]);
        }
        page.family("sockets_refused_total", "counter", "Sockets closed before they proved a device, by reason.");
        for (reason, label) in SocketRefusal::ALL {
            page.labelled("sockets_refused_total", "reason", label, &self.sockets_refused[reason as usize]);
        }
        page.family("records_put_total", "counter", "Records that machines put, by what became of them.");
        for (label, count) in PUTS.iter().zip(&self.records_put) {
            page.labelled("records_put_total", "result", label, count);
        }
        page.family("upgrades_refused_total", "counter", "Requests for a websocket that were refused, by reason.");
        for (label, counter) in UPGRADE_REFUSALS.iter().zip(&self.upgrades_refused) {
            page.labelled("upgrades_refused_total", "reason", label, counter);
        }
        page.flow("received", "from devices that had logged in", &self.received);
        page.flow("delivered", "written to the receiver's socket", &self.delivered);
        page.flow("to_bus", "handed to another node", &self.to_bus);
        page.flow("from_bus", "taken from another node", &self.from_bus);
        for (unit, pick) in [("frames", frames as fn(&Flow) -> &AtomicU64), ("bytes", bytes)] {
            let name = format!("{unit}_dropped_total");
            page.family(&name, "counter", &format!("Payload {unit} accepted but not delivered, by reason."));
            for (reason, label) in Drop::ALL {
                page.labelled(&name, "reason", label, pick(self.dropped(reason)));
            }
        }
        for (name, help, value) in [
            ("guests_total", "Guests admitted to a rendezvous.", &self.guests),
            ("displaced_total", "Connections displaced by a newer one of the same device.", &self.displaced),
            ("unvouched_total", "Connections closed because no enrolled device names them any more.", &self.unvouched),
            ("rendezvous_opened_total", "Rendezvous opened.", &self.rendezvous_opened),
            (
                "rendezvous_refused_total",
                "Rendezvous not opened: too many, or not this device's.",
                &self.rendezvous_refused,
            ),
            ("unknown_frames_total", "Frames of an unknown type, skipped.", &self.unknown_frames),
            ("malformed_total", "Connections closed for a malformed or misplaced frame.", &self.malformed),
            ("oversized_total", "Connections closed for an oversized frame.", &self.oversized),
            ("stalled_total", "Connections closed because they took no byte.", &self.stalled),
            ("silent_total", "Connections closed without a sign of life.", &self.silent),
            ("crowded_total", "Connections closed because notices to them piled up.", &self.crowded),
            ("paced_total", "How often a connection that sent more than it may was not read for a while.", &self.paced),
            ("flushes_total", "Flushes that wrote payload.", &self.flushes),
        ] {
            page.single(name, "counter", help, value);
        }
        let help = "How long frames waited for their receiver's socket, by sampling.";
        page.histogram("queue_wait_seconds", help, &self.queue_wait);
        page.single("rendezvous", "gauge", "Rendezvous open now.", &self.rendezvous_open);
        if let Some(certificates) = self.certificates.get() {
            page.certificates(certificates);
        }
        if let Some(bus) = bus {
            page.bus(bus);
        }
        page.0
    }
}

fn frames(flow: &Flow) -> &AtomicU64 {
    &flow.frames
}

fn bytes(flow: &Flow) -> &AtomicU64 {
    &flow.bytes
}

/// The text under construction. Writing to a `String` cannot fail, so results are dropped.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP happy_relay_{name} {help}\n# TYPE happy_relay_{name} {kind}\n");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: &AtomicU64) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "happy_relay_{name} {}", value.load(Relaxed));
    }

    fn labelled(&mut self, name: &str, label: &str, text: &str, value: &AtomicU64) {
        let _ = writeln!(self.0, "happy_relay_{name}{{{label}=\"{text}\"}} {}", value.load(Relaxed));
    }

    fn certificates(&mut self, certificates: &Certificates) {
        let name = "certificate_expiry_timestamp_seconds";
        self.family(name, "gauge", "When the certificate that is shown ends, in Unix time; 0 while there is none.");
        let _ = writeln!(self.0, "happy_relay_{name} {}", certificates.ends.load(Relaxed));
        self.family(
            "certificate_loads_total",
            "counter",
            "Certificates taken into use, and those that could not be had or read.",
        );
        self.labelled("certificate_loads_total", "result", "taken", &certificates.taken);
        self.labelled("certificate_loads_total", "result", "failed", &certificates.failed);
    }

    fn bus(&mut self, bus: &BusStats) {
        self.family("bus_up", "gauge", "Whether the way to the other nodes is up.");
        let _ = writeln!(self.0, "happy_relay_bus_up {}", u8::from(bus.up.load(Relaxed)));
        self.single("bus_direct", "gauge", "Direct connections to other nodes.", &bus.direct);
        for (name, help, value) in [
            ("bus_lost_total", "How often the way to the other nodes was lost.", &bus.lost),
            ("bus_batches_total", "Batches published.", &bus.published),
            ("bus_direct_batches_total", "Batches sent over direct connections.", &bus.direct_batches),
            ("bus_commands_total", "Commands sent to Redis beside these.", &bus.commands),
            ("bus_full_total", "Times that something was not kept because Redis was nearly full.", &bus.full),
            ("bus_torn_total", "Batches that made no sense.", &bus.torn),
            ("bus_untaken_total", "Batches that no node took.", &bus.untaken),
            ("bus_swept_total", "Directory entries of gone nodes, struck out.", &bus.swept),
            (
                "bus_lost_frames_total",
                "Frames given to the bus that did not arrive; senders were told.",
                &bus.lost_frames,
            ),
        ] {
            self.single(name, "counter", help, value);
        }
        self.family("bus_notices_full_total", "counter", "Notices to other nodes that found no room, by kind.");
        for (kind, count) in BusStats::NOTICES.iter().zip(&bus.notices_full) {
            self.labelled("bus_notices_full_total", "kind", kind, count);
        }
        self.histogram("bus_lag_seconds", "How long batches from other nodes were under way.", &bus.lag);
    }

    fn histogram(&mut self, name: &str, help: &str, waits: &Waits) {
        self.family(name, "histogram", help);
        let (counts, sum_us) = waits.cumulated();
        let seconds = |us: u64| us as f64 / 1e6;
        let bounds = Waits::BOUNDS_US.iter().map(|us| seconds(*us).to_string()).chain(std::iter::once("+Inf".into()));
        for (bound, count) in bounds.zip(counts) {
            let _ = writeln!(self.0, "happy_relay_{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let all = counts.last().copied().unwrap_or_default();
        let _ = write!(self.0, "happy_relay_{name}_sum {}\nhappy_relay_{name}_count {all}\n", seconds(sum_us));
    }

    fn flow(&mut self, name: &str, what: &str, flow: &Flow) {
        self.single(&format!("frames_{name}_total"), "counter", &format!("Frames {what}."), &flow.frames);
        self.single(&format!("bytes_{name}_total"), "counter", &format!("Payload bytes {what}."), &flow.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_where_their_variants_count() {
        assert!(Drop::ALL.iter().enumerate().all(|(n, (reason, _))| *reason as usize == n));
        assert!(LoginResult::ALL.iter().enumerate().all(|(n, (result, _))| *result as usize == n));
        assert!(SocketRefusal::ALL.iter().enumerate().all(|(n, (reason, _))| *reason as usize == n));
    }

    #[test]
    fn every_sample_has_its_type() {
        let text = Metrics::default().render(Some(&BusStats::default()));
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split(['{', ' ']).next().unwrap();
            let name = name
                .strip_suffix("_bucket")
                .or(name.strip_suffix("_sum"))
                .or(name.strip_suffix("_count"))
                .unwrap_or(name);
            assert!(text.contains(&format!("# TYPE {name} ")), "{sample}");
        }
    }
}
