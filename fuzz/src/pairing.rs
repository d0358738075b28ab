//! Packets at both sides of a pairing: before the handshake, in the middle of it, after it, and from a device that knows the invitation and
//! then goes mad.

use std::sync::OnceLock;
use std::time::Duration;

use happy_crypto::handshake::{Established, Initiator, Responder, Shared};
use happy_crypto::{Bundle, DeviceId, OneTimePrekey};
use happy_pairing::{
    Host, HostConfig, HostEvent, Invitation, Joiner, JoinerConfig, JoinerEvent, NextStatement, Origin, Role,
    format_code,
};
use happy_wire::packet::{Packet, put_sealed_prefix};
use rand_chacha::ChaCha8Rng;

use crate::session::{people, rng};
use crate::{choose, pieces};

/// What happens before the first piece, by the low nibble of the first byte. A handshake costs far more than everything else, so
/// most nibbles ask for none.
enum Before {
    Nothing,
    /// The two are left alone for so many rounds, and again when a piece is empty, so that strange packets meet every state.
    Rounds(usize),
    /// The guest proves that it knows the invitation. Pieces are then its sealed messages.
    MadGuest,
    /// As well, but the host.
    MadHost,
}

impl Before {
    fn of(kind: u8) -> Self {
        match kind & 15 {
            0..=10 => Self::Nothing,
            11 => Self::Rounds(1),
            12 => Self::Rounds(2),
            13 => Self::Rounds(5),
            14 => Self::MadHost,
            _ => Self::MadGuest,
        }
    }
}

/// The first byte chooses what happens before, and how many seconds pass from piece to piece (high nibble).
pub fn pairing(data: &[u8]) {
    let (kind, rest) = choose(data);
    let Ok(origin) = Origin::parse("https://relay.example") else { return };
    let mut both = Both::new(&origin);
    let before = Before::of(kind);
    let mut mad = match before {
        Before::Nothing => None,
        Before::Rounds(rounds) => {
            (0..rounds).for_each(|_| both.round());
            None
        }
        Before::MadGuest => both.mad_guest(&origin),
        Before::MadHost => both.mad_host(),
    };
    for piece in pieces(rest).take(64) {
        match &mut mad {
            Some(mad) => both.hear_mad(mad, piece),
            None if piece.is_empty() && matches!(before, Before::Rounds(_)) => both.round(),
            None => both.packet(piece),
        }
        both.time_passes(Duration::from_secs(u64::from(kind >> 4)));
    }
}

struct Both {
    now: Duration,
    rng: ChaCha8Rng,
    host: Host,
    joiner: Joiner,
    /// Shown and not yet typed.
    code: Option<u32>,
    /// The host says so.
    is_paired: bool,
}

/// A genuine session of a device that does not keep to the protocol.
struct Mad {
    is_host: bool,
    established: Established,
}

fn one_time() -> OneTimePrekey {
    OneTimePrekey::generate(&mut rng(), 2)
}

fn bundle() -> Bundle {
    Bundle::new(&people().machine, &people().prekey, Some(&one_time()))
}

fn phone() -> DeviceId {
    people().phone.device_id()
}

fn machine() -> DeviceId {
    people().machine.device_id()
}

impl Both {
    fn new(origin: &Origin) -> Self {
        static HASH: OnceLock<[u8; 32]> = OnceLock::new();
        let hash = HASH.get_or_init(|| bundle().hash());
        let invitation = || Invitation::new(&mut rng(), Role::Owner, 0, *hash);
        let host = Host::new(
            HostConfig {
                identity: people().machine.clone(),
                signed_prekey: people().prekey.clone(),
                one_time_prekey: one_time(),
                invitation: invitation(),
                origins: vec![origin.clone()],
                machine_name: "desk".into(),
                relays: vec![origin.clone()],
                next_statement: NextStatement::FIRST,
                removed: Vec::new(),
                unix_now: 0,
            },
            Duration::ZERO,
        );
        let config = JoinerConfig {
            identity: people().phone.clone(),
            invitation: invitation(),
            origin: origin.clone(),
            my_name: "phone".into(),
            next_statement: NextStatement::FIRST,
            unix_now: 0,
        };
        let mut joiner = Joiner::new(config, Duration::ZERO);
        joiner.host_known(Duration::ZERO, machine());
        Self { now: Duration::ZERO, rng: rng(), host, joiner, code: None, is_paired: false }
    }

    /// Everything that waits arrives, and a code that is shown is typed.
    fn round(&mut self) {
        while let Some((_, packet)) = self.joiner.poll_transmit() {
            self.give_host(&packet);
        }
        if let Some(code) = self.code.take() {
            self.host.type_code(&mut self.rng, self.now, &format_code(code), None);
        }
        while let Some((_, packet)) = self.host.poll_transmit() {
            self.give_joiner(&packet);
        }
        self.events();
    }

    fn give_host(&mut self, packet: &[u8]) {
        self.host.handle_packet(&mut self.rng, self.now, phone(), packet);
    }

    fn give_joiner(&mut self, packet: &[u8]) {
        self.joiner.handle_packet(&mut self.rng, self.now, machine(), packet);
    }

    fn packet(&mut self, packet: &[u8]) {
        self.give_host(packet);
        self.give_joiner(packet);
    }

    fn events(&mut self) {
        while let Some(event) = self.host.poll_event() {
            self.is_paired |= matches!(event, HostEvent::Paired(_));
        }
        while let Some(event) = self.joiner.poll_event() {
            if let JoinerEvent::ShowCode { code, .. } = event {
                self.code = Some(code);
            }
        }
    }

    fn time_passes(&mut self, time: Duration) {
        self.now += time;
        self.host.handle_timeout(&mut self.rng, self.now);
        self.joiner.handle_timeout(self.now);
        self.events();
    }

    fn mad_guest(&mut self, origin: &Origin) -> Option<Mad> {
        let (key, context) = (self.host.invitation().key(), origin.as_str().as_bytes());
        let shared = Shared::Invitation(&key);
        let started = Initiator::start(&mut self.rng, &people().phone, &bundle(), shared, [1; 16], context);
        let (initiator, hello) = started.ok()?;
        self.give_host(&Packet::Hello(&hello).to_vec());
        let (_, packet) = self.host.poll_transmit()?;
        let Ok(Packet::Welcome(welcome)) = Packet::decode(&packet) else { return None };
        let (established, confirm) = initiator.welcome(&mut self.rng, welcome).ok()?;
        self.give_host(&Packet::Confirm(&confirm).to_vec());
        Some(Mad { is_host: false, established })
    }

    fn mad_host(&mut self) -> Option<Mad> {
        let (key, people) = (self.joiner.invitation().key(), people());
        self.give_joiner(&Packet::Bundle(bundle().as_bytes()).to_vec());
        let sent = std::iter::from_fn(|| self.joiner.poll_transmit()).last();
        let (_, packet) = sent?;
        let Ok(Packet::Hello(hello)) = Packet::decode(&packet) else { return None };
        let (shared, one_time) = (Shared::Invitation(&key), one_time());
        let (prekey, one_time) = (&people.prekey, Some(&one_time));
        let answer = Responder::answer(&mut self.rng, &people.machine, prekey, one_time, hello, ([2; 16], 0), shared);
        let (responder, welcome) = answer.ok()?;
        self.give_joiner(&Packet::Welcome(&welcome).to_vec());
        let mut established = None;
        while let Some((_, packet)) = self.joiner.poll_transmit() {
            match (Packet::decode(&packet), &mut established) {
                (Ok(Packet::Confirm(confirm)), _) => established = responder.confirm(confirm).ok(),
                // The first message of the other side is what lets a responder send.
                (Ok(Packet::Sealed { message, .. }), Some(established)) => {
                    let _ = established.ratchet.decrypt(message, &mut Vec::new());
                }
                _ => {}
            }
        }
        Some(Mad { is_host: true, established: established? })
    }

    /// The first byte of the piece says what the device does, and what the person at the machine does before.
    fn hear_mad(&mut self, mad: &mut Mad, piece: &[u8]) {
        let (how, bytes) = choose(piece);
        match how & 6 {
            2 => {
                self.host.type_code(&mut self.rng, self.now, "000 000", None);
            }
            4 => {
                let code = format_code(mad.established.confirmation_code());
                self.host.type_code(&mut self.rng, self.now, &code, Some("phone"));
            }
            _ => {}
        }
        if how & 1 == 1 {
            return self.packet(bytes);
        }
        let mut packet = Vec::new();
        put_sealed_prefix(&mut packet, &mad.established.session_id);
        if mad.established.ratchet.encrypt(&mut self.rng, bytes, &mut packet).is_ok() {
            if mad.is_host { self.give_joiner(&packet) } else { self.give_host(&packet) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (Both, Origin) {
        let origin = Origin::parse("https://relay.example").unwrap();
        (Both::new(&origin), origin)
    }

    #[test]
    fn two_that_are_left_alone_pair() {
        let (mut both, _) = both();
        for round in 1..=5 {
            assert!(!both.is_paired, "{round}");
            both.round();
        }
        assert!(both.is_paired);
    }

    #[test]
    fn a_mad_device_is_heard() {
        let (mut with_guest, origin) = both();
        let mut guest = with_guest.mad_guest(&origin).unwrap();
        // PROTOCOL 11: the Greeting is answered with an Offer.
        with_guest.hear_mad(&mut guest, &[0, 2, 1, b'x']);
        assert!(with_guest.host.poll_transmit().is_some());

        let (mut with_host, _) = both();
        let mut host = with_host.mad_host().unwrap();
        with_host.hear_mad(&mut host, &[0, 1, 1, 1, b'x']);
        with_host.events();
        assert_eq!(with_host.code, Some(host.established.confirmation_code()));
    }
}
