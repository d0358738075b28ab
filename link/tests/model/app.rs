//! What the applications on the devices do, and what they insist on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use happy_crypto::DeviceId;
use happy_link::{Answer, CallId, Class, Code, Endpoint, Event, LinkDown, RequestId, SendError, Suite};
use happy_wire::frame::INITIAL_LIMIT;

use super::{Happens, World, below, chance, ms};

#[derive(Debug)]
pub enum Act {
    /// Something at random, and another one later.
    Random { left: u32 },
    /// The callee has written down that a command begins, and now it takes effect.
    TakeEffect { peer: DeviceId, body: Vec<u8> },
    /// It writes down the outcome, and answers who waits.
    Finish { peer: DeviceId, body: Vec<u8> },
    /// The answer to a request is ready.
    Respond { peer: DeviceId, id: RequestId, body: Vec<u8> },
    /// The disk is done with new pair secrets.
    Store { peer: DeviceId, session: [u8; 16] },
    /// A message has been dealt with.
    Consume { peer: DeviceId, channel: u32, label: String, bytes: usize },
}

#[derive(Debug)]
pub struct Channel {
    pub label: String,
    pub sent: u64,
    pub received: u64,
    /// Bytes that came and were not consumed yet.
    pub unconsumed: usize,
    /// Messages that were refused with WouldBlock and wait for Writable.
    pub waiting: VecDeque<Vec<u8>>,
}

impl Channel {
    fn new(label: String) -> Self {
        Self { label, sent: 0, received: 0, unconsumed: 0, waiting: VecDeque::new() }
    }
}

pub struct Call {
    body: Vec<u8>,
    is_command: bool,
}

/// What a device has on its disk about a command (`PROTOCOL 10.2`).
pub enum Written {
    /// It has begun in this life.
    Intent {
        boot: u64,
        waiting: Vec<RequestId>,
    },
    Outcome(Vec<u8>),
}

/// The outcome of a command that a life began and did not finish.
const UNKNOWN: &[u8] = b"nobody knows";

pub struct App {
    me: usize,
    boot: u64,
    counter: u64,
    pub channels: BTreeMap<(DeviceId, u32), Channel>,
    /// Every number that this life has opened a channel with.
    numbers: BTreeSet<(DeviceId, u32)>,
    pub calls: BTreeMap<(DeviceId, CallId), Call>,
    pub blocked_answers: Vec<(DeviceId, RequestId, Vec<u8>)>,
    pub up: BTreeMap<DeviceId, bool>,
    pub sessions: u64,
}

impl App {
    pub fn new(me: usize, boot: u64) -> Self {
        Self {
            me,
            boot,
            counter: 0,
            channels: BTreeMap::new(),
            numbers: BTreeSet::new(),
            calls: BTreeMap::new(),
            blocked_answers: Vec::new(),
            up: BTreeMap::new(),
            sessions: 0,
        }
    }

    fn unique(&mut self) -> String {
        self.counter += 1;
        format!("{}.{}.{}", self.me, self.boot, self.counter)
    }
}

/// A message says which it is, and its filling can be checked.
fn message(label: &str, sender: usize, number: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{label}/{sender}/{number}:").into_bytes();
    let begin = bytes.len();
    bytes.resize(begin.max(length), number as u8);
    bytes
}

impl<S: Suite> World<S> {
    pub fn act(&mut self, device: usize, what: Act) {
        match what {
            Act::Random { left } => {
                self.act_randomly(device);
                if left > 0 {
                    let pause = ms(below(&mut self.rng, 400));
                    let boot = self.devices[device].boot;
                    self.at(self.now + pause, Happens::App { device, boot, what: Act::Random { left: left - 1 } });
                }
            }
            Act::TakeEffect { peer, body } => {
                let ran = self.ran.entry(body.clone()).or_default();
                *ran += 1;
                assert_eq!(*ran, 1, "seed {}: a command took effect twice", self.seed);
                self.later(device, Act::Finish { peer, body });
            }
            Act::Finish { peer, body } => {
                let outcome = Written::Outcome(body.clone());
                let before = self.written.insert((device, peer, body.clone()), outcome);
                let Some(Written::Intent { waiting, .. }) = before else { panic!("a command without an intent ended") };
                for id in waiting {
                    self.later(device, Act::Respond { peer, id, body: body.clone() });
                }
            }
            Act::Respond { peer, id, body } => self.respond(device, peer, id, body),
            Act::Store { peer, session } => {
                let endpoint = &mut self.devices[device].endpoint;
                if let Some(secrets) = endpoint.pair_secrets(&peer, &session).cloned() {
                    // The files are replaced in one step: a write that is torn leaves the old one.
                    if self.stormy && chance(&mut self.rng, 30) {
                        self.count("fault: died while storing");
                        return self.restart(device);
                    }
                    self.disk.insert((device, peer), secrets);
                    match below(&mut self.rng, 1000) {
                        // A process may die between the disk and the memory.
                        0..=49 if self.stormy => {
                            self.count("fault: died after storing");
                            return self.restart(device);
                        }
                        50..=79 => return self.count("fault: a write failed, and was done"),
                        _ => {}
                    }
                    let now = self.local(device);
                    self.devices[device].endpoint.pair_secrets_stored(now, &peer, &session);
                    self.count("stored");
                }
            }
            Act::Consume { peer, channel, label, bytes } => {
                let it = &mut self.devices[device];
                if let Some(known) = it.app.channels.get_mut(&(peer, channel)).filter(|known| known.label == label) {
                    known.unconsumed -= bytes;
                    it.endpoint.consumed(&peer, channel, bytes);
                }
            }
        }
    }

    fn respond(&mut self, device: usize, peer: DeviceId, id: RequestId, body: Vec<u8>) {
        let it = &mut self.devices[device];
        match it.endpoint.respond(&peer, id, &body) {
            Ok(()) => {}
            Err(SendError::WouldBlock) => it.app.blocked_answers.push((peer, id, body)),
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn random_peer(&mut self, device: usize) -> DeviceId {
        let peer = if device == 0 { 1 + below(&mut self.rng, self.devices.len() as u64 - 1) as usize } else { 0 };
        self.devices[peer].id
    }

    fn act_randomly(&mut self, device: usize) {
        let peer = self.random_peer(device);
        match below(&mut self.rng, 20) {
            0 | 1 => self.open(device, peer),
            2..=12 => self.send(device),
            13..=16 => self.call(device, peer),
            17 => {
                let body = message("event", device, 0, 100);
                // Events belong to a session; without one they are refused, and that is fine.
                let _refused = self.devices[device].endpoint.emit(&peer, body);
            }
            18 => self.close(device),
            19 if chance(&mut self.rng, 500) => {
                let now = self.local(device);
                self.devices[device].endpoint.renew_keys(now, &peer);
            }
            _ => {
                let active = chance(&mut self.rng, 500);
                let now = self.local(device);
                self.devices[device].endpoint.set_active(now, active);
            }
        }
    }

    fn open(&mut self, device: usize, peer: DeviceId) {
        let class = [Class::Control, Class::Interactive, Class::Bulk][below(&mut self.rng, 3) as usize];
        let it = &mut self.devices[device];
        if it.app.channels.len() >= 12 {
            return;
        }
        let label = it.app.unique();
        if let Ok(channel) = it.endpoint.open_channel(&peer, class, &label) {
            let before = it.app.channels.insert((peer, channel), Channel::new(label));
            assert!(before.is_none(), "seed {}: a channel number is in use twice", self.seed);
            let is_new = it.app.numbers.insert((peer, channel));
            assert!(is_new, "seed {}: a channel number was used again", self.seed);
        }
    }

    fn send(&mut self, device: usize) {
        let count = self.devices[device].app.channels.len() as u64;
        let pick = below(&mut self.rng, count) as usize;
        let heavy = if self.heavy { 20 } else { 0 };
        let length = match heavy + below(&mut self.rng, 40) {
            0..=30 => below(&mut self.rng, 200),
            31..=37 => below(&mut self.rng, 20_000),
            _ => below(&mut self.rng, 262_144),
        };
        let it = &mut self.devices[device];
        let Some((&(peer, number), channel)) = it.app.channels.iter_mut().nth(pick) else { return };
        let bytes = message(&channel.label, device, channel.sent + channel.waiting.len() as u64, length as usize);
        if channel.waiting.is_empty() {
            match it.endpoint.send(&peer, number, &bytes) {
                Ok(()) => channel.sent += 1,
                Err(SendError::WouldBlock) => channel.waiting.push_back(bytes),
                Err(error) => panic!("seed {}: channel {number}: {error}", self.seed),
            }
        } else if channel.waiting.len() < 4 {
            channel.waiting.push_back(bytes);
        }
    }

    fn call(&mut self, device: usize, peer: DeviceId) {
        // Either soon, or so late that only an answer ends the wait.
        let deadline = if chance(&mut self.rng, 300) { below(&mut self.rng, 5000) } else { 3_600_000 };
        let long = if chance(&mut self.rng, 50) { 50_000 } else { 0 };
        let (now, is_command) = (self.local(device), chance(&mut self.rng, 300));
        let it = &mut self.devices[device];
        let kind = if is_command { "command" } else { "call" };
        let body = message(&format!("{kind}/{}", it.app.unique()), device, 0, long);
        let call = if is_command { Endpoint::command } else { Endpoint::call };
        if let Ok(id) = call(&mut it.endpoint, now, &peer, body.clone(), Some(ms(deadline))) {
            it.app.calls.insert((peer, id), Call { body, is_command });
            self.count(kind);
        }
    }

    fn close(&mut self, device: usize) {
        let count = self.devices[device].app.channels.len() as u64;
        let pick = below(&mut self.rng, count) as usize;
        let it = &mut self.devices[device];
        let Some(&(peer, number)) = it.app.channels.keys().nth(pick) else { return };
        let Some(channel) = it.app.channels.remove(&(peer, number)) else { return };
        // The reason tells how many messages the other side must have had by then.
        it.endpoint.close_channel(&peer, number, Code::GOODBYE, &channel.sent.to_string());
    }

    pub fn on_event(&mut self, device: usize, event: Event) {
        let seed = self.seed;
        match event {
            Event::Opened { peer, channel, label, .. } => {
                let before = self.devices[device].app.channels.insert((peer, channel), Channel::new(label));
                assert!(before.is_none(), "seed {seed}: channel {channel} was opened twice");
            }
            Event::Message { peer, channel, bytes } => self.on_message(device, peer, channel, bytes),
            Event::Writable { peer, channel: 0 } => {
                for (peer_of, id, body) in std::mem::take(&mut self.devices[device].app.blocked_answers) {
                    if peer_of == peer {
                        self.respond(device, peer_of, id, body);
                    } else {
                        self.devices[device].app.blocked_answers.push((peer_of, id, body));
                    }
                }
            }
            Event::Writable { peer, channel } => self.on_writable(device, peer, channel),
            Event::Closed { peer, channel, code, reason } => {
                let closed = self.devices[device].app.channels.remove(&(peer, channel));
                let closed =
                    closed.unwrap_or_else(|| panic!("seed {seed}: channel {channel} was closed but never open"));
                if let (Code::GOODBYE, Ok(sent)) = (code, reason.parse::<u64>()) {
                    assert_eq!(
                        closed.received, sent,
                        "seed {seed}: messages before Close were lost on {}",
                        closed.label
                    );
                    self.count("closed in order");
                }
            }
            Event::Request { peer, id, body } if body.starts_with(b"command/") => {
                self.on_command(device, peer, id, body);
            }
            Event::Request { peer, id, body } => {
                let ran = self.ran.entry(body.clone()).or_default();
                *ran += 1;
                assert_eq!(*ran, 1, "seed {seed}: a call ran twice");
                let pause = if chance(&mut self.rng, 700) { 0 } else { below(&mut self.rng, 3000) };
                let boot = self.devices[device].boot;
                self.at(self.now + ms(pause), Happens::App { device, boot, what: Act::Respond { peer, id, body } });
            }
            Event::PairSecrets { peer, session } => self.on_pair_secrets(device, peer, session),
            Event::Refused { reason, .. } => panic!("seed {seed}: refused: {reason:?}"),
            Event::Delivered { peer, id } => {
                self.count("command: delivered");
                let callee = self.devices.iter().position(|other| other.id == peer).unwrap();
                let call = self.devices[device].app.calls.get(&(peer, id));
                let call = call.unwrap_or_else(|| panic!("seed {seed}: {id:?} was delivered after its answer"));
                assert!(call.is_command, "seed {seed}: nobody asked");
                let key = (callee, self.devices[device].id, call.body.clone());
                assert!(self.written.contains_key(&key), "seed {seed}: {id:?} was not delivered");
            }
            Event::Answer { peer, id, answer } => self.on_answer(device, peer, id, answer),
            Event::LinkUp { peer, resumed, same_life } => {
                assert!(!resumed || same_life, "seed {seed}: a session outlived its process");
                if !resumed {
                    let left = self.devices[device]
                        .app
                        .channels
                        .iter()
                        .find(|((of, _), channel)| *of == peer && channel.received > 0);
                    assert!(left.is_none(), "seed {seed}: a channel survived its session: {left:?}");
                    self.devices[device].app.sessions += 1;
                }
                self.count(if resumed { "resumed" } else { "session" });
                let was_up = self.devices[device].app.up.insert(peer, true);
                assert_ne!(was_up, Some(true), "seed {seed}: up twice");
            }
            Event::LinkDown { peer, why } => {
                if let LinkDown::Ended { code, reason, .. } = &why {
                    // Whatever the relay did: it cannot make one honest device look hostile to the other.
                    assert_ne!(*code, Code::MALFORMED, "seed {seed}: an honest peer was accused: {reason}");
                }
                self.devices[device].app.up.insert(peer, false);
            }
            _ => {}
        }
    }

    /// Soon, in the same life: a process may die before.
    fn later(&mut self, device: usize, what: Act) {
        let pause = if chance(&mut self.rng, 500) { 0 } else { below(&mut self.rng, 3000) };
        let boot = self.devices[device].boot;
        self.at(self.now + ms(pause), Happens::App { device, boot, what });
    }

    fn on_command(&mut self, device: usize, peer: DeviceId, id: RequestId, body: Vec<u8>) {
        let boot = self.devices[device].boot;
        let key = (device, peer, body.clone());
        let outcome = match self.written.get_mut(&key) {
            None => {
                self.written.insert(key, Written::Intent { boot, waiting: vec![id] });
                return self.later(device, Act::TakeEffect { peer, body });
            }
            Some(Written::Intent { boot: by, waiting }) if *by == boot => return waiting.push(id),
            Some(written @ Written::Intent { .. }) => {
                *written = Written::Outcome(UNKNOWN.to_vec());
                UNKNOWN.to_vec()
            }
            Some(Written::Outcome(outcome)) => outcome.clone(),
        };
        self.count("command: asked again");
        self.later(device, Act::Respond { peer, id, body: outcome });
    }

    fn on_pair_secrets(&mut self, device: usize, peer: DeviceId, session: [u8; 16]) {
        // A disk takes its time, and now and then it is full.
        if chance(&mut self.rng, 50) {
            return self.count("fault: the disk was full");
        }
        let pause = if chance(&mut self.rng, 500) { 0 } else { below(&mut self.rng, 3000) };
        let boot = self.devices[device].boot;
        self.at(self.now + ms(pause), Happens::App { device, boot, what: Act::Store { peer, session } });
    }

    fn on_message(&mut self, device: usize, peer: DeviceId, number: u32, bytes: Vec<u8>) {
        let seed = self.seed;
        let sender = self.devices.iter().position(|other| other.id == peer).unwrap();
        let Some(channel) = self.devices[device].app.channels.get_mut(&(peer, number)) else {
            panic!("seed {seed}: a message came on channel {number}, which is not open")
        };
        let expected = message(&channel.label, sender, channel.received, bytes.len());
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(
            bytes == expected,
            "seed {seed}: message {} of {} was expected, not {head}",
            channel.received,
            channel.label
        );
        channel.received += 1;
        channel.unconsumed += bytes.len();
        let most = INITIAL_LIMIT as usize;
        assert!(channel.unconsumed <= most, "seed {seed}: {} bytes came unasked for", channel.unconsumed);
        let label = channel.label.clone();
        self.count("message");
        let pause = if chance(&mut self.rng, 900) { 0 } else { below(&mut self.rng, 2000) };
        let boot = self.devices[device].boot;
        let what = Act::Consume { peer, channel: number, label, bytes: bytes.len() };
        self.at(self.now + ms(pause), Happens::App { device, boot, what });
    }

    fn on_writable(&mut self, device: usize, peer: DeviceId, number: u32) {
        self.count("writable");
        let it = &mut self.devices[device];
        let Some(channel) = it.app.channels.get_mut(&(peer, number)) else { return };
        while let Some(bytes) = channel.waiting.front() {
            match it.endpoint.send(&peer, number, bytes) {
                Ok(()) => {
                    channel.waiting.pop_front();
                    channel.sent += 1;
                }
                Err(SendError::WouldBlock) => return,
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        }
    }

    fn on_answer(&mut self, device: usize, peer: DeviceId, id: CallId, answer: Answer) {
        let seed = self.seed;
        let call = self.devices[device].app.calls.remove(&(peer, id));
        let call = call.unwrap_or_else(|| panic!("seed {seed}: {id:?} was answered twice"));
        match answer {
            Answer::Body(body) if call.is_command && body == UNKNOWN => self.count("command: nobody knows"),
            Answer::Body(body) => {
                assert!(body == call.body, "seed {seed}: {id:?} got the answer to another call");
                assert_eq!(self.ran.get(&call.body), Some(&1), "seed {seed}: an answer to what never ran");
                self.count("answered");
            }
            Answer::Indeterminate => {
                assert!(!call.is_command, "seed {seed}: a command was given up although the callee remembers");
                let callee = self.devices.iter().find(|other| other.id == peer).unwrap();
                // The caller may have sent the call to a life that was over already, without knowing.
                assert!(callee.boot > 0, "seed {seed}: indeterminate although the callee never restarted");
                self.count("indeterminate");
            }
            Answer::DeadlinePassed => self.count("deadline passed"),
            Answer::LinkGone => panic!("seed {seed}: no peer was removed"),
        }
    }

    /// What must hold when all has been well for long enough.
    pub fn check_at_the_end(&self) {
        let seed = self.seed;
        let machine = &self.devices[0];
        for phone in &self.devices[1..] {
            assert_eq!(phone.app.up.get(&machine.id), Some(&true), "seed {seed}: the phone's link is not up");
            assert_eq!(machine.app.up.get(&phone.id), Some(&true), "seed {seed}: the machine's link is not up");
            let here = |device: &super::Device<S>, peer: DeviceId| {
                let of_peer = device.app.channels.keys().filter(move |(of, _)| *of == peer);
                of_peer.map(|(_, number)| *number).collect::<Vec<_>>()
            };
            let numbers = here(phone, machine.id);
            assert_eq!(numbers, here(machine, phone.id), "seed {seed}: the two sides know different channels");
            for number in numbers {
                let near = &phone.app.channels[&(machine.id, number)];
                let far = &machine.app.channels[&(phone.id, number)];
                assert_eq!(near.label, far.label);
                assert!(
                    near.waiting.is_empty() && far.waiting.is_empty(),
                    "seed {seed}: Writable never came on {number}"
                );
                assert_eq!(
                    (near.sent, far.sent),
                    (far.received, near.received),
                    "seed {seed}: messages are missing on {number}"
                );
            }
        }
        for device in &self.devices {
            assert!(device.app.calls.is_empty(), "seed {seed}: {} calls have no answer", device.app.calls.len());
            assert!(device.app.blocked_answers.is_empty(), "seed {seed}: answers still wait");
        }
    }
}
