//! How a terminal reaches its machine: over the phone's link, or from the machine's own dashboard over a websocket of the local API
//! (docs/LOCAL.md), which TypeScript holds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Weak;

use happy_crypto::DeviceId;
use happy_link::driver::web::Handle;
use happy_rpc::{Call, SessionDetach};
use happy_wire::Code;
use happy_wire::frame::Class;
use happy_wire::terminal::LABEL;
use js_sys::{Error, Function};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use super::call_js;
use super::event::CoreEvent;
use super::hub::{Hub, Reply, read_done};

/// Calls about a terminal that wait for an answer; one more is refused.
const CALLS: usize = 16;

#[wasm_bindgen]
extern "C" {
    /// `Wire` in `app/dashboard/wire.ts`: the websockets of one terminal, by number, of which one lives at a time.
    pub type Wire;
    /// Opens a websocket and attaches by the parameters of a `session.attach`.
    #[wasm_bindgen(method)]
    fn attach(this: &Wire, channel: u32, call: &str);
    /// Whether the websocket took the message; otherwise it says when it takes more.
    #[wasm_bindgen(method)]
    fn send(this: &Wire, channel: u32, message: &[u8]) -> bool;
    /// Sends a call about the attachment.
    #[wasm_bindgen(method)]
    fn ask(this: &Wire, channel: u32, text: &str);
    /// Ends the websocket.
    #[wasm_bindgen(method, js_name = hangUp)]
    fn hang_up(this: &Wire, channel: u32);
    /// Shows a person a sentence.
    #[wasm_bindgen(method)]
    fn say(this: &Wire, text: &str);
}

/// How a machine is reached.
pub enum Way {
    /// Over the link with it, in a channel.
    Link(Weak<Hub>, DeviceId),
    /// It serves this page.
    Socket(Socket),
}

/// Websockets to the local API, and the calls on them that wait for an answer.
pub struct Socket {
    wire: Wire,
    channel: Cell<u32>,
    asked: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, (Function, Function)>>,
}

impl Socket {
    pub fn new(wire: Wire) -> Self {
        Self { wire, channel: Cell::new(0), asked: Cell::new(0), waiting: RefCell::default() }
    }

    /// Takes the answer to a call.
    pub fn on_answer(&self, text: &str) {
        #[derive(Deserialize)]
        struct Numbered {
            id: Option<u64>,
        }
        let number = serde_json::from_str::<Numbered>(text).ok().and_then(|numbered| numbered.id);
        let waiting = number.and_then(|number| self.waiting.borrow_mut().remove(&number));
        // Nobody waits for most answers.
        let Some((resolve, reject)) = waiting else { return };
        match read_done(text.as_bytes()) {
            Ok(()) => call_js(&resolve, &JsValue::UNDEFINED),
            Err(message) => call_js(&reject, &Error::new(&message)),
        }
    }

    fn refuse_all(&self, why: &str) {
        for (_, reject) in std::mem::take(&mut *self.waiting.borrow_mut()).into_values() {
            call_js(&reject, &Error::new(why));
        }
    }

    fn call(&self, body: &[u8], reply: Reply) {
        if let Reply::Attached(_, channel) = reply {
            return self.wire.attach(channel, &String::from_utf8_lossy(body));
        }
        #[derive(serde::Serialize)]
        struct Asked<'a> {
            id: u64,
            #[serde(flatten)]
            request: BTreeMap<&'a str, &'a RawValue>,
        }
        // The body of a call has string keys, and is our own.
        let request = serde_json::from_slice(body).unwrap_or_default();
        let id = self.asked.replace(self.asked.get() + 1);
        if let Reply::Done(resolve, reject) = reply {
            if self.waiting.borrow().len() >= CALLS {
                return call_js(&reject, &Error::new("too much is asked already; try again in a moment"));
            }
            self.waiting.borrow_mut().insert(id, (resolve, reject));
        }
        self.wire.ask(self.channel.get(), &super::json(&Asked { id, request }));
    }
}

impl Way {
    fn handle(&self) -> Option<(Handle, DeviceId)> {
        match self {
            Way::Link(hub, device) => Some((hub.upgrade()?.handle(device)?, *device)),
            Way::Socket(_) => None,
        }
    }

    /// The machine, if it is reached over a link.
    pub fn device(&self) -> Option<DeviceId> {
        match self {
            Way::Link(_, device) => Some(*device),
            Way::Socket(_) => None,
        }
    }

    /// The websockets, if it is reached over those.
    pub fn socket(&self) -> Option<&Socket> {
        match self {
            Way::Link(..) => None,
            Way::Socket(socket) => Some(socket),
        }
    }

    /// Whether the machine can be asked.
    pub fn is_up(&self) -> bool {
        match self {
            Way::Link(..) => self.handle().is_some_and(|(handle, device)| handle.is_up(&device)),
            Way::Socket(_) => true,
        }
    }

    /// Opens a channel for an attachment; none when there is no connection at all.
    pub fn open(&self) -> Option<Result<u32, String>> {
        match self {
            Way::Link(..) => {
                let (handle, device) = self.handle()?;
                Some(handle.open_channel(&device, Class::Interactive, LABEL).map_err(|error| error.to_string()))
            }
            Way::Socket(socket) => {
                socket.channel.set(socket.channel.get().wrapping_add(1));
                Some(Ok(socket.channel.get()))
            }
        }
    }

    /// Whether the message was taken.
    pub fn send(&self, channel: u32, message: &[u8]) -> bool {
        match self {
            Way::Link(..) => {
                self.handle().is_some_and(|(handle, device)| handle.send(&device, channel, message).is_ok())
            }
            Way::Socket(socket) => socket.wire.send(channel, message),
        }
    }

    /// Closes a channel.
    pub fn close(&self, channel: u32, code: Code, reason: &str) {
        match self {
            Way::Link(..) => {
                if let Some((handle, device)) = self.handle() {
                    handle.close_channel(&device, channel, code, reason);
                }
            }
            Way::Socket(socket) => {
                socket.wire.hang_up(channel);
                socket.refuse_all("the session is not open now");
            }
        }
    }

    /// Ends an attachment. That of a websocket ends with it.
    pub fn detach(&self, attachment: Uuid) {
        if let Way::Link(..) = self {
            self.call(SessionDetach { attachment }.to_body(), Reply::Nobody);
        }
    }

    /// Calls the machine. False when there is nobody to do that.
    pub fn call(&self, body: Vec<u8>, reply: Reply) -> bool {
        match self {
            Way::Link(hub, device) => {
                let hub = hub.upgrade();
                hub.map(|hub| hub.call(*device, body, reply)).is_some()
            }
            Way::Socket(socket) => {
                socket.call(&body, reply);
                true
            }
        }
    }

    /// Shows a person a sentence.
    pub fn notice(&self, text: String) {
        match self {
            Way::Link(hub, _) => {
                if let Some(hub) = hub.upgrade() {
                    hub.tell(CoreEvent::Notice { text });
                }
            }
            Way::Socket(socket) => socket.wire.say(&text),
        }
    }
}
