//! Everything that belongs to one page: the state, a connection to each relay, the calls that wait, the terminals.
//!
//! INVARIANT: no cell is borrowed while a driver or JavaScript is called, since either may call back.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::driver::RelayUrl;
use happy_link::driver::rng;
use happy_link::driver::web::{self, Config, Handle};
use happy_link::{Answer, CallId, Event, LinkDown, Login, Peer, RefusalReason, RelayDown, Side};
use happy_pairing::{Invitation, Origin};
use happy_rpc::{Call, CallError, Caught, Entry, ErrorCode, Follower, MachineInfo, OutboxError, Request, Step};
use happy_wire::Code;
use js_sys::{Function, JsString};
use uuid::Uuid;
use wasm_bindgen_futures::spawn_local;
use zeroize::Zeroizing;

use super::clock;
use super::event::CoreEvent;
use super::pairing::Pairing;
use super::records::{Records, Shown};
use super::terminal::Live;
use super::{call_js, json};
use crate::answers;
use crate::clocks::Clocks;
use crate::follow::{self, LIST_AGAIN};
use crate::state::{Keys, Machine, State, Trace};

/// How long the link waits for the answer to a command before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(120);

/// Who waits for the answer to a call.
pub enum Reply {
    /// A promise that gets the body, once it was checked to be an answer.
    Body(answers::Check, Function),
    /// A terminal, with the channel that it asked to be attached to.
    Attached(Weak<Live>, u32),
    /// A promise that gets nothing, or the reason why not.
    Done(Function, Function),
    /// A command on the list.
    Command(u64),
    /// What time it is there: the number of the question.
    Clock(u64),
    /// What was missed of a machine's events: the number of the question.
    Missed(DeviceId, u64),
    /// What a machine says of itself.
    Records(DeviceId),
    /// Nobody.
    Nobody,
}

pub struct Hub {
    this: Weak<Hub>,
    state: RefCell<State>,
    /// By the origin of the relay.
    links: RefCell<BTreeMap<Origin, Handle>>,
    calls: RefCell<HashMap<(DeviceId, CallId), Reply>>,
    /// Machines with a link, and how far their clocks are from this device's.
    clocks: RefCell<Clocks>,
    /// Where this page is in the event logs of machines.
    followers: RefCell<BTreeMap<DeviceId, Follower>>,
    records: Records,
    terminals: RefCell<Vec<Weak<Live>>>,
    pairing: RefCell<Option<Rc<Pairing>>>,
    listen: Function,
    told: RefCell<VecDeque<CoreEvent>>,
    running: Cell<bool>,
    active: Cell<bool>,
}

impl Hub {
    pub fn new(state: State, listen: Function) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            state: RefCell::new(state),
            links: RefCell::default(),
            calls: RefCell::default(),
            clocks: RefCell::default(),
            followers: RefCell::default(),
            records: Records::new(this.clone()),
            terminals: RefCell::default(),
            pairing: RefCell::default(),
            listen,
            told: RefCell::default(),
            running: Cell::new(false),
            active: Cell::new(false),
        })
    }

    pub fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    pub fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The state to store in the place of all before.
    pub fn export_state(&self) -> Zeroizing<Vec<u8>> {
        self.state.borrow_mut().next_generation()
    }

    /// A state is stored, so the links may count on the secrets in it.
    pub fn stored(&self, trace: &str) {
        let Ok(Trace { generation, .. }) = trace.parse() else { return };
        let now = self.state.borrow_mut().stored(generation);
        for (device, session) in now {
            if let Some(handle) = self.handle(&device) {
                handle.pair_secrets_stored(&device, &session);
            }
        }
        self.tell(CoreEvent::Outbox);
        self.pump_all();
    }

    /// Tells JavaScript, as soon as nothing else is going on.
    pub fn tell(&self, event: CoreEvent) {
        let first = self.told.borrow().is_empty();
        self.told.borrow_mut().push_back(event);
        if first {
            let this = self.this.clone();
            spawn_local(async move {
                if let Some(hub) = this.upgrade() {
                    hub.speak();
                }
            });
        }
    }

    fn speak(&self) {
        // Taken out one by one: what JavaScript does in between may add more.
        while let Some(event) = self.next_told() {
            call_js(&self.listen, &JsString::from(json(&event)));
        }
    }

    fn next_told(&self) -> Option<CoreEvent> {
        self.told.borrow_mut().pop_front()
    }

    // Connections.

    pub fn start(&self) {
        self.running.set(true);
        // From now on it is seen when it jumps.
        self.watch_clock();
        let origins: Vec<Origin> = self
            .state()
            .machines
            .iter()
            .filter(|machine| peer(machine).is_some())
            .filter_map(|machine| machine.relays.first().cloned())
            .collect();
        for origin in origins {
            self.connect(&origin);
        }
    }

    pub fn stop(&self) {
        self.running.set(false);
        self.end_pairing();
        let handles = std::mem::take(&mut *self.links.borrow_mut());
        handles.values().for_each(Handle::shut_down);
    }

    /// Connects to a relay, unless there is a connection, and names the machines that are reached through it.
    fn connect(&self, origin: &Origin) {
        if !self.running.get() || self.links.borrow().contains_key(origin) {
            return;
        }
        let relay = match RelayUrl::parse(&origin.websocket_url()) {
            Ok(relay) => relay,
            Err(error) => return self.tell_relay(origin, false, error.to_string(), true),
        };
        let (this, from) = (self.this.clone(), origin.clone());
        let on_event = move |event| {
            if let Some(hub) = this.upgrade() {
                hub.on_event(&from, event);
            }
        };
        let handle = web::spawn(self.config(relay, |epoch| Login::Device { epoch }), on_event);
        handle.set_active(self.active.get());
        self.links.borrow_mut().insert(origin.clone(), handle.clone());
        let peers: Vec<Peer> = self
            .state()
            .machines
            .iter()
            .filter(|machine| machine.relays.first() == Some(origin))
            .filter_map(peer)
            .collect();
        for peer in peers {
            // It fails when there are more than the protocol allows, which the state does not keep.
            handle.add_peer(peer).ok();
        }
    }

    /// What a driver needs, with the next epoch.
    pub fn config(&self, relay: RelayUrl, login: impl FnOnce(u64) -> Login) -> Config {
        let mut state = self.state.borrow_mut();
        let login = login(state.next_epoch());
        Config { identity: state.identity.clone(), prekeys: Vec::new(), login, relay }
    }

    fn disconnect(&self, origin: &Origin) {
        let Some(handle) = self.links.borrow_mut().remove(origin) else { return };
        let machines = self.machines_at(origin);
        self.records.relay_down(origin);
        let gone = self.take_calls(&machines);
        machines.iter().for_each(|device| self.clocks.borrow_mut().link_down(device));
        drop(handle);
        self.tell_relay(origin, false, String::new(), false);
        machines.iter().for_each(|device| self.each_terminal(device, |live| live.on_link_ended()));
        gone.into_iter().for_each(|reply| self.reply(reply, &Answer::Indeterminate));
    }

    fn machines_at(&self, origin: &Origin) -> Vec<DeviceId> {
        let state = self.state();
        state.machines.iter().filter(|m| m.relays.first() == Some(origin)).map(|m| m.record.device_id()).collect()
    }

    fn is_at(&self, device: &DeviceId, origin: &Origin) -> bool {
        self.state().machine(device).is_some_and(|machine| machine.relays.first() == Some(origin))
    }

    fn take_calls(&self, devices: &[DeviceId]) -> Vec<Reply> {
        let mut calls = self.calls.borrow_mut();
        let ids: Vec<_> = calls.keys().filter(|(device, _)| devices.contains(device)).copied().collect();
        ids.iter().filter_map(|id| calls.remove(id)).collect()
    }

    /// The connection through which a machine is reached.
    pub fn handle(&self, device: &DeviceId) -> Option<Handle> {
        let origin = self.state().machine(device)?.relays.first()?.clone();
        self.link(&origin)
    }

    pub fn link(&self, origin: &Origin) -> Option<Handle> {
        self.links.borrow().get(origin).cloned()
    }

    fn handles(&self) -> Vec<Handle> {
        self.links.borrow().values().cloned().collect()
    }

    pub fn set_active(&self, active: bool) {
        self.active.set(active);
        self.handles().iter().for_each(|handle| handle.set_active(active));
    }

    pub fn wake(&self) {
        self.handles().iter().for_each(Handle::hurry);
    }

    pub fn forget(&self, device: DeviceId) {
        let handle = self.handle(&device);
        let origin = self.state().machine(&device).and_then(|machine| machine.relays.first().cloned());
        self.state.borrow_mut().forget(&device);
        self.followers.borrow_mut().remove(&device);
        self.clocks.borrow_mut().link_down(&device);
        if let Some(handle) = handle {
            handle.remove_peer(&device);
        }
        if let Some(origin) = origin.filter(|origin| self.machines_at(origin).is_empty()) {
            self.links.borrow_mut().remove(&origin);
        }
        self.tell(CoreEvent::State);
    }

    // Events of a connection.

    fn on_event(&self, origin: &Origin, event: Event) {
        match event {
            Event::RelayUp { .. } => {
                self.tell_relay(origin, true, String::new(), false);
                self.records.relay_up(origin, &self.machines_at(origin));
            }
            Event::RelayDown { why, last } => {
                self.records.relay_down(origin);
                self.tell_relay(origin, false, relay_down(why), last);
            }
            Event::Presence { peer, here } => self.tell(CoreEvent::Presence { device: peer, here }),
            Event::LinkUp { peer, resumed, .. } => {
                self.tell(CoreEvent::Link { device: peer, up: true, why: String::new() });
                self.watch_clock();
                self.ask_for_clock(peer);
                self.follow(peer);
                self.records.ask(peer);
                self.each_terminal(&peer, |live| live.on_link_up(resumed));
            }
            Event::LinkDown { peer, why } => {
                self.clocks.borrow_mut().link_down(&peer);
                self.tell(CoreEvent::Link { device: peer, up: false, why: link_down(why) });
                self.each_terminal(&peer, |live| live.on_link_down());
            }
            Event::Refused { peer, reason } => {
                self.tell(CoreEvent::Refused { device: peer, reason: refusal(reason).to_owned() });
                self.each_terminal(&peer, |live| live.on_link_down());
            }
            Event::PairSecrets { peer, session } => self.on_pair_secrets(origin, peer, session),
            Event::NewBundle { peer } => {
                let bundle = self.link(origin).and_then(|handle| handle.bundle(&peer));
                if bundle.is_some_and(|bundle| self.state.borrow_mut().set_bundle(&peer, bundle)) {
                    self.tell(CoreEvent::State);
                }
            }
            Event::Answer { peer, id, answer } => {
                let reply = self.calls.borrow_mut().remove(&(peer, id));
                match reply {
                    Some(Reply::Clock(question)) => self.on_clock(peer, question, &answer),
                    Some(reply) => {
                        self.reply(reply, &answer);
                        self.pump(&peer);
                    }
                    None => {}
                }
            }
            Event::Delivered { peer, id } => {
                if let Some(Reply::Command(number)) = self.calls.borrow().get(&(peer, id)) {
                    self.state.borrow_mut().outbox.delivered(*number);
                    self.tell(CoreEvent::Outbox);
                }
            }
            Event::Notice { peer, body } => {
                let step = follow::step(self.followers.borrow_mut().entry(peer).or_default(), &body);
                match step {
                    Step::Take => self.tell_event(peer, &body),
                    Step::Leave => {}
                    Step::Ask => self.follow(peer),
                }
            }
            Event::Message { peer, channel, bytes } => {
                self.each_terminal(&peer, |live| live.on_message(channel, &bytes));
                if let Some(handle) = self.handle(&peer) {
                    handle.consumed(&peer, channel, bytes.len());
                }
            }
            Event::Writable { peer, channel } => self.each_terminal(&peer, |live| live.on_writable(channel)),
            Event::Closed { peer, channel, reason, .. } => {
                self.each_terminal(&peer, |live| live.on_closed(channel, &reason))
            }
            // A phone serves nothing.
            Event::Opened { peer, channel, .. } => {
                if let Some(handle) = self.handle(&peer) {
                    handle.close_channel(&peer, channel, Code::NOT_PERMITTED, "a phone takes no channels");
                }
            }
            Event::Request { peer, id, .. } => {
                let refusal = CallError::new(ErrorCode::UnknownMethod, "a phone answers no calls");
                if let Some(handle) = self.handle(&peer) {
                    // If there is no room for the refusal, the caller's deadline speaks for it.
                    handle.respond(&peer, id, &happy_rpc::refusal(&refusal)).ok();
                }
            }
            // Nobody asks for the records of anybody else.
            Event::Record { machine, kind, last_seen, version, sealed, .. } => {
                if self.is_at(&machine, origin) {
                    self.records.shown(origin, &Shown { machine, kind, last_seen, version, sealed });
                }
            }
            Event::RecordsChanged { machine, kinds } => {
                if self.is_at(&machine, origin) {
                    self.records.changed(origin, machine, kinds);
                }
            }
            Event::Goaway { .. }
            | Event::Packet { .. }
            | Event::Undelivered { .. }
            | Event::Rendezvous { .. }
            | Event::Cancelled { .. }
            | Event::StaleDevice { .. } => {}
        }
    }

    /// They are stored with the rest of the state; JavaScript says when ([`Self::stored`]). If it never does, the link goes on
    /// without counting on them.
    fn on_pair_secrets(&self, origin: &Origin, peer: DeviceId, session: [u8; 16]) {
        let secrets = self.link(origin).and_then(|handle| handle.pair_secrets(&peer, &session));
        if secrets.is_some_and(|secrets| self.state.borrow_mut().set_secrets(&peer, session, secrets)) {
            self.tell(CoreEvent::State);
        }
    }

    pub fn tell_relay(&self, origin: &Origin, up: bool, why: String, last: bool) {
        self.tell(CoreEvent::Relay { origin: origin.to_string(), up, why, last });
    }

    // Calls.

    pub fn call(&self, device: DeviceId, body: Vec<u8>, reply: Reply) {
        let Some(handle) = self.handle(&device) else {
            return self.reply(reply, &refused("there is no connection to this machine"));
        };
        match handle.call(&device, body, None) {
            Ok(id) => {
                self.calls.borrow_mut().insert((device, id), reply);
            }
            Err(error) => self.reply(reply, &refused(&error.to_string())),
        }
    }

    // Commands.

    /// Takes a command, to be begun within `within` ms. It is sent when it is stored and its machine can be reached.
    pub fn command(
        &self,
        device: DeviceId,
        session: Option<Uuid>,
        request: Request,
        within: u64,
    ) -> Result<u64, OutboxError> {
        self.watch_clock();
        let mut state = self.state.borrow_mut();
        let name = device.to_string();
        let number = state.outbox.add(clock::unix_ms(), &name, session, request, within)?;
        if self.clocks.borrow().ahead(&device).is_some() {
            // It is sent as soon as it is stored, so one write does for both.
            state.outbox.claim(&name);
        }
        drop(state);
        self.outbox_changed();
        Ok(number)
    }

    /// Takes a command back. False when it was sent already.
    pub fn cancel_command(&self, number: u64) -> bool {
        let cancelled = self.state.borrow_mut().outbox.cancel(number, clock::unix_ms());
        if cancelled {
            self.outbox_changed();
        }
        cancelled
    }

    /// Takes a command that has ended off the list.
    pub fn dismiss_command(&self, number: u64) {
        let dismissed = self.state.borrow_mut().outbox.dismiss(number);
        if dismissed {
            self.outbox_changed();
        }
    }

    /// The commands that wait, and what became of the others. Asked every few seconds while there are any, which is when a machine that
    /// had too much to do is asked again.
    pub fn outbox(&self) -> Vec<Entry> {
        self.watch_clock();
        self.pump_all();
        let changed = self.state.borrow_mut().outbox.expire(clock::unix_ms());
        if changed {
            self.outbox_changed();
        }
        self.state.borrow().outbox.entries().to_vec()
    }

    fn outbox_changed(&self) {
        self.tell(CoreEvent::Outbox);
        self.tell(CoreEvent::State);
    }

    fn pump_all(&self) {
        let linked = self.clocks.borrow().known();
        linked.iter().for_each(|device| self.pump(device));
    }

    /// Sends what may be sent to a machine now.
    fn pump(&self, device: &DeviceId) {
        self.watch_clock();
        let Some(ahead) = self.clocks.borrow().ahead(device) else { return };
        let Some(handle) = self.handle(device) else { return };
        let name = device.to_string();
        let claimed = self.state.borrow_mut().outbox.claim(&name);
        if claimed {
            // What is about to be sent is stored first; then it is asked for again here.
            self.tell(CoreEvent::State);
        }
        loop {
            let next = self.state.borrow_mut().outbox.next(&name, clock::unix_ms(), ahead);
            let Some((number, body)) = next else { return };
            // A call that waits longer is given up and made again, for the machine remembers.
            match handle.command(device, body, Some(ASK_AGAIN)) {
                Ok(id) => {
                    self.calls.borrow_mut().insert((*device, id), Reply::Command(number));
                    self.tell(CoreEvent::Outbox);
                }
                Err(_) => {
                    self.state.borrow_mut().outbox.unanswered(number);
                    return;
                }
            }
        }
    }

    /// What is wanted within a minute is wanted by the machine's clock.
    fn ask_for_clock(&self, device: DeviceId) {
        let question = self.clocks.borrow_mut().ask(device, clock::moment());
        self.call(device, MachineInfo {}.to_body(), Reply::Clock(question));
    }

    fn on_clock(&self, device: DeviceId, question: u64, answer: &Answer) {
        let Answer::Body(body) = answer else {
            // Nothing is sent before this is known. A slow machine is asked again; one without a link when there is one.
            let is_slow = matches!(answer, Answer::DeadlinePassed) && self.clocks.borrow().awaits(&device, question);
            if is_slow {
                self.ask_for_clock(device);
            }
            return;
        };
        // A machine of an earlier version does not say, and knows no commands either: it refuses their requests as they are.
        let theirs = MachineInfo::read_answer(body).ok().map(|machine| machine.now);
        let is_news = self.clocks.borrow_mut().answered(&device, question, clock::moment(), theirs);
        if is_news {
            self.pump(&device);
        }
    }

    /// Sees whether this device's clock was set; then commands wait until the machines have said anew what time it is there.
    fn watch_clock(&self) {
        let jumped = self.clocks.borrow_mut().jumped(clock::moment());
        let Some((jump, machines)) = jumped else { return };
        if jump < 0 {
            self.state.borrow_mut().outbox.clock_set_back(jump.unsigned_abs());
            self.outbox_changed();
        }
        machines.into_iter().for_each(|device| self.ask_for_clock(device));
    }

    fn on_command_answer(&self, number: u64, answer: &Answer) {
        let now = clock::unix_ms();
        let mut state = self.state.borrow_mut();
        match answer {
            Answer::Body(body) => {
                state.outbox.answered(number, now, body);
            }
            Answer::Indeterminate | Answer::DeadlinePassed | Answer::LinkGone => state.outbox.unanswered(number),
        }
        // The next one's turn is stored with this one's outcome.
        for device in self.clocks.borrow().known() {
            state.outbox.claim(&device.to_string());
        }
        state.renew_outbox(&mut rng(), now);
        drop(state);
        self.outbox_changed();
    }

    // Events (PROTOCOL 10.3).

    /// Asks for what was told since the last event that was taken.
    fn follow(&self, device: DeviceId) {
        let (question, asked) = self.followers.borrow_mut().entry(device).or_default().ask();
        self.call(device, asked.to_body(), Reply::Missed(device, question));
    }

    fn on_missed(&self, device: DeviceId, question: u64, answer: &Answer) {
        let mut followers = self.followers.borrow_mut();
        let follower = followers.entry(device).or_default();
        let body = match answer {
            Answer::Body(body) => body,
            // It is slow, and asked again.
            Answer::DeadlinePassed if follower.is_awaited(question) => {
                drop(followers);
                return self.follow(device);
            }
            // When a link comes up it is asked again.
            Answer::DeadlinePassed | Answer::Indeterminate | Answer::LinkGone => return,
        };
        let (caught, missed) = match follow::read(body) {
            Some(followed) => match follower.answered(question, &followed) {
                Some(caught) => (caught, followed.missed),
                None => return,
            },
            // A machine of an earlier version knows no such call.
            None if follower.refused(question) => (Caught { lists: true, ..Caught::default() }, Vec::new()),
            None => return,
        };
        drop(followers);
        if caught.lists {
            self.tell_event(device, LIST_AGAIN.as_bytes());
            // What it said of itself may be among what was lost, and it may be on its way out.
            self.records.ask(device);
        }
        missed.iter().skip(caught.skip).for_each(|event| self.tell_event(device, event.get().as_bytes()));
        if caught.again {
            self.follow(device);
        }
    }

    fn tell_event(&self, device: DeviceId, body: &[u8]) {
        let Some(event) = follow::checked(body) else { return };
        self.tell(CoreEvent::Event { device, body: json(&event) });
        if matches!(event, happy_rpc::Event::MachineChanged(_)) {
            self.records.ask(device);
        }
    }

    fn reply(&self, reply: Reply, answer: &Answer) {
        match reply {
            Reply::Command(number) => return self.on_command_answer(number, answer),
            Reply::Missed(device, question) => return self.on_missed(device, question, answer),
            Reply::Records(device) => return self.records.answered(device, answer),
            _ => {}
        }
        let body = match answer {
            Answer::Body(body) => body.clone(),
            Answer::Indeterminate => {
                own_refusal("indeterminate", "the machine was restarted meanwhile; nobody can say whether it was done")
            }
            Answer::DeadlinePassed => own_refusal("deadline", "the machine did not answer in time; it may still do it"),
            Answer::LinkGone => own_refusal("gone", "this device has no link with the machine any more"),
        };
        match reply {
            Reply::Body(check, resolve) => {
                // What this side says itself has codes of its own.
                let body = if matches!(answer, Answer::Body(_)) { check(&body) } else { body };
                call_js(&resolve, &JsString::from(String::from_utf8_lossy(&body).into_owned()));
            }
            Reply::Attached(live, channel) => {
                if let Some(live) = live.upgrade() {
                    live.on_attached(channel, matches!(answer, Answer::Body(_)), &body);
                }
            }
            Reply::Done(resolve, reject) => match read_done(&body) {
                Ok(()) => call_js(&resolve, &wasm_bindgen::JsValue::UNDEFINED),
                Err(message) => call_js(&reject, &js_sys::Error::new(&message)),
            },
            Reply::Nobody | Reply::Command(_) | Reply::Clock(_) | Reply::Missed(..) | Reply::Records(_) => {}
        }
    }

    // Terminals.

    pub fn add_terminal(&self, live: &Rc<Live>) {
        let mut terminals = self.terminals.borrow_mut();
        terminals.retain(|other| other.strong_count() > 0);
        terminals.push(Rc::downgrade(live));
    }

    fn each_terminal(&self, device: &DeviceId, act: impl Fn(&Live)) {
        let of_device: Vec<Rc<Live>> = self
            .terminals
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|live| live.way().device() == Some(*device))
            .collect();
        of_device.iter().for_each(|live| act(live));
    }

    // Pairing.

    pub fn pair(&self, origin: Origin, invitation: Invitation, name: String) {
        self.end_pairing();
        // A relay keeps one connection of a device (PROTOCOL 7), and for a while the guest is it.
        self.disconnect(&origin);
        match Pairing::start(&self.this, origin.clone(), invitation, name) {
            Ok(pairing) => *self.pairing.borrow_mut() = Some(pairing),
            Err(message) => {
                self.tell(CoreEvent::PairingFailed { message });
                self.resume(&origin);
            }
        }
    }

    /// The pairing is over, be it done or given up.
    pub fn end_pairing(&self) {
        let pairing = self.pairing.borrow_mut().take();
        if let Some(pairing) = pairing {
            let origin = pairing.origin().clone();
            pairing.close();
            drop(pairing);
            self.resume(&origin);
        }
    }

    pub fn keep(&self, peer: happy_pairing::PairedPeer, origin: &Origin) {
        // It may have been reached through another relay so far.
        let (device, before) = (peer.identity.device_id(), self.handle(&peer.identity.device_id()));
        if let Some(handle) = before {
            handle.remove_peer(&device);
        }
        let kept = self.state.borrow_mut().keep(peer, origin);
        match kept {
            Ok(device) => {
                self.tell(CoreEvent::State);
                self.tell(CoreEvent::Paired { device });
            }
            Err(error) => self.tell(CoreEvent::PairingFailed { message: error.to_string() }),
        }
    }

    fn resume(&self, origin: &Origin) {
        if !self.machines_at(origin).is_empty() {
            self.connect(origin);
        }
    }
}

/// A machine for its link, unless it has to be paired again first.
fn peer(machine: &Machine) -> Option<Peer> {
    let Keys::Ready { bundle, secrets } = &machine.keys else { return None };
    let (record, secrets) = (machine.record.clone(), secrets.clone());
    Some(Peer { record, side: Side::Initiator(bundle.clone()), secrets })
}

fn refused(message: &str) -> Answer {
    Answer::Body(own_refusal("failed", message))
}

/// A refusal in the form of an answer, by this side.
fn own_refusal(code: &str, message: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "error": { "code": code, "message": message } })).unwrap_or_default()
}

/// Reads an answer of which only whether it was done counts.
pub fn read_done(body: &[u8]) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    #[derive(serde::Deserialize)]
    struct Outcome {
        error: Option<Refusal>,
    }
    match serde_json::from_slice::<Outcome>(body) {
        Ok(Outcome { error: None }) => Ok(()),
        Ok(Outcome { error: Some(refusal) }) => Err(refusal.message),
        Err(_) => Err("the answer of the machine cannot be read".to_owned()),
    }
}

fn relay_down(why: RelayDown) -> String {
    match why {
        RelayDown::Lost => "the relay cannot be reached".to_owned(),
        RelayDown::Told(code) | RelayDown::Ours(code) => code.explain().to_owned(),
    }
}

fn link_down(why: LinkDown) -> String {
    match why {
        LinkDown::RelayDown => "the relay cannot be reached".to_owned(),
        LinkDown::Away => "the machine is not connected to the relay".to_owned(),
        LinkDown::Silent => "the machine does not answer".to_owned(),
        LinkDown::Replaced => "keys are agreed on anew".to_owned(),
        LinkDown::Ended { reason, code, .. } if reason.is_empty() => code.explain().to_owned(),
        LinkDown::Ended { reason, .. } => reason,
    }
}

fn refusal(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Revoked => "revoked",
        RefusalReason::UnknownDevice => "unknown device",
        RefusalReason::UnknownPrekey => "its keys have changed; pair again",
        RefusalReason::Busy => "it is busy",
        RefusalReason::UnsupportedVersion => "the versions do not fit; reload this page or update the machine",
        RefusalReason::UnknownSecret => "unknown secret",
        RefusalReason::Unknown(_) => "it gives a reason that this version does not know",
    }
}
