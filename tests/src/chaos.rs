//! A TCP proxy that treats what passes as bad networks do: late, in crumbs, slowly, in one direction only, or not at all.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use rand_core::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What is read at once, bytes.
const CHUNK: usize = 16 * 1024;
/// Chunks of one direction that are on their way. When there are more, the sender has to wait, as with a full queue in a router.
const ON_THE_WAY: usize = 64;

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// How much later everything arrives.
    pub latency: Duration,
    /// And up to how much more, for each piece by itself; the order stays.
    pub jitter: Duration,
    /// Bytes per second in each direction; 0 for no bound.
    pub rate: u64,
    /// The largest piece that arrives at once; 0 for no bound.
    pub slice: usize,
    /// Nothing passes to the relay.
    pub stalled_up: bool,
    /// Nothing passes from the relay.
    pub stalled_down: bool,
}

/// What happens to all connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    None,
    /// Both sides get a reset.
    Reset(u64),
    /// The relay's side ends; the other hears nothing, ever.
    HalfOpen(u64),
    /// The device's side ends, and the relay's stays: what was on the way arrives there late, beside a newer path.
    Doubled(u64),
}

/// How long the relay's side stays.
const DOUBLED_FOR: Duration = Duration::from_secs(5);

/// A running proxy. It ends when it is dropped.
pub struct Chaos {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    blow: watch::Sender<Blow>,
    blows: u64,
    task: tokio::task::JoinHandle<()>,
}

impl Chaos {
    /// Passes on what comes to a free port of 127.0.0.1, or to `listen`.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start(listen: Option<SocketAddr>, to: SocketAddr, weather: Weather) -> Result<Chaos> {
        let listener = TcpListener::bind(listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())).await?;
        let address = listener.local_addr()?;
        let (weather, blow) = (watch::Sender::new(weather), watch::Sender::new(Blow::None));
        let (weathers, blows) = (weather.subscribe(), blow.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connection(near, to, weathers.clone(), blows.clone()));
            }
        });
        Ok(Chaos { address, weather, blow, blows: 0, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The origin of a relay behind it.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it is like this, for connections that are open too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets every connection.
    pub fn cut(&mut self) {
        self.blows += 1;
        self.blow.send_replace(Blow::Reset(self.blows));
    }

    /// Ends every connection at the relay's side; the device's side stays open and silent.
    pub fn half_open(&mut self) {
        self.blows += 1;
        self.blow.send_replace(Blow::HalfOpen(self.blows));
    }

    /// Ends every connection at the device's side. At the relay's side it stays open for five seconds, and what was on the way comes late: the
    /// device has two paths.
    pub fn double(&mut self) {
        self.blows += 1;
        self.blow.send_replace(Blow::Doubled(self.blows));
    }

    /// One of the ways to lose a connection, by turns.
    pub fn strike(&mut self) {
        match self.blows % 3 {
            0 => self.cut(),
            1 => self.double(),
            _ => self.half_open(),
        }
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn connection(
    near: TcpStream,
    to: SocketAddr,
    weather: watch::Receiver<Weather>,
    mut blow: watch::Receiver<Blow>,
) {
    blow.mark_unchanged();
    let Ok(far) = TcpStream::connect(to).await else { return };
    // What small pieces there are is for the weather to say.
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    let up = pass(&near, &far, weather.clone(), |weather| weather.stalled_up);
    let down = pass(&far, &near, weather, |weather| weather.stalled_down);
    tokio::pin!(up);
    let happened = tokio::select! {
        () = &mut up => return,
        () = down => return,
        _ = blow.changed() => *blow.borrow(),
    };
    match happened {
        // The device's side is held, unread, until the next blow.
        Blow::HalfOpen(_) => {
            let _ = rustix::net::shutdown(&far, rustix::net::Shutdown::Both);
            let _ = blow.changed().await;
            let _ = near.set_zero_linger();
        }
        Blow::Doubled(_) => {
            let _ = rustix::net::shutdown(&near, rustix::net::Shutdown::Both);
            let linger = async { tokio::join!(&mut up, tokio::time::sleep(DOUBLED_FOR)) };
            tokio::select! {
                _ = linger => {}
                _ = blow.changed() => {}
            }
        }
        // Closing without a linger is a reset.
        Blow::Reset(_) | Blow::None => {
            let (_, _) = (near.set_zero_linger(), far.set_zero_linger());
        }
    }
}

/// Passes on one direction until it ends.
async fn pass(from: &TcpStream, to: &TcpStream, weather: watch::Receiver<Weather>, is_stalled: fn(&Weather) -> bool) {
    let (on_the_way, arriving) = mpsc::channel(ON_THE_WAY);
    tokio::join!(take(from, on_the_way, weather.clone()), give(to, arriving, weather, is_stalled));
}

async fn take(from: &TcpStream, on_the_way: mpsc::Sender<(Instant, Vec<u8>)>, weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; CHUNK];
    let mut last = Instant::now();
    while from.readable().await.is_ok() {
        let read = match from.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let Weather { latency, jitter, .. } = *weather.borrow();
        let late = jitter.mul_f64(random_part());
        // TCP keeps the order.
        last = last.max(Instant::now() + latency + late);
        if on_the_way.send((last, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn give(
    to: &TcpStream,
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut weather: watch::Receiver<Weather>,
    is_stalled: fn(&Weather) -> bool,
) {
    let mut free_at = Instant::now();
    while let Some((due, bytes)) = arriving.recv().await {
        sleep_until(due).await;
        let slice = weather.borrow().slice;
        for piece in bytes.chunks(if slice == 0 { CHUNK } else { slice }) {
            let Ok(now) = weather.wait_for(|weather| !is_stalled(weather)).await.map(|weather| *weather) else {
                return;
            };
            if now.rate > 0 {
                free_at = free_at.max(Instant::now()) + Duration::from_secs_f64(piece.len() as f64 / now.rate as f64);
                sleep_until(free_at).await;
            }
            if write_all(to, piece).await.is_err() {
                return;
            }
        }
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// From 0 to 1.
fn random_part() -> f64 {
    f64::from(happy_link::driver::rng().next_u32()) / f64::from(u32::MAX)
}
