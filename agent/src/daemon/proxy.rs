//! A client of the socket that speaks to another machine: calls and channels are handed on to the link as they are.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::Answer;
use happy_rpc::Event;
use happy_wire::Code;
use happy_wire::call::{CallMessage, MAX_OUTSTANDING};
use happy_wire::frame::Class;
use tokio::io::BufReader;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::daemon::Daemon;
use crate::daemon::network::{FromPeer, LinkNews};
use crate::daemon::server::Out;
use crate::daemon::socket::{self, Control, Unanswered};

/// `PROTOCOL 10`: how long a call waits for its answer.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Serves a client until it goes.
pub async fn serve(
    daemon: Arc<Daemon>,
    device: DeviceId,
    news: broadcast::Receiver<(DeviceId, LinkNews)>,
    mut reader: BufReader<OwnedReadHalf>,
    out: Out,
) -> io::Result<()> {
    let _in_use = daemon.network().use_link(&device);
    let mut proxy = Proxy {
        news: tokio::spawn(pass_on_news(daemon.clone(), device, news, out.clone())).abort_handle(),
        daemon,
        device,
        out,
        calls: JoinSet::new(),
        running: Arc::new(Semaphore::new(MAX_OUTSTANDING)),
        channels: HashMap::new(),
    };
    let outcome = proxy.read(&mut reader).await;
    proxy.end().await;
    outcome
}

struct Proxy {
    daemon: Arc<Daemon>,
    device: DeviceId,
    out: Out,
    news: AbortHandle,
    /// Dropping one cancels the call.
    calls: JoinSet<()>,
    running: Arc<Semaphore>,
    channels: HashMap<u32, AbortHandle>,
}

impl Proxy {
    async fn read(&mut self, reader: &mut BufReader<OwnedReadHalf>) -> io::Result<()> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a message out of place");
        while let Some((channel, message)) = socket::read_frame(reader).await? {
            while self.calls.try_join_next().is_some() {}
            match channel {
                socket::CALLS => match CallMessage::decode(&message) {
                    Ok(CallMessage::Request { id, body }) => self.call(id, body.to_vec()).await,
                    Ok(CallMessage::Cancel { .. }) => {}
                    Ok(_) | Err(_) => return Err(malformed()),
                },
                socket::CONTROL => match Control::decode(&message).map_err(|_| malformed())? {
                    Control::Open { tag, class, label } => self.open(tag, class, &label).await,
                    Control::Close { channel, code, reason } => {
                        if self.forget(channel) {
                            self.daemon.network().close_channel(&self.device, channel, Code(code), &reason);
                        }
                    }
                    _ => return Err(malformed()),
                },
                channel => {
                    if self.channels.contains_key(&channel) {
                        // Waits while the link has no credit; the client is held back meanwhile.
                        let _ = self.daemon.network().send(&self.device, channel, message).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn call(&mut self, id: u64, body: Vec<u8>) {
        // A client with a thousand calls waits before it makes another.
        let Ok(permit) = self.running.clone().acquire_owned().await else { return };
        let (daemon, device, out) = (self.daemon.clone(), self.device, self.out.clone());
        self.calls.spawn(async move {
            let why = match daemon.network().call(&device, body, CALL_DEADLINE).await {
                Answer::Body(body) => {
                    let _ = out.send((socket::CALLS, CallMessage::Response { id, body: &body }.to_vec())).await;
                    return;
                }
                Answer::Indeterminate => Unanswered::Indeterminate,
                Answer::DeadlinePassed => Unanswered::DeadlinePassed,
                Answer::LinkGone => Unanswered::LinkGone,
            };
            let _ = out.send((socket::CONTROL, Control::Unanswered { id, why }.to_vec())).await;
            drop(permit);
        });
    }

    async fn open(&mut self, tag: u32, class: u8, label: &str) {
        let opened = match Class::try_from(class) {
            Ok(class) => self.daemon.network().open_channel(&self.device, class, label).await,
            Err(_) => Err("there is no such class".into()),
        };
        let answer = match opened {
            Ok((channel, queue)) => {
                let pump = pass_on_channel(self.daemon.clone(), self.device, channel, queue, self.out.clone());
                // Answered first, so that the client knows the number before a message bears it.
                let _ = self.out.send((socket::CONTROL, Control::Opened { tag, channel }.to_vec())).await;
                self.channels.insert(channel, tokio::spawn(pump).abort_handle());
                return;
            }
            Err(reason) => Control::Refused { tag, code: Code::TOO_MANY.0, reason },
        };
        let _ = self.out.send((socket::CONTROL, answer.to_vec())).await;
    }

    fn forget(&mut self, channel: u32) -> bool {
        let pump = self.channels.remove(&channel);
        if let Some(pump) = &pump {
            pump.abort();
        }
        pump.is_some()
    }

    async fn end(mut self) {
        self.news.abort();
        for (channel, pump) in self.channels.drain() {
            pump.abort();
            self.daemon.network().close_channel(&self.device, channel, Code::GOODBYE, "");
        }
    }
}

async fn pass_on_channel(
    daemon: Arc<Daemon>,
    device: DeviceId,
    channel: u32,
    mut queue: mpsc::Receiver<FromPeer>,
    out: Out,
) {
    while let Some(from_peer) = queue.recv().await {
        match from_peer {
            FromPeer::Message(message) => {
                let bytes = message.len();
                if out.send((channel, message)).await.is_err() {
                    return;
                }
                // Only now may the other machine send more: this is what holds it back.
                daemon.network().consumed(&device, channel, bytes);
            }
            FromPeer::Closed { code, reason } => {
                let close = Control::Close { channel, code: code.0, reason };
                let _ = out.send((socket::CONTROL, close.to_vec())).await;
                return;
            }
        }
    }
}

async fn pass_on_news(
    daemon: Arc<Daemon>,
    device: DeviceId,
    mut news: broadcast::Receiver<(DeviceId, LinkNews)>,
    out: Out,
) {
    loop {
        let message = match news.recv().await {
            Ok((from, _)) if from != device => continue,
            Ok((_, LinkNews::Up)) => (socket::CONTROL, Control::Link { up: true }.to_vec()),
            Ok((_, LinkNews::Down)) => (socket::CONTROL, Control::Link { up: false }.to_vec()),
            Ok((_, LinkNews::Notice(body))) => (socket::CALLS, CallMessage::Event(&body).to_vec()),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let up = daemon.network().links_up().contains(&device);
                let _ = out.send((socket::CONTROL, Control::Link { up }.to_vec())).await;
                (socket::CALLS, CallMessage::Event(&Event::ListAgain {}.to_body()).to_vec())
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if out.send(message).await.is_err() {
            return;
        }
    }
}
