//! What comes from other nodes (`PROTOCOL 15`).

use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, Undelivered};
use tokio::time::Instant;

use super::Hub;
use super::presence::naming;
use crate::access::Vouching;
use crate::bus::{Arrived, Inbox, Login, Message, NodeId};
use crate::mailbox::{DELIVER_HEAD, is_rendezvous};

impl Inbox for Hub {
    fn handle(&self, node: NodeId, message: Message) {
        match message {
            Message::Frame { from, to, tag, deliver } => {
                self.handle_frames(node, &[Arrived { from, to, tag, deliver: &deliver }]);
            }
            Message::Undelivered { from, to, tag, reason, rendezvous: true } => {
                self.undelivered_through(node, &from, &FromRelay::Undeliverable { to, tag, reason });
            }
            Message::Undelivered { from, to, tag, reason, rendezvous: false } => {
                if let Some(sender) = self.find(&from) {
                    sender.notify(&FromRelay::Undeliverable { to, tag, reason });
                }
            }
            Message::Naming { from, epoch, revision, to, named, answer } => {
                let reply = self.hear(node, (from, epoch, revision), to, named);
                if let Some(reply) = reply.filter(|_| answer) {
                    self.post_all(vec![reply]);
                }
            }
            Message::Displaced { device, by } => self.displaced_elsewhere(&device, by),
            Message::GuestComes { guest, login, ticket_hash } => self.guest_comes(node, guest, login, ticket_hash),
            Message::GuestAnswer { guest, login, admission } => self.guest_answer(node, guest, login, admission),
            Message::GuestEnds { guest, login, host, end } => self.guest_ends(guest, login, host, end),
            Message::Changed { machine, to, kinds } => {
                self.watched.tell(&machine);
                if let Some(reader) = self.find(&to) {
                    self.tell_changed_here(&machine, &reader, kinds);
                }
            }
        }
    }

    /// Those that follow one another from one device to another are delivered under one lock.
    fn handle_frames(&self, node: NodeId, frames: &[Arrived<'_>]) {
        let way = |frame: &Arrived<'_>| (frame.from, frame.to, is_rendezvous(frame.deliver));
        for run in frames.chunk_by(|one, next| way(one) == way(next)) {
            let size = |frame: &Arrived<'_>| frame.deliver.len().saturating_sub(DELIVER_HEAD) as u64;
            self.metrics.from_bus.add(run.len() as u64, run.iter().map(size).sum());
            for (frame, reason) in self.deliver_from_far(node, run) {
                self.metrics.dropped(reason.into()).add(1, size(&frame));
                let Arrived { from, to, tag, deliver } = frame;
                let rendezvous = is_rendezvous(deliver);
                let answer = Message::Undelivered { from, to, tag, reason, rendezvous };
                // A sender that has gone meanwhile needs no answer. A guest is in no directory.
                let _ = match rendezvous {
                    true => self.bus.post_to(node, answer),
                    false => self.bus.post(&from, answer),
                };
            }
        }
    }

    fn apart(&self) {
        for mailbox in self.mailboxes() {
            let _changes = self.changes.lock();
            let peers = mailbox.lock().named();
            for peer in peers {
                if self.find(&peer).is_none() {
                    mailbox.lock().tell(&peer, false);
                }
            }
            mailbox.wake();
        }
    }

    fn gone(&self, node: NodeId) {
        for mailbox in self.mailboxes() {
            let _changes = self.changes.lock();
            let peers = mailbox.lock().gone(node);
            for peer in &peers {
                if self.find(peer).is_none() {
                    mailbox.lock().tell(peer, false);
                }
            }
            if !peers.is_empty() {
                mailbox.wake();
            }
        }
    }

    fn seats(&self) -> Vec<(DeviceId, Login)> {
        self.mailboxes().iter().map(|mailbox| (mailbox.device, mailbox.login)).collect()
    }

    fn seat(&self, device: &DeviceId) -> Option<Login> {
        self.find(device).map(|mailbox| mailbox.login)
    }

    fn lost_records(&self, machine: &DeviceId, asked: Option<Instant>) {
        self.tell_lost(machine, asked);
    }

    fn introduce(&self, device: &DeviceId) {
        let Some(me) = self.find(device) else { return };
        self.open_tickets_again(&me);
        {
            let _changes = self.changes.lock();
            let mut state = me.lock();
            if !state.is_live() {
                return;
            }
            state.tell_lost(device, None);
            // Whoever was taken off the list while Redis was away reads no longer.
            self.bus.read_by(device, &state.named());
        }
        me.wake();
        self.names_anew(device);
    }

    fn names_anew(&self, device: &DeviceId) {
        let Some(me) = self.find(device) else { return };
        let notices = {
            let _changes = self.changes.lock();
            let (peers, revision) = {
                let state = me.lock();
                if !state.is_live() {
                    return;
                }
                (state.named(), state.revision)
            };
            let far = peers.into_iter().filter(|peer| self.find(peer).is_none());
            far.map(|peer| naming(&me, revision, peer, true)).collect()
        };
        self.post_all(notices);
    }
}

impl Hub {
    /// Delivers frames of one device to another, and gives those that were not, with the reason.
    fn deliver_from_far<'a>(&self, node: NodeId, run: &[Arrived<'a>]) -> Vec<(Arrived<'a>, Undelivered)> {
        let Some(&Arrived { from, to, deliver, .. }) = run.first() else { return Vec::new() };
        let rendezvous = is_rendezvous(deliver);
        let receiver = if rendezvous { self.guest_or_host(node, &from, &to) } else { self.find(&to) };
        let unreachable = |frame: &Arrived<'a>| (*frame, Undelivered::Unreachable);
        let Some(receiver) = receiver else { return run.iter().map(unreachable).collect() };
        let (mut first, mut refused) = (false, Vec::new());
        {
            let mut state = receiver.lock();
            if !rendezvous && !state.names(&from) {
                return run.iter().map(unreachable).collect();
            }
            for frame in run {
                // Whatever a node sends is no Deliver frame when it is too short to be one.
                let parts = frame.deliver.split_at_checked(DELIVER_HEAD).ok_or(Undelivered::Unreachable);
                match parts.and_then(|(head, payload)| state.deliver(head, payload)) {
                    Ok(empty) => first |= empty,
                    Err(reason) => refused.push((*frame, reason)),
                }
            }
        }
        if first {
            receiver.wake();
        }
        refused
    }

    fn displaced_elsewhere(&self, device: &DeviceId, by: Login) {
        let notices = {
            let _changes = self.changes.lock();
            self.coming.displaced(device, by);
            let older = {
                let mut shard = self.shard(device).write();
                match shard.get(device) {
                    Some(older) if older.login < by => shard.remove(device),
                    _ => None,
                }
            };
            let Some(older) = older else { return };
            self.displace(&older);
            self.forget_peers(&older, Vouching::Moved)
        };
        self.post_all(notices);
    }
}
