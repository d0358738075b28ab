//! Who is told that whom it names is here (`PROTOCOL 7`), at this node and across nodes.

use happy_crypto::DeviceId;

use super::Hub;
use crate::access::Vouching;
use crate::bus::{Message, NodeId};
use crate::mailbox::{Mailbox, Standing};

impl Hub {
    /// Replaces the list of devices that a device names, and gives how many came and went.
    pub(crate) fn name(&self, me: &Mailbox, list: &[DeviceId]) -> usize {
        let mut notices = Vec::new();
        let changed = {
            let _changes = self.changes.lock();
            let (came, went, revision) = {
                let mut state = me.lock();
                if !state.is_live() {
                    return 0;
                }
                // Nobody is a peer of itself.
                let (came, went) = state.name(list.iter().copied().filter(|peer| *peer != me.device));
                let named = state.named();
                if me.standing == Standing::Enrolled {
                    // Under the lock, so that what is said last is what was true last.
                    self.bus.vouch(&me.device, me.login, Vouching::For(&named));
                }
                // Also of the same list: who may read may not have been known where the records were put.
                self.bus.read_by(&me.device, &named);
                (came, went, state.revision)
            };
            notices.extend(went.iter().filter_map(|peer| self.tell_gone(me, peer, revision)));
            notices.extend(came.iter().filter_map(|peer| self.tell_here(me, peer, revision)));
            came.len() + went.len()
        };
        me.wake();
        self.post_all(notices);
        changed
    }

    /// `PROTOCOL 7`: presence is told once both name each other. Under `changes`.
    fn tell_here(&self, me: &Mailbox, peer: &DeviceId, revision: u64) -> Option<Message> {
        let Some(other) = self.find(peer) else { return Some(naming(me, revision, *peer, true)) };
        let mutual = {
            let mut state = other.lock();
            let mutual = state.is_live() && state.names(&me.device);
            if mutual {
                state.tell(&me.device, true);
            }
            mutual
        };
        if mutual {
            other.wake();
            me.lock().tell(peer, true);
        }
        None
    }

    /// Under `changes`.
    pub(super) fn tell_gone(&self, me: &Mailbox, peer: &DeviceId, revision: u64) -> Option<Message> {
        let Some(other) = self.find(peer) else { return Some(naming(me, revision, *peer, false)) };
        other.lock().tell(&me.device, false);
        other.wake();
        None
    }

    pub(super) fn post_all(&self, notices: Vec<Message>) {
        for notice in notices {
            if let Message::Naming { to, .. } = &notice {
                // A peer that is nowhere learns what it has to when it comes: it asks by naming us.
                let _ = self.bus.post(&to.clone(), notice);
            }
        }
    }

    /// Takes a notice about a device at another node. Gives what to say of `to` in return, when it names that device.
    pub(super) fn hear(
        &self,
        node: NodeId,
        (from, epoch, revision): (DeviceId, u64, u64),
        to: DeviceId,
        named: bool,
    ) -> Option<Message> {
        let _changes = self.changes.lock();
        if self.find(&from).is_some() {
            // It has come to this node since.
            return None;
        }
        let me = self.find(&to)?;
        let reply = {
            let mut state = me.lock();
            if !state.is_live() || !state.names(&from) {
                return None;
            }
            state.hear(&from, node, (epoch, revision), named);
            Message::Naming {
                from: to,
                epoch: me.login.epoch,
                revision: state.revision,
                to: from,
                named: true,
                answer: false,
            }
        };
        me.wake();
        Some(reply)
    }
}

pub(super) fn naming(me: &Mailbox, revision: u64, to: DeviceId, named: bool) -> Message {
    Message::Naming { from: me.device, epoch: me.login.epoch, revision, to, named, answer: named }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use happy_wire::relay::FromRelay;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::bus::{Claim, MemoryBus};
    use crate::config::Config;
    use crate::mailbox::Outgoing;

    /// A device that comes, goes and changes its mind, always run by one thread.
    struct Fickle {
        device: DeviceId,
        epoch: u64,
        live: Option<(Arc<Hub>, Arc<Mailbox>)>,
        /// Those of which it was last told that they are here.
        told: HashSet<DeviceId>,
        named: HashSet<DeviceId>,
    }

    impl Fickle {
        fn new(n: u8) -> Self {
            Self {
                device: DeviceId::from_bytes([n; 32]),
                epoch: 0,
                live: None,
                told: HashSet::new(),
                named: HashSet::new(),
            }
        }

        fn hear(&mut self) {
            let Some((_, mailbox)) = &self.live else { return };
            while let Some(Outgoing::Control(frame)) = mailbox.next() {
                match FromRelay::decode(&frame) {
                    // Told again when it went and came while the first notice waited.
                    Ok(FromRelay::Presence { device, here: true }) => {
                        self.told.insert(device);
                    }
                    Ok(FromRelay::Presence { device, here: false }) => {
                        assert!(self.told.remove(&device), "told twice that it is away")
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn leave(&mut self) {
            if let Some((hub, mailbox)) = self.live.take() {
                hub.leave(&mailbox);
            }
            self.told.clear();
            self.named.clear();
        }

        fn act(&mut self, hubs: &[Arc<Hub>], rng: &mut ChaCha20Rng, devices: u8) {
            match (rng.next_u32() % 8, &self.live) {
                (0, Some(_)) => self.leave(),
                // Comes, or comes again without having left, at whatever node.
                (1 | 2, _) | (_, None) => {
                    let hub = hubs[rng.next_u32() as usize % hubs.len()].clone();
                    self.epoch += u64::from(rng.next_u32() % 2);
                    let mailbox = Mailbox::new(self.device, self.epoch, Standing::Open);
                    let claim = futures_util::FutureExt::now_or_never(hub.bus.claim(&self.device, mailbox.login));
                    assert_eq!(claim, Some(Claim::Held));
                    assert!(hub.register(&mailbox).is_ok());
                    let older = self.live.replace((hub, mailbox));
                    self.told.clear();
                    self.named.clear();
                    if let Some((hub, mailbox)) = older {
                        hub.leave(&mailbox);
                    }
                }
                (_, Some((hub, mailbox))) => {
                    self.named = (0..devices)
                        .filter(|_| !rng.next_u32().is_multiple_of(3))
                        .map(|n| DeviceId::from_bytes([n; 32]))
                        .filter(|peer| *peer != self.device)
                        .collect();
                    let list: Vec<_> = self.named.iter().copied().collect();
                    let (hub, mailbox) = (hub.clone(), mailbox.clone());
                    hub.name(&mailbox, &list);
                    self.hear();
                    // What was said of a device that is no longer named does not count.
                    self.told.retain(|device| self.named.contains(device));
                }
            }
            self.hear();
        }
    }

    /// Many threads, devices that change all the time; when they stop, everybody has been told the truth.
    fn presence_told_is_presence_true(hubs: &[Arc<Hub>]) {
        const DEVICES: u8 = 8;
        let mut devices: Vec<_> = (0..DEVICES).map(Fickle::new).collect();
        for round in 0..40 {
            std::thread::scope(|scope| {
                for (n, part) in devices.chunks_mut(2).enumerate() {
                    let mut rng = ChaCha20Rng::seed_from_u64(round * 100 + n as u64);
                    scope.spawn(move || {
                        for _ in 0..60 {
                            part.iter_mut().for_each(|device| device.act(hubs, &mut rng, DEVICES));
                        }
                    });
                }
            });
            devices.iter_mut().for_each(Fickle::hear);
            for one in devices.iter().filter(|one| one.live.is_some()) {
                let mutual = devices.iter().filter(|other| {
                    other.live.is_some() && other.named.contains(&one.device) && one.named.contains(&other.device)
                });
                let truth: HashSet<_> = mutual.map(|other| other.device).collect();
                assert_eq!(one.told, truth, "round {round}: {:?}", one.device);
            }
        }
    }

    #[test]
    fn on_one_node() {
        presence_told_is_presence_true(&[Hub::of_a_test(&Config::default())]);
    }

    #[test]
    fn on_two_nodes() {
        let bus = MemoryBus::default();
        let node = |bus: MemoryBus| Hub::of_a_test(&Config { bus: Some(Arc::new(bus)), ..Config::default() });
        presence_told_is_presence_true(&[node(bus.another()), node(bus)]);
    }
}
