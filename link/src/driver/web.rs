//! The driver for the browser: its WebSocket, its timer, and a [`Handle`] for the page or worker that owns it.
//!
//! Everything happens on one thread. A callback of the browser feeds the endpoint, then the driver drains it: frames into the socket as long
//! as little waits there, events into the owner's function, and the rest into one timer. The owner's function may use the
//! [`Handle`]; what that causes is dealt with after it has returned.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_wire::Code;
use happy_wire::frame::Class;
use happy_wire::relay::SUBPROTOCOL;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use crate::driver::{RelayUrl, Rng, rng};
use crate::{
    CallError, CallId, Counters, Dial, Endpoint, Event, Login, OpenChannelError, PacketError, PairSecrets, Peer,
    PeerError, RequestId, SendError,
};

/// What may wait in the browser's socket before frames are made no more: what is urgent cannot overtake what is there.
const MAX_BUFFERED: u32 = 64 * 1024;
/// The browser does not say when there is room again, so it is asked.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// From dialling to the open websocket.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// A timer of the browser cannot be set to more than 2³¹ ms.
const LONGEST_TIMER: Duration = Duration::from_secs(3600);

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &JsValue, milliseconds: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
}

/// What [`spawn`] needs to know.
pub struct Config {
    /// Who this device is.
    pub identity: Identity,
    /// What it answers for, the newest last; empty where it only initiates.
    pub prekeys: Vec<SignedPrekey>,
    /// How it logs in.
    pub login: Login,
    /// Where.
    pub relay: RelayUrl,
}

/// Starts the driver. It runs until [`Handle::shut_down`], or until the last handle is dropped.
pub fn spawn(config: Config, on_event: impl FnMut(Event) + 'static) -> Handle {
    let Config { identity, prekeys, login, relay } = config;
    let mut endpoint = Endpoint::new(identity, relay.authority().to_owned(), login, rng(), Duration::ZERO);
    endpoint.set_prekeys(prekeys);
    let driver = Rc::new_cyclic(|this: &Weak<Driver>| {
        let on_timer = callback(this, |driver| driver.timer.set(None));
        Driver {
            this: this.clone(),
            url: relay.to_string(),
            started_ms: performance_now(),
            endpoint: RefCell::new(endpoint),
            on_event: RefCell::new(Box::new(on_event)),
            socket: RefCell::new(None),
            retired: RefCell::new(None),
            on_timer,
            timer: Cell::new(None),
            pumping: Cell::new(false),
            again: Cell::new(false),
        }
    });
    driver.pump();
    Handle { driver }
}

/// A closure for the browser that does something to the driver, if it still lives, and then drains the endpoint.
fn callback(driver: &Weak<Driver>, react: impl Fn(&Driver) + 'static) -> Closure<dyn FnMut()> {
    let driver = driver.clone();
    Closure::new(move || {
        if let Some(driver) = driver.upgrade() {
            react(&driver);
            driver.pump();
        }
    })
}

/// The browser's websocket, and the closures that it calls.
struct Socket {
    socket: WebSocket,
    open: Cell<bool>,
    dial_until: Duration,
    _on_open: Closure<dyn FnMut()>,
    _on_close: Closure<dyn FnMut(CloseEvent)>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
}

impl Socket {
    fn dial(driver: &Weak<Driver>, url: &str, now: Duration) -> Option<Self> {
        let socket = WebSocket::new_with_str(url, SUBPROTOCOL).ok()?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let on_open = callback(driver, Driver::on_open);
        let weak = driver.clone();
        let on_close = Closure::new(move |event: CloseEvent| {
            if let Some(driver) = weak.upgrade() {
                driver.retire();
                driver.endpoint.borrow_mut().handle_closed(driver.now(), Some(Code(event.code())));
                driver.pump();
            }
        });
        let weak = driver.clone();
        let on_message = Closure::new(move |event: MessageEvent| {
            if let Some(driver) = weak.upgrade() {
                driver.on_message(&event);
                driver.pump();
            }
        });
        socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        Some(Self {
            socket,
            open: Cell::new(false),
            dial_until: now + DIAL_WITHIN,
            _on_open: on_open,
            _on_close: on_close,
            _on_message: on_message,
        })
    }

    fn forget_callbacks(&self) {
        self.socket.set_onopen(None);
        self.socket.set_onclose(None);
        self.socket.set_onmessage(None);
    }
}

struct Driver {
    this: Weak<Driver>,
    url: String,
    started_ms: f64,
    endpoint: RefCell<Endpoint<Rng>>,
    on_event: RefCell<Box<dyn FnMut(Event)>>,
    socket: RefCell<Option<Socket>>,
    /// The last socket: one of its closures may be the one that is running.
    retired: RefCell<Option<Socket>>,
    on_timer: Closure<dyn FnMut()>,
    timer: Cell<Option<JsValue>>,
    pumping: Cell<bool>,
    /// Something changed while events were given out.
    again: Cell<bool>,
}

impl Driver {
    fn now(&self) -> Duration {
        Duration::try_from_secs_f64((performance_now() - self.started_ms) / 1000.0).unwrap_or_default()
    }

    fn on_open(&self) {
        if let Some(socket) = &*self.socket.borrow() {
            socket.open.set(true);
        }
        self.endpoint.borrow_mut().handle_connected(self.now());
    }

    fn on_message(&self, event: &MessageEvent) {
        match event.data().dyn_into::<js_sys::ArrayBuffer>() {
            Ok(buffer) => {
                let bytes = js_sys::Uint8Array::new(&buffer).to_vec();
                self.endpoint.borrow_mut().handle_frame(self.now(), &bytes);
            }
            // The relay speaks in binary messages only (PROTOCOL 7).
            Err(_) => self.close(Code::MALFORMED),
        }
    }

    /// Takes the socket out of use. Its closures live on until the next one is retired.
    fn retire(&self) -> Option<WebSocket> {
        let socket = self.socket.borrow_mut().take()?;
        socket.forget_callbacks();
        let handle = socket.socket.clone();
        *self.retired.borrow_mut() = Some(socket);
        Some(handle)
    }

    fn close(&self, code: Code) {
        if let Some(socket) = self.retire() {
            // It fails only for codes that a page may not use, and ours it may.
            let _closed = socket.close_with_code_and_reason(code.0, code.explain());
        }
        self.endpoint.borrow_mut().handle_disconnected(self.now());
    }

    /// Drains the endpoint, in the order of its contract.
    fn pump(&self) {
        if self.pumping.replace(true) {
            self.again.set(true);
            return;
        }
        loop {
            self.again.set(false);
            let now = self.now();
            if self.endpoint.borrow().poll_timeout().is_some_and(|timeout| timeout <= now) {
                self.endpoint.borrow_mut().handle_timeout(now);
            }
            self.transmit();
            self.tell();
            self.connect();
            if !self.again.get() {
                break;
            }
        }
        self.pumping.set(false);
        self.arm();
    }

    fn has_room(&self) -> bool {
        self.socket
            .borrow()
            .as_ref()
            .is_some_and(|socket| socket.open.get() && socket.socket.buffered_amount() < MAX_BUFFERED)
    }

    fn transmit(&self) {
        while self.has_room() {
            let Some(frame) = self.endpoint.borrow_mut().poll_transmit(self.now()) else { return };
            let sent = self.socket.borrow().as_ref().map(|socket| socket.socket.send_with_u8_array(&frame));
            if !matches!(sent, Some(Ok(()))) {
                return self.close(Code::GOODBYE);
            }
        }
    }

    fn tell(&self) {
        loop {
            let Some(event) = self.endpoint.borrow_mut().poll_event() else { return };
            (self.on_event.borrow_mut())(event);
        }
    }

    fn connect(&self) {
        let now = self.now();
        let must_close = self.endpoint.borrow().must_close();
        if let Some(code) = must_close {
            self.close(code);
            self.again.set(true);
        }
        let overdue =
            self.socket.borrow().as_ref().is_some_and(|socket| !socket.open.get() && socket.dial_until <= now);
        if overdue {
            self.close(Code::GOODBYE);
            self.again.set(true);
        }
        let dial = self.endpoint.borrow().wants_connection(now);
        match dial {
            Dial::At(at) if at <= now && self.socket.borrow().is_none() => {
                let socket = Socket::dial(&self.this, &self.url, now);
                if socket.is_none() {
                    self.endpoint.borrow_mut().handle_disconnected(now);
                }
                *self.socket.borrow_mut() = socket;
            }
            Dial::Never(_) if self.socket.borrow().is_some() => {
                self.close(Code::GOODBYE);
                self.again.set(true);
            }
            _ => {}
        }
    }

    /// Sets the one timer to the next thing that is due.
    fn arm(&self) {
        if let Some(timer) = self.timer.take() {
            clear_timeout(&timer);
        }
        let now = self.now();
        let endpoint = self.endpoint.borrow();
        let socket = self.socket.borrow();
        let mut next = endpoint.poll_timeout();
        let mut at = |time: Duration| next = Some(next.map_or(time, |next| next.min(time)));
        match (&*socket, endpoint.wants_connection(now)) {
            (None, Dial::At(time)) => at(time),
            (Some(socket), _) if !socket.open.get() => at(socket.dial_until),
            (Some(socket), _) if socket.socket.buffered_amount() >= MAX_BUFFERED => at(now + ASK_AGAIN),
            _ => {}
        }
        let Some(next) = next else { return };
        // Rounded up: a timer that fires a moment too early would only be set again.
        let wait = next.saturating_sub(now).min(LONGEST_TIMER).as_micros().div_ceil(1000);
        let timer = set_timeout(self.on_timer.as_ref(), i32::try_from(wait).unwrap_or(i32::MAX));
        self.timer.set(Some(timer));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            clear_timeout(&timer);
        }
        if let Some(socket) = self.retire() {
            let _closed = socket.close_with_code_and_reason(Code::GOODBYE.0, Code::GOODBYE.explain());
        }
    }
}

/// Reaches the endpoint. Cheap to clone. The methods are those of [`Endpoint`]; answers to calls come as events.
#[derive(Clone)]
pub struct Handle {
    driver: Rc<Driver>,
}

impl Handle {
    fn with<T>(&self, change: impl FnOnce(&mut Endpoint<Rng>, Duration) -> T) -> T {
        let now = self.driver.now();
        let result = change(&mut self.driver.endpoint.borrow_mut(), now);
        self.driver.pump();
        result
    }

    /// See [`Endpoint::device`].
    pub fn device(&self) -> DeviceId {
        self.driver.endpoint.borrow().device()
    }

    /// See [`Endpoint::counters`].
    pub fn counters(&self) -> Counters {
        self.driver.endpoint.borrow().counters()
    }

    /// See [`Endpoint::bundle`].
    pub fn bundle(&self, peer: &DeviceId) -> Option<Bundle> {
        self.with(|endpoint, _| endpoint.bundle(peer).cloned())
    }

    /// See [`Endpoint::pair_secrets`].
    pub fn pair_secrets(&self, peer: &DeviceId, session: &[u8; 16]) -> Option<PairSecrets> {
        self.with(|endpoint, _| endpoint.pair_secrets(peer, session).cloned())
    }

    /// See [`Endpoint::pair_secrets_stored`].
    pub fn pair_secrets_stored(&self, peer: &DeviceId, session: &[u8; 16]) {
        self.with(|endpoint, now| endpoint.pair_secrets_stored(now, peer, session));
    }

    /// See [`Endpoint::renew_keys`].
    pub fn renew_keys(&self, peer: &DeviceId) {
        self.with(|endpoint, now| endpoint.renew_keys(now, peer));
    }

    /// See [`Endpoint::is_up`].
    pub fn is_up(&self, peer: &DeviceId) -> bool {
        self.driver.endpoint.borrow().is_up(peer)
    }

    /// See [`Endpoint::add_peer`].
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn add_peer(&self, peer: Peer) -> Result<(), PeerError> {
        self.with(|endpoint, _| endpoint.add_peer(peer))
    }

    /// See [`Endpoint::remove_peer`].
    pub fn remove_peer(&self, peer: &DeviceId) {
        self.with(|endpoint, now| endpoint.remove_peer(now, peer));
    }

    /// See [`Endpoint::tombstone`].
    pub fn tombstone(&self, peer: DeviceId) {
        self.with(|endpoint, now| endpoint.tombstone(now, peer));
    }

    /// See [`Endpoint::set_prekeys`].
    pub fn set_prekeys(&self, prekeys: Vec<SignedPrekey>) {
        self.with(|endpoint, _| endpoint.set_prekeys(prekeys));
    }

    /// See [`Endpoint::set_active`].
    pub fn set_active(&self, active: bool) {
        self.with(|endpoint, now| endpoint.set_active(now, active));
    }

    /// See [`Endpoint::hurry`]: for the events `online` and `visibilitychange`.
    pub fn hurry(&self) {
        self.with(|endpoint, now| endpoint.hurry(now));
    }

    /// See [`Endpoint::revive`].
    pub fn revive(&self) {
        self.with(|endpoint, now| endpoint.revive(now));
    }

    /// See [`Endpoint::shut_down`].
    pub fn shut_down(&self) {
        self.with(|endpoint, now| endpoint.shut_down(now));
    }

    /// See [`Endpoint::open_rendezvous`].
    pub fn open_rendezvous(&self, ticket_hash: [u8; 32], seconds: u16) -> bool {
        self.with(|endpoint, now| endpoint.open_rendezvous(now, ticket_hash, seconds))
    }

    /// See [`Endpoint::close_rendezvous`].
    pub fn close_rendezvous(&self, ticket_hash: [u8; 32]) {
        self.with(|endpoint, _| endpoint.close_rendezvous(ticket_hash));
    }

    /// See [`Endpoint::send_packet`].
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn send_packet(&self, to: DeviceId, packet: &[u8]) -> Result<(), PacketError> {
        self.with(|endpoint, _| endpoint.send_packet(to, packet))
    }

    /// See [`Endpoint::get_record`].
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn get_record(&self, machine: DeviceId, kind: u8) -> Result<(), PacketError> {
        self.with(|endpoint, _| endpoint.get_record(machine, kind))
    }

    /// See [`Endpoint::call`].
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&self, peer: &DeviceId, body: Vec<u8>, deadline: Option<Duration>) -> Result<CallId, CallError> {
        self.with(|endpoint, now| endpoint.call(now, peer, body, deadline))
    }

    /// See [`Endpoint::command`].
    ///
    /// # Errors
    /// [`CallError`].
    pub fn command(&self, peer: &DeviceId, body: Vec<u8>, deadline: Option<Duration>) -> Result<CallId, CallError> {
        self.with(|endpoint, now| endpoint.command(now, peer, body, deadline))
    }

    /// See [`Endpoint::cancel`].
    pub fn cancel(&self, peer: &DeviceId, id: CallId) {
        self.with(|endpoint, _| endpoint.cancel(peer, id));
    }

    /// See [`Endpoint::respond`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn respond(&self, peer: &DeviceId, id: RequestId, body: &[u8]) -> Result<(), SendError> {
        self.with(|endpoint, _| endpoint.respond(peer, id, body))
    }

    /// See [`Endpoint::emit`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn emit(&self, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.with(|endpoint, _| endpoint.emit(peer, body))
    }

    /// See [`Endpoint::emit_in_bulk`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn emit_in_bulk(&self, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.with(|endpoint, now| endpoint.emit_in_bulk(now, peer, body))
    }

    /// See [`Endpoint::open_channel`].
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub fn open_channel(&self, peer: &DeviceId, class: Class, label: &str) -> Result<u32, OpenChannelError> {
        self.with(|endpoint, _| endpoint.open_channel(peer, class, label))
    }

    /// See [`Endpoint::send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, peer: &DeviceId, channel: u32, message: &[u8]) -> Result<(), SendError> {
        self.with(|endpoint, _| endpoint.send(peer, channel, message))
    }

    /// See [`Endpoint::sendable`].
    pub fn sendable(&self, peer: &DeviceId, channel: u32) -> usize {
        self.driver.endpoint.borrow_mut().sendable(peer, channel)
    }

    /// See [`Endpoint::consumed`].
    pub fn consumed(&self, peer: &DeviceId, channel: u32, bytes: usize) {
        self.with(|endpoint, _| endpoint.consumed(peer, channel, bytes));
    }

    /// See [`Endpoint::close_channel`].
    pub fn close_channel(&self, peer: &DeviceId, channel: u32, code: Code, reason: &str) {
        self.with(|endpoint, _| endpoint.close_channel(peer, channel, code, reason));
    }
}
