//! Guests whose hosts are connected to another node (`PROTOCOL 15`, Guests between nodes).

use std::sync::{Arc, Weak};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_relay::bus::{Admission, Claim, GuestEnd, Inbox, Login, Message, NodeId};
use happy_relay::{Bus, Config, MemoryBus, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, RendezvousState, ToRelay, Undelivered};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::harness::{Client, Device, Server, soon, until};
use crate::redis::device;
use crate::rendezvous::{TICKET, guest, hash, open, refused};

async fn nodes(timings: Timings) -> (Server, Server) {
    let bus = MemoryBus::default();
    let with = |bus: MemoryBus| {
        Server::with(Config { bus: Some(Arc::new(bus) as Arc<dyn Bus>), timings, ..Config::default() })
    };
    (with(bus.another()).await, with(bus).await)
}

/// A machine at one node with an open invitation.
async fn host(node: &Server, machine: &Device) -> Client {
    let mut host = node.join(machine).await;
    assert_eq!(open(&mut host, TICKET, 120).await, RendezvousState::Open);
    host
}

/// What every guest at another node meets, over whichever bus.
pub async fn a_ticket_leads_to_another_node(left: &Server, right: &Server) {
    let (machine, phone) = (device(), device());
    let mut host = host(left, &machine).await;
    let mut client = right.connect().await;
    assert_eq!(client.log_in(&phone, Some(TICKET)).await, Some(machine.id()));
    for word in [&b"may I"[..], b"again", &[7; 30_000]] {
        client.send(machine.id(), 1, word).await;
        host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: word }).await;
        host.send(phone.id(), 1, word).await;
        client.expect(FromRelay::Deliver { from: machine.id(), rendezvous: true, payload: word }).await;
    }
    assert_eq!(refused(right, &device(), [9; 32]).await, Code::LOGIN_REFUSED);
    host.tell(ToRelay::CloseRendezvous { ticket_hash: hash(TICKET) }).await;
    host.expect(FromRelay::Rendezvous { ticket_hash: hash(TICKET), state: RendezvousState::Ended }).await;
    assert_eq!(refused(right, &device(), TICKET).await, Code::LOGIN_REFUSED);
    // Who is in stays until the host leaves.
    client.send(machine.id(), 2, b"still here").await;
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"still here" }).await;
    drop(host);
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn a_ticket_leads_to_the_node_of_its_host_and_back() {
    let (left, right) = nodes(Timings::default()).await;
    a_ticket_leads_to_another_node(&left, &right).await;
    assert_eq!((left.metric("guests_total"), right.metric("guests_total")), (0, 1));
}

#[tokio::test]
async fn a_guest_from_another_node_reaches_its_host_and_nobody_else() {
    let (left, right) = nodes(Timings::default()).await;
    let (machine, phone, other) = (Device::new(1), Device::new(2), Device::new(3));
    let mut host = host(&left, &machine).await;
    let mut third = left.join(&other).await;
    third.name(&[phone.id()]).await;
    let mut client = guest(&right, &phone, TICKET).await;
    client.send(other.id(), 4, b"x").await;
    client.expect(FromRelay::Undeliverable { to: other.id(), tag: 4, reason: Undelivered::NotPermitted }).await;
    third.send(phone.id(), 5, b"x").await;
    third.expect(FromRelay::Undeliverable { to: phone.id(), tag: 5, reason: Undelivered::Unreachable }).await;
    host.barrier().await;
    client.tell(ToRelay::Peers(vec![machine.id()])).await;
    assert_eq!(client.goaway().await.0, Code::NOT_PERMITTED);
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn guests_of_all_nodes_count_together_and_a_newer_one_takes_its_own_place() {
    let (left, right) = nodes(Timings::default()).await;
    let mut host = host(&left, &Device::new(1)).await;
    let mut first = guest(&left, &Device::new(2), TICKET).await;
    let mut second = guest(&right, &Device::new(3), TICKET).await;
    let third = guest(&right, &Device::new(4), TICKET).await;
    let _fourth = guest(&left, &Device::new(5), TICKET).await;
    assert_eq!(refused(&right, &Device::new(6), TICKET).await, Code::TOO_MANY);
    // Each comes again at the other node.
    let _again = guest(&right, &Device::new(2), TICKET).await;
    assert_eq!(first.goaway().await.0, Code::DISPLACED);
    let _again = guest(&left, &Device::new(3), TICKET).await;
    assert_eq!(second.goaway().await.0, Code::DISPLACED);
    drop(third);
    until("the place of the one that left is free", || right.relay.connections() == 1).await;
    host.barrier().await;
    let mut sixth = guest(&right, &Device::new(6), TICKET).await;
    sixth.barrier().await;
    left.balances().await;
    right.balances().await;
}

/// It has scanned another invitation of the same machine, and its connection was led to another node.
#[tokio::test]
async fn a_guest_that_comes_by_a_second_rendezvous_of_its_host_is_heard_and_gets_what_is_for_it() {
    let bus = MemoryBus::default();
    let node = |bus: MemoryBus| Server::with(Config { bus: Some(Arc::new(bus) as Arc<dyn Bus>), ..Config::default() });
    let (left, right, third) = (node(bus.another()).await, node(bus.another()).await, node(bus).await);
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = host(&left, &machine).await;
    assert_eq!(open(&mut host, [7; 32], 120).await, RendezvousState::Open);
    let mut first = guest(&right, &phone, TICKET).await;
    let mut second = guest(&third, &phone, [7; 32]).await;
    for (client, word) in [(&mut second, &b"of the second"[..]), (&mut first, b"of the first")] {
        client.send(machine.id(), 1, word).await;
        host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: word }).await;
    }
    host.send(phone.id(), 1, b"to the newest").await;
    second.expect(FromRelay::Deliver { from: machine.id(), rendezvous: true, payload: b"to the newest" }).await;
    first.barrier().await;
    for node in [&left, &right, &third] {
        node.balances().await;
    }
}

#[tokio::test]
async fn a_host_hears_that_its_guest_has_left_the_other_node() {
    let timings = Timings { guest: Duration::from_millis(300), ..Timings::default() };
    let (left, right) = nodes(timings).await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = host(&left, &machine).await;
    let mut client = guest(&right, &phone, TICKET).await;
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    until("it has left", || right.relay.connections() == 0).await;
    host.send(phone.id(), 1, b"x").await;
    host.expect(FromRelay::Undeliverable { to: phone.id(), tag: 1, reason: Undelivered::NotNamed }).await;
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn a_guest_and_its_own_connection_do_not_disturb_each_other_at_different_nodes() {
    let (left, right) = nodes(Timings::default()).await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = host(&left, &machine).await;
    let mut ordinary = left.join(&phone).await;
    let mut client = guest(&right, &phone, TICKET).await;
    host.send(phone.id(), 1, b"to the guest").await;
    client.expect(FromRelay::Deliver { from: machine.id(), rendezvous: true, payload: b"to the guest" }).await;
    ordinary.barrier().await;
    drop(client);
    ordinary.barrier().await;
    left.balances().await;
    right.balances().await;
}

/// A node that the test plays, with a machine that is connected there and has an open invitation.
struct Played {
    bus: Arc<dyn Bus>,
    machine: Device,
    comes: mpsc::UnboundedReceiver<(NodeId, Message)>,
    /// The bus holds it only weakly.
    _inbox: Arc<Ears>,
}

struct Ears {
    machine: DeviceId,
    heard: mpsc::UnboundedSender<(NodeId, Message)>,
}

const LOGIN: Login = Login { epoch: 1, number: 1 };

impl Inbox for Ears {
    fn handle(&self, node: NodeId, message: Message) {
        let _ = self.heard.send((node, message));
    }

    fn apart(&self) {}

    fn gone(&self, _node: NodeId) {}

    fn seats(&self) -> Vec<(DeviceId, Login)> {
        vec![(self.machine, LOGIN)]
    }

    fn seat(&self, device: &DeviceId) -> Option<Login> {
        (*device == self.machine).then_some(LOGIN)
    }

    fn introduce(&self, _device: &DeviceId) {}

    fn names_anew(&self, _device: &DeviceId) {}

    fn lost_records(&self, _machine: &DeviceId, _asked: Option<Instant>) {}
}

impl Played {
    async fn start(bus: Arc<dyn Bus>) -> Self {
        let machine = device();
        let (heard, comes) = mpsc::unbounded_channel();
        let inbox = Arc::new(Ears { machine: machine.id(), heard });
        let weak: Weak<Ears> = Arc::downgrade(&inbox);
        bus.join(weak, [0; 32]);
        assert_eq!(bus.claim(&machine.id(), LOGIN).await, Claim::Held);
        // Of two that play, the first has it.
        bus.open_ticket(&machine.id(), &hash(TICKET), 120).await;
        Self { bus, machine, comes, _inbox: inbox }
    }

    /// The next message that does not only say who names whom.
    async fn next(&mut self) -> (NodeId, Message) {
        loop {
            let (node, message) = soon("a message", self.comes.recv()).await.unwrap();
            if !matches!(message, Message::Naming { .. }) {
                return (node, message);
            }
        }
    }

    fn say(&self, node: NodeId, message: Message) {
        self.bus.post_to(node, message).unwrap();
    }

    async fn guest_comes(&mut self) -> (NodeId, DeviceId, Login) {
        match self.next().await {
            (node, Message::GuestComes { guest, login, ticket_hash }) if ticket_hash == hash(TICKET) => {
                (node, guest, login)
            }
            other => panic!("{other:?}"),
        }
    }

    fn admit(&self, (node, guest, login): (NodeId, DeviceId, Login)) {
        let admission = Admission::Admitted(self.machine.id());
        self.say(node, Message::GuestAnswer { guest, login, admission });
    }

    /// Takes a guest that logs in at another node.
    async fn guest(&mut self, at: &Server, phone: &Device) -> Client {
        let admitted = async {
            let comes = self.guest_comes().await;
            self.admit(comes);
        };
        tokio::join!(guest(at, phone, TICKET), admitted).0
    }

    /// Says of the next frame that it did not arrive.
    async fn lose_a_frame(&mut self) {
        let (node, Message::Frame { from, to, tag, deliver }) = self.next().await else { panic!("no frame") };
        let rendezvous = deliver[1 + DeviceId::LEN] == 1;
        self.say(node, Message::Undelivered { from, to, tag, reason: Undelivered::Unreachable, rendezvous });
    }
}

/// What a phone meets that is at a node as itself and as the guest of a machine elsewhere, when frames do not arrive there.
pub async fn what_does_not_arrive_ends_the_guest_alone(bus: Arc<dyn Bus>, right: &Server) {
    let (mut left, phone) = (Played::start(bus).await, device());
    let machine = left.machine.id();
    let mut own = right.join(&phone).await;
    own.name(&[machine]).await;
    let mut client = left.guest(right, &phone).await;
    own.send(machine, 1, b"of its own connection").await;
    left.lose_a_frame().await;
    own.expect(FromRelay::Undeliverable { to: machine, tag: 1, reason: Undelivered::Unreachable }).await;
    client.barrier().await;
    client.send(machine, 2, b"of the guest").await;
    left.lose_a_frame().await;
    client.expect(FromRelay::Undeliverable { to: machine, tag: 2, reason: Undelivered::Unreachable }).await;
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    own.barrier().await;
    right.balances().await;
}

async fn played_and_real(timings: Timings) -> (Played, Server) {
    let bus = MemoryBus::default();
    let config = Config { bus: Some(Arc::new(bus.another()) as Arc<dyn Bus>), timings, ..Config::default() };
    let right = Server::with(config).await;
    (Played::start(Arc::new(bus)).await, right)
}

#[tokio::test]
async fn what_does_not_arrive_at_another_node_ends_the_guest_alone() {
    let bus = MemoryBus::default();
    let config = Config { bus: Some(Arc::new(bus.another()) as Arc<dyn Bus>), ..Config::default() };
    let right = Server::with(config).await;
    what_does_not_arrive_ends_the_guest_alone(Arc::new(bus), &right).await;
}

/// Seats a guest of the played node at a real host.
async fn played_guest(left: &mut Played, right: &Server, login: Login) -> (Client, Device, Device, NodeId) {
    let (machine, phone) = (device(), device());
    let mut host = right.join(&machine).await;
    host.name(&[phone.id()]).await;
    assert_eq!(open(&mut host, [7; 32], 120).await, RendezvousState::Open);
    let node = left.bus.ticket(&hash([7; 32])).await.unwrap().unwrap();
    left.say(node, Message::GuestComes { guest: phone.id(), login, ticket_hash: hash([7; 32]) });
    let admitted = Message::GuestAnswer { guest: phone.id(), login, admission: Admission::Admitted(machine.id()) };
    assert_eq!(left.next().await.1, admitted);
    (host, machine, phone, node)
}

/// Its node has lost it, or has died: what the machine sends shall reach the phone that has just been paired.
#[tokio::test]
async fn a_guest_that_is_not_at_its_node_is_none_any_more() {
    // Admitted long ago.
    let timings = Timings { admission: Duration::ZERO, ..Timings::default() };
    let (mut left, right) = played_and_real(timings).await;
    let (mut host, machine, phone, _) = played_guest(&mut left, &right, LOGIN).await;
    let mut own = right.join(&phone).await;
    own.tell(ToRelay::Peers(vec![machine.id()])).await;
    own.expect(FromRelay::Presence { device: machine.id(), here: true }).await;
    host.expect(FromRelay::Presence { device: phone.id(), here: true }).await;
    host.send(phone.id(), 1, b"to the guest").await;
    left.lose_a_frame().await;
    host.expect(FromRelay::Undeliverable { to: phone.id(), tag: 1, reason: Undelivered::Unreachable }).await;
    host.send(phone.id(), 2, b"to the phone").await;
    own.expect_payload(machine.id(), b"to the phone").await;
    right.balances().await;
}

/// Nobody has said that it left.
#[tokio::test]
async fn a_guest_at_another_node_is_none_when_its_time_is_over() {
    let (mut left, right) = played_and_real(Timings { guest: Duration::from_millis(200), ..Timings::default() }).await;
    let (mut host, machine, phone, node) = played_guest(&mut left, &right, LOGIN).await;
    let mut own = right.join(&phone).await;
    own.tell(ToRelay::Peers(vec![machine.id()])).await;
    own.expect(FromRelay::Presence { device: machine.id(), here: true }).await;
    host.expect(FromRelay::Presence { device: phone.id(), here: true }).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    host.send(phone.id(), 1, b"to the phone").await;
    own.expect_payload(machine.id(), b"to the phone").await;
    left.say(node, through_rendezvous(&phone, &machine, b"late"));
    assert!(matches!(left.next().await.1, Message::Undelivered { rendezvous: true, .. }));
    host.barrier().await;
    right.balances().await;
}

fn through_rendezvous(from: &Device, to: &Device, payload: &[u8]) -> Message {
    let mut deliver = Vec::new();
    FromRelay::Deliver { from: from.id(), rendezvous: true, payload }.encode(&mut deliver);
    Message::Frame { from: from.id(), to: to.id(), tag: 1, deliver: deliver.into() }
}

/// Its host knows the device already, and has something for it.
#[tokio::test]
async fn what_a_host_sends_right_behind_the_answer_reaches_its_guest() {
    let (mut left, right) = played_and_real(Timings::default()).await;
    let phone = device();
    let answered = async {
        let comes = left.guest_comes().await;
        left.admit(comes);
        left.say(comes.0, through_rendezvous(&left.machine, &phone, b"right behind it"));
    };
    let mut client = tokio::join!(guest(&right, &phone, TICKET), answered).0;
    let machine = left.machine.id();
    client.expect(FromRelay::Deliver { from: machine, rendezvous: true, payload: b"right behind it" }).await;
    client.barrier().await;
    right.balances().await;
}

/// What goes directly may be faster than the answer, which goes through Redis.
#[tokio::test]
async fn a_frame_that_overtakes_the_answer_ends_no_guest() {
    let (mut left, right) = played_and_real(Timings::default()).await;
    let (mut host, machine, phone, node) = played_guest(&mut left, &right, LOGIN).await;
    host.send(phone.id(), 1, b"too early").await;
    left.lose_a_frame().await;
    host.expect(FromRelay::Undeliverable { to: phone.id(), tag: 1, reason: Undelivered::Unreachable }).await;
    left.say(node, through_rendezvous(&phone, &machine, b"it is here now"));
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"it is here now" }).await;
    right.balances().await;
}

/// `PROTOCOL 7`, One live connection.
#[tokio::test]
async fn a_guest_that_was_displaced_injects_nothing_from_the_node_where_it_was() {
    let bus = MemoryBus::default();
    let third = bus.another();
    let config = Config { bus: Some(Arc::new(bus.another()) as Arc<dyn Bus>), ..Config::default() };
    let right = Server::with(config).await;
    let mut left = Played::start(Arc::new(bus)).await;
    let (mut host, machine, phone, node) = played_guest(&mut left, &right, LOGIN).await;
    left.say(node, through_rendezvous(&phone, &machine, b"while it is one"));
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"while it is one" }).await;
    // It comes anew, at a third node.
    let mut third = Played::start(Arc::new(third)).await;
    let login = Login { epoch: 2, ..LOGIN };
    third.say(node, Message::GuestComes { guest: phone.id(), login, ticket_hash: hash([7; 32]) });
    assert!(matches!(third.next().await.1, Message::GuestAnswer { admission: Admission::Admitted(_), .. }));
    let displaced =
        Message::GuestEnds { guest: phone.id(), login: LOGIN, host: machine.id(), end: GuestEnd::Displaced };
    assert_eq!(left.next().await.1, displaced);
    left.say(node, through_rendezvous(&phone, &machine, b"injected"));
    assert!(matches!(left.next().await.1, Message::Undelivered { rendezvous: true, .. }));
    third.say(node, through_rendezvous(&phone, &machine, b"of the new one"));
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"of the new one" }).await;
    right.balances().await;
}

/// Its socket ended while its host's node was asked, or that took too long.
#[tokio::test]
async fn a_guest_that_is_admitted_when_it_has_gone_gives_up_its_place() {
    let (mut left, right) = played_and_real(Timings { login: Duration::from_millis(200), ..Timings::default() }).await;
    let phone = device();
    let mut client = right.connect().await;
    let nonce = client.challenge().await;
    client.raw(&phone.login(&client.name.clone(), &nonce, Some(TICKET))).await;
    let (node, guest, login) = left.guest_comes().await;
    assert_eq!(client.goaway().await.0, Code::SILENT);
    left.admit((node, guest, login));
    let end = Message::GuestEnds { guest, login, host: left.machine.id(), end: GuestEnd::Left };
    assert_eq!(left.next().await.1, end);
}
