//! A device: what it has on its disk, its process, and the people who use it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::driver::tokio::{ByteStream, Config, Connect, Connecting, Handle, Trust, spawn_over};
use happy_link::driver::{RelayUrl, rng};
use happy_link::{Answer, ChannelName, Event, Login, PairSecrets, Peer, Side};
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use turmoil::net::TcpStream;

use crate::rough::{Rough, Scissors};
use crate::seeded::Dice;
use crate::world::{PORT, PROBE, Phase, RELAY, World, host};

/// Who waits for the driver's end hears of it within this time.
const TOLD_WITHIN: Duration = Duration::from_millis(100);
/// A driver that was told to end must have ended within this time: a little more than `shutdown` waits.
const ENDED_WITHIN: Duration = Duration::from_secs(8);

/// What survives the death of a process.
pub struct Disk {
    pub identity: Identity,
    prekeys: Vec<SignedPrekey>,
    /// Counts logins, and so the lives of the driver too.
    pub epoch: u64,
    peers: BTreeMap<DeviceId, Known>,
    /// The commands that have taken effect.
    pub commands: Vec<Vec<u8>>,
}

/// What is stored of a peer.
struct Known {
    identity: Identity,
    /// With the secrets' side, the one thing that changes.
    bundle: Option<Bundle>,
    secrets: PairSecrets,
}

impl Disk {
    /// The machine, and phones that were paired with it.
    pub fn cast(devices: usize) -> Vec<Disk> {
        let mut random = rng();
        let identities: Vec<_> = (0..devices).map(|_| Identity::generate(&mut random)).collect();
        let prekey = SignedPrekey::generate(&mut random, &identities[0], 1, 1_700_000_000);
        let bundle = Bundle::new(&identities[0], &prekey, None);
        let secrets = |phone: usize| {
            let secret = PairSecret::from_bytes(&[phone as u8; 40]).unwrap();
            PairSecrets { current: secret, previous: None }
        };
        let known = |of: usize, bundle, phone| {
            let identity: &Identity = &identities[of];
            (identity.device_id(), Known { identity: identity.clone(), bundle, secrets: secrets(phone) })
        };
        let disk = |me: usize| {
            let (prekeys, peers) = match me {
                0 => (vec![prekey.clone()], (1..devices).map(|phone| known(phone, None, phone)).collect()),
                _ => (vec![], [known(0, Some(bundle.clone()), me)].into()),
            };
            Disk { identity: identities[me].clone(), prekeys, epoch: 0, peers, commands: Vec::new() }
        };
        (0..devices).map(disk).collect()
    }

    pub fn device(&self) -> DeviceId {
        self.identity.device_id()
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |known: &Known| Peer {
            record: known.identity.record().clone(),
            side: known.bundle.clone().map_or(Side::Responder, Side::Initiator),
            secrets: known.secrets.clone(),
        };
        self.peers.values().map(peer).collect()
    }
}

/// Goes to the host `relay`, over connections that can be cut.
struct ToRelay {
    scissors: Arc<Scissors>,
    seed: u64,
}

impl Connect for ToRelay {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> Connecting<'a> {
        Box::pin(async move {
            let tcp = TcpStream::connect(("relay", PORT)).await?;
            let seed = self.seed ^ u64::from(tcp.local_addr()?.port());
            Ok(Box::new(Rough::new(tcp, self.scissors.clone(), Dice::new(seed))) as Box<dyn ByteStream>)
        })
    }
}

/// A channel as one side sees it.
pub struct Channel {
    pub name: ChannelName,
    pub label: String,
    pub sent: u64,
    pub received: u64,
    pub unconsumed: usize,
    /// This side has closed it; what was on its way to the owner by then is still seen.
    pub closed: bool,
}

/// What a driver has told, and what was asked of it.
#[derive(Default)]
pub struct Seen {
    pub me: usize,
    pub device: Option<DeviceId>,
    pub channels: BTreeMap<(DeviceId, u32), Channel>,
    pub up: BTreeMap<DeviceId, bool>,
    /// Sessions with each peer.
    pub sessions: BTreeMap<DeviceId, u64>,
    /// The last event of each stream, and the session it came in.
    pub notices: BTreeMap<Vec<u8>, (u64, u64)>,
    pub cancelled: u64,
    pub labels: u64,
}

/// One life of a driver and what is done with it.
pub struct App {
    pub world: Rc<World>,
    pub me: usize,
    /// Counts the lives of this device's drivers.
    pub life: u64,
    pub handle: Handle,
    pub seen: Rc<RefCell<Seen>>,
    pub peers: Vec<DeviceId>,
    /// The driver was told to end.
    pub ended: Cell<bool>,
    /// The longest that the owner takes for an event during the storm.
    pace: Duration,
    capacity: usize,
}

/// What the people want in the end.
pub enum Wish {
    /// The driver is shut down and started again, in the same process.
    StartAgain,
    /// The storm is over.
    Rest,
}

/// A process from its start to its end.
pub async fn live(world: Rc<World>, me: usize) -> turmoil::Result {
    loop {
        let (app, events) = App::start(&world, me)?;
        let owner = spawn_local(app.clone().own(events));
        let wish = app.people().await;
        if let Wish::Rest = wish {
            let mut phase = world.phase.subscribe();
            phase.wait_for(|phase| *phase == Phase::Probe).await?;
            app.probe().await;
            phase.wait_for(|phase| *phase == Phase::End).await?;
        }
        world.note(host(me), "shuts its driver down");
        app.ended.set(true);
        let told = async {
            app.handle.shutdown().await;
            Instant::now()
        };
        // When the driver has ended, its queue has.
        let ended = async { timeout(ENDED_WITHIN, owner).await.map(|owner| owner.map(|()| Instant::now())) };
        let (told, ended) = tokio::join!(biased; told, ended);
        let ended = ended.unwrap_or_else(|_| panic!("{}: the driver did not end when it was told to", host(me)))?;
        assert!(told <= ended + TOLD_WITHIN, "{}: who waited for the driver's end was not told of it", host(me));
        if let Wish::Rest = wish {
            world.book.borrow_mut().done += 1;
            return Ok(());
        }
        world.count("driver shut down and started");
        let pause = world.dice.borrow_mut().mostly_short(Duration::from_secs(4));
        sleep(pause).await;
    }
}

impl App {
    fn start(world: &Rc<World>, me: usize) -> Result<(Rc<App>, Receiver<Event>), Box<dyn std::error::Error>> {
        let mut disk = world.disks[me].borrow_mut();
        // It is counted on the disk before it is used, and leaves room for all logins of this life.
        disk.epoch += 1;
        let mut dice = world.dice.borrow_mut();
        let capacity = dice.pick(&[1, 2, 8, 64, 256]);
        let pace = Duration::from_millis(dice.pick(&[1, 1, 20, 150]));
        let connect = ToRelay { scissors: world.scissors[me][0].clone(), seed: dice.next() };
        let config = Config {
            identity: disk.identity.clone(),
            prekeys: disk.prekeys.clone(),
            login: Login::Device { epoch: disk.epoch << 32 },
            relay: RelayUrl::parse(&format!("ws://{RELAY}"))?,
            trust: Trust::System,
            events: capacity,
        };
        let (handle, events) = spawn_over(config, Arc::new(connect))?;
        let seen = Seen { me, device: Some(disk.device()), ..Seen::default() };
        let seen = Rc::new(RefCell::new(seen));
        let mut peers = Vec::new();
        for peer in disk.peers() {
            peers.push(peer.record.device_id());
            handle.add_peer(peer)?;
        }
        world.apps.borrow_mut()[me] = Some(seen.clone());
        let (world, life) = (world.clone(), disk.epoch);
        world.note(host(me), &format!("life {life}, a queue of {capacity}, pace {pace:?}"));
        let app = App { world: world.clone(), me, life, handle, seen, peers, ended: Cell::new(false), pace, capacity };
        Ok((Rc::new(app), events))
    }

    /// Takes what the driver tells, until it ends.
    async fn own(self: Rc<Self>, mut events: Receiver<Event>) {
        loop {
            if events.len() == self.capacity {
                // What the driver has for us now holds up its socket.
                self.world.count("queue full");
            }
            let Some(event) = events.recv().await else { break };
            self.on_event(event);
            let pause = self.world.dice.borrow_mut().within(self.pace);
            if self.world.is_stormy() && !self.ended.get() && !pause.is_zero() {
                sleep(pause).await;
            }
        }
        assert!(self.ended.get(), "the driver ended by itself");
    }

    /// A call through each link, and its answer.
    async fn probe(self: &Rc<Self>) {
        for peer in &self.peers {
            let body = format!("probe/{}.{}", self.me, self.life).into_bytes();
            let answer = timeout(PROBE, self.handle.call(peer, body.clone(), None)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{}: a probe call has no answer", host(self.me)));
            assert_eq!(answer, Ok(Answer::Body(body)), "{}: a probe call", host(self.me));
            assert!(self.handle.is_up(peer), "{}: an answer came over a link that is down", host(self.me));
            self.world.count("probe call answered");
        }
        self.world.book.borrow_mut().done += 1;
    }

    /// Stores new pair secrets, in two steps that a death may come between.
    pub async fn store(self: Rc<Self>, peer: DeviceId, session: [u8; 16]) {
        let pauses = {
            let mut dice = self.world.dice.borrow_mut();
            [0; 2].map(|_| dice.mostly_short(Duration::from_secs(2)))
        };
        sleep(pauses[0]).await;
        let Some(secrets) = self.handle.pair_secrets(&peer, &session) else { return };
        if self.ended.get() {
            // The next life of the driver has begun with what was stored by then.
            return;
        }
        if let Some(known) = self.world.disks[self.me].borrow_mut().peers.get_mut(&peer) {
            known.secrets = secrets;
        }
        sleep(pauses[1]).await;
        self.handle.pair_secrets_stored(&peer, &session);
        self.world.count("secrets stored");
    }

    pub fn store_bundle(&self, peer: &DeviceId) {
        if let Some(known) = self.world.disks[self.me].borrow_mut().peers.get_mut(peer) {
            known.bundle = self.handle.bundle(peer);
        }
    }
}

impl Seen {
    /// What is not well between the machine and a phone.
    pub fn trouble_with(&self, other: &Seen) -> Option<String> {
        let (Some(mine), Some(theirs)) = (self.device, other.device) else { return Some("no identity".into()) };
        for (near, far) in [(self, theirs), (other, mine)] {
            if near.up.get(&far) != Some(&true) {
                return Some(format!("the link of {} is not up", host(near.me)));
            }
        }
        let of = |seen: &Seen, peer: DeviceId| -> Vec<(String, u64, u64)> {
            let channels = seen.channels.iter().filter(|((of, _), channel)| *of == peer && !channel.closed);
            channels.map(|(_, channel)| (channel.label.clone(), channel.sent, channel.received)).collect()
        };
        let (mut near, mut far) = (of(self, theirs), of(other, mine));
        far.iter_mut().for_each(|(_, sent, received)| std::mem::swap(sent, received));
        near.sort();
        far.sort();
        (near != far).then(|| format!("channels differ: {near:?} at {}, {far:?} at {}", host(self.me), host(other.me)))
    }
}
