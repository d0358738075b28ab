//! Links whose messages must arrive: whether all of them do while nodes come and go.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, Identity, SignedPrekey};
use happy_link::driver::tokio::{ByteStream, Config, Connect, Connecting, EVENTS, Handle, Trust, spawn_over};
use happy_link::driver::{RelayUrl, rng};
use happy_link::{Class, Event, Login, PairSecrets, Peer, Side};
use tokio::net::TcpStream;

use super::server::NAME;

/// Between two messages of a link.
const EACH: Duration = Duration::from_millis(5);
/// How long links may take to come up, and the last messages to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// The node that a device prefers, and the one that it takes when that one takes nobody: what a balancer does.
struct Doors([u16; 2]);

impl Connect for Doors {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> Connecting<'a> {
        Box::pin(async move {
            for port in self.0 {
                if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    stream.set_nodelay(true)?;
                    return Ok(Box::new(stream) as Box<dyn ByteStream>);
                }
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    arrived: AtomicU64,
    /// Messages that were not the next one of their link.
    astray: AtomicU64,
}

/// Links, on a runtime of their own.
pub struct Links {
    runtime: tokio::runtime::Runtime,
    counts: Arc<Counts>,
    _handles: Vec<[Handle; 2]>,
}

impl Links {
    /// So many pairs that prefer the node at the first port: both ends of half of them, and one end of the others.
    pub fn start(pairs: usize, ports: [u16; 2]) -> Result<Links> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let counts = Arc::new(Counts::default());
        let here = Arc::new(Doors(ports));
        let there = Arc::new(Doors([ports[1], ports[0]]));
        let handles = {
            let _entered = runtime.enter();
            let pair = |n: usize| pair([&here, [&here, &there][n % 2]].map(Arc::clone), &counts);
            (0..pairs).map(pair).collect::<Result<Vec<_>>>()?
        };
        let links = Links { runtime, counts, _handles: handles };
        links.until("messages to pass", |counts| counts.arrived.load(Relaxed) >= 20 * pairs as u64)?;
        Ok(links)
    }

    fn until(&self, what: &str, enough: impl Fn(&Counts) -> bool) -> Result<()> {
        let began = Instant::now();
        while !enough(&self.counts) {
            ensure!(began.elapsed() < PATIENCE, "waited in vain for {what}");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Sends no more, waits for what is under way, and gives how many were sent, and how many of them were lost or came more than once.
    pub fn finish(self) -> Result<[u64; 2]> {
        self.counts.stop.store(true, Relaxed);
        // Whoever is sending just now has counted it already, or does so within a look.
        std::thread::sleep(LOOK + EACH);
        let all = |counts: &Counts| counts.arrived.load(Relaxed) >= counts.sent.load(Relaxed);
        // What does not come is what is counted.
        let _ = self.until("the last messages", all);
        let of = |count: &AtomicU64| count.load(Relaxed);
        let (sent, arrived, astray) = (of(&self.counts.sent), of(&self.counts.arrived), of(&self.counts.astray));
        self.runtime.shutdown_background();
        Ok([sent, sent.abs_diff(arrived) + astray])
    }
}

/// A device that sends numbers, and one that counts them.
fn pair(doors: [Arc<Doors>; 2], counts: &Arc<Counts>) -> Result<[Handle; 2]> {
    let (phone, machine) = (Identity::generate(&mut rng()), Identity::generate(&mut rng()));
    let prekey = SignedPrekey::generate(&mut rng(), &machine, 1, 1_700_000_000);
    let bundle = Bundle::new(&machine, &prekey, None);
    let secrets = PairSecrets { current: PairSecret::from_bytes(&[1; 40]).context("a secret")?, previous: None };
    let (phone_record, machine_record) = (phone.record().clone(), machine.record().clone());
    let [phone_door, machine_door] = doors;
    let device = |identity, prekeys, door: Arc<Doors>| {
        let relay = RelayUrl::parse(&format!("ws://{NAME}"))?;
        let login = Login::Device { epoch: 1 };
        let config = Config { identity, prekeys, login, relay, trust: Trust::System, events: EVENTS };
        Ok::<_, anyhow::Error>(spawn_over(config, door)?)
    };
    let (phone, mut heard) = device(phone, vec![], phone_door)?;
    let (machine, mut taken) = device(machine, vec![prekey], machine_door)?;
    phone.add_peer(Peer { record: machine_record, side: Side::Initiator(bundle), secrets: secrets.clone() })?;
    machine.add_peer(Peer { record: phone_record, side: Side::Responder, secrets })?;
    let (receiver, of) = (machine.clone(), counts.clone());
    tokio::spawn(async move {
        let mut next = 0_u64;
        while let Some(event) = taken.recv().await {
            let Event::Message { peer, channel, bytes } = event else { continue };
            receiver.consumed(&peer, channel, bytes.len());
            if bytes[..] != next.to_be_bytes() {
                of.astray.fetch_add(1, Relaxed);
            }
            next += 1;
            of.arrived.fetch_add(1, Relaxed);
        }
    });
    let (sender, to, of) = (phone.clone(), machine.device(), counts.clone());
    tokio::spawn(async move {
        // A link that has not come up yet has no channel.
        while heard.recv().await.is_some_and(|event| !matches!(event, Event::LinkUp { .. })) {}
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let Ok(channel) = sender.open_channel(&to, Class::Interactive, "numbers") else { return };
        for number in 0_u64.. {
            if of.stop.load(Relaxed) || sender.send(&to, channel, &number.to_be_bytes()).await.is_err() {
                break;
            }
            of.sent.fetch_add(1, Relaxed);
            tokio::time::sleep(EACH).await;
        }
    });
    Ok([phone, machine])
}
