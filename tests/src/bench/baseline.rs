//! What the whole path is compared with: the least that any product of this kind has to pay.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

/// A PTY that this process holds itself.
pub struct BarePty {
    // Held, because the program ends with it.
    _master: Box<dyn MasterPty + Send>,
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
}

impl BarePty {
    /// Starts `cat`, whose terminal echoes.
    pub fn open() -> Result<BarePty> {
        let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 })?;
        let child = pair.slave.spawn_command(CommandBuilder::new("cat"))?;
        let (reader, writer) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
        Ok(BarePty { _master: pair.master, reader, writer, child })
    }

    /// Types a key and waits for its echo.
    pub fn echo(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.writer.write_all(b"x")?;
        self.writer.flush()?;
        self.reader.read_exact(&mut [0])?;
        Ok(began.elapsed())
    }
}

impl Drop for BarePty {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A websocket whose other end, on a thread of its own, sends back what it gets.
pub struct BareWebsocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl BareWebsocket {
    /// Opens one on the loopback interface.
    pub async fn open() -> Result<BareWebsocket> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
                stream.set_nodelay(true)?;
                let mut socket = accept_async(stream).await?;
                while let Some(Ok(message)) = socket.next().await {
                    socket.send(message).await?;
                }
                Ok(())
            })
        });
        let (socket, _) = connect_async(format!("ws://{address}")).await?;
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_nodelay(true)?;
        }
        Ok(BareWebsocket(socket))
    }

    /// Sends a message as large as a sealed key and waits for it to come back.
    pub async fn echo(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.0.send(Message::binary(vec![7; 192])).await?;
        self.0.next().await.context("the socket ended")??;
        Ok(began.elapsed())
    }
}
