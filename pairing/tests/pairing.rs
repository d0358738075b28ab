//! Both sides of a pairing in one thread and virtual time, with a network between them that loses, doubles and delays packets,
//! and with people who type the wrong thing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests speak by failing")]

use std::{collections::BTreeMap, time::Duration};

use happy_crypto::{
    Bundle, DeviceId, Identity, OneTimePrekey, SignedPrekey,
    handshake::{Initiator, InvitationKey, Refused, Shared},
};
use happy_pairing::{
    Change, CodeAnswer, EndReason, Host, HostConfig, HostEvent, Invitation, JoinFailure, Joiner, JoinerConfig,
    JoinerEvent, Membership, NextStatement, Origin, PairedPeer, Role,
};
use happy_wire::packet::{Gone, Packet};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const UNIX: u64 = 1_700_000_000;

/// How the network treats packets, in percent.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    lost: u32,
    doubled: u32,
    /// Delivered after a random delay of up to three seconds, so out of order.
    delayed: u32,
}

struct World {
    rng: ChaCha20Rng,
    now: Duration,
    weather: Weather,
    machine: Identity,
    bundle: Bundle,
    link: String,
    host: Host,
    host_events: Vec<HostEvent>,
    joiners: Vec<Joining>,
    /// What is on the way, by time of arrival and then by order of sending.
    on_the_way: BTreeMap<(Duration, u64), (DeviceId, DeviceId, Vec<u8>)>,
    sent: u64,
}

struct Joining {
    identity: Identity,
    joiner: Joiner,
    events: Vec<JoinerEvent>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with_removed(seed, Vec::new())
    }

    fn with_removed(seed: u64, removed: Vec<DeviceId>) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let machine = Identity::generate(&mut rng);
        let signed_prekey = SignedPrekey::generate(&mut rng, &machine, 1, UNIX);
        let one_time_prekey = OneTimePrekey::generate(&mut rng, 2);
        let bundle = Bundle::new(&machine, &signed_prekey, Some(&one_time_prekey));
        let invitation = Invitation::new(&mut rng, Role::Operator, UNIX as u32 + 120, bundle.hash());
        let link = invitation.link(&origin());
        let now = Duration::from_secs(5);
        let config = HostConfig {
            identity: machine.clone(),
            signed_prekey,
            one_time_prekey,
            invitation,
            origins: vec![origin()],
            machine_name: "desk".into(),
            relays: vec![origin(), Origin::parse("https://other.example").unwrap()],
            next_statement: NextStatement::FIRST,
            removed,
            unix_now: UNIX,
        };
        Self {
            rng,
            now,
            weather: Weather::default(),
            machine,
            bundle,
            link,
            host: Host::new(config, now),
            host_events: Vec::new(),
            joiners: Vec::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
        }
    }

    /// A phone scans the link and the relay admits it. Returns its place in the list.
    fn join(&mut self) -> usize {
        let identity = Identity::generate(&mut self.rng);
        self.join_as(identity)
    }

    fn join_as(&mut self, identity: Identity) -> usize {
        let (origin, invitation) = Invitation::parse_link(&self.link).unwrap();
        self.join_with(identity, origin, invitation)
    }

    fn join_with(&mut self, identity: Identity, origin: Origin, invitation: Invitation) -> usize {
        let config = JoinerConfig {
            identity: identity.clone(),
            invitation,
            origin,
            my_name: "phone".into(),
            next_statement: NextStatement::FIRST,
            unix_now: UNIX,
        };
        let mut joiner = Joiner::new(config, self.now);
        joiner.host_known(self.now, self.machine.device_id());
        self.joiners.push(Joining { identity, joiner, events: Vec::new() });
        self.drain();
        self.joiners.len() - 1
    }

    fn send(&mut self, from: DeviceId, to: DeviceId, packet: Vec<u8>) {
        let mut percent = || self.rng.next_u32() % 100;
        let copies = if percent() < self.weather.lost { 0 } else { 1 + usize::from(percent() < self.weather.doubled) };
        for _ in 0..copies {
            let mut arrival = self.now + Duration::from_millis(20);
            if self.rng.next_u32() % 100 < self.weather.delayed {
                arrival += Duration::from_millis(u64::from(self.rng.next_u32() % 3_000));
            }
            self.sent += 1;
            self.on_the_way.insert((arrival, self.sent), (from, to, packet.clone()));
        }
    }

    fn drain(&mut self) {
        let machine = self.machine.device_id();
        while let Some((to, packet)) = self.host.poll_transmit() {
            self.send(machine, to, packet);
        }
        while let Some(event) = self.host.poll_event() {
            self.host_events.push(event);
        }
        for i in 0..self.joiners.len() {
            let from = self.joiners[i].identity.device_id();
            while let Some((to, packet)) = self.joiners[i].joiner.poll_transmit() {
                self.send(from, to, packet);
            }
            while let Some(event) = self.joiners[i].joiner.poll_event() {
                self.joiners[i].events.push(event);
            }
        }
    }

    fn deliver(&mut self, from: DeviceId, to: DeviceId, packet: &[u8]) {
        if to == self.machine.device_id() {
            self.host.handle_packet(&mut self.rng, self.now, from, packet);
        }
        for joining in self.joiners.iter_mut().filter(|joining| joining.identity.device_id() == to) {
            joining.joiner.handle_packet(&mut self.rng, self.now, from, packet);
        }
        self.drain();
    }

    /// The next thing that happens, packet or timer, at most at `until`. False when nothing happens any more.
    fn step(&mut self, until: Duration) -> bool {
        let packet = self.on_the_way.keys().next().map(|(at, _)| *at);
        let timers = self.joiners.iter().filter_map(|joining| joining.joiner.poll_timeout());
        let next = timers.chain(self.host.poll_timeout()).chain(packet).min();
        let Some(next) = next.filter(|next| *next <= until) else { return false };
        self.now = self.now.max(next);
        if packet == Some(next) {
            let (_, (from, to, packet)) = self.on_the_way.pop_first().unwrap();
            self.deliver(from, to, &packet);
        } else {
            self.host.handle_timeout(&mut self.rng, self.now);
            for joining in &mut self.joiners {
                joining.joiner.handle_timeout(self.now);
            }
            self.drain();
        }
        true
    }

    fn run_for(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        for _ in 0..10_000 {
            if !self.step(until) {
                self.now = until;
                return;
            }
        }
        panic!("this goes on for ever");
    }

    fn run_until(&mut self, mut reached: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..10_000 {
            if reached(self) {
                return true;
            }
            if !self.step(Duration::MAX) {
                return reached(self);
            }
        }
        panic!("this goes on for ever");
    }

    fn type_code(&mut self, typed: &str) -> CodeAnswer {
        let answer = self.host.type_code(&mut self.rng, self.now, typed, None);
        self.drain();
        answer
    }

    /// A phone joins, and both sides wait for the code.
    fn until_code(&mut self) -> (usize, String) {
        let phone = self.join();
        assert!(self.run_until(|world| world.code(phone).is_some() && world.code_is_wanted()));
        let code = self.code(phone).unwrap();
        (phone, code)
    }

    fn code(&self, joiner: usize) -> Option<String> {
        self.joiners[joiner].events.iter().find_map(|event| match event {
            JoinerEvent::ShowCode { code, .. } => Some(happy_pairing::format_code(*code)),
            _ => None,
        })
    }

    fn code_is_wanted(&self) -> bool {
        self.host_events.iter().any(|event| matches!(event, HostEvent::CodeWanted { .. }))
    }

    fn host_paired(&self) -> Option<&PairedPeer> {
        self.host_events.iter().find_map(|event| match event {
            HostEvent::Paired(peer) => Some(&**peer),
            _ => None,
        })
    }

    fn joiner_paired(&self, joiner: usize) -> Option<&PairedPeer> {
        self.joiners[joiner].events.iter().find_map(|event| match event {
            JoinerEvent::Paired(peer) => Some(&**peer),
            _ => None,
        })
    }

    fn failure(&self, joiner: usize) -> Option<JoinFailure> {
        self.joiners[joiner].events.iter().find_map(|event| match event {
            JoinerEvent::Failed(failure) => Some(*failure),
            _ => None,
        })
    }

    fn ended(&self) -> Option<EndReason> {
        self.host_events.iter().find_map(|event| match event {
            HostEvent::Ended(reason) => Some(*reason),
            _ => None,
        })
    }

    /// Each side got one final event, and they hold each other's statements.
    fn assert_paired(&self, joiner: usize) {
        let (at_host, at_joiner) = (self.host_paired().unwrap(), self.joiner_paired(joiner).unwrap());
        let phone = &self.joiners[joiner].identity;
        assert_eq!((&at_host.identity, &at_joiner.identity), (phone.record(), self.machine.record()));
        assert_eq!((at_host.role, at_host.my_role), (Role::Operator, Role::Machine));
        assert_eq!((at_joiner.role, at_joiner.my_role), (Role::Machine, Role::Operator));
        assert_eq!((&at_host.mine, &at_host.theirs), (&at_joiner.theirs, &at_joiner.mine));
        assert_eq!(at_joiner.bundle, Some(self.bundle.without_one_time()));
        assert_eq!(at_joiner.relays.len(), 2);
        assert_eq!((self.ended(), self.failure(joiner)), (None, None));
    }
}

fn origin() -> Origin {
    Origin::parse("https://relay.example").unwrap()
}

#[test]
fn a_phone_is_paired() {
    let mut world = World::new(1);
    let (phone, code) = world.until_code();
    assert_eq!(code.len(), 7);
    assert_eq!(world.type_code(&code), CodeAnswer::Right);
    world.run_for(5);
    world.assert_paired(phone);

    let at_host = world.host_paired().unwrap();
    assert_eq!(at_host.name, "phone");
    assert_eq!(world.joiner_paired(phone).unwrap().name, "desk");
    assert!(world.joiners[phone].joiner.is_over());
    // The statements go into both logs, and make each a member of the other.
    let mut log = Membership::new(world.machine.device_id());
    log.append(at_host.mine.clone()).unwrap();
    log.append(at_host.theirs.clone()).unwrap();
    assert_eq!(log.resolve()[&at_host.identity.device_id()].role, Role::Operator);
    assert_eq!(at_host.mine.at_unix(), UNIX);
    world.run_for(60);
    assert!(world.host.is_over() && world.host.poll_timeout().is_none());
}

#[test]
fn the_person_at_the_machine_may_name_the_device() {
    let mut world = World::new(2);
    let (_, code) = world.until_code();
    let answer = world.host.type_code(&mut world.rng, world.now, &code, Some(" Ann's\x1b phone "));
    assert_eq!(answer, CodeAnswer::Right);
    world.drain();
    world.run_for(5);
    let peer = world.host_paired().unwrap();
    assert_eq!(peer.name, "Ann's phone");
    assert!(matches!(peer.mine.change(), Change::Add { name, .. } if name == "Ann's phone"));
}

#[test]
fn three_wrong_codes_end_it_for_both() {
    let mut world = World::new(3);
    let (phone, code) = world.until_code();
    let wrong = if code == "000 000" { "111 111" } else { "000 000" };
    assert_eq!(world.type_code("what?"), CodeAnswer::Wrong { left: 3 }, "no code, no try");
    assert_eq!(world.type_code(wrong), CodeAnswer::Wrong { left: 2 });
    assert_eq!(world.type_code(wrong), CodeAnswer::Wrong { left: 1 });
    assert_eq!(world.type_code(wrong), CodeAnswer::Wrong { left: 0 });
    assert_eq!(world.type_code(&code), CodeAnswer::Ended, "the right one is too late");
    world.run_for(60);
    assert_eq!((world.ended(), world.failure(phone)), (Some(EndReason::WrongCode), Some(JoinFailure::WrongCode)));
    assert!(world.host_paired().is_none() && world.joiner_paired(phone).is_none());
}

#[test]
fn two_wrong_codes_are_forgiven() {
    let mut world = World::new(4);
    let (phone, code) = world.until_code();
    let wrong = if code == "000 000" { "111 111" } else { "000 000" };
    world.type_code(wrong);
    world.type_code(wrong);
    assert_eq!(world.type_code(&code.replace(' ', "")), CodeAnswer::Right);
    world.run_for(5);
    world.assert_paired(phone);
}

#[test]
fn a_code_is_not_wanted_before_a_device_came_nor_after_the_end() {
    let mut world = World::new(5);
    assert_eq!(world.type_code("123456"), CodeAnswer::NotYet);
    world.join();
    assert_eq!(world.type_code("123456"), CodeAnswer::NotYet);
    world.host.cancel(&mut world.rng, world.now);
    assert_eq!(world.type_code("123456"), CodeAnswer::Ended);
}

#[test]
fn an_invitation_expires_after_120_seconds() {
    let mut world = World::new(6);
    assert_eq!(world.host.poll_timeout(), Some(world.now + Duration::from_secs(120)));
    world.run_for(119);
    assert_eq!(world.ended(), None);
    world.run_for(1);
    assert_eq!(world.ended(), Some(EndReason::Expired));
    let late = world.join();
    world.run_for(5);
    assert_eq!(world.failure(late), Some(JoinFailure::Gone(Gone::Expired)));
}

/// A host whose driver forgot the timer does not accept anything after its time either.
#[test]
fn a_packet_that_comes_after_the_end_finds_it_ended() {
    let mut world = World::new(7);
    world.now += Duration::from_secs(120);
    let late = Identity::generate(&mut world.rng).device_id();
    world.host.handle_packet(&mut world.rng, world.now, late, &Packet::BundleRequest.to_vec());
    assert!(matches!(world.host.poll_event(), Some(HostEvent::Ended(EndReason::Expired))));
    let gone = Packet::InvitationGone(Gone::Expired).to_vec();
    assert_eq!(world.host.poll_transmit(), Some((late, gone)));
}

#[test]
fn nobody_types_the_code() {
    let mut world = World::new(8);
    let (phone, code) = world.until_code();
    world.run_for(119);
    assert_eq!(world.ended(), None);
    world.run_for(2);
    assert_eq!((world.ended(), world.failure(phone)), (Some(EndReason::Expired), Some(JoinFailure::Expired)));
    assert_eq!(world.type_code(&code), CodeAnswer::Ended);
}

#[test]
fn cancelling_tells_the_phone() {
    let mut world = World::new(9);
    let (phone, _) = world.until_code();
    world.host.cancel(&mut world.rng, world.now);
    world.drain();
    world.run_for(5);
    assert_eq!((world.ended(), world.failure(phone)), (Some(EndReason::Cancelled), Some(JoinFailure::Cancelled)));
    let late = world.join();
    world.run_for(5);
    assert_eq!(world.failure(late), Some(JoinFailure::Gone(Gone::Cancelled)));
}

/// The QR code was photographed: whoever proves the secret first burns it, and the second is told.
#[test]
fn a_second_phone_finds_the_invitation_used() {
    let mut world = World::new(10);
    let (first, code) = world.until_code();
    let second = world.join();
    world.run_for(5);
    assert_eq!(world.failure(second), Some(JoinFailure::Gone(Gone::Used)));
    world.type_code(&code);
    world.run_for(5);
    world.assert_paired(first);
}

/// Both have asked for the bundle already when one of them proves the secret.
#[test]
fn of_two_phones_at_once_one_wins() {
    let mut world = World::new(11);
    let phones = [world.join(), world.join()];
    world.run_for(10);
    let codes: Vec<_> = phones.iter().filter_map(|phone| world.code(*phone)).collect();
    let failures: Vec<_> = phones.iter().filter_map(|phone| world.failure(*phone)).collect();
    assert_eq!((codes.len(), failures), (1, vec![JoinFailure::Gone(Gone::Used)]));
}

/// The relay knows the ticket and can send anything, but not the secret.
#[test]
fn without_the_secret_nobody_burns_the_invitation() {
    let mut world = World::new(12);
    let attacker = Identity::generate(&mut world.rng);
    for key in [[0; 32], [1; 32]] {
        let key = InvitationKey::new(key.into());
        let bundle = world.bundle.clone();
        let context = origin().to_string();
        let (_, hello) =
            Initiator::start(&mut world.rng, &attacker, &bundle, Shared::Invitation(&key), [0; 16], context.as_bytes())
                .unwrap();
        let hello = Packet::Hello(&hello).to_vec();
        world.deliver(attacker.device_id(), world.machine.device_id(), &hello);
    }
    world.deliver(attacker.device_id(), world.machine.device_id(), b"");
    world.deliver(attacker.device_id(), world.machine.device_id(), &[0xFF; 100]);
    assert!(world.host_events.is_empty());
    let (phone, code) = world.until_code();
    world.type_code(&code);
    world.run_for(5);
    world.assert_paired(phone);
}

/// A Hello that was recorded and sent in another name burns nothing; in its own name it is only a repetition.
#[test]
fn a_hello_under_another_name_is_garbage() {
    let mut world = World::new(13);
    let attacker = Identity::generate(&mut world.rng).device_id();
    world.join();
    let mut hello = None;
    let host = world.machine.device_id();
    while hello.is_none() {
        assert!(world.step(Duration::MAX));
        hello = world.on_the_way.values().find(|(_, to, packet)| *to == host && packet[0] == 1).cloned();
    }
    let (_, _, hello) = hello.unwrap();
    world.host.handle_packet(&mut world.rng, world.now, attacker, &hello);
    world.drain();
    assert!(world.host_events.is_empty());
    world.run_for(1);
    assert!(world.code_is_wanted());
}

#[test]
fn a_flood_of_garbage_ends_the_invitation_and_says_why() {
    let mut world = World::new(14);
    let attacker = Identity::generate(&mut world.rng).device_id();
    let host = world.machine.device_id();
    for _ in 0..100 {
        world.deliver(attacker, host, &[0x01, 1, 2, 3]);
        assert_eq!(world.ended(), None);
    }
    world.deliver(attacker, host, &[0x01, 1, 2, 3]);
    assert_eq!(world.ended(), Some(EndReason::Garbage));
}

/// Nothing that comes from outside makes the queue of answers grow.
#[test]
fn answers_are_bounded() {
    let mut world = World::new(15);
    let request = Packet::BundleRequest.to_vec();
    for i in 0..1_000_u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&i.to_be_bytes());
        world.host.handle_packet(&mut world.rng, world.now, DeviceId::from_bytes(id), &request);
    }
    assert_eq!(std::iter::from_fn(|| world.host.poll_transmit()).count(), 32);
}

#[test]
fn a_bundle_with_any_byte_changed_is_refused_before_anything_is_sent() {
    let mut world = World::new(16);
    let honest = world.bundle.as_bytes().to_vec();
    for at in 0..honest.len() {
        let phone = world.join();
        world.on_the_way.clear();
        let mut forged = honest.clone();
        forged[at] ^= 1 << (at % 8);
        let (host, packet) = (world.machine.device_id(), Packet::Bundle(&forged).to_vec());
        world.deliver(host, world.joiners[phone].identity.device_id(), &packet);
        assert!(world.on_the_way.is_empty(), "byte {at}");
        if at > 0 {
            world.joiners.pop();
        }
    }
    // A relay that insists on its own bundle is named as the culprit.
    world.on_the_way.clear();
    let host = world.machine.device_id();
    world.host.cancel(&mut world.rng, world.now);
    while world.host.poll_transmit().is_some() {}
    for _ in 0..60 {
        world.on_the_way.clear();
        world.now += Duration::from_secs(1);
        world.joiners[0].joiner.handle_timeout(world.now);
        let to = world.joiners[0].identity.device_id();
        let mut forged = honest.clone();
        forged[200] ^= 1;
        let packet = Packet::Bundle(&forged).to_vec();
        world.deliver(host, to, &packet);
    }
    assert_eq!(world.failure(0), Some(JoinFailure::WrongBundle));
}

#[test]
fn another_machine_cannot_stand_in() {
    let mut world = World::new(17);
    let other = World::new(18);
    let phone = world.join();
    world.on_the_way.clear();
    let packet = Packet::Bundle(other.bundle.as_bytes()).to_vec();
    world.deliver(world.machine.device_id(), world.joiners[phone].identity.device_id(), &packet);
    assert!(world.on_the_way.is_empty());
}

/// A page at another address that copies the app would relay the pairing: the origin gives it away.
#[test]
fn a_device_that_used_another_origin_is_turned_away() {
    let mut world = World::new(19);
    let (_, invitation) = Invitation::parse_link(&world.link).unwrap();
    let identity = Identity::generate(&mut world.rng);
    let phone = world.join_with(identity, Origin::parse("https://re1ay.example").unwrap(), invitation);
    world.run_for(40);
    assert_eq!(world.ended(), Some(EndReason::WrongOrigin));
    assert_eq!(world.failure(phone), Some(JoinFailure::Gone(Gone::Cancelled)));
    let second = world.join();
    world.run_for(5);
    assert!(matches!(world.failure(second), Some(JoinFailure::Gone(_))), "it is burnt");
}

#[test]
fn a_removed_device_is_told_so_before_anybody_types_a_code() {
    let phone = Identity::generate(&mut ChaCha20Rng::seed_from_u64(99));
    let mut world = World::with_removed(40, vec![phone.device_id()]);
    let phone = world.join_as(phone);
    world.run_for(30);
    assert_eq!((world.ended(), world.failure(phone)), (Some(EndReason::RemovedDevice), Some(JoinFailure::Removed)));
    assert!(!world.host_events.iter().any(|event| matches!(event, HostEvent::CodeWanted { .. })));
    assert!(world.host.is_over());
    let second = world.join();
    world.run_for(5);
    assert_eq!(world.failure(second), Some(JoinFailure::Gone(Gone::Used)), "it is burnt");
}

#[test]
fn a_refusal_that_the_machine_did_not_sign_is_ignored() {
    let mut world = World::new(41);
    let phone = world.join();
    let (host, device) = (world.machine.device_id(), world.joiners[phone].identity.device_id());
    let forger = Identity::generate(&mut world.rng);
    let forged = Refused::sign(&forger, Refused::REVOKED, b"hello");
    for _ in 0..50 {
        world.send(host, device, Packet::Refused(&forged).to_vec());
    }
    assert!(world.run_until(|world| world.code(phone).is_some() && world.code_is_wanted()));
    let code = world.code(phone).unwrap();
    assert_eq!(world.type_code(&code), CodeAnswer::Right);
    world.run_for(5);
    world.assert_paired(phone);
}

#[test]
fn a_pairing_that_could_not_be_stored_fails_on_both_sides() {
    let mut world = World::new(42);
    let (phone, code) = world.until_code();
    assert_eq!(world.type_code(&code), CodeAnswer::Right);
    // As the daemon does it: events first, then what is to be sent.
    let host = world.machine.device_id();
    let mut paired = false;
    while !paired {
        let ((at, _), (from, to, packet)) = world.on_the_way.pop_first().unwrap();
        world.now = at;
        if to != host {
            world.deliver(from, to, &packet);
            continue;
        }
        world.host.handle_packet(&mut world.rng, world.now, from, &packet);
        while let Some(event) = world.host.poll_event() {
            paired |= matches!(event, HostEvent::Paired(_));
        }
    }
    world.host.abort(&mut world.rng, world.now);
    world.drain();
    world.run_for(40);
    assert_eq!((world.ended(), world.failure(phone)), (Some(EndReason::NotStored), Some(JoinFailure::Cancelled)));
    assert!(world.joiner_paired(phone).is_none() && world.host.is_over());
}

#[test]
fn a_machine_does_not_pair_with_itself() {
    let mut world = World::new(20);
    let (origin, invitation) = Invitation::parse_link(&world.link).unwrap();
    let config = JoinerConfig {
        identity: world.machine.clone(),
        invitation,
        origin,
        my_name: "desk".into(),
        next_statement: NextStatement::FIRST,
        unix_now: UNIX,
    };
    let mut joiner = Joiner::new(config, world.now);
    joiner.host_known(world.now, world.machine.device_id());
    let packet = Packet::Bundle(world.bundle.as_bytes()).to_vec();
    joiner.handle_packet(&mut world.rng, world.now, world.machine.device_id(), &packet);
    assert!(matches!(joiner.poll_event(), Some(JoinerEvent::Failed(JoinFailure::OwnInvitation))));
}

#[test]
fn a_machine_that_is_not_there_is_given_up() {
    let mut world = World::new(21);
    world.weather.lost = 100;
    let phone = world.join();
    world.run_for(29);
    assert_eq!(world.failure(phone), None);
    world.run_for(2);
    assert_eq!(world.failure(phone), Some(JoinFailure::NoAnswer));
}

/// The phone goes away for good right after the code was typed: the machine must not store it.
#[test]
fn a_device_that_never_accepts_is_not_stored() {
    let mut world = World::new(22);
    let (_, code) = world.until_code();
    world.weather.lost = 100;
    world.type_code(&code);
    world.run_for(60);
    assert_eq!(world.ended(), Some(EndReason::NoAnswer));
    assert!(world.host_paired().is_none());
}

/// Done is lost every time; both hold both statements, so both are paired.
#[test]
fn a_lost_done_does_not_undo_the_pairing() {
    let mut world = World::new(23);
    let (phone, code) = world.until_code();
    world.type_code(&code);
    assert!(world.run_until(|world| world.host_paired().is_some()));
    world.on_the_way.clear();
    world.weather.lost = 100;
    world.run_for(60);
    world.assert_paired(phone);
}

/// The phone's connection breaks in the middle and comes back.
#[test]
fn a_new_connection_repeats_at_once() {
    let mut world = World::new(24);
    let phone = world.join();
    world.on_the_way.clear();
    let host = world.machine.device_id();
    world.joiners[phone].joiner.host_known(world.now, host);
    world.drain();
    assert_eq!(world.on_the_way.len(), 1);
    world.joiners[phone].joiner.host_known(world.now, DeviceId::from_bytes([1; 32]));
    world.drain();
    assert_eq!(world.failure(phone), Some(JoinFailure::BadHost), "the rendezvous has one host");
}

/// InvitationGone is not authenticated: a wrong one does not stop a handshake that goes on.
#[test]
fn a_forged_gone_does_not_stop_a_proven_phone() {
    let mut world = World::new(25);
    let phone = world.join();
    let (host, me) = (world.machine.device_id(), world.joiners[phone].identity.device_id());
    assert!(world.run_until(|world| world.on_the_way.values().any(|(_, to, packet)| *to == host && packet[0] == 1)));
    world.deliver(host, me, &Packet::InvitationGone(Gone::Used).to_vec());
    world.run_for(5);
    assert_eq!(world.failure(phone), None);
    let code = world.code(phone).unwrap();
    world.deliver(host, me, &Packet::InvitationGone(Gone::Used).to_vec());
    world.type_code(&code);
    world.run_for(5);
    world.assert_paired(phone);
}

/// Two sides that answer each other's repetitions could go on for ever; `run_for` counts.
#[test]
fn repetitions_come_to_rest() {
    let mut world = World::new(26);
    world.weather.doubled = 100;
    let (phone, code) = world.until_code();
    world.type_code(&code);
    world.run_for(120);
    world.assert_paired(phone);
    assert!(world.sent < 200, "{} packets", world.sent);
    assert!(world.on_the_way.is_empty());
}

/// Every packet after the proof, damaged in every byte, delivered before the genuine one.
#[test]
fn damaged_packets_change_nothing() {
    for at in (0..400).step_by(7) {
        let mut world = World::new(27);
        let phone = world.join();
        let mut typed = false;
        for _ in 0..60 {
            if let Some(((_, _), (from, to, packet))) = world.on_the_way.first_key_value() {
                let (from, to, mut damaged) = (*from, *to, packet.clone());
                let at = at % damaged.len();
                damaged[at] ^= 0x10;
                // A kind that became InvitationGone or BundleRequest is a genuine packet; those have their own tests.
                if damaged[0] < 0x10 {
                    world.deliver(from, to, &damaged);
                }
            }
            if let (false, Some(code)) = (typed, world.code(phone)) {
                typed = world.type_code(&code) == CodeAnswer::Right;
            }
            if !world.step(world.now + Duration::from_secs(2)) {
                break;
            }
        }
        world.run_for(30);
        world.assert_paired(phone);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the weather, both end, and never does the machine store a phone that does not store it, unless Accepted was the last
    /// packet that came through.
    #[test]
    fn in_bad_weather_both_sides_come_to_one_end(seed: u64, lost in 0_u32..50, doubled in 0_u32..50, delayed in 0_u32..50) {
        let mut world = World::new(seed);
        world.weather = Weather { lost, doubled, delayed };
        let phone = world.join();
        let mut typed = false;
        // The phone may show its code before the machine has the greeting; a person types it when the machine asks for it.
        world.run_until(|world| {
            let asked = world.code(phone).is_some() && world.code_is_wanted();
            asked || world.ended().is_some() || world.failure(phone).is_some()
        });
        if let Some(code) = world.code(phone) {
            typed = world.type_code(&code) == CodeAnswer::Right;
        }
        world.run_for(300);
        prop_assert!(world.host.is_over() && world.joiners[phone].joiner.is_over());
        let finals = world.host_events.iter().filter(|e| matches!(e, HostEvent::Paired(_) | HostEvent::Ended(_))).count();
        prop_assert_eq!(finals, 1);
        let finals = world.joiners[phone].events.iter().filter(|e| matches!(e, JoinerEvent::Paired(_) | JoinerEvent::Failed(_))).count();
        prop_assert_eq!(finals, 1);
        if world.host_paired().is_some() {
            prop_assert!(typed);
            prop_assert!(world.joiner_paired(phone).is_some());
        }
        if lost < 20 {
            world.assert_paired(phone);
        }
    }

    #[test]
    fn garbage_does_not_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..30)) {
        let mut world = World::new(1);
        let phone = world.join();
        let (host, me) = (world.machine.device_id(), world.joiners[phone].identity.device_id());
        for packet in packets {
            world.deliver(me, host, &packet);
            world.deliver(host, me, &packet);
            world.step(Duration::MAX);
        }
        prop_assert!(world.host_paired().is_none());
    }
}
