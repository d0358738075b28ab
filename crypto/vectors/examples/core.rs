//! `happy_crypto` and the terminal engine, `happy_screen`, as one wasm module, to see what they cost a phone to load: all that a phone
//! uses of them, and nothing that only a machine does. What it works on comes from outside, so that nothing can be computed while
//! compiling; the machine that it talks to is another module, `src/machine.rs`, and `check.mjs` carries the bytes between them.

#![expect(unsafe_code, reason = "the names of the exports must be kept as they are")]

use std::sync::Mutex;

use happy_crypto::{
    Bundle, DeviceId, Identity, IdentityRecord,
    handshake::{Established, Initiator, InvitationKey, PairSecret, Refused, Shared},
    labelled_key, safety_number, seal,
};
use happy_screen::{DEFAULT_SCROLLBACK, Screen, keys};

#[path = "../src/wasm/exchange.rs"]
mod exchange;
use exchange::{Exchange, Given};

static EXCHANGE: Mutex<Exchange> = Mutex::new(Exchange::new());
static PHONE: Mutex<Phone> =
    Mutex::new(Phone { identity: None, bundle: None, initiator: None, established: None, secret: None });

/// Under this the pair secret lies in the browser's storage.
const STORAGE: (&[u8; 32], &str) = (&[7; 32], "pair secret");

struct Phone {
    identity: Option<Identity>,
    bundle: Option<Bundle>,
    initiator: Option<Initiator>,
    established: Option<Established>,
    secret: Option<PairSecret>,
}

/// Where to put the argument of a call and to find its result.
#[unsafe(no_mangle)]
extern "C" fn happy_core_bytes() -> usize {
    EXCHANGE.lock().map_or(0, |exchange| exchange.address())
}

/// Does one thing; the length of its result, or -1 when it was refused.
#[unsafe(no_mangle)]
extern "C" fn happy_core_call(what: u32, length: usize) -> isize {
    let (Ok(mut exchange), Ok(mut phone)) = (EXCHANGE.lock(), PHONE.lock()) else { return -1 };
    exchange.call(length, |argument, rng| phone.call(what, argument, rng))
}

/// What a program prints, and a snapshot, in place of an argument: 1 when the terminal shows something.
#[unsafe(no_mangle)]
extern "C" fn happy_core_screen(length: usize) -> u32 {
    let seen = |exchange: &mut Exchange| exchange.call(length, |printed, _| shows(printed).then(Vec::new)) >= 0;
    EXCHANGE.lock().is_ok_and(|mut exchange| seen(&mut exchange)).into()
}

impl Phone {
    fn call(&mut self, what: u32, argument: &[u8], rng: &mut Given<'_>) -> Option<Vec<u8>> {
        Some(match what {
            // Made, and read back as from storage.
            0 => {
                let identity = Identity::from_bytes(&Identity::generate(rng).to_bytes());
                let record = identity.record().as_bytes().to_vec();
                self.identity = Some(identity);
                record
            }
            // The bundle of a machine, for the first time or with what both know since.
            1 => {
                let bundle = Bundle::decode(argument).ok()?;
                let key = InvitationKey::new(labelled_key(&bundle.hash(), "happy/1 invitation key"));
                let shared = self.secret.as_ref().map_or(Shared::Invitation(&key), Shared::Pair);
                let me = self.identity.as_ref()?;
                let (initiator, hello) = Initiator::start(rng, me, &bundle, shared, [1; 16], b"").ok()?;
                (self.initiator, self.bundle) = (Some(initiator), Some(bundle));
                hello
            }
            2 => {
                let initiator = self.initiator.as_ref().filter(|initiator| initiator.matches_welcome(argument));
                let (established, confirm) = initiator?.welcome(rng, argument).ok()?;
                self.established = Some(established);
                confirm
            }
            3 => {
                let (initiator, bundle) = self.initiator.as_ref().zip(self.bundle.as_ref())?;
                vec![Refused::verify(&bundle.identity().device_id(), &initiator.hello_hash(), argument).ok()?]
            }
            4 => self.established()?.confirmation_code().to_be_bytes().to_vec(),
            5 => {
                let mut message = Vec::new();
                self.established()?.ratchet.encrypt(rng, argument, &mut message).ok()?;
                message
            }
            6 => {
                let mut opened = Vec::new();
                self.established()?.ratchet.decrypt(argument, &mut opened).ok()?;
                self.established()?.ratchet.expire(1);
                opened
            }
            // What the next handshake needs, sealed for storage, and back.
            7 => seal::seal(rng, STORAGE.0, STORAGE.1, &*self.established()?.next_pair_secret().to_bytes()),
            8 => {
                self.secret = Some(PairSecret::from_bytes(&seal::open(STORAGE.0, STORAGE.1, argument).ok()?).ok()?);
                Vec::new()
            }
            // The record of the other device, and its name as people type it.
            9 => {
                let me = self.identity.as_ref()?;
                safety_number(me.record(), &IdentityRecord::decode(argument).ok()?).into_bytes()
            }
            10 => std::str::from_utf8(argument).ok()?.parse::<DeviceId>().ok()?.to_string().into_bytes(),
            11 => self.identity.as_ref()?.sign("happy/1 relay login", argument).to_vec(),
            _ => return None,
        })
    }

    fn established(&mut self) -> Option<&mut Established> {
        self.established.as_mut()
    }
}

/// As a phone sees a session: a snapshot, what came since, and what is drawn and typed.
fn shows(bytes: &[u8]) -> bool {
    let (key, printed) = bytes.split_first().map_or((0, bytes), |(key, printed)| (*key, printed));
    let mut screen = Screen::new(80, 24, DEFAULT_SCROLLBACK);
    screen.feed(printed);
    // A snapshot comes from elsewhere; a phone only reads them.
    if let Ok(restored) = Screen::restore(printed, DEFAULT_SCROLLBACK) {
        screen = restored;
    }
    screen.resize(40 + u16::from(key), 30);
    let changes = screen.take_changes();
    let rows = changes.rows.iter().map(|row| screen.row(*row));
    let history = (0..screen.scrollback_len()).filter_map(|index| screen.scrollback_row(index));
    let drawn = rows.chain(history).map(|row| row.text().len() + row.runs.len()).sum::<usize>();
    let typed = keys::encode(screen.modes(), keys::Key::from(char::from(key)).ctrl());
    let pasted = keys::paste(screen.modes(), screen.title());
    let cursor = screen.cursor();
    drawn + typed.len() + pasted.len() + usize::from(cursor.col) + usize::from(cursor.row) > 0
}
