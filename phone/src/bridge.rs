//! What JavaScript sees: the class `Core`, and `Terminal` in its own file. Nothing is decided here.

mod clock;
mod event;
mod hub;
mod pairing;
mod records;
mod terminal;
mod way;

use std::rc::Rc;
use std::str::FromStr;

use happy_crypto::{DeviceId, safety_number};
use happy_pairing::Invitation;
use happy_rpc::Request;
use js_sys::{Error, Function, Promise};
use uuid::Uuid;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::answers;
use crate::state::State;
use event::{InvitationView, Peer};
use hub::{Hub, Reply};
use terminal::{Terminal, ViewerConfig};

/// The core of the app: this device, its machines, and the connections to them.
#[wasm_bindgen]
pub struct Core {
    hub: Rc<Hub>,
}

#[wasm_bindgen]
impl Core {
    /// The core with stored state, or with a new identity when there is none. `listen` is called with events as JSON,
    /// never from within another call.
    #[wasm_bindgen(constructor)]
    pub fn new(state: Option<Vec<u8>>, listen: Function) -> Result<Core, Error> {
        let state = state.map(zeroize::Zeroizing::new);
        let mut state = match state {
            Some(bytes) => State::decode(&bytes).map_err(|error| Error::new(&error.to_string()))?,
            None => State::new(&mut happy_link::driver::rng()),
        };
        state.begin_page(&mut happy_link::driver::rng(), clock::unix_ms());
        Ok(Core { hub: Hub::new(state, listen) })
    }

    /// The id of this device, base64url.
    #[wasm_bindgen(getter, js_name = deviceId)]
    pub fn device_id(&self) -> String {
        self.hub.state().identity.device_id().to_string()
    }

    /// The version of the app.
    #[wasm_bindgen(getter)]
    pub fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// The secret state, to be sealed and stored in the place of all before.
    #[wasm_bindgen(js_name = exportState)]
    pub fn export_state(&self) -> Vec<u8> {
        self.hub.export_state().to_vec()
    }

    /// What to write down elsewhere when the state of the last `exportState` is stored.
    #[wasm_bindgen(getter)]
    pub fn trace(&self) -> String {
        self.hub.state().trace().to_string()
    }

    /// The state that left this trace is stored and will be there after a crash.
    pub fn stored(&self, trace: &str) {
        self.hub.stored(trace);
    }

    /// How the loaded state stands to the trace that was found: `Standing` in `app/core.ts`.
    pub fn standing(&self, trace: Option<String>) -> String {
        self.hub.state().standing(trace.as_deref()).name().to_owned()
    }

    /// Connects.
    pub fn start(&self) {
        self.hub.start();
    }

    /// Ends all connections for good.
    pub fn stop(&self) {
        self.hub.stop();
    }

    /// The machines, as JSON.
    pub fn peers(&self) -> String {
        let state = self.hub.state();
        json(&state.machines.iter().map(Peer::from).collect::<Vec<_>>())
    }

    /// Sixty digits that are the same on the machine.
    #[wasm_bindgen(js_name = safetyNumber)]
    pub fn safety_number(&self, device: &str) -> Result<String, Error> {
        let device = parse_device(device)?;
        let state = self.hub.state();
        let machine = state.machine(&device).ok_or_else(unknown_machine)?;
        Ok(safety_number(state.identity.record(), &machine.record))
    }

    /// Calls a machine. The promise gets the body of the answer, which may be a refusal; it never fails for reasons of the network. What a machine says is
    /// checked to be an answer to this call.
    pub fn call(&self, device: &str, body: String) -> Result<Promise, Error> {
        let device = parse_device(device)?;
        let request = Request::parse(body.as_bytes()).map_err(|error| Error::new(&error.message))?;
        let check = answers::check_of(request.method()).map_err(|error| Error::new(&error.message))?;
        Ok(Promise::new(&mut |resolve, _| {
            self.hub.call(device, body.clone().into_bytes(), Reply::Body(check, resolve))
        }))
    }

    /// Takes a command for a machine, as the JSON of its request, to be begun within so many ms; gives its number. Those about one
    /// session go one after the other.
    pub fn command(&self, device: &str, session: Option<String>, request: &str, within: f64) -> Result<f64, Error> {
        let session = session.map(|id| Uuid::from_str(&id)).transpose();
        let session = session.map_err(|_| Error::new("that is not the id of a session"))?;
        let request = Request::parse(request.as_bytes()).map_err(|error| Error::new(&error.message))?;
        let number = self.hub.command(parse_device(device)?, session, request, within as u64);
        number.map(|number| number as f64).map_err(|error| Error::new(&error.to_string()))
    }

    /// Takes a command back; false when it was sent already.
    #[wasm_bindgen(js_name = cancelCommand)]
    pub fn cancel_command(&self, number: f64) -> bool {
        self.hub.cancel_command(number as u64)
    }

    /// Takes a command that has ended off the list.
    #[wasm_bindgen(js_name = dismissCommand)]
    pub fn dismiss_command(&self, number: f64) {
        self.hub.dismiss_command(number as u64);
    }

    /// The list of commands, as JSON.
    pub fn outbox(&self) -> String {
        json(&self.hub.outbox())
    }

    /// Shows a session. `changed` is called whenever there is something new to draw.
    #[wasm_bindgen(js_name = openTerminal)]
    #[allow(clippy::too_many_arguments, reason = "JavaScript has no names for arguments of a struct that crosses over")]
    pub fn open_terminal(
        &self,
        device: &str,
        session: &str,
        name: String,
        cols: u16,
        rows: u16,
        control: bool,
        changed: Function,
    ) -> Result<Terminal, Error> {
        let session = Uuid::from_str(session).map_err(|_| Error::new("that is not the id of a session"))?;
        let viewer = ViewerConfig { name, size: (cols, rows), control };
        Ok(Terminal::open(&self.hub, parse_device(device)?, session, viewer, changed))
    }

    /// Pairs by an invitation's link; events tell how it goes.
    pub fn pair(&self, link: &str, name: String) -> Result<(), Error> {
        let (origin, invitation) = Invitation::parse_link(link).map_err(|error| Error::new(&error.to_string()))?;
        self.hub.pair(origin, invitation, name);
        Ok(())
    }

    /// Ends a pairing that is under way.
    #[wasm_bindgen(js_name = cancelPairing)]
    pub fn cancel_pairing(&self) {
        self.hub.end_pairing();
    }

    /// Forgets a machine on this device.
    pub fn forget(&self, device: &str) -> Result<(), Error> {
        self.hub.forget(parse_device(device)?);
        Ok(())
    }

    /// Whether someone is looking.
    #[wasm_bindgen(js_name = setActive)]
    pub fn set_active(&self, active: bool) {
        self.hub.set_active(active);
    }

    /// The page woke up, or the network is back.
    pub fn wake(&self) {
        self.hub.wake();
    }
}

/// What an invitation's link says, as JSON.
#[wasm_bindgen(js_name = readInvitation)]
pub fn read_invitation(link: &str) -> Result<String, Error> {
    let (origin, invitation) = Invitation::parse_link(link).map_err(|error| Error::new(&error.to_string()))?;
    Ok(json(&InvitationView::new(&origin, &invitation)))
}

fn parse_device(text: &str) -> Result<DeviceId, Error> {
    DeviceId::from_str(text).map_err(|_| Error::new("that is not the id of a device"))
}

fn unknown_machine() -> Error {
    Error::new("this device is not paired with that machine")
}

/// Plain data with string keys: writing it cannot fail.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Calls a function of JavaScript. What it throws is its own affair and stands in the console.
fn call_js(function: &Function, argument: &JsValue) {
    function.call1(&JsValue::UNDEFINED, argument).ok();
}
