//! What machines say of themselves (PROTOCOL 7.1): asked of them over their links, and of their relays for when they are away.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Weak;

use happy_crypto::DeviceId;
use happy_link::Answer;
use happy_pairing::Origin;
use happy_rpc::{Call, MachineRecordsGet};
use happy_wire::record::RecordKey;
use happy_wire::relay::record_kind;

use super::event::CoreEvent;
use super::hub::{Hub, Reply};
use crate::questions::Questions;

/// A record, as a relay shows it.
pub struct Shown {
    pub machine: DeviceId,
    pub kind: u8,
    pub last_seen: u64,
    pub version: u64,
    pub sealed: Vec<u8>,
}

pub struct Records {
    hub: Weak<Hub>,
    /// What is asked of each relay.
    questions: RefCell<BTreeMap<Origin, Questions>>,
    /// Machines that are asked over their links right now, and whether once more after that: they say as often as they like that they changed.
    asked: RefCell<BTreeMap<DeviceId, bool>>,
}

impl Records {
    pub fn new(hub: Weak<Hub>) -> Self {
        Self { hub, questions: RefCell::default(), asked: RefCell::default() }
    }

    /// There is a connection to a relay: it is asked for what the machines behind it left there.
    pub fn relay_up(&self, origin: &Origin, machines: &[DeviceId]) {
        self.questions.borrow_mut().insert(origin.clone(), Questions::of(machines));
        self.ask_relay(origin);
    }

    pub fn relay_down(&self, origin: &Origin) {
        self.questions.borrow_mut().remove(origin);
    }

    /// A relay says that records have changed.
    pub fn changed(&self, origin: &Origin, machine: DeviceId, kinds: u8) {
        if let Some(questions) = self.questions.borrow_mut().get_mut(origin) {
            questions.changed(machine, kinds);
        }
        self.ask_relay(origin);
    }

    fn ask_relay(&self, origin: &Origin) {
        let next = self.questions.borrow_mut().get_mut(origin).and_then(Questions::to_ask);
        let handle = self.hub.upgrade().and_then(|hub| hub.link(origin));
        if let (Some((machine, kind)), Some(handle)) = (next, handle) {
            // Without a connection, and with the next one all is asked again; or without room, and the next word of the relay makes another try.
            if handle.get_record(machine, kind).is_err()
                && let Some(questions) = self.questions.borrow_mut().get_mut(origin)
            {
                questions.not_sent();
            }
        }
    }

    /// A relay shows a record, or that it has none.
    pub fn shown(&self, origin: &Origin, shown: &Shown) {
        if let Some(questions) = self.questions.borrow_mut().get_mut(origin) {
            questions.shown((shown.machine, shown.kind));
        }
        self.ask_relay(origin);
        let Some(hub) = self.hub.upgrade() else { return };
        let is_linked = hub.handle(&shown.machine).is_some_and(|handle| handle.is_up(&shown.machine));
        let opened = match shown.version {
            0 => None,
            // Of an older one, or one of another machine or under another key, nothing is believed.
            version => {
                let mut state = hub.state_mut();
                state.records.open(&shown.machine, shown.kind, version, &shown.sealed, is_linked).ok().flatten()
            }
        };
        let (mut metadata, mut state) = (None, None);
        if let Some(opened) = opened {
            match shown.kind {
                record_kind::METADATA => metadata = serde_json::from_slice(&opened.text).ok(),
                _ => state = serde_json::from_slice(&opened.text).ok(),
            }
            if opened.is_new {
                hub.tell(CoreEvent::State);
            }
        }
        hub.tell(CoreEvent::Record { device: shown.machine, last_seen: Some(shown.last_seen), metadata, state });
    }

    /// A machine has a link, or says that something is different: it is asked for its records and the key that opens them.
    pub fn ask(&self, machine: DeviceId) {
        if let Some(again) = self.asked.borrow_mut().get_mut(&machine) {
            *again = true;
            return;
        }
        self.asked.borrow_mut().insert(machine, false);
        if let Some(hub) = self.hub.upgrade() {
            hub.call(machine, MachineRecordsGet {}.to_body(), Reply::Records(machine));
        }
    }

    pub fn answered(&self, machine: DeviceId, answer: &Answer) {
        let again = self.asked.borrow_mut().remove(&machine).unwrap_or(false);
        self.take(machine, answer);
        if again {
            self.ask(machine);
        }
    }

    fn take(&self, machine: DeviceId, answer: &Answer) {
        let Some(hub) = self.hub.upgrade() else { return };
        // Without an answer it is asked when there is a link again. A machine of before knows no records.
        let told = match answer {
            Answer::Body(body) => MachineRecordsGet::read_answer(body).ok(),
            Answer::Indeterminate | Answer::DeadlinePassed | Answer::LinkGone => None,
        };
        let key = told.as_ref().and_then(|told| RecordKey::from_text(told.generation, &told.key));
        let (Some(told), Some(key)) = (told, key) else { return };
        if hub.state_mut().records.told(machine, key, [told.metadata_version, told.state_version]) {
            hub.tell(CoreEvent::State);
        }
        let (metadata, state) = (Some(told.metadata), Some(told.state));
        hub.tell(CoreEvent::Record { device: machine, last_seen: None, metadata, state });
    }
}
