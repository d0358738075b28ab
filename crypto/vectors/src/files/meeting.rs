//! PROTOCOL 8 and 11: a whole pairing, from BundleRequest to Done, as the two machines of the product send it to each other.

use std::time::Duration;

use happy_crypto::DeviceId;
use happy_pairing::{
    CodeAnswer, Host, HostConfig, HostEvent, Joiner, JoinerConfig, JoinerEvent, NextStatement, Origin, PairedPeer,
    TYPING_TIME, format_code,
};

use super::{
    conversation::page_draws,
    handshake::{ByPage, Drawn, Setting, by_page},
    invitation::{self, ORIGIN},
    world::{World, cut},
};
use crate::{
    Randomness,
    json::Json,
    object,
    page::{
        self, Change, Invitation, Ratchet, Statement, message,
        packet::{self, Type},
    },
};

const DEVICE: &str = "Ann's phone";
const MACHINE: &str = "Büro";
const RELAYS: [&str; 2] = [ORIGIN, "https://other.example:8443"];
/// The time at the start, and how long it takes until the code is typed.
const AT: u64 = 1_700_000_100;
const TYPED_AFTER: u64 = 20;

/// The two, up to the moment in which the code is shown.
struct Meeting {
    world: World,
    invitation: Invitation,
    rng: Randomness,
    host: Host,
    joiner: Joiner,
    page: ByPage,
    /// Of I and of R.
    ratchets: [Ratchet; 2],
    steps: Vec<Json>,
}

pub fn vectors() -> Json {
    let mut meeting = Meeting::new("happy vectors: the meeting");
    let code = message::shown_code(meeting.page.keys.confirmation_code);
    let (theirs, mine) = meeting.goes_on(&code);
    let Meeting { world, invitation, steps, page, .. } = meeting;
    let failures = [
        (1, "wrong code three times", "happy vectors: the meeting that fails, 1"),
        (2, "expired", "happy vectors: the meeting that fails, 2"),
        (3, "cancelled", "happy vectors: the meeting that fails, 3"),
    ];
    let failed = failures.map(|(reason, meaning, name)| {
        let message = Meeting::new(name).fails(reason);
        object! { "reason": reason, "meaning": meaning, "message": message }
    });
    page.beginning("PROTOCOL 8 and 11")
        .with("invitation", invitation.bytes())
        .with("psk", invitation.psk())
        .with("Ed25519 seed of I", world.page.phone.seed)
        .with("X25519 scalar of I", world.page.phone.agreement.secret())
        .with("Ed25519 seed of R", world.page.machine.seed)
        .with("X25519 scalar of R", world.page.machine.agreement.secret())
        .with("signed prekey scalar", world.page.signed.key.secret())
        .with("one-time prekey scalar", world.page.one_time.key.secret())
        .with("packets", steps)
        .with("confirmation code as shown", code)
        .with("statement of R", theirs)
        .with("statement of I", mine)
        .with("next pair secret", page.keys.next_pair_secret)
        .with("Failed", failed.to_vec())
}

impl Meeting {
    fn new(name: &'static str) -> Self {
        let (world, given) = (World::new(), World::new());
        let invitation = invitation::invitation(&world);
        let origin = || Origin::parse(ORIGIN).expect("it is an origin");
        let mut joiner = Joiner::new(
            JoinerConfig {
                identity: given.phone,
                invitation: invitation::ours(&invitation),
                origin: origin(),
                my_name: DEVICE.to_owned(),
                next_statement: NextStatement::FIRST,
                unix_now: AT,
            },
            Duration::ZERO,
        );
        let mut host = Host::new(
            HostConfig {
                identity: given.machine,
                signed_prekey: given.signed,
                one_time_prekey: given.one_time,
                invitation: invitation::ours(&invitation),
                origins: vec![origin()],
                machine_name: MACHINE.to_owned(),
                relays: RELAYS.map(|relay| Origin::parse(relay).expect("it is an origin")).to_vec(),
                next_statement: NextStatement::FIRST,
                removed: Vec::new(),
                unix_now: AT,
            },
            Duration::ZERO,
        );

        // Ours: every packet up to Greeting, and what was drawn for it.
        let (i, r) = (world.phone.device_id(), world.machine.device_id());
        let (mut rng, now) = (Randomness::new(name), Duration::ZERO);
        joiner.host_known(now, r);
        let request = only(joiner.poll_transmit(), r);
        host.handle_packet(&mut rng, now, i, &request);
        let bundle = only(host.poll_transmit(), i);
        assert!(rng.drawn().is_empty());
        joiner.handle_packet(&mut rng, now, r, &bundle);
        let (hello, for_hello) = (only(joiner.poll_transmit(), r), rng.drawn());
        host.handle_packet(&mut rng, now, i, &hello);
        let (welcome, for_welcome) = (only(host.poll_transmit(), i), rng.drawn());
        joiner.handle_packet(&mut rng, now, r, &welcome);
        let (confirm, for_confirm) = (only(joiner.poll_transmit(), r), rng.drawn());

        // The page: the same ones.
        assert_eq!([for_hello.len(), for_welcome.len(), for_confirm.len()], [16 + 96, 16 + 96, 32 + 16]);
        let psk = invitation.psk();
        let setting = Setting {
            page: &world.page,
            is_pairing: true,
            psk: &psk,
            secret_number: 0,
            lives: [cut(&for_hello, 0), cut(&for_welcome, 0)],
            context: ORIGIN.as_bytes(),
            reply: 0,
        };
        let drawn = Drawn {
            for_hello: cut(&for_hello, 16),
            for_welcome: cut(&for_welcome, 16),
            for_confirm: cut(&for_confirm, 0),
        };
        let page = by_page(&setting, &drawn);
        let by_page = page::bundle(&world.page.machine, &world.page.signed, Some(&world.page.one_time));
        let (ratchets, _) = page.ratchets();
        let mut meeting = Self { world, invitation, rng, host, joiner, page, ratchets, steps: Vec::new() };
        let [a, b, c] = [&meeting.page.hello, &meeting.page.welcome, &meeting.page.confirm].map(Clone::clone);
        meeting.sends("I", "BundleRequest", &[], (Type::BundleRequest, &[]), &request);
        meeting.sends("R", "Bundle", &[], (Type::Bundle, &by_page), &bundle);
        meeting.sends("I", "Hello", &for_hello, (Type::Hello, &a), &hello);
        meeting.sends("R", "Welcome", &for_welcome, (Type::Welcome, &b), &welcome);
        meeting.sends("I", "Confirm", &for_confirm[..32], (Type::Confirm, &c), &confirm);

        // Greeting, whose salt was drawn with the ratchet key before it.
        let greeting = only(meeting.joiner.poll_transmit(), r);
        let (said, salt) = (message::greeting(DEVICE), cut(&for_confirm, 32));
        let sent = meeting.ratchets[0].send(None, &salt, &said);
        meeting.sealed(("I", "Greeting"), &said, salt.to_vec(), &sent.bytes, &greeting);
        for packet in [confirm, greeting] {
            meeting.host.handle_packet(&mut meeting.rng, now, i, &packet);
        }
        let role = meeting.invitation.role;
        let offer = meeting.host_says("Offer", &message::offer(role, MACHINE));
        let events = [meeting.host.poll_event(), meeting.host.poll_event()];
        assert!(
            matches!(&events, [Some(HostEvent::Proven { device }), Some(HostEvent::CodeWanted { device_name, .. })] if *device == i && device_name == DEVICE)
        );
        meeting.joiner.handle_packet(&mut meeting.rng, now, r, &offer);
        let shown = u32::try_from(meeting.page.keys.confirmation_code).expect("six digits");
        let event = meeting.joiner.poll_event();
        assert!(
            matches!(&event, Some(JoinerEvent::ShowCode { code, machine_name, .. }) if *code == shown && machine_name == MACHINE)
        );
        assert_eq!(format_code(shown), message::shown_code(shown.into()));
        meeting
    }

    /// The code is typed, and both store the other: the statements of R and of I.
    fn goes_on(&mut self, code: &str) -> (Vec<u8>, Vec<u8>) {
        let now = Duration::from_secs(TYPED_AFTER);
        let (i, r) = (self.world.phone.device_id(), self.world.machine.device_id());
        let page = &self.world.page;
        let session = self.page.keys.session_id;
        let add = |author: &page::Device, subject: &page::Device, role, name: &str| {
            let change = Change::Add { subject: subject.record(), role, name: name.to_owned(), session };
            let at = AT + TYPED_AFTER;
            Statement { author: author.clone(), number: 1, previous: [0; 32], at, change }.bytes()
        };
        let theirs = add(&page.machine, &page.phone, self.invitation.role, DEVICE);
        let mine = add(&page.phone, &page.machine, 4, MACHINE);
        let bundle = page::bundle(&page.machine, &page.signed, None);

        assert_eq!(self.host.type_code(&mut self.rng, now, code, None), CodeAnswer::Right);
        let added = self.host_says("Added", &message::added(DEVICE, &theirs, &bundle, &RELAYS));
        self.joiner.handle_packet(&mut self.rng, now, r, &added);
        let accepted = self.joiner_says("Accepted", &message::accepted(&mine));
        self.host.handle_packet(&mut self.rng, now, i, &accepted);
        let done = self.host_says("Done", &message::done());
        self.joiner.handle_packet(&mut self.rng, now, r, &done);
        match (self.host.poll_event(), self.joiner.poll_event()) {
            (Some(HostEvent::Paired(at_host)), Some(JoinerEvent::Paired(at_joiner))) => {
                self.keeps(&at_host, &theirs, &mine);
                self.keeps(&at_joiner, &mine, &theirs);
            }
            events => unreachable!("they are paired, and not {events:?}"),
        }
        (theirs, mine)
    }

    fn keeps(&self, peer: &PairedPeer, mine: &[u8], theirs: &[u8]) {
        assert_eq!((peer.mine.as_bytes(), peer.theirs.as_bytes()), (mine, theirs));
        assert_eq!(peer.secret.to_bytes()[8..], self.page.keys.next_pair_secret);
    }

    /// It ends otherwise, and R says so.
    fn fails(mut self, reason: u8) -> Vec<u8> {
        let (now, rng) = (Duration::ZERO, &mut self.rng);
        match reason {
            1 => {
                let wrong = format!("{:06}", (self.page.keys.confirmation_code + 1) % 1_000_000);
                let left = [0; 3].map(|_| self.host.type_code(rng, now, &wrong, None));
                assert_eq!(left, [2, 1, 0].map(|left| CodeAnswer::Wrong { left }));
            }
            2 => self.host.handle_timeout(rng, TYPING_TIME),
            _ => self.host.cancel(rng, now),
        }
        let said = message::failed(reason);
        self.host_says("Failed", &said);
        said
    }

    /// What R has just sealed.
    fn host_says(&mut self, name: &'static str, said: &[u8]) -> Vec<u8> {
        let packet = only(self.host.poll_transmit(), self.world.phone.device_id());
        self.seals(1, ("R", name), said, &packet);
        packet
    }

    /// What I has just sealed.
    fn joiner_says(&mut self, name: &'static str, said: &[u8]) -> Vec<u8> {
        let packet = only(self.joiner.poll_transmit(), self.world.machine.device_id());
        self.seals(0, ("I", name), said, &packet);
        packet
    }

    fn seals(&mut self, side: usize, what: (&'static str, &'static str), said: &[u8], ours: &[u8]) {
        let (new_key, salt, randomness) = page_draws(&mut self.rng, &self.ratchets[side]);
        let sent = self.ratchets[side].send(new_key, &salt, said);
        self.sealed(what, said, randomness, &sent.bytes, ours);
    }

    fn sealed(
        &mut self,
        (from, name): (&'static str, &'static str),
        said: &[u8],
        randomness: Vec<u8>,
        message: &[u8],
        ours: &[u8],
    ) {
        let page = packet::sealed(&self.page.keys.session_id, message);
        assert_eq!(ours, page, "{name}");
        let other = &mut self.ratchets[usize::from(from == "I")];
        assert_eq!(other.receive(message).expect("it is genuine").plaintext, said);
        self.steps.push(object! {
            "from": from,
            "what": name,
            "pairing message": said,
            "randomness": randomness,
            "packet": page,
        });
    }

    fn sends(
        &mut self,
        from: &'static str,
        name: &'static str,
        randomness: &[u8],
        (kind, body): (Type, &[u8]),
        ours: &[u8],
    ) {
        let page = packet::packet(kind, body);
        assert_eq!(ours, page, "{name}");
        self.steps.push(object! { "from": from, "what": name, "randomness": randomness, "packet": page });
    }
}

/// The packet that waits, and to whom it goes.
fn only(waits: Option<(DeviceId, Vec<u8>)>, to: DeviceId) -> Vec<u8> {
    let (receiver, packet) = waits.expect("there is something to send");
    assert_eq!(receiver, to);
    packet
}
