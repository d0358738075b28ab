//! What this device remembers from one page to the next: who it is, which machines it is paired with, and how far its
//! counters have come.
//!
//! The bytes hold the secret identity. JavaScript seals them with a key that cannot be exported and stores them
//! (PROTOCOL 14); here they are only made and read.
//!
//! | field | type |
//! |---|---|
//! | version | u8 = 1 |
//! | identity | \[64] |
//! | epoch | u64 |
//! | statements (PROTOCOL 11), as `Membership` stores them | u32 length, bytes |
//! | machines: count | u16 |
//! | each: identity record, role of this device there u8, name, bundle, Unix seconds, relays | \[129], u8, str8, bytes16, u64, u8 and str8 each |

use happy_crypto::{Bundle, DeviceId, Identity, IdentityRecord};
use happy_pairing::{Membership, Origin, PairedPeer, Role};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
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
    /// Its keys.
    pub record: IdentityRecord,
    /// With what a new session with it begins.
    pub bundle: Bundle,
    /// What it is called.
    pub name: String,
    /// What this device is to it.
    pub my_role: Role,
    /// Where it can be reached.
    pub relays: Vec<Origin>,
    /// Unix seconds.
    pub paired_at: u64,
}

/// Everything that survives.
pub struct State {
    /// The keys of this device.
    pub identity: Identity,
    /// Statements of this device, and of others about it.
    pub log: Membership,
    /// In the order of pairing.
    pub machines: Vec<Machine>,
    epoch: u64,
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
        Self { identity, log, machines: Vec::new(), epoch: 0 }
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
        let machine =
            Machine { record: peer.identity, bundle, name: peer.name, my_role: peer.my_role, relays, paired_at };
        match at.and_then(|at| self.machines.get_mut(at)) {
            Some(known) => *known = machine,
            None => self.machines.push(machine),
        }
        Ok(device)
    }

    /// Forgets a machine here. No statement is made: a Remove is final, and the person may pair again (PROTOCOL 11).
    pub fn forget(&mut self, device: &DeviceId) {
        self.machines.retain(|machine| machine.record.device_id() != *device);
    }

    /// A machine by its id.
    pub fn machine(&self, device: &DeviceId) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.record.device_id() == *device)
    }

    /// A page begins: its epochs lie above all that were used, even if the clock went back (PROTOCOL 7). Store the state
    /// before the first connection.
    pub fn begin_page(&mut self, unix_ms: u64) {
        self.epoch = self.epoch.saturating_add(PAGE_EPOCHS).max(unix_ms);
    }

    /// The first epoch of a new connection of this page.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch = self.epoch.saturating_add(CONNECTION_EPOCHS);
        self.epoch
    }

    /// The bytes to seal and store.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let log = self.log.encode();
        // Reserved at once: a buffer that grows leaves copies of the secret behind.
        let mut out = Zeroizing::new(Vec::with_capacity(128 + log.len() + self.machines.len() * 8192));
        out.push(VERSION);
        out.extend_from_slice(&*self.identity.to_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&u32::try_from(log.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&log);
        out.extend_from_slice(&u16::try_from(self.machines.len()).unwrap_or(u16::MAX).to_be_bytes());
        for machine in &self.machines {
            out.extend_from_slice(machine.record.as_bytes());
            out.push(machine.my_role.into());
            put_str8(&mut out, &machine.name);
            let bundle = machine.bundle.as_bytes();
            out.extend_from_slice(&u16::try_from(bundle.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(bundle);
            out.extend_from_slice(&machine.paired_at.to_be_bytes());
            out.push(u8::try_from(machine.relays.len()).unwrap_or(u8::MAX));
            machine.relays.iter().for_each(|relay| put_str8(&mut out, relay.as_str()));
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes.first() {
            Some(&VERSION) => Self::read(bytes.get(1..).unwrap_or_default()).ok_or(StateError::Damaged),
            Some(&version) if version > VERSION => Err(StateError::Newer),
            _ => Err(StateError::Damaged),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let identity = Identity::from_bytes(reader.array()?);
        let epoch = reader.u64()?;
        let length = u32::from_be_bytes(*reader.array()?);
        let log = Membership::decode(identity.device_id(), reader.take(usize::try_from(length).ok()?)?).ok()?;
        let count = usize::from(u16::from_be_bytes(*reader.array()?));
        if count > MAX_MACHINES {
            return None;
        }
        let machines = (0..count).map(|_| reader.machine()).collect::<Option<Vec<_>>>()?;
        reader.0.is_empty().then_some(Self { identity, log, machines, epoch })
    }
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

    fn machine(&mut self) -> Option<Machine> {
        let record = IdentityRecord::decode(self.take(IdentityRecord::LEN)?).ok()?;
        let my_role = Role::try_from(self.u8()?).ok()?;
        let name = self.str8()?.to_owned();
        let length = u16::from_be_bytes(*self.array()?);
        let bundle = Bundle::decode(self.take(length.into())?).ok()?;
        let paired_at = self.u64()?;
        let count = self.u8()?;
        let relays = (0..count).map(|_| Origin::parse(self.str8()?).ok()).collect::<Option<Vec<_>>>()?;
        Some(Machine { record, bundle, name, my_role, relays, paired_at })
    }
}

#[cfg(test)]
mod tests {
    use happy_crypto::SignedPrekey;
    use happy_pairing::{Change, NextStatement, Statement};
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
            theirs: Statement::sign(
                machine,
                &NextStatement { number: at, previous: [1; 32] },
                at,
                add(&state.identity, Role::Owner),
            ),
            mine: Statement::sign(&state.identity, &state.log.next(), at, add(machine, Role::Machine)),
        }
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
        state.begin_page(1_000);
        let epoch = state.next_epoch();
        let mut again = State::decode(&state.encode()).unwrap();
        assert_eq!(again.identity.device_id(), state.identity.device_id());
        let found = again.machine(&device).unwrap();
        assert_eq!((found.name.as_str(), found.my_role, found.paired_at), ("workshop", Role::Owner, 5));
        assert_eq!(found.relays, [relay(), Origin::parse("https://other.example").unwrap()]);
        assert_eq!(found.bundle.as_bytes(), state.machines[0].bundle.as_bytes());
        again.begin_page(0);
        assert!(again.next_epoch() > epoch, "the clock went back, the epoch must not");
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
        longer[0] = 2;
        assert_eq!(State::decode(&longer).err(), Some(StateError::Newer));
    }
}
