//! A TCP stream that is worse than it has to be: it takes a few bytes at a time, says now and then that it is not ready although it is,
//! and can be cut.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::seeded::Dice;

/// Cuts the streams of one device.
#[derive(Default)]
pub struct Scissors(Mutex<Cuts>);

#[derive(Default)]
struct Cuts {
    count: u64,
    /// Who waits to read, and would not notice.
    readers: Vec<Waker>,
}

impl Scissors {
    /// Every stream that exists now breaks, as after a reset by the peer.
    pub fn cut(&self) {
        let readers = {
            let mut cuts = self.0.lock().unwrap();
            cuts.count += 1;
            std::mem::take(&mut cuts.readers)
        };
        readers.iter().for_each(Waker::wake_by_ref);
    }
}

pub struct Rough {
    tcp: TcpStream,
    scissors: Arc<Scissors>,
    /// The count of cuts when this stream began.
    began: u64,
    /// The most bytes that are taken at once.
    most: usize,
    /// How often it is not ready without reason, in a thousand.
    balks: u64,
    dice: Dice,
}

impl Rough {
    pub fn new(tcp: TcpStream, scissors: Arc<Scissors>, mut dice: Dice) -> Self {
        let began = scissors.0.lock().unwrap().count;
        let most = dice.pick(&[usize::MAX, usize::MAX, 16_384, 4_096, 1_500]);
        let balks = dice.pick(&[0, 0, 20, 200]);
        Self { tcp, scissors, began, most, balks, dice }
    }

    /// Not ready, and right away ready again.
    fn balk(&mut self, cx: &Context<'_>) -> bool {
        let balks = self.dice.chance(self.balks);
        if balks {
            cx.waker().wake_by_ref();
        }
        balks
    }

    fn whole(&self, reader: Option<&Waker>) -> io::Result<()> {
        let mut cuts = self.scissors.0.lock().unwrap();
        if cuts.count != self.began {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(reader) = reader.filter(|reader| !cuts.readers.iter().any(|other| other.will_wake(reader))) {
            cuts.readers.push(reader.clone());
        }
        Ok(())
    }
}

impl AsyncRead for Rough {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.whole(Some(cx.waker()))?;
        if self.balk(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rough {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.whole(None)?;
        if self.balk(cx) {
            return Poll::Pending;
        }
        let most = self.most.min(bytes.len());
        Pin::new(&mut self.tcp).poll_write(cx, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(None)?;
        if self.balk(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(None)?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
