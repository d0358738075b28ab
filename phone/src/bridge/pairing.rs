//! A pairing under way: a guest's connection to the relay, and the joiner that decides what is sent over it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use happy_link::driver::web::{self, Handle};
use happy_link::driver::{RelayUrl, rng};
use happy_link::{Event, Login, RelayDown};
use happy_pairing::{Invitation, JoinFailure, Joiner, JoinerConfig, JoinerEvent, Origin, format_code};
use happy_wire::Code;
use happy_wire::packet::Gone;

use super::clock::{self, Timer};
use super::event::CoreEvent;
use super::hub::Hub;

pub struct Pairing {
    hub: Weak<Hub>,
    origin: Origin,
    joiner: RefCell<Joiner>,
    handle: RefCell<Option<Handle>>,
    timer: Timer,
    over: Cell<bool>,
}

impl Pairing {
    /// # Errors
    /// A sentence, when the address of the invitation cannot be used.
    pub fn start(hub: &Weak<Hub>, origin: Origin, invitation: Invitation, name: String) -> Result<Rc<Self>, String> {
        let owner = hub.upgrade().ok_or("the app is closing")?;
        let relay = RelayUrl::parse(&origin.websocket_url()).map_err(|error| error.to_string())?;
        let ticket = invitation.ticket();
        let joiner = Joiner::new(
            JoinerConfig {
                identity: owner.state().identity.clone(),
                invitation,
                origin: origin.clone(),
                my_name: name,
                next_statement: owner.state().log.next(),
                unix_now: clock::unix_ms() / 1000,
            },
            clock::now(),
        );
        let pairing = Rc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            Self {
                hub: hub.clone(),
                origin,
                joiner: RefCell::new(joiner),
                handle: RefCell::new(None),
                timer: Timer::new(move || {
                    if let Some(pairing) = this.upgrade() {
                        pairing.joiner.borrow_mut().handle_timeout(clock::now());
                        pairing.drain();
                    }
                }),
                over: Cell::new(false),
            }
        });
        let this = Rc::downgrade(&pairing);
        let on_event = move |event| {
            if let Some(pairing) = this.upgrade() {
                pairing.on_event(event);
            }
        };
        let handle = web::spawn(owner.config(relay, |epoch| Login::Guest { epoch, ticket }), on_event);
        handle.set_active(true);
        *pairing.handle.borrow_mut() = Some(handle);
        pairing.drain();
        Ok(pairing)
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Ends the connection. Nothing more is told.
    pub fn close(&self) {
        self.over.set(true);
        self.timer.set(None);
        let handle = self.handle.borrow_mut().take();
        if let Some(handle) = handle {
            handle.shut_down();
        }
    }

    fn on_event(&self, event: Event) {
        let now = clock::now();
        match event {
            Event::RelayUp { host: Some(host) } => self.joiner.borrow_mut().host_known(now, host),
            Event::Packet { from, bytes, .. } => self.joiner.borrow_mut().handle_packet(&mut rng(), now, from, &bytes),
            Event::RelayDown { why: RelayDown::Told(Code::LOGIN_REFUSED), last: true } => {
                return self.finish_failed("The invitation is no longer open at the relay: it was used, or its time is over. Ask for a new one at the machine.");
            }
            _ => return,
        }
        self.drain();
    }

    fn drain(&self) {
        loop {
            let packet = self.joiner.borrow_mut().poll_transmit();
            let Some((to, packet)) = packet else { break };
            let handle = self.handle.borrow().clone();
            if let Some(handle) = handle {
                // What is lost here is sent again by the joiner, or its time runs out.
                handle.send_packet(to, &packet).ok();
            }
        }
        loop {
            let event = self.joiner.borrow_mut().poll_event();
            let Some(event) = event else { break };
            self.on_joiner_event(event);
        }
        let next = if self.over.get() { None } else { self.joiner.borrow().poll_timeout() };
        self.timer.set(next);
    }

    fn on_joiner_event(&self, event: JoinerEvent) {
        let Some(hub) = self.hub.upgrade().filter(|_| !self.over.get()) else { return };
        match event {
            JoinerEvent::ShowCode { code, machine_name, role } => {
                hub.tell(CoreEvent::Code { code: format_code(code), machine: machine_name, role });
            }
            JoinerEvent::Paired(peer) => {
                hub.keep(*peer, &self.origin);
                hub.end_pairing();
            }
            JoinerEvent::Failed(failure) => self.finish_failed(explain(failure)),
        }
    }

    fn finish_failed(&self, message: &str) {
        if let Some(hub) = self.hub.upgrade().filter(|_| !self.over.get()) {
            hub.tell(CoreEvent::PairingFailed { message: message.to_owned() });
            hub.end_pairing();
        }
    }
}

fn explain(failure: JoinFailure) -> &'static str {
    match failure {
        JoinFailure::Gone(Gone::Used) => {
            "This invitation was used already. Each one is good for one device; ask for a new one at the machine."
        }
        JoinFailure::Gone(Gone::Expired) | JoinFailure::Expired => {
            "The time for this invitation is over. Ask for a new one at the machine."
        }
        JoinFailure::Gone(Gone::Cancelled) | JoinFailure::Cancelled => "The pairing was cancelled at the machine.",
        JoinFailure::WrongBundle => {
            "What answered is not the machine that made this invitation. Somebody between here and there may have exchanged it; nothing was given away."
        }
        JoinFailure::NoAnswer => "The machine does not answer. Is its code still on the screen, and is it connected?",
        JoinFailure::WrongCode => {
            "A wrong code was typed three times, so the invitation has ended. Ask for a new one at the machine."
        }
        JoinFailure::OwnInvitation => "This invitation was made by this very device.",
        JoinFailure::BadHost => "The machine did not keep to the protocol. Update it, or reload this page.",
        JoinFailure::Garbage => {
            "Too much came that proves nothing: something between here and the machine disturbs the pairing."
        }
        _ => "The pairing did not work out.",
    }
}
