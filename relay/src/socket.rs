//! A connection with or without TLS, which knows how many bytes the kernel has taken from it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::rates::Pace;

/// A stream of bytes that a relay can serve, whoever accepted it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection that counts, and is read no faster than it may send. Both are below TLS, where bytes are really taken and not only buffered.
pub(crate) struct Counted<T = TcpStream> {
    tcp: T,
    taken: u64,
    pace: Option<Box<Pace>>,
}

impl<T> Counted<T> {
    pub(crate) fn paced(tcp: T, pace: Option<Box<Pace>>) -> Self {
        Self { tcp, taken: 0, pace }
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = written {
            self.taken += n as u64;
        }
        written
    }
}

impl<T: ByteStream> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // PROTOCOL 7, Rates: what comes too fast is left in the network.
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll_ready(cx));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if let Some(pace) = &mut self.pace {
            pace.took(buf.filled().len() - before);
        }
        read
    }
}

impl<T: ByteStream> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// What TLS reads at once. By itself it asks for 4 KiB at a time.
const AHEAD: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; AHEAD].into());
}

/// Reads more than it is asked for, and keeps the rest only until it is asked again: between TLS and its socket, where a system call for every 4 KiB
/// costs more than the decryption.
pub(crate) struct Ahead<T> {
    inner: T,
    kept: Vec<u8>,
    /// How much of `kept` has been handed on.
    at: usize,
}

impl<T> Ahead<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, kept: Vec::new(), at: 0 }
    }
}

impl<T: ByteStream> AsyncRead for Ahead<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, kept, at } = self.get_mut();
        if !kept.is_empty() {
            let rest = kept.get(*at..).unwrap_or_default();
            let part = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..part]);
            *at += part;
            if *at == kept.len() {
                (*kept, *at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut ahead = ReadBuf::new(scratch);
            ready!(Pin::new(inner).poll_read(cx, &mut ahead))?;
            let (now, later) = ahead.filled().split_at(ahead.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            *kept = later.to_vec();
            Poll::Ready(Ok(()))
        })
    }
}

impl<T: ByteStream> AsyncWrite for Ahead<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What a listener hands on. TLS is boxed: its state is a kilobyte that plain connections need not carry.
pub(crate) enum Stream {
    Plain(Counted),
    Tls(Box<TlsStream<Ahead<Counted>>>),
    Foreign(Counted<Box<dyn ByteStream>>),
}

impl Stream {
    /// How many bytes the kernel has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        match self {
            Stream::Plain(tcp) => tcp.taken,
            Stream::Tls(tls) => tls.get_ref().0.inner.taken,
            Stream::Foreign(stream) => stream.taken,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Stream::Foreign(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Stream::Foreign(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Stream::Foreign(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Stream::Foreign(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Stream::Foreign(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
