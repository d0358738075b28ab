//! What the relay is compared with: servers that only forward, by the same routing (a key of 32 bytes, a bounded queue for each receiver whose
//! senders wait when it is full), with gathered writes and without logins, limits or metrics. Each is written with the care of the relay.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

/// Which one.
#[derive(clap::Args)]
pub struct Arguments {
    what: What,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    Tcp,
    Websocket,
}

/// Frames that wait for one receiver.
const QUEUE: usize = 512;
/// How much is read at once: it doubles while reads fill it and halves while they leave most of it empty.
const READ: (usize, usize) = (2 * 1024, 256 * 1024);
/// Frames of at least this size on average are written from where they are, smaller ones are copied together first.
const COPIED_BELOW: usize = 4 * 1024;
/// Pieces of one such write.
const PIECES: usize = 64;

type Key = [u8; 32];
type Routes = Arc<Mutex<HashMap<Key, Sender<Bytes>>>>;

pub async fn run(arguments: Arguments) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    anstream::println!("ready {}", listener.local_addr()?.port());
    let routes = Routes::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let routes = routes.clone();
        // A connection that breaks has nobody to tell.
        match arguments.what {
            What::Tcp => drop(tokio::spawn(Box::pin(tcp(stream, routes)))),
            What::Websocket => drop(tokio::spawn(Box::pin(websocket(stream, routes)))),
        }
    }
}

/// The way to a receiver, remembered by each sender.
struct Route {
    routes: Routes,
    last: Option<(Key, Sender<Bytes>)>,
}

impl Route {
    async fn send(&mut self, to: Key, frame: Bytes) -> Result<()> {
        if self.last.as_ref().is_none_or(|(key, _)| *key != to) {
            let sender = self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(&to).cloned();
            self.last = Some((to, sender.context("nobody is there")?));
        }
        let (_, sender) = self.last.as_ref().context("no route")?;
        sender.send(frame).await.context("the receiver has gone")
    }
}

/// From now on the device is found. `welcome` is the first that it gets.
async fn enter(routes: &Routes, key: Key, welcome: Bytes) -> Result<Receiver<Bytes>> {
    let (sender, receiver) = channel(QUEUE);
    sender.send(welcome).await?;
    routes.lock().unwrap_or_else(PoisonError::into_inner).insert(key, sender);
    Ok(receiver)
}

/// First the key of the device, which comes back, then frames: length u32, receiver [32], payload. The receiver gets the sender's key in its place.
async fn tcp(stream: TcpStream, routes: Routes) -> Result<()> {
    let (mut reader, writer) = stream.into_split();
    let mut from = [0; 32];
    reader.read_exact(&mut from).await?;
    let welcome = [&32_u32.to_be_bytes()[..], &from].concat().into();
    tokio::spawn(Box::pin(write_tcp(writer, enter(&routes, from, welcome).await?)));
    read_tcp(&mut reader, from, Route { routes, last: None }).await
}

async fn read_tcp(reader: &mut OwnedReadHalf, from: Key, mut route: Route) -> Result<()> {
    let mut buffer = BytesMut::new();
    let mut size = READ.0;
    loop {
        buffer.reserve(size);
        let read = reader.read_buf(&mut buffer).await?;
        match read {
            0 => return Ok(()),
            read if read >= size => size = (size * 2).min(READ.1),
            read if read < size / 4 => size = (size / 2).max(READ.0),
            _ => {}
        }
        while let Some(length) = buffer.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) {
            if buffer.len() < 4 + length {
                break;
            }
            let mut frame = buffer.split_to(4 + length);
            let key = frame.get_mut(4..36).context("a frame without receiver")?;
            let to: Key = (&*key).try_into()?;
            key.copy_from_slice(&from);
            route.send(to, frame.freeze()).await?;
        }
    }
}

async fn write_tcp(mut writer: OwnedWriteHalf, mut queue: Receiver<Bytes>) -> Result<()> {
    let (mut frames, mut together) = (Vec::new(), Vec::new());
    while queue.recv_many(&mut frames, QUEUE).await > 0 {
        let all: usize = frames.iter().map(Bytes::len).sum();
        if all / frames.len() >= COPIED_BELOW {
            write_pieces(&mut writer, &mut frames).await?;
        } else {
            frames.drain(..).for_each(|frame| together.extend_from_slice(&frame));
            writer.write_all(&together).await?;
            together.clear();
        }
        if together.capacity() > READ.0 && queue.is_empty() {
            (frames, together) = (Vec::new(), Vec::new());
        }
    }
    Ok(())
}

async fn write_pieces(writer: &mut (impl AsyncWrite + Unpin), frames: &mut Vec<Bytes>) -> Result<()> {
    let mut first = 0;
    while first < frames.len() {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let rest = frames.get(first..).unwrap_or_default();
        pieces.iter_mut().zip(rest).for_each(|(piece, frame)| *piece = IoSlice::new(frame));
        let mut written = writer.write_vectored(&pieces[..rest.len().min(PIECES)]).await?;
        while let Some(frame) = frames.get_mut(first).filter(|_| written > 0) {
            let part = written.min(frame.len());
            frame.advance(part);
            written -= part;
            first += usize::from(frame.is_empty());
        }
    }
    frames.clear();
    Ok(())
}

/// The same with messages for frames: the first is the key, the others receiver and payload.
async fn websocket(stream: TcpStream, routes: Routes) -> Result<()> {
    let (mut sink, mut stream) = Box::pin(accept_async(stream)).await?.split();
    let first = stream.next().await.context("it has gone")??.into_data();
    let from: Key = (&*first).try_into()?;
    let mut queue = enter(&routes, from, first).await?;
    tokio::spawn(Box::pin(async move {
        let mut frames = Vec::new();
        while queue.recv_many(&mut frames, QUEUE).await > 0 {
            for frame in frames.drain(..) {
                sink.feed(Message::Binary(frame)).await?;
            }
            sink.flush().await?;
        }
        anyhow::Ok(())
    }));
    let mut route = Route { routes, last: None };
    while let Some(message) = stream.next().await {
        let mut frame = BytesMut::from(message?.into_data());
        let key = frame.get_mut(..32).context("a frame without receiver")?;
        let to: Key = (&*key).try_into()?;
        key.copy_from_slice(&from);
        route.send(to, frame.freeze()).await?;
    }
    Ok(())
}
