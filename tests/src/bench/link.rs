//! A link over loopback and a relay: how much passes, what a frame costs, how urgent words fare beside a flood, what a link weighs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::driver::RelayUrl;
use happy_link::driver::rng;
use happy_link::driver::tokio::{Config, EVENTS, Handle, Trust, spawn};
use happy_link::{Answer, Class, Event, Login, PairSecrets, Peer, Side};
use happy_tests::process::Relay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

use crate::processor;
use crate::sample::{Sample, goal};

/// How much to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Megabytes sent for the goodput.
    #[arg(long, default_value_t = 256)]
    megabytes: usize,
    /// Small messages sent for the cost of a frame.
    #[arg(long, default_value_t = 50_000)]
    messages: usize,
    /// Calls made while a bulk channel is saturated.
    #[arg(long, default_value_t = 500)]
    calls: usize,
    /// Idle links whose memory is measured.
    #[arg(long, default_value_t = 200)]
    links: usize,
}

/// What a file is sent in.
const PIECE: usize = 64 * 1024;
/// A keystroke or a line.
const SMALL: usize = 64;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Device {
    handle: Handle,
    events: Receiver<Event>,
}

impl Device {
    fn start(identity: Identity, prekeys: Vec<SignedPrekey>, relay: &RelayUrl) -> Result<Device> {
        let login = Login::Device { epoch: 1 };
        let config = Config { identity, prekeys, login, relay: relay.clone(), trust: Trust::System, events: EVENTS };
        let (handle, events) = spawn(config)?;
        Ok(Device { handle, events })
    }

    async fn until<T>(&mut self, mut find: impl FnMut(Event) -> Option<T>) -> Result<T> {
        let search = async {
            loop {
                let event = self.events.recv().await.context("the driver ended")?;
                if let Some(found) = find(event) {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.context("nothing came")?
    }

    async fn is_linked(&mut self) -> Result<()> {
        self.until(|event| matches!(event, Event::LinkUp { .. }).then_some(())).await
    }
}

/// A machine that takes everything, and counts.
struct Sink {
    device: DeviceId,
    handle: Handle,
    counted: tokio::sync::watch::Receiver<(usize, usize)>,
    task: JoinHandle<()>,
}

impl Sink {
    fn of(machine: Device) -> Sink {
        let Device { handle, mut events } = machine;
        let (count, counted) = tokio::sync::watch::channel((0, 0));
        let of = handle.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Message { peer, channel, bytes } => {
                        of.consumed(&peer, channel, bytes.len());
                        count.send_modify(|(messages, all)| {
                            *messages += 1;
                            *all += bytes.len();
                        });
                    }
                    Event::Request { peer, id, body } => drop(of.respond(&peer, id, &body).await),
                    _ => {}
                }
            }
        });
        Sink { device: handle.device(), handle, counted, task }
    }

    async fn until(&mut self, enough: impl Fn(&(usize, usize)) -> bool) -> Result<()> {
        tokio::time::timeout(PATIENCE, self.counted.wait_for(|count| enough(count)))
            .await
            .context("not all came")??;
        Ok(())
    }
}

struct People {
    machine: Identity,
    prekey: SignedPrekey,
    relay: RelayUrl,
}

impl People {
    fn new(relay: &Relay) -> Result<People> {
        let machine = Identity::generate(&mut rng());
        let prekey = SignedPrekey::generate(&mut rng(), &machine, 1, 1_700_000_000);
        let relay = RelayUrl::parse(&relay.origin().replace("http://", "ws://"))?;
        Ok(People { machine, prekey, relay })
    }

    fn machine(&self) -> Result<Device> {
        Device::start(self.machine.clone(), vec![self.prekey.clone()], &self.relay)
    }

    /// A phone that the machine knows.
    fn phone(&self, machine: &Handle) -> Result<Device> {
        let phone = Identity::generate(&mut rng());
        let secrets = PairSecrets { current: PairSecret::from_bytes(&[1; 40])?, previous: None };
        let record = phone.record().clone();
        machine.add_peer(Peer { record, side: Side::Responder, secrets: secrets.clone() })?;
        let device = Device::start(phone, Vec::new(), &self.relay)?;
        let side = Side::Initiator(Bundle::new(&self.machine, &self.prekey, None));
        device.handle.add_peer(Peer { record: self.machine.record().clone(), side, secrets })?;
        Ok(device)
    }
}

pub async fn run(arguments: Arguments) -> Result<()> {
    let relay = Relay::start()?;
    let people = People::new(&relay)?;
    let mut sink = Sink::of(people.machine()?);
    let mut phone = people.phone(&sink.handle)?;
    phone.is_linked().await?;
    // A driver waits for whoever does not read its events.
    let (none, events) = tokio::sync::mpsc::channel(1);
    let mut heard = std::mem::replace(&mut phone.events, events);
    let reader = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    drop(none);
    let process = relay.id();
    let pieces = (arguments.megabytes * 1_000_000).div_ceil(PIECE);
    let file = [
        ("bare TCP", bare_tcp(PIECE, pieces).await?),
        ("bare websocket", bare_websocket(PIECE, pieces).await?),
        ("link, sealed, through a relay", link(&phone, &mut sink, process, Class::Bulk, PIECE, pieces).await?),
    ];
    anstream::println!("goodput of {} MB over loopback, both ends in one process", arguments.megabytes);
    anstream::println!("{:<44}{:>10}{:>10}", "path", "MB/s", "ratio");
    let of = |passed: &Passed| (pieces * PIECE) as f64 / 1e6 / passed.took.as_secs_f64();
    for (name, passed) in &file {
        anstream::println!("{name:<44}{:>10.0}{:>10.3}", of(passed), of(passed) / of(&file[0].1));
    }

    let count = arguments.messages;
    let small = [
        ("bare TCP, a write each", bare_tcp(SMALL, count).await?),
        ("bare websocket, a write each", bare_websocket(SMALL, count).await?),
        ("link, sealed, through a relay", link(&phone, &mut sink, process, Class::Interactive, SMALL, count).await?),
    ];
    anstream::println!();
    anstream::println!(
        "{count} messages of {SMALL} bytes, sent as fast as they are taken; processor time of each, both ends together"
    );
    anstream::println!("{:<44}{:>10}{:>10}{:>10}{:>10}", "path", "/s", "ratio", "µs", "relay µs");
    let rate = |passed: &Passed| count as f64 / passed.took.as_secs_f64();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    for (name, passed) in &small {
        let relay = passed.relay.map_or_else(|| "–".to_owned(), |time| format!("{:.2}", each(time)));
        let (ratio, ends) = (rate(passed) / rate(&small[0].1), each(passed.ends));
        anstream::println!("{name:<44}{:>10.0}{ratio:>10.3}{ends:>10.2}{relay:>10}", rate(passed));
    }

    let (quiet, busy) = (calls(&phone, &sink, arguments.calls).await?, {
        let flood = flood(&phone, &sink)?;
        let busy = calls(&phone, &sink, arguments.calls).await?;
        flood.abort();
        busy
    });
    anstream::println!();
    anstream::println!("a call and its answer{:>32}{:>9}", "p50 ms", "p99 ms");
    for (name, sample) in [("nothing else passes", &quiet), ("beside a saturated bulk channel", &busy)] {
        anstream::println!("{name:<44}{:>9.3}{:>9.3}", sample.percentile(50), sample.percentile(99));
    }

    let (idle, full) = memory(&people, &sink, arguments.links).await?;
    anstream::println!();
    anstream::println!("{:<44}{:>9}{:>9}", "memory of a link, both ends together", "idle KB", "busy KB");
    anstream::println!(
        "{:<44}{idle:>9.0}{full:>9.0}",
        format!("each of {}; busy: files on all of them", arguments.links)
    );
    goal("control-beside-bulk-p99", busy.percentile(99), "ms", 50.0);
    sink.task.abort();
    reader.abort();
    Ok(())
}

/// How long it took for everything to pass, and the processor time of this process and of the relay meanwhile.
struct Passed {
    took: Duration,
    ends: Duration,
    relay: Option<Duration>,
}

/// Since when something passes.
struct Start {
    began: Instant,
    ends: Duration,
    relay: Option<(u32, Duration)>,
}

impl Start {
    fn now(relay: Option<u32>) -> Result<Start> {
        let relay = relay.map(|process| anyhow::Ok((process, processor::time_of(process)?))).transpose()?;
        Ok(Start { relay, ends: processor::own_time()?, began: Instant::now() })
    }

    fn passed(&self) -> Result<Passed> {
        let (took, ends) = (self.began.elapsed(), processor::own_time()? - self.ends);
        let relay =
            self.relay.map(|(process, before)| anyhow::Ok(processor::time_of(process)? - before)).transpose()?;
        Ok(Passed { took, ends, relay })
    }
}

/// Sends so many pieces over a link, as fast as they are taken.
async fn link(phone: &Device, sink: &mut Sink, relay: u32, class: Class, piece: usize, count: usize) -> Result<Passed> {
    let before = sink.counted.borrow().1;
    let channel = phone.handle.open_channel(&sink.device, class, "pieces")?;
    let bytes = vec![7; piece];
    let start = Start::now(Some(relay))?;
    for _ in 0..count {
        phone.handle.send(&sink.device, channel, &bytes).await?;
    }
    sink.until(|(_, all)| *all - before >= piece * count).await?;
    start.passed()
}

/// How often, and how far apart, the memory of busy links is looked at; the largest counts.
const FULL_LOOKS: u32 = 20;
const FULL_LOOK: Duration = Duration::from_millis(250);

fn flood(phone: &Device, sink: &Sink) -> Result<JoinHandle<()>> {
    let channel = phone.handle.open_channel(&sink.device, Class::Bulk, "flood")?;
    let (handle, device) = (phone.handle.clone(), sink.device);
    Ok(tokio::spawn(async move {
        let piece = vec![7; PIECE];
        while handle.send(&device, channel, &piece).await.is_ok() {}
    }))
}

async fn calls(phone: &Device, sink: &Sink, count: usize) -> Result<Sample> {
    let mut sample = Sample::default();
    for _ in 0..count {
        let began = Instant::now();
        let answer = phone.handle.call(&sink.device, b"approve".to_vec(), Some(PATIENCE)).await?;
        ensure!(matches!(answer, Answer::Body(_)), "{answer:?}");
        sample.add(began.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(sample)
}

/// Kilobytes that a link costs this process, which is both ends: an idle one, and one that a file passes through while one passes through all
/// others as well.
async fn memory(people: &People, sink: &Sink, links: usize) -> Result<(f64, f64)> {
    let before = resident()?;
    let mut phones = Vec::new();
    for _ in 0..links {
        let mut phone = people.phone(&sink.handle)?;
        phone.is_linked().await?;
        phones.push(phone);
    }
    let idle = (resident()? - before) / links as f64;
    let floods = phones.iter().map(|phone| flood(phone, sink)).collect::<Result<Vec<_>>>()?;
    let mut most = 0.0_f64;
    for _ in 0..FULL_LOOKS {
        tokio::time::sleep(FULL_LOOK).await;
        most = most.max(resident()? - before);
    }
    floods.iter().for_each(JoinHandle::abort);
    Ok((idle, most / links as f64))
}

/// Resident memory of this process, KB.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is measured on Linux only")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

async fn bare_tcp(piece: usize, count: usize) -> Result<Passed> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let reader = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let (mut buffer, mut all) = (vec![0; PIECE], 0);
        while all < piece * count {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => all += read,
            }
        }
        anyhow::Ok(all)
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let bytes = vec![7; piece];
    let start = Start::now(None)?;
    for _ in 0..count {
        stream.write_all(&bytes).await?;
    }
    ensure!(reader.await?? == piece * count, "bytes are missing");
    start.passed()
}

async fn bare_websocket(piece: usize, count: usize) -> Result<Passed> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let reader = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let (mut socket, mut all) = (accept_async(stream).await?, 0);
        while all < piece * count {
            all += socket.next().await.context("the socket ended")??.len();
        }
        anyhow::Ok(all)
    });
    let (mut socket, _) = connect_async(format!("ws://{address}")).await?;
    let bytes = vec![7; piece];
    let start = Start::now(None)?;
    for _ in 0..count {
        socket.send(Message::binary(bytes.clone())).await?;
    }
    ensure!(reader.await?? == piece * count, "bytes are missing");
    start.passed()
}
