//! `happy_crypto` and the terminal engine, `happy_screen`, as one wasm module, to see what they cost a phone to load: functions that use all
//! that a phone uses of them and take their input from outside, so that nothing can be computed while compiling.

#![expect(unsafe_code, reason = "the names of the exports must be kept as they are")]

use std::convert::Infallible;
use std::error::Error;
use std::sync::Mutex;

use happy_crypto::{
    Bundle, Identity, IdentityRecord, OneTimePrekey, SignedPrekey,
    handshake::{HelloView, Initiator, InvitationKey, PairSecret, Refused, Responder, Shared},
    labelled_key, safety_number, seal,
};
use happy_screen::{DEFAULT_SCROLLBACK, Screen, keys};
use rand_core::{TryCryptoRng, TryRng};

/// More than is drawn by the one, and enough for a screen of text.
const RANDOMNESS: usize = 4_096;

static INPUT: Mutex<[u8; RANDOMNESS]> = Mutex::new([0; RANDOMNESS]);

/// Where to put random bytes.
#[unsafe(no_mangle)]
extern "C" fn happy_core_input() -> usize {
    INPUT.lock().map_or(0, |input| input.as_ptr() as usize)
}

/// How many of them.
#[unsafe(no_mangle)]
extern "C" fn happy_core_input_length() -> usize {
    RANDOMNESS
}

/// 1 when everything worked.
#[unsafe(no_mangle)]
extern "C" fn happy_core_run() -> u32 {
    INPUT.lock().is_ok_and(|input| matches!(run(&mut Given(&input[..])), Ok(true))).into()
}

/// What a program prints, and a snapshot, in place of the random bytes: 1 when the terminal shows something.
#[unsafe(no_mangle)]
extern "C" fn happy_core_screen(length: usize) -> u32 {
    INPUT.lock().is_ok_and(|input| input.get(..length).is_some_and(shows)).into()
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

struct Given<'a>(&'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (given, rest) = self.0.split_at(out.len());
        out.copy_from_slice(given);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

/// Everything that a phone and a machine do.
fn run(rng: &mut Given<'_>) -> Result<bool, Box<dyn Error>> {
    let (phone, machine) = (Identity::generate(rng), Identity::from_bytes(&Identity::generate(rng).to_bytes()));
    let signed = SignedPrekey::generate(rng, &machine, 1, 1_700_000_000);
    let signed = SignedPrekey::from_bytes(&machine, &*signed.to_bytes())?;
    let one_time = OneTimePrekey::generate(rng, 2);
    let bundle = Bundle::decode(Bundle::new(&machine, &signed, Some(&one_time)).as_bytes())?;
    let key = InvitationKey::new(labelled_key(&bundle.hash(), "happy/1 invitation key"));

    let mut secret: Option<PairSecret> = None;
    for _ in 0..2 {
        let (shared, one_time, bundle) = match &secret {
            None => (Shared::Invitation(&key), Some(&one_time), bundle.clone()),
            Some(secret) => (Shared::Pair(secret), None, bundle.without_one_time()),
        };
        let (initiator, hello) = Initiator::start(rng, &phone, &bundle, shared, [1; 16], b"")?;
        let refused = Refused::sign(&machine, Refused::BUSY, &hello);
        Refused::verify(&machine.device_id(), &initiator.hello_hash(), &refused)?;
        HelloView::parse(&hello)?;
        let (responder, welcome) = Responder::answer(rng, &machine, &signed, one_time, &hello, ([2; 16], 0), shared)?;
        let (mut at_phone, confirm) = initiator.welcome(rng, &welcome)?;
        let mut at_machine = responder.confirm(&confirm)?;
        if at_phone.confirmation_code() != at_machine.confirmation_code() {
            return Ok(false);
        }
        for _ in 0..2 {
            let (mut message, mut opened) = (Vec::new(), Vec::new());
            at_phone.ratchet.encrypt(rng, &hello, &mut message)?;
            at_machine.ratchet.decrypt(&message, &mut opened)?;
            at_machine.ratchet.encrypt(rng, &opened, &mut message)?;
            at_phone.ratchet.decrypt(&message[opened.len() + happy_crypto::Ratchet::OVERHEAD..], &mut opened)?;
        }
        at_phone.ratchet.expire(1);
        let stored = seal::seal(rng, &[7; 32], "pair secret", &*at_phone.next_pair_secret().to_bytes());
        secret = Some(PairSecret::from_bytes(&seal::open(&[7; 32], "pair secret", &stored)?)?);
    }
    let record = IdentityRecord::decode(phone.record().as_bytes())?;
    let id: happy_crypto::DeviceId = record.device_id().to_string().parse()?;
    Ok(id == phone.device_id() && safety_number(&record, machine.record()).len() == 71)
}
