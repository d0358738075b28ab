//! What this device remembers from one page to the next: who it is, which machines it is paired with and what it shares
//! with each, and how far its counters have come.
//!
//! The bytes hold the secret identity. JavaScript seals them with a key that cannot be exported and stores them
//! (PROTOCOL 14); here they are only made and read.
//!
//! | field | type |
//! |---|---|
//! | version | u8 = 4 |
//! | identity | \[64] |
//! | epoch | u64 |
//! | generation: how many states were made to be stored | u64, not in version 1 |
//! | statements (PROTOCOL 11), as `Membership` stores them | u32 length, bytes |
//! | machines: count | u16 |
//! | each: identity record, role of this device there u8, name, keys, Unix seconds, relays | \[129], u8, str8, bytes16, u64, u8 and str8 each |
//! | list of commands (PROTOCOL 10.2), as `Outbox` stores it | u32 length, bytes; since version 3 |
//! | with what the records of machines are opened, as `Records` stores it | since version 4 |
//!
//! The keys of a machine are `bundle bytes16 ‖ current pair secret [40] ‖ the one before [40] or nothing`. In version 1 they
//! were a bundle and no more. Keys that cannot be read are kept as they are: they open no link, but the machine stays on the
//! list, and a person is told to pair it again.

mod records;
mod trace;

use std::collections::VecDeque;

use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, Identity, IdentityRecord};
use happy_link::PairSecrets;
use happy_pairing::{Membership, Origin, PairedPeer, Role};
use happy_rpc::{Mark, Outbox};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

pub use records::{Opened, Records};
pub use trace::{Standing, Trace};

const VERSION: u8 = 4;
/// Before records of machines were read from relays.
const VERSION_3: u8 = 3;
/// Before there was a list of commands.
const VERSION_2: u8 = 2;
/// Before there were pair secrets, and traces.
const VERSION_1: u8 = 1;
/// Nobody pairs a phone with more machines; a link to each costs memory.
pub const MAX_MACHINES: usize = 256;
/// Origins of one machine.
const MAX_RELAYS: usize = 16;
/// The distance between the epochs of two pages: more logins than one makes.
const PAGE_EPOCHS: u64 = 1 << 20;
/// The same for two connections of one page; each counts its own logins from there.
const CONNECTION_EPOCHS: u64 = 1 << 10;

/// A machine that this device is paired with.
#[derive(Clone)]
pub struct Machine {
    /// Who it is.
    pub record: IdentityRecord,
    /// With what a link to it begins.
    pub keys: Keys,
    /// What it is called.
    pub name: String,
    /// What this device is to it.
    pub my_role: Role,
    /// Where it can be reached.
    pub relays: Vec<Origin>,
    /// Unix seconds.
    pub paired_at: u64,
    unstored: Option<Unstored>,
}

/// Pair secrets that a handshake left and that are not known to be stored: every state that is written has them, and no link
/// begins with them, since they may be gone with this page.
#[derive(Clone)]
struct Unstored {
    /// The session id of that handshake.
    session: [u8; 16],
    /// The first generation of the state that has them, once it was made.
    generation: Option<u64>,
    secrets: PairSecrets,
}

/// What a link to a machine begins with.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum Keys {
    /// A link can begin.
    Ready {
        /// The newest bundle of the machine.
        bundle: Bundle,
        /// What is stored of what handshakes with it left.
        secrets: PairSecrets,
    },
    /// Another version of the app left these bytes. They are kept, and the machine has to be paired again.
    Outdated(Zeroizing<Vec<u8>>),
}

/// States that were written and are not known to be stored. They are written one after the other.
const MAX_MARKS: usize = 64;
/// `PROTOCOL 10.2`: what a life may be made of. Sixty-four characters, so that each takes six random bits.
const LIFE_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A new name for a list of commands: more than 16 random bytes, as their base64url.
fn outbox_life(rng: &mut impl CryptoRng) -> String {
    let mut random = [0; 22];
    rng.fill_bytes(&mut random);
    random.iter().map(|byte| char::from(LIFE_LETTERS[usize::from(byte % 64)])).collect()
}

/// Everything that survives.
pub struct State {
    /// The keys of this device.
    pub identity: Identity,
    /// Statements of this device, and of others about it.
    pub log: Membership,
    /// In the order of pairing.
    pub machines: Vec<Machine>,
    /// What the person has asked of them.
    pub outbox: Outbox,
    /// With what the records of machines are opened.
    pub records: Records,
    /// How far the outbox reached in each generation that is not known to be stored, the oldest first.
    marks: VecDeque<(u64, Mark)>,
    epoch: u64,
    generation: u64,
}

/// The stored state cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A later version of the app wrote it.
    #[error("the state in this browser was written by a newer version of this app; reload the page")]
    Newer,
    /// It is cut or changed.
    #[error("the state in this browser is damaged")]
    Damaged,
}

/// A pairing cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// There are too many.
    #[error("this device is paired with {MAX_MACHINES} machines; forget one first")]
    Full,
    /// The other side did not do what its side of a pairing has to.
    #[error("the machine did not say how to reach it again")]
    Incomplete,
    /// The statements do not fit to what was said before.
    #[error("the statements of this pairing do not follow those before")]
    Statements,
}

impl State {
    /// A device that nobody knows yet.
    pub fn new(rng: &mut impl CryptoRng) -> Self {
        let identity = Identity::generate(rng);
        let log = Membership::new(identity.device_id());
        let outbox = Outbox::new(outbox_life(rng));
        let (machines, records, marks) = (Vec::new(), Records::default(), VecDeque::new());
        Self { identity, log, machines, outbox, records, marks, epoch: 0, generation: 0 }
    }

    /// Keeps a machine that was just paired, in place of what was known of it before. The relay where they met comes
    /// first: it is known to be reachable from here.
    ///
    /// # Errors
    /// [`KeepError`]; the state is unchanged.
    pub fn keep(&mut self, peer: PairedPeer, met_at: &Origin) -> Result<DeviceId, KeepError> {
        let device = peer.identity.device_id();
        let bundle = peer.bundle.ok_or(KeepError::Incomplete)?;
        let at = self.machines.iter().position(|machine| machine.record.device_id() == device);
        if at.is_none() && self.machines.len() >= MAX_MACHINES {
            return Err(KeepError::Full);
        }
        let mut relays = vec![met_at.clone()];
        relays.extend(peer.relays.into_iter().filter(|relay| relay != met_at).take(MAX_RELAYS - 1));
        let mut log = self.log.clone();
        let paired_at = peer.mine.at_unix();
        log.append(peer.mine).map_err(|_| KeepError::Statements)?;
        // Their word is kept as a record. A machine that lost its log counts from one again, which is no reason not to pair.
        log.append(peer.theirs).ok();
        self.log = log;
        // The machine may not have stored it; until it shows that it has, what was shared before may still count.
        let previous = match at.and_then(|at| self.machines.get(at)).map(|known| &known.keys) {
            Some(Keys::Ready { secrets, .. }) => Some(secrets.current.clone()),
            _ => None,
        };
        let keys = Keys::Ready { bundle, secrets: PairSecrets { current: peer.secret, previous } };
        let machine = Machine {
            record: peer.identity,
            keys,
            name: peer.name,
            my_role: peer.my_role,
            relays,
            paired_at,
            unstored: None,
        };
        match at.and_then(|at| self.machines.get_mut(at)) {
            Some(known) => *known = machine,
            None => self.machines.push(machine),
        }
        Ok(device)
    }

    /// Forgets a machine here. No statement is made: a Remove is final, and the person may pair again (PROTOCOL 11).
    pub fn forget(&mut self, device: &DeviceId) {
        self.machines.retain(|machine| machine.record.device_id() != *device);
        self.outbox.forget(&device.to_string());
        self.records.forget(device);
    }

    /// A machine by its id.
    pub fn machine(&self, device: &DeviceId) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.record.device_id() == *device)
    }

    /// The handshake of `session` left new pair secrets: the next generation has them, and they count once it is stored
    /// ([`Self::stored`]). False when there is nothing that they could take the place of.
    pub fn set_secrets(&mut self, device: &DeviceId, session: [u8; 16], secrets: PairSecrets) -> bool {
        let Some(machine) = self.machine_mut(device) else { return false };
        let can = matches!(machine.keys, Keys::Ready { .. });
        if can {
            machine.unstored = Some(Unstored { session, generation: None, secrets });
        }
        can
    }

    /// The state of this generation is stored. Gives the machines and sessions whose pair secrets count from now on.
    pub fn stored(&mut self, generation: u64) -> Vec<(DeviceId, [u8; 16])> {
        while let Some((_, mark)) = self.marks.pop_front_if(|(of, _)| *of <= generation) {
            self.outbox.stored(mark);
        }
        let is_stored = |new: &mut Unstored| new.generation.is_some_and(|since| since <= generation);
        let now_stored = |machine: &mut Machine| {
            let new = machine.unstored.take_if(is_stored)?;
            if let Keys::Ready { secrets, .. } = &mut machine.keys {
                *secrets = new.secrets;
            }
            Some((machine.record.device_id(), new.session))
        };
        self.machines.iter_mut().filter_map(now_stored).collect()
    }

    /// A machine has a new bundle. False when there is nothing that it could take the place of.
    pub fn set_bundle(&mut self, device: &DeviceId, new: Bundle) -> bool {
        let Some(Keys::Ready { bundle, .. }) = self.machine_mut(device).map(|it| &mut it.keys) else { return false };
        *bundle = new;
        true
    }

    fn machine_mut(&mut self, device: &DeviceId) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.record.device_id() == *device)
    }

    /// A page begins: its epochs lie above all that were used, even if the clock went back (PROTOCOL 7). Store the state
    /// before the first connection.
    pub fn begin_page(&mut self, rng: &mut impl CryptoRng, unix_ms: u64) {
        self.renew_outbox(rng, unix_ms);
        self.epoch = self.epoch.saturating_add(PAGE_EPOCHS).max(unix_ms);
    }

    /// Gives the list of commands a new name if the old one belongs to others: this device was restored from an old copy.
    pub fn renew_outbox(&mut self, rng: &mut impl CryptoRng, unix_ms: u64) {
        if self.outbox.is_reused() {
            self.outbox.begin_anew(outbox_life(rng), unix_ms);
        }
    }

    /// The first epoch of a new connection of this page.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch = self.epoch.saturating_add(CONNECTION_EPOCHS);
        self.epoch
    }

    /// The bytes to seal and store in the place of all that were made before.
    pub fn next_generation(&mut self) -> Zeroizing<Vec<u8>> {
        self.generation = self.generation.saturating_add(1);
        for unstored in self.machines.iter_mut().filter_map(|machine| machine.unstored.as_mut()) {
            unstored.generation.get_or_insert(self.generation);
        }
        if self.marks.len() >= MAX_MARKS {
            // Nothing is stored any more; then it does not matter which of these was not.
            self.marks.pop_front();
        }
        self.marks.push_back((self.generation, self.outbox.mark()));
        self.encode()
    }

    /// What to write down elsewhere as soon as the bytes of the last [`Self::next_generation`] are stored.
    pub fn trace(&self) -> Trace {
        Trace { device: self.identity.device_id(), generation: self.generation }
    }

    /// Whether this state is the one that left that trace.
    pub fn standing(&self, trace: Option<&str>) -> Standing {
        trace::compare(&self.trace(), trace)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (log, outbox) = (self.log.encode(), Zeroizing::new(self.outbox.to_bytes()));
        let records = self.records.encode();
        // Reserved at once: a buffer that grows leaves copies of the secret behind.
        let room = 128 + log.len() + outbox.len() + self.machines.len() * 8192 + records.len();
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        out.push(VERSION);
        out.extend_from_slice(&*self.identity.to_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&u32::try_from(log.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&log);
        out.extend_from_slice(&u16::try_from(self.machines.len()).unwrap_or(u16::MAX).to_be_bytes());
        for machine in &self.machines {
            out.extend_from_slice(machine.record.as_bytes());
            out.push(machine.my_role.into());
            put_str8(&mut out, &machine.name);
            put_bytes16(&mut out, &machine.keys.encode(machine.unstored.as_ref().map(|it| &it.secrets)));
            out.extend_from_slice(&machine.paired_at.to_be_bytes());
            out.push(u8::try_from(machine.relays.len()).unwrap_or(u8::MAX));
            machine.relays.iter().for_each(|relay| put_str8(&mut out, relay.as_str()));
        }
        out.extend_from_slice(&u32::try_from(outbox.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&outbox);
        out.extend_from_slice(&records);
        out
    }

    /// Reads what [`Self::next_generation`] or an earlier version of the app wrote.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes.first() {
            Some(&version @ VERSION_1..=VERSION) => {
                Self::read(version, bytes.get(1..).unwrap_or_default()).ok_or(StateError::Damaged)
            }
            Some(&version) if version > VERSION => Err(StateError::Newer),
            _ => Err(StateError::Damaged),
        }
    }

    fn read(version: u8, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let identity = Identity::from_bytes(reader.array()?);
        let epoch = reader.u64()?;
        let generation = if version == VERSION_1 { 0 } else { reader.u64()? };
        let length = u32::from_be_bytes(*reader.array()?);
        let log = Membership::decode(identity.device_id(), reader.take(usize::try_from(length).ok()?)?).ok()?;
        let count = usize::from(u16::from_be_bytes(*reader.array()?));
        if count > MAX_MACHINES {
            return None;
        }
        let machines = (0..count).map(|_| reader.machine()).collect::<Option<Vec<_>>>()?;
        let outbox = match version {
            // It gets a name when the page begins.
            VERSION_1 | VERSION_2 => Outbox::nameless(),
            _ => {
                let length = u32::from_be_bytes(*reader.array()?);
                Outbox::from_bytes(reader.take(usize::try_from(length).ok()?)?).ok()?
            }
        };
        let records = match version {
            VERSION_1 | VERSION_2 | VERSION_3 => Records::default(),
            _ => Records::read(&mut reader)?,
        };
        let marks = VecDeque::new();
        reader.0.is_empty().then_some(Self { identity, log, machines, outbox, records, marks, epoch, generation })
    }
}

impl Keys {
    fn encode(&self, unstored: Option<&PairSecrets>) -> Zeroizing<Vec<u8>> {
        let (bundle, secrets) = match self {
            Self::Ready { bundle, secrets } => (bundle, unstored.unwrap_or(secrets)),
            Self::Outdated(bytes) => return bytes.clone(),
        };
        let mut out = Zeroizing::new(Vec::with_capacity(2 + Bundle::LEN + 2 * PairSecret::STORED_LEN));
        put_bytes16(&mut out, bundle.as_bytes());
        out.extend_from_slice(&*secrets.current.to_bytes());
        if let Some(previous) = &secrets.previous {
            out.extend_from_slice(&*previous.to_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or_else(|| Self::Outdated(Zeroizing::new(bytes.to_vec())))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let bundle = Bundle::decode(reader.bytes16()?).ok()?;
        let current = PairSecret::from_bytes(reader.take(PairSecret::STORED_LEN)?).ok()?;
        let previous = match reader.0 {
            [] => None,
            rest => Some(PairSecret::from_bytes(rest).ok()?),
        };
        Some(Self::Ready { bundle, secrets: PairSecrets { current, previous } })
    }
}

fn put_bytes16(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_str8(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(text.len().min(u8::MAX.into()));
    let text = text.get(..end).unwrap_or_default();
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn str8(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        str::from_utf8(self.take(length.into())?).ok()
    }

    fn bytes16(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(*self.array()?);
        self.take(length.into())
    }

    fn machine(&mut self) -> Option<Machine> {
        let record = IdentityRecord::decode(self.take(IdentityRecord::LEN)?).ok()?;
        let my_role = Role::try_from(self.u8()?).ok()?;
        let name = self.str8()?.to_owned();
        let keys = Keys::decode(self.bytes16()?);
        let paired_at = self.u64()?;
        let count = self.u8()?;
        let relays = (0..count).map(|_| Origin::parse(self.str8()?).ok()).collect::<Option<Vec<_>>>()?;
        Some(Machine { record, keys, name, my_role, relays, paired_at, unstored: None })
    }
}

#[cfg(test)]
mod tests {
    use happy_crypto::{SUITE, SignedPrekey};
    use happy_pairing::{Change, NextStatement, Statement};
    use happy_wire::record::RecordKey;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn paired(rng: &mut ChaCha20Rng, state: &State, machine: &Identity, at: u64) -> PairedPeer {
        let prekey = SignedPrekey::generate(rng, machine, 1, 1);
        let add = |subject: &Identity, role| Change::Add {
            subject: subject.record().clone(),
            role,
            name: "workshop".to_owned(),
            session: [7; 16],
        };
        PairedPeer {
            identity: machine.record().clone(),
            name: "workshop".to_owned(),
            role: Role::Machine,
            my_role: Role::Owner,
            bundle: Some(Bundle::new(machine, &prekey, None)),
            relays: vec![Origin::parse("https://other.example").unwrap(), relay()],
            secret: secret(1),
            theirs: Statement::sign(
                machine,
                &NextStatement { number: at, previous: [1; 32] },
                at,
                add(&state.identity, Role::Owner),
            ),
            mine: Statement::sign(&state.identity, &state.log.next(), at, add(machine, Role::Machine)),
        }
    }

    fn secret(number: u64) -> PairSecret {
        PairSecret::from_bytes(&[&number.to_be_bytes()[..], &[7; 32]].concat()).unwrap()
    }

    /// The numbers of the secrets that are shared with a machine.
    fn numbers(state: &State, device: &DeviceId) -> (u64, Option<u64>) {
        let Keys::Ready { secrets, .. } = &state.machine(device).unwrap().keys else { panic!("outdated") };
        (secrets.current.number(), secrets.previous.as_ref().map(PairSecret::number))
    }

    fn bundle(rng: &mut ChaCha20Rng, machine: &Identity, id: u32) -> Bundle {
        Bundle::new(machine, &SignedPrekey::generate(rng, machine, id, u64::from(id)), None)
    }

    fn relay() -> Origin {
        Origin::parse("https://relay.example").unwrap()
    }

    fn world() -> (ChaCha20Rng, State, Identity) {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let state = State::new(&mut rng);
        let machine = Identity::generate(&mut rng);
        (rng, state, machine)
    }

    #[test]
    fn what_was_kept_comes_back() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        state.begin_page(&mut rng, 1_000);
        let epoch = state.next_epoch();
        let mut again = State::decode(&state.encode()).unwrap();
        assert_eq!(again.identity.device_id(), state.identity.device_id());
        let found = again.machine(&device).unwrap();
        assert_eq!((found.name.as_str(), found.my_role, found.paired_at), ("workshop", Role::Owner, 5));
        assert_eq!(found.relays, [relay(), Origin::parse("https://other.example").unwrap()]);
        assert_eq!(*found.keys.encode(None), *state.machines[0].keys.encode(None));
        assert_eq!(numbers(&again, &device), (1, None));
        again.begin_page(&mut rng, 0);
        assert!(again.next_epoch() > epoch, "the clock went back, the epoch must not");
    }

    #[test]
    fn new_secrets_and_a_new_bundle_take_the_place_of_the_old_ones() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        let newer = bundle(&mut rng, &machine, 2);
        assert!(state.set_secrets(&device, [1; 16], PairSecrets { current: secret(3), previous: Some(secret(2)) }));
        assert!(state.set_bundle(&device, newer.clone()));
        let state = State::decode(&state.encode()).unwrap();
        assert_eq!(numbers(&state, &device), (3, Some(2)));
        let Keys::Ready { bundle, .. } = &state.machine(&device).unwrap().keys else { panic!("outdated") };
        assert_eq!(bundle.as_bytes(), newer.as_bytes());
    }

    #[test]
    fn secrets_that_are_not_stored_are_written_and_not_used() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        let handshake = |number| PairSecrets { current: secret(number), previous: Some(secret(number - 1)) };
        let before = state.trace().generation;
        assert!(state.set_secrets(&device, [2; 16], handshake(2)));
        let written = State::decode(&state.next_generation()).unwrap();
        assert_eq!(numbers(&written, &device), (2, Some(1)));
        assert_eq!(numbers(&state, &device), (1, None), "the write may fail");
        assert_eq!(state.stored(before), [], "an older state was stored, which does not have them");
        assert_eq!(numbers(&state, &device), (1, None));
        // A later one comes before the first is stored.
        let first = state.trace().generation;
        assert!(state.set_secrets(&device, [3; 16], handshake(3)));
        assert_eq!(state.stored(first), []);
        let written = State::decode(&state.next_generation()).unwrap();
        assert_eq!(numbers(&written, &device), (3, Some(2)));
        assert_eq!(state.stored(state.trace().generation), [(device, [3; 16])]);
        assert_eq!(numbers(&state, &device), (3, Some(2)));
        assert_eq!(state.stored(state.trace().generation), [], "it is told once");
    }

    #[test]
    fn a_machine_that_is_not_known_gets_no_keys() {
        let (mut rng, mut state, machine) = world();
        let stranger = bundle(&mut rng, &machine, 2);
        assert!(!state.set_secrets(&machine.device_id(), [1; 16], PairSecrets { current: secret(3), previous: None }));
        assert!(!state.set_bundle(&machine.device_id(), stranger));
        assert!(state.machines.is_empty());
    }

    /// The bytes as version 3 wrote them: no keys of records.
    fn version_3(state: &State) -> Vec<u8> {
        let bytes = state.encode();
        [&[VERSION_3], &bytes[1..bytes.len() - state.records.encode().len()]].concat()
    }

    /// The bytes as version 2 wrote them: no list of commands.
    fn version_2(state: &State) -> Vec<u8> {
        let bytes = version_3(state);
        let list = 4 + state.outbox.to_bytes().len();
        [&[VERSION_2], &bytes[1..bytes.len() - list]].concat()
    }

    /// The bytes as version 1 wrote them: no generation, and a bundle of the first suite in the place of the keys.
    fn version_1(state: &State, keys: &[u8]) -> Vec<u8> {
        let mut state = State::decode(&state.encode()).unwrap();
        state.machines[0].keys = Keys::Outdated(Zeroizing::new(keys.to_vec()));
        let bytes = version_2(&state);
        let (head, rest) = bytes.split_at(1 + 64 + 8);
        [&[VERSION_1], &head[1..], &rest[8..]].concat()
    }

    #[test]
    fn a_state_of_version_2_opens_and_has_a_list_of_commands_from_then_on() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        let mut opened = State::decode(&version_2(&state)).unwrap();
        assert_eq!(numbers(&opened, &device), (1, None));
        assert!(opened.outbox.is_reused(), "it has no name yet");
        opened.begin_page(&mut rng, 0);
        assert!(!opened.outbox.is_reused());
    }

    #[test]
    fn a_state_of_version_3_opens_and_gets_keys_of_records_from_then_on() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        let mut opened = State::decode(&version_3(&state)).unwrap();
        let key = || RecordKey { generation: 1, secret: [7; 32] };
        assert!(opened.records.told(device, key(), [1, 2]));
        let mut again = State::decode(&opened.encode()).unwrap();
        assert!(!again.records.told(device, key(), [1, 2]), "it was stored");
        again.forget(&device);
        assert!(again.records.told(device, key(), [1, 2]), "it was forgotten");
    }

    #[test]
    fn a_command_is_sent_when_the_state_that_has_it_is_stored() {
        let (mut rng, mut state, machine) = world();
        let name = machine.device_id().to_string();
        let peer = paired(&mut rng, &state, &machine, 5);
        state.keep(peer, &relay()).unwrap();
        state.next_generation();
        let before = state.trace().generation;
        state.outbox.add(0, &name, None, happy_rpc::SessionCreate::default().into(), 1000).unwrap();
        state.outbox.claim(&name);
        let written = state.next_generation();
        state.stored(before);
        assert_eq!(state.outbox.next(&name, 0, 0), None);
        state.stored(state.trace().generation);
        let (number, body) = state.outbox.next(&name, 0, 0).unwrap();
        // Another page asks for the same.
        let mut again = State::decode(&written).unwrap();
        again.begin_page(&mut rng, 0);
        assert_eq!(again.outbox.next(&name, 0, 0), Some((number, body)));
        again.forget(&machine.device_id());
        assert_eq!(again.outbox.entries(), []);
    }

    #[test]
    fn a_state_of_version_1_opens_and_its_machines_have_to_be_paired_again() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        let mut old_bundle = bundle(&mut rng, &machine, 1).as_bytes().to_vec();
        old_bundle[1] = SUITE - 1;
        let mut opened = State::decode(&version_1(&state, &old_bundle)).unwrap();
        assert_eq!(opened.identity.device_id(), state.identity.device_id());
        assert_eq!(opened.standing(None), Standing::Sound, "that version left no trace");
        for _ in 0..2 {
            let found = opened.machine(&device).unwrap();
            assert_eq!((found.name.as_str(), found.my_role, found.paired_at), ("workshop", Role::Owner, 5));
            assert!(matches!(&found.keys, Keys::Outdated(bytes) if **bytes == old_bundle), "nothing is deleted");
            opened = State::decode(&opened.next_generation()).unwrap();
        }
        assert!(!opened.set_secrets(&device, [1; 16], PairSecrets { current: secret(3), previous: None }));
        let peer = paired(&mut rng, &opened, &machine, 6);
        opened.keep(peer, &relay()).unwrap();
        assert_eq!(numbers(&opened, &device), (1, None), "pairing again is the way back");
    }

    #[test]
    fn a_readable_bundle_without_secrets_opens_no_link() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        let device = state.keep(peer, &relay()).unwrap();
        let readable = bundle(&mut rng, &machine, 1);
        let opened = State::decode(&version_1(&state, readable.as_bytes())).unwrap();
        assert!(matches!(opened.machine(&device).unwrap().keys, Keys::Outdated(_)));
    }

    #[test]
    fn each_stored_state_has_a_generation_of_its_own() {
        let (_, mut state, _) = world();
        let first = state.next_generation();
        let left = state.trace().to_string();
        state.next_generation();
        let newer = state.trace().to_string();
        let again = State::decode(&first).unwrap();
        assert_eq!(again.standing(Some(&left)), Standing::Sound);
        assert_eq!(again.standing(Some(&newer)), Standing::Older);
        assert_eq!(state.standing(Some(&left)), Standing::Sound, "the trace is written after the state");
    }

    #[test]
    fn pairing_again_replaces_and_forgetting_leaves_room_for_it() {
        let (mut rng, mut state, machine) = world();
        for at in [5, 6] {
            let peer = paired(&mut rng, &state, &machine, at);
            state.keep(peer, &relay()).unwrap();
        }
        assert_eq!(state.machines.len(), 1);
        state.forget(&machine.device_id());
        assert!(state.machines.is_empty());
        let peer = paired(&mut rng, &state, &machine, 7);
        state.keep(peer, &relay()).unwrap();
        assert_eq!(state.machines.len(), 1);
    }

    #[test]
    fn a_pairing_that_cannot_be_kept_changes_nothing() {
        let (mut rng, mut state, machine) = world();
        let before = state.encode();
        let mut peer = paired(&mut rng, &state, &machine, 5);
        peer.bundle = None;
        assert_eq!(state.keep(peer, &relay()).unwrap_err(), KeepError::Incomplete);
        let mut peer = paired(&mut rng, &state, &machine, 5);
        peer.mine = Statement::sign(
            &state.identity,
            &NextStatement { number: 9, previous: [0; 32] },
            5,
            peer.mine.change().clone(),
        );
        assert_eq!(state.keep(peer, &relay()).unwrap_err(), KeepError::Statements);
        assert_eq!(*state.encode(), *before);
    }

    #[test]
    fn cut_and_later_states_are_refused() {
        let (mut rng, mut state, machine) = world();
        let peer = paired(&mut rng, &state, &machine, 5);
        state.keep(peer, &relay()).unwrap();
        let bytes = state.encode();
        for length in 0..bytes.len() {
            assert_eq!(State::decode(&bytes[..length]).err(), Some(StateError::Damaged), "{length}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(State::decode(&longer).err(), Some(StateError::Damaged));
        longer[0] = VERSION + 1;
        assert_eq!(State::decode(&longer).err(), Some(StateError::Newer));
    }
}
