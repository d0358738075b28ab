//! Guests (`PROTOCOL 7`, Rendezvous): machines open rendezvous, and who presents a ticket is led to its machine, at whichever node that is
//! (`PROTOCOL 15`, Guests between nodes).
//!
//! The node of the host decides. A guest that is connected to another node stands among the guests of its host as a mailbox without a
//! connection, whose frames go over the bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, MAX_GUESTS, MAX_RENDEZVOUS, RendezvousState, Undelivered};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout};

use super::{DISPLACED, HOST_LEFT, Hub, LEFT, Unrouted, deliver_head};
use crate::bus::{Admission, Apart, Frame, GuestEnd, Login, Message, NodeId, Unsent};
use crate::login::{Proven, Refusal};
use crate::mailbox::{Ending, Host, Mailbox, next_number};
use crate::rendezvous::{Opened, ticket_hash};

/// Guests that are connected to this node and whose hosts are not. Each entry belongs to a connection or to a login under way.
#[derive(Default)]
pub(super) struct FarGuests {
    /// By guest and host.
    seated: HashMap<(DeviceId, DeviceId), Arc<Mailbox>>,
    /// Logins that wait for the answer of a host's node.
    waiting: HashMap<(DeviceId, Login), oneshot::Sender<Admitted>>,
}

/// What became of a login that waited: its guest has its seat already, since a frame of the host may be right behind the answer.
type Admitted = Result<Arc<Mailbox>, Refusal>;

impl FarGuests {
    /// Seats a guest that was admitted, and gives the one of the same device whose seat it takes. None when there is none for it: the login
    /// took too long and nobody waits any longer, or a newer one sits there.
    fn answered(
        &mut self,
        node: NodeId,
        (device, login): (DeviceId, Login),
        admission: Admission,
    ) -> Option<Option<Arc<Mailbox>>> {
        let waiting = self.waiting.remove(&(device, login))?;
        let admitted = match admission {
            Admission::Admitted(host) => match self.seated.get(&(device, host)) {
                Some(seated) if seated.login > login => Err(Refusal::OLDER),
                _ => Ok(host),
            },
            Admission::NoTicket => Err(Refusal::TICKET),
            Admission::Older => Err(Refusal::OLDER),
            Admission::Full => Err(Refusal::GUESTS),
        };
        let seat = admitted.map(|host| Mailbox::of_guest(device, login, Host::There { node, device: host }));
        // The caller has the lock, so a login that is given up at this moment finds the answer, or has taken its sender away.
        waiting.send(seat.clone()).ok()?;
        let guest = seat.ok()?;
        Some(self.seated.insert((device, admitted.ok()?), guest))
    }
}

/// A login that waits for the answer of a host's node.
struct Waiting<'a> {
    hub: &'a Hub,
    guest: (DeviceId, Login),
    answer: oneshot::Receiver<Admitted>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.far_guests.lock().waiting.remove(&self.guest);
        // Its socket may have ended just after the answer came.
        if let Ok(Ok(guest)) = self.answer.try_recv() {
            guest.host.iter().for_each(|host| self.hub.guest_leaves(&guest, host));
        }
    }
}

impl Hub {
    // Rendezvous

    pub(crate) fn open_rendezvous(self: &Arc<Self>, host: &Arc<Mailbox>, hash: [u8; 32], seconds: u16) {
        let ends = Instant::now() + Duration::from_secs(seconds.into());
        let opened = if host.host.is_some() { Opened::Refused } else { self.rendezvous.open(host, hash, ends) };
        match opened {
            Opened::New => drop(self.metrics.rendezvous_open.fetch_add(1, Relaxed)),
            Opened::Again => {}
            Opened::Refused => return self.refuse_rendezvous(host, hash),
        }
        let (hub, host) = (self.clone(), host.clone());
        let mut telling = Box::pin(async move { hub.tell_opened(&host, hash, seconds, opened).await });
        // At once when nobody has to be asked, so that answers keep the order of what they answer.
        if (&mut telling).now_or_never().is_none() {
            tokio::spawn(telling);
        }
    }

    /// Tells a host that its rendezvous is open, once guests are led to it from everywhere; or that their ticket leads to somebody else.
    async fn tell_opened(&self, host: &Mailbox, hash: [u8; 32], seconds: u16, opened: Opened) {
        let is_ours = self.bus.open_ticket(&host.device, &hash, seconds.into()).await;
        let is_open = host.lock().rendezvous.iter().any(|(open, _)| *open == hash);
        match (is_ours, is_open) {
            (true, true) => {
                if opened == Opened::New {
                    self.metrics.rendezvous_opened.fetch_add(1, Relaxed);
                }
                host.notify(&FromRelay::Rendezvous { ticket_hash: hash, state: RendezvousState::Open });
            }
            (false, true) => {
                self.end_rendezvous(host, |open, _| *open == hash);
                self.refuse_rendezvous(host, hash);
            }
            // It was closed meanwhile, and that was said; it may have overtaken the opening.
            (_, false) => self.bus.close_ticket(&hash),
        }
    }

    fn refuse_rendezvous(&self, host: &Mailbox, hash: [u8; 32]) {
        self.metrics.rendezvous_refused.fetch_add(1, Relaxed);
        host.notify(&FromRelay::Rendezvous { ticket_hash: hash, state: RendezvousState::Refused });
    }

    /// Ends a rendezvous early. Guests that were admitted stay until their own time is over: the one that pairs is among them.
    pub(crate) fn close_rendezvous(&self, host: &Mailbox, hash: [u8; 32]) {
        self.end_rendezvous(host, |open, _| *open == hash);
        host.notify(&FromRelay::Rendezvous { ticket_hash: hash, state: RendezvousState::Ended });
    }

    /// Ends the rendezvous whose time is over.
    pub(crate) fn expire_rendezvous(&self, host: &Mailbox, now: Instant) {
        for ticket_hash in self.end_rendezvous(host, |_, ends| ends <= now) {
            host.notify(&FromRelay::Rendezvous { ticket_hash, state: RendezvousState::Ended });
        }
    }

    pub(super) fn end_rendezvous(&self, host: &Mailbox, over: impl Fn(&[u8; 32], Instant) -> bool) -> Vec<[u8; 32]> {
        let ended = self.rendezvous.end(host, over);
        self.metrics.rendezvous_open.fetch_sub(ended.len() as u64, Relaxed);
        ended.iter().for_each(|hash| self.bus.close_ticket(hash));
        ended
    }

    /// Tells the other nodes again of what a host of this one has open.
    pub(super) fn open_tickets_again(&self, host: &Mailbox) {
        let now = Instant::now();
        for (hash, ends) in host.lock().rendezvous.clone() {
            let left = ends.saturating_duration_since(now).as_secs();
            if left > 0 {
                self.bus.keep_ticket(&host.device, &hash, left);
            }
        }
    }

    // Coming

    /// Admits a guest to the rendezvous that its ticket opens. A guest stands beside the device's ordinary connection;
    /// among the guests of one rendezvous a device is there once.
    pub(super) async fn admit(&self, proven: &Proven, ticket: &[u8; 32]) -> Result<Arc<Mailbox>, Refusal> {
        let hash = ticket_hash(ticket);
        let (device, login) = (proven.device(), Login { epoch: proven.epoch(), number: next_number() });
        let guest = match self.rendezvous.host(&hash) {
            Some(host) => {
                let guest = Mailbox::of_guest(device, login, Host::Here(host.clone()));
                self.seat_guest(&host, hash, guest.clone())?;
                guest
            }
            None => self.admit_elsewhere(device, login, hash).await?,
        };
        self.metrics.guests.fetch_add(1, Relaxed);
        Ok(guest)
    }

    /// Under the lock of the host, so that a rendezvous that ends admits nobody afterwards, and a guest at another node hears that it was displaced
    /// before it hears that it is none any more.
    fn seat_guest(&self, host: &Mailbox, hash: [u8; 32], guest: Arc<Mailbox>) -> Result<(), Refusal> {
        let older = {
            let mut state = host.lock();
            let now = Instant::now();
            if !state.is_live() || !state.rendezvous.iter().any(|(open, ends)| *open == hash && *ends > now) {
                return Err(Refusal::TICKET);
            }
            // Those of other nodes whose time is over, in case that nobody said that they left.
            state.guests.retain(|(_, guest)| !guest.is_over(now));
            let same = |(of, older): &([u8; 32], Arc<Mailbox>)| *of == hash && older.device == guest.device;
            let older = match state.guests.iter().position(same) {
                Some(n) if state.guests[n].1.login.epoch > guest.login.epoch => return Err(Refusal::OLDER),
                Some(n) => Some(state.guests.swap_remove(n).1),
                None => None,
            };
            let here = state.guests.iter().filter(|(of, _)| *of == hash).count();
            if here >= MAX_GUESTS || state.guests.len() >= MAX_GUESTS * MAX_RENDEZVOUS {
                return Err(Refusal::GUESTS);
            }
            state.guests.push((hash, guest));
            if let Some(older) = older.as_ref().filter(|older| older.elsewhere().is_some()) {
                self.end_guest(older, host.device, DISPLACED);
            }
            older
        };
        if let Some(older) = older {
            self.metrics.displaced.fetch_add(1, Relaxed);
            // Not under the lock: frames between the two take both in an order of their own.
            if older.elsewhere().is_none() {
                self.end_guest(&older, host.device, DISPLACED);
            }
        }
        Ok(())
    }

    async fn admit_elsewhere(&self, device: DeviceId, login: Login, hash: [u8; 32]) -> Result<Arc<Mailbox>, Refusal> {
        let node = match self.bus.ticket(&hash).await {
            Ok(Some(node)) if node != self.bus.id() => node,
            Ok(_) => return Err(Refusal::TICKET),
            Err(Apart) => return Err(Refusal::APART),
        };
        let guest = (device, login);
        let (sender, answer) = oneshot::channel();
        self.far_guests.lock().waiting.insert(guest, sender);
        let mut waiting = Waiting { hub: self, guest, answer };
        let comes = Message::GuestComes { guest: device, login, ticket_hash: hash };
        self.bus.post_to(node, comes).map_err(|_| Refusal::APART)?;
        match timeout(self.admission, &mut waiting.answer).await {
            Ok(Ok(admitted)) => admitted,
            // That node has gone, or the way to it.
            Ok(Err(_)) | Err(_) => Err(Refusal::APART),
        }
    }

    // Going

    pub(super) fn guest_leaves(&self, guest: &Arc<Mailbox>, host: &Host) {
        self.lose(guest.end(LEFT));
        match host {
            Host::Here(host) => host.lock().guests.retain(|(_, here)| !Arc::ptr_eq(here, guest)),
            Host::There { node, device } => {
                let seat = (guest.device, *device);
                let mut guests = self.far_guests.lock();
                if guests.seated.get(&seat).is_some_and(|seated| Arc::ptr_eq(seated, guest)) {
                    guests.seated.remove(&seat);
                }
                drop(guests);
                self.tell_left(*node, (guest.device, guest.login), *device);
            }
        }
    }

    /// Ends a guest of a host here, wherever it is connected.
    pub(super) fn end_guest(&self, guest: &Mailbox, host: DeviceId, ending: Ending) {
        match guest.elsewhere() {
            None => self.lose(guest.end(ending)),
            Some(node) => {
                let end = if ending == DISPLACED { GuestEnd::Displaced } else { GuestEnd::HostLeft };
                self.tell_guest_end(node, (guest.device, guest.login), host, end);
            }
        }
    }

    /// Tells the node of a host that a guest of it is one no longer.
    fn tell_left(&self, node: NodeId, guest: (DeviceId, Login), host: DeviceId) {
        self.tell_guest_end(node, guest, host, GuestEnd::Left);
    }

    fn tell_guest_end(&self, node: NodeId, (guest, login): (DeviceId, Login), host: DeviceId, end: GuestEnd) {
        // A node that has gone needs no word, and without Redis the guest is cut when its time is over.
        let _ = self.bus.post_to(node, Message::GuestEnds { guest, login, host, end });
    }

    // What other nodes say of guests

    /// A guest came to another node, for a host of this one.
    pub(super) fn guest_comes(&self, node: NodeId, device: DeviceId, login: Login, hash: [u8; 32]) {
        let admission = match self.rendezvous.host(&hash) {
            None => Admission::NoTicket,
            Some(host) => {
                let guest = Mailbox::of_guest_elsewhere(device, login, node, self.guest_time);
                match self.seat_guest(&host, hash, guest) {
                    Ok(()) => Admission::Admitted(host.device),
                    Err(Refusal::OLDER) => Admission::Older,
                    Err(Refusal::GUESTS) => Admission::Full,
                    Err(_) => Admission::NoTicket,
                }
            }
        };
        // If it does not arrive, the guest comes again, and takes the place of this one.
        let _ = self.bus.post_to(node, Message::GuestAnswer { guest: device, login, admission });
    }

    pub(super) fn guest_answer(&self, node: NodeId, device: DeviceId, login: Login, admission: Admission) {
        let answered = self.far_guests.lock().answered(node, (device, login), admission);
        match (answered, admission) {
            (Some(older), _) => older.iter().for_each(|older| self.displace(older)),
            // It must not keep a place that others could have.
            (None, Admission::Admitted(host)) => self.tell_left(node, (device, login), host),
            (None, _) => {}
        }
    }

    pub(super) fn guest_ends(&self, device: DeviceId, login: Login, host: DeviceId, end: GuestEnd) {
        let ending = match end {
            GuestEnd::Left => {
                if let Some(host) = self.find(&host) {
                    let is_it =
                        |guest: &Mailbox| guest.device == device && guest.login == login && guest.elsewhere().is_some();
                    host.lock().guests.retain(|(_, guest)| !is_it(guest));
                }
                return;
            }
            GuestEnd::HostLeft => HOST_LEFT,
            GuestEnd::Displaced => DISPLACED,
        };
        if let Some(guest) = self.far_guest(&device, &host).filter(|guest| guest.login == login) {
            self.lose(guest.end(ending));
        }
    }

    /// The guest here of a host that is elsewhere.
    pub(super) fn far_guest(&self, guest: &DeviceId, host: &DeviceId) -> Option<Arc<Mailbox>> {
        self.far_guests.lock().seated.get(&(*guest, *host)).cloned()
    }

    /// All guests here whose hosts are elsewhere.
    pub(super) fn guests_of_others(&self) -> Vec<Arc<Mailbox>> {
        self.far_guests.lock().seated.values().cloned().collect()
    }

    /// Who gets a frame that came through a rendezvous from that node: the guest here of a host there, or the host here of a guest there. What
    /// comes from where the sender is no longer was sent by a connection that a newer one has displaced.
    pub(super) fn guest_or_host(&self, node: NodeId, from: &DeviceId, to: &DeviceId) -> Option<Arc<Mailbox>> {
        if let Some(guest) = self.far_guest(to, from).filter(|guest| guest.host_node() == Some(node)) {
            return Some(guest);
        }
        let host = self.find(to)?;
        let is_guest = host.lock().has_guest_at(from, node);
        is_guest.then_some(host)
    }

    /// A frame that went through a rendezvous did not arrive, says that node, which is our own when it may go there again. It is told to
    /// whoever sent it and to no other connection of the same device. Who is not at that node is a guest there no longer.
    pub(super) fn undelivered_through(&self, node: NodeId, from: &DeviceId, told: &FromRelay<'_>) {
        let FromRelay::Undeliverable { to, reason, .. } = told else { return };
        let is_gone = *reason == Undelivered::Unreachable;
        if let Some(guest) = self.far_guest(from, to) {
            guest.notify(told);
            if is_gone && guest.host_node() == Some(node) {
                // Its host has left without a word.
                self.lose(guest.end(HOST_LEFT));
            }
            return;
        }
        // A device that was never a host sent it as a guest, and has left.
        let Some(host) = self.find(from).filter(|host| host.lock().is_host) else { return };
        host.notify(told);
        if is_gone {
            // It has left without a word. What is for it goes to its own connection from now on. One that was admitted a moment ago may not have
            // taken its seat: the frame went directly and was faster than the answer, which went through Redis.
            let is_it = |guest: &Mailbox| guest.device == *to && guest.elsewhere() == Some(node);
            host.lock().guests.retain(|(_, guest)| !is_it(guest) || guest.is_new(self.admission));
        }
    }

    /// Sends frames of a guest or of a host through a rendezvous to the node of the other.
    pub(super) fn send_to_node(&self, from: &Mailbox, node: NodeId, run: &[Frame<'_>]) {
        let head = deliver_head(&from.device, true);
        for frame in run {
            let Frame { to, tag, payload } = *frame;
            let deliver = [&head, payload].concat().into();
            // Not under the lock of the sender, since the bus may call back.
            let is_live = from.lock().is_live();
            if !is_live {
                self.refuse(from, &[*frame], Unrouted::SenderEnded);
                continue;
            }
            match self.bus.post_to(node, Message::Frame { from: from.device, to, tag, deliver }) {
                Ok(()) => self.metrics.to_bus.one(payload.len()),
                Err(Unsent::Nowhere) => self.refuse(from, &[*frame], Undelivered::Unreachable.into()),
                Err(Unsent::Full) => self.refuse(from, &[*frame], Undelivered::QueueFull.into()),
            }
        }
    }
}
