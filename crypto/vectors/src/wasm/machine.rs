//! A machine for the phone of `examples/core.rs` to talk to. Only the phone's module is measured.

use std::sync::Mutex;

use happy_crypto::{
    Bundle, Identity, OneTimePrekey, SignedPrekey,
    handshake::{Established, HelloView, InvitationKey, PairSecret, Refused, Responder, Shared},
    labelled_key,
};

use super::exchange::{Exchange, Given};

static EXCHANGE: Mutex<Exchange> = Mutex::new(Exchange::new());
static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

struct Machine {
    identity: Identity,
    signed: SignedPrekey,
    one_time: OneTimePrekey,
    responder: Option<Responder>,
    established: Option<Established>,
    secret: Option<PairSecret>,
}

/// Where to put the argument of a call and to find its result.
#[unsafe(no_mangle)]
extern "C" fn machine_bytes() -> usize {
    EXCHANGE.lock().map_or(0, |exchange| exchange.address())
}

/// Does one thing; the length of its result, or -1 when it was refused.
#[unsafe(no_mangle)]
extern "C" fn machine_call(what: u32, length: usize) -> isize {
    let (Ok(mut exchange), Ok(mut machine)) = (EXCHANGE.lock(), MACHINE.lock()) else { return -1 };
    exchange.call(length, |argument, rng| machine.get_or_insert_with(|| Machine::new(rng)).call(what, argument, rng))
}

impl Machine {
    fn new(rng: &mut Given<'_>) -> Self {
        let identity = Identity::generate(rng);
        let signed = SignedPrekey::generate(rng, &identity, 1, 1_700_000_000);
        let one_time = OneTimePrekey::generate(rng, 2);
        Self { identity, signed, one_time, responder: None, established: None, secret: None }
    }

    fn bundle(&self) -> Bundle {
        Bundle::new(&self.identity, &self.signed, self.secret.is_none().then_some(&self.one_time))
    }

    fn call(&mut self, what: u32, argument: &[u8], rng: &mut Given<'_>) -> Option<Vec<u8>> {
        Some(match what {
            0 => self.identity.record().as_bytes().to_vec(),
            1 => self.bundle().as_bytes().to_vec(),
            2 => {
                HelloView::parse(argument).ok()?;
                let key = InvitationKey::new(labelled_key(&self.bundle().hash(), "happy/1 invitation key"));
                let (shared, one_time) = match &self.secret {
                    None => (Shared::Invitation(&key), Some(&self.one_time)),
                    Some(secret) => (Shared::Pair(secret), None),
                };
                let life = ([2; 16], 0);
                let answer = Responder::answer(rng, &self.identity, &self.signed, one_time, argument, life, shared);
                let (responder, welcome) = answer.ok()?;
                self.responder = Some(responder);
                welcome
            }
            3 => {
                let established = self.responder.take()?.confirm(argument).ok()?;
                self.secret = Some(established.next_pair_secret());
                self.established = Some(established);
                Vec::new()
            }
            4 => Refused::sign(&self.identity, Refused::BUSY, argument),
            5 => self.established.as_ref()?.confirmation_code().to_be_bytes().to_vec(),
            6 => {
                let mut message = Vec::new();
                self.established.as_mut()?.ratchet.encrypt(rng, argument, &mut message).ok()?;
                message
            }
            7 => {
                let mut opened = Vec::new();
                self.established.as_mut()?.ratchet.decrypt(argument, &mut opened).ok()?;
                opened
            }
            _ => return None,
        })
    }
}
