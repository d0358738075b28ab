//! Peers that hold the secret of the invitation and do not keep to the protocol. They are written by hand from `docs/PROTOCOL.md`,
//! so they also show that the bytes are those of the page.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests speak by failing")]

use std::time::Duration;

use happy_crypto::{
    Bundle, Identity, OneTimePrekey, SignedPrekey,
    handshake::{Established, Initiator, Responder, Shared},
};
use happy_pairing::{
    Change, CodeAnswer, EndReason, Host, HostConfig, HostEvent, Invitation, JoinFailure, Joiner, JoinerConfig,
    JoinerEvent, NextStatement, Origin, Role, Statement,
};
use happy_wire::packet::{Packet, put_sealed_prefix};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const NOW: Duration = Duration::from_secs(1);

fn origin() -> Origin {
    Origin::parse("https://relay.example").unwrap()
}

fn sealed(rng: &mut ChaCha20Rng, session: &mut Established, plaintext: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    put_sealed_prefix(&mut packet, &session.session_id);
    session.ratchet.encrypt(rng, plaintext, &mut packet).unwrap();
    packet
}

fn opened(session: &mut Established, packet: &[u8]) -> Vec<u8> {
    let Packet::Sealed { session: id, message } = Packet::decode(packet).unwrap() else { panic!("not sealed") };
    assert_eq!(id, session.session_id);
    let mut plaintext = Vec::new();
    session.ratchet.decrypt(message, &mut plaintext).unwrap();
    plaintext
}

fn str8(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn bytes16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn add(subject: &Identity, role: Role, session: [u8; 16]) -> Change {
    Change::Add { subject: subject.record().clone(), role, name: "name".into(), session }
}

fn statement(author: &Identity, change: Change) -> Vec<u8> {
    Statement::sign(author, &NextStatement::FIRST, 0, change).as_bytes().to_vec()
}

/// A genuine phone that has come to a machine played by this test, up to its Greeting.
struct Phone {
    rng: ChaCha20Rng,
    phone: Identity,
    machine: Identity,
    other: Identity,
    prekey: SignedPrekey,
    session: Established,
    joiner: Joiner,
}

impl Phone {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let [phone, machine, other] = std::array::from_fn(|_| Identity::generate(&mut rng));
        let prekey = SignedPrekey::generate(&mut rng, &machine, 1, 0);
        let one_time = OneTimePrekey::generate(&mut rng, 2);
        let bundle = Bundle::new(&machine, &prekey, Some(&one_time));
        let invitation = Invitation::new(&mut rng, Role::Viewer, 0, bundle.hash());
        let key = invitation.key();
        let config = JoinerConfig {
            identity: phone.clone(),
            invitation,
            origin: origin(),
            my_name: "phone".into(),
            next_statement: NextStatement::FIRST,
            unix_now: 0,
        };
        let mut joiner = Joiner::new(config, NOW);
        let host = machine.device_id();
        joiner.host_known(NOW, host);
        assert_eq!(joiner.poll_transmit().unwrap(), (host, vec![0x10]));
        joiner.handle_packet(&mut rng, NOW, host, &[&[0x11], bundle.as_bytes()].concat());
        let (_, hello) = joiner.poll_transmit().unwrap();
        let answer = Responder::answer(
            &mut rng,
            &machine,
            &prekey,
            Some(&one_time),
            &hello[1..],
            ([2; 16], 0),
            Shared::Invitation(&key),
        );
        let (responder, welcome) = answer.unwrap();
        joiner.handle_packet(&mut rng, NOW, host, &[&[0x02], &welcome[..]].concat());
        let (_, confirm) = joiner.poll_transmit().unwrap();
        let mut session = responder.confirm(&confirm[1..]).unwrap();
        let (_, greeting) = joiner.poll_transmit().unwrap();
        assert_eq!(opened(&mut session, &greeting), b"\x02\x05phone");
        Self { rng, phone, machine, other, prekey, session, joiner }
    }

    fn hear(&mut self, plaintext: &[u8]) {
        let packet = sealed(&mut self.rng, &mut self.session, plaintext);
        self.joiner.handle_packet(&mut self.rng, NOW, self.machine.device_id(), &packet);
    }

    fn offer(&mut self) {
        self.hear(b"\x01\x03\x04desk");
        let Some(JoinerEvent::ShowCode { code, machine_name, role }) = self.joiner.poll_event() else {
            panic!("the code is shown");
        };
        assert_eq!((code, machine_name.as_str(), role), (self.session.confirmation_code(), "desk", Role::Viewer));
    }

    fn added(&self, statement: &[u8], bundle: &Bundle) -> Vec<u8> {
        let relays = [&[1], &str8("https://relay.example")[..]].concat();
        [&[0x03], &str8("phone")[..], &bytes16(statement), &bytes16(bundle.as_bytes()), &relays].concat()
    }

    fn bundle(&self) -> Bundle {
        Bundle::new(&self.machine, &self.prekey, None)
    }

    fn honest_statement(&self) -> Vec<u8> {
        statement(&self.machine, add(&self.phone, Role::Viewer, self.session.session_id))
    }

    fn assert_failed(&mut self) {
        let event = self.joiner.poll_event();
        assert!(matches!(event, Some(JoinerEvent::Failed(JoinFailure::BadHost))), "{event:?}");
        assert!(self.joiner.poll_transmit().is_none() && self.joiner.is_over());
    }
}

#[test]
fn an_honest_machine_written_by_hand_is_accepted() {
    let mut phone = Phone::new(1);
    phone.offer();
    let added = phone.added(&phone.honest_statement(), &phone.bundle());
    phone.hear(&added);
    let (_, accepted) = phone.joiner.poll_transmit().unwrap();
    let accepted = opened(&mut phone.session, &accepted);
    assert_eq!(accepted[0], 4);
    let theirs = Statement::decode(&accepted[3..]).unwrap();
    let Change::Add { subject, role, session, .. } = theirs.change() else { panic!("an Add") };
    assert_eq!((subject, *role, *session), (phone.machine.record(), Role::Machine, phone.session.session_id));
    assert!(phone.joiner.poll_event().is_none(), "not before Done");
    phone.hear(b"\x06");
    let Some(JoinerEvent::Paired(peer)) = phone.joiner.poll_event() else { panic!("paired") };
    assert_eq!((peer.my_role, peer.role, peer.relays), (Role::Viewer, Role::Machine, vec![origin()]));
}

#[test]
fn an_offer_of_another_role_is_refused() {
    let mut phone = Phone::new(2);
    phone.hear(b"\x01\x01\x04desk");
    phone.assert_failed();
}

#[test]
fn statements_that_do_not_belong_here_are_refused() {
    let wrong: [fn(&Phone) -> Vec<u8>; 7] = [
        |p| statement(&p.machine, add(&p.phone, Role::Owner, p.session.session_id)),
        |p| statement(&p.machine, add(&p.other, Role::Viewer, p.session.session_id)),
        |p| statement(&p.machine, add(&p.phone, Role::Viewer, [9; 16])),
        |p| statement(&p.other, add(&p.phone, Role::Viewer, p.session.session_id)),
        |p| statement(&p.machine, Change::Remove { subject: p.phone.device_id() }),
        |_| Vec::new(),
        |p| p.honest_statement()[1..].to_vec(),
    ];
    for wrong in wrong {
        let mut phone = Phone::new(3);
        phone.offer();
        let added = phone.added(&wrong(&phone), &phone.bundle());
        phone.hear(&added);
        phone.assert_failed();
    }
}

#[test]
fn a_bundle_of_another_device_is_refused() {
    let mut phone = Phone::new(4);
    phone.offer();
    let prekey = SignedPrekey::generate(&mut phone.rng, &phone.other, 1, 0);
    let added = phone.added(&phone.honest_statement(), &Bundle::new(&phone.other, &prekey, None));
    phone.hear(&added);
    phone.assert_failed();
}

#[test]
fn messages_out_of_turn_are_refused() {
    // Added before Offer; Done before Added; Offer twice; the phone's own kinds; nothing at all; an unknown kind; bytes left over.
    for plaintext in [&b"\x06"[..], b"\x02\x05phone", b"\x04\x00\x00", b"", b"\x07", b"\x06\x00", b"\x05\x09"] {
        let mut phone = Phone::new(5);
        phone.hear(plaintext);
        phone.assert_failed();
        let mut phone = Phone::new(5);
        phone.offer();
        phone.hear(plaintext);
        phone.assert_failed();
    }
    let mut phone = Phone::new(5);
    let added = phone.added(&phone.honest_statement(), &phone.bundle());
    phone.hear(&added);
    phone.assert_failed();
    let mut phone = Phone::new(5);
    phone.offer();
    phone.hear(b"\x01\x03\x04desk");
    phone.assert_failed();
}

#[test]
fn more_relays_than_eight_or_one_on_plain_http_are_refused() {
    let relay = str8("https://relay.example");
    for relays in [[&[9], &relay.repeat(9)[..]].concat(), [&[1], &str8("http://relay.example")[..]].concat()] {
        let mut phone = Phone::new(6);
        phone.offer();
        let head = [&[0x03], &str8("phone")[..], &bytes16(&phone.honest_statement())].concat();
        let added = [&head, &bytes16(phone.bundle().as_bytes())[..], &relays].concat();
        phone.hear(&added);
        phone.assert_failed();
    }
}

/// A genuine machine that was reached by a phone played by this test, up to the Greeting.
struct Machine {
    rng: ChaCha20Rng,
    phone: Identity,
    machine: Identity,
    other: Identity,
    session: Established,
    host: Host,
}

impl Machine {
    /// After Confirm, before Greeting.
    fn confirmed(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let [phone, machine, other] = std::array::from_fn(|_| Identity::generate(&mut rng));
        let signed_prekey = SignedPrekey::generate(&mut rng, &machine, 1, 0);
        let one_time_prekey = OneTimePrekey::generate(&mut rng, 2);
        let bundle = Bundle::new(&machine, &signed_prekey, Some(&one_time_prekey));
        let invitation = Invitation::new(&mut rng, Role::Viewer, 0, bundle.hash());
        let key = invitation.key();
        let config = HostConfig {
            identity: machine.clone(),
            signed_prekey,
            one_time_prekey,
            invitation,
            origins: vec![origin()],
            machine_name: "desk".into(),
            relays: vec![origin()],
            next_statement: NextStatement::FIRST,
            removed: Vec::new(),
            unix_now: 0,
        };
        let mut host = Host::new(config, NOW);
        let context = origin().to_string();
        let start = Initiator::start(&mut rng, &phone, &bundle, Shared::Invitation(&key), [1; 16], context.as_bytes());
        let (initiator, hello) = start.unwrap();
        host.handle_packet(&mut rng, NOW, phone.device_id(), &[&[0x01], &hello[..]].concat());
        let (_, welcome) = host.poll_transmit().unwrap();
        let (session, confirm) = initiator.welcome(&mut rng, &welcome[1..]).unwrap();
        host.handle_packet(&mut rng, NOW, phone.device_id(), &[&[0x03], &confirm[..]].concat());
        assert!(matches!(host.poll_event(), Some(HostEvent::Proven { device }) if device == phone.device_id()));
        Self { rng, phone, machine, other, session, host }
    }

    /// After Added.
    fn adding(seed: u64) -> Self {
        let mut machine = Self::confirmed(seed);
        machine.hear(b"\x02\x05phone");
        let (_, offer) = machine.host.poll_transmit().unwrap();
        assert_eq!(opened(&mut machine.session, &offer), b"\x01\x03\x04desk");
        assert!(
            matches!(machine.host.poll_event(), Some(HostEvent::CodeWanted { device_name, .. }) if device_name == "phone")
        );
        let code = format!("{:06}", machine.session.confirmation_code());
        assert_eq!(machine.host.type_code(&mut machine.rng, NOW, &code, None), CodeAnswer::Right);
        let (_, added) = machine.host.poll_transmit().unwrap();
        assert_eq!(opened(&mut machine.session, &added)[0], 3);
        machine
    }

    fn hear(&mut self, plaintext: &[u8]) {
        let packet = sealed(&mut self.rng, &mut self.session, plaintext);
        self.host.handle_packet(&mut self.rng, NOW, self.phone.device_id(), &packet);
    }

    fn assert_ended(&mut self) {
        let event = self.host.poll_event();
        assert!(matches!(event, Some(HostEvent::Ended(EndReason::BadPeer))), "{event:?}");
    }
}

#[test]
fn an_honest_phone_written_by_hand_is_stored() {
    let mut machine = Machine::adding(1);
    let change = add(&machine.machine, Role::Machine, machine.session.session_id);
    let accepted = statement(&machine.phone, change);
    machine.hear(&[&[0x04], &bytes16(&accepted)[..]].concat());
    let (_, done) = machine.host.poll_transmit().unwrap();
    assert_eq!(opened(&mut machine.session, &done), b"\x06");
    let Some(HostEvent::Paired(peer)) = machine.host.poll_event() else { panic!("paired") };
    assert_eq!((&peer.identity, peer.role), (machine.phone.record(), Role::Viewer));
    assert_eq!(peer.theirs.as_bytes(), accepted);
}

#[test]
fn an_acceptance_that_does_not_belong_here_is_refused() {
    let wrong: [fn(&Machine) -> Vec<u8>; 5] = [
        |m| statement(&m.phone, add(&m.machine, Role::Owner, m.session.session_id)),
        |m| statement(&m.phone, add(&m.other, Role::Machine, m.session.session_id)),
        |m| statement(&m.phone, add(&m.machine, Role::Machine, [9; 16])),
        |m| statement(&m.other, add(&m.machine, Role::Machine, m.session.session_id)),
        |_| Vec::new(),
    ];
    for wrong in wrong {
        let mut machine = Machine::adding(2);
        let accepted = wrong(&machine);
        machine.hear(&[&[0x04], &bytes16(&accepted)[..]].concat());
        machine.assert_ended();
    }
}

/// The code must not be skipped: no message of the phone leads around it.
#[test]
fn acceptance_before_the_code_is_refused() {
    for greeted in [false, true] {
        let mut machine = Machine::confirmed(3);
        if greeted {
            machine.hear(b"\x02\x05phone");
            assert!(matches!(machine.host.poll_event(), Some(HostEvent::CodeWanted { .. })));
        }
        let change = add(&machine.machine, Role::Machine, machine.session.session_id);
        let accepted = statement(&machine.phone, change);
        machine.hear(&[&[0x04], &bytes16(&accepted)[..]].concat());
        machine.assert_ended();
    }
}

#[test]
fn messages_of_the_wrong_side_or_shape_are_refused() {
    for plaintext in [&b"\x01\x03\x04desk"[..], b"\x06", b"", b"\x99", b"\x02\x03\x1b[J", b"\x02\x01"] {
        let mut machine = Machine::confirmed(4);
        machine.hear(plaintext);
        machine.assert_ended();
    }
}

/// Another guest cannot speak in the session of the first.
#[test]
fn packets_of_the_session_from_another_device_are_ignored() {
    let mut machine = Machine::confirmed(5);
    let packet = sealed(&mut machine.rng, &mut machine.session, b"\x02\x05phone");
    machine.host.handle_packet(&mut machine.rng, NOW, machine.other.device_id(), &packet);
    assert!(machine.host.poll_event().is_none() && machine.host.poll_transmit().is_none());
    machine.host.handle_packet(&mut machine.rng, NOW, machine.phone.device_id(), &packet);
    assert!(matches!(machine.host.poll_event(), Some(HostEvent::CodeWanted { .. })));
}

/// A2: a QR code that belongs to an attacker's machine. Whoever scans it gives away a name and public keys, and nothing that helps
/// anywhere else: no long-term secret travels, in either direction.
#[test]
fn a_hostile_machine_learns_no_secret_of_the_phone() {
    let mut phone = Phone::new(11);
    let mut heard = Vec::new();
    phone.offer();
    let added = phone.added(&phone.honest_statement(), &phone.bundle());
    phone.hear(&added);
    while let Some((_, packet)) = phone.joiner.poll_transmit() {
        heard.extend(opened(&mut phone.session, &packet));
    }
    phone.hear(b"\x06");
    let Some(JoinerEvent::Paired(peer)) = phone.joiner.poll_event() else { panic!("paired") };
    assert!(!heard.is_empty());
    let secret = phone.phone.to_bytes();
    for key in secret.chunks(32).chain([&peer.secret.to_bytes()[8..]]) {
        assert!(!heard.windows(32).any(|window| window == key));
    }
}
