//! The way back to a caller: the local socket, or a link. The same answers, events and channel messages go over either.

use happy_crypto::DeviceId;
use happy_link::{ChannelName, RequestId};
use happy_wire::Code;
use happy_wire::call::CallMessage;
use tokio::sync::mpsc;

use crate::daemon::network::Network;
use crate::daemon::socket::{CALLS, CONTROL, Control};

/// The way back to a caller.
#[derive(Clone)]
pub enum Line {
    /// To the command line.
    Local(mpsc::Sender<(u32, Vec<u8>)>),
    /// To another device.
    Link(Network, DeviceId),
}

/// What the caller calls a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallName {
    /// On the local socket.
    Local(u64),
    /// On a link.
    Link(RequestId),
}

/// The caller is gone, or the channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Line {
    /// Answers a call.
    pub async fn respond(&self, id: CallName, body: Vec<u8>) {
        match (self, id) {
            (Line::Local(out), CallName::Local(id)) => {
                let message = CallMessage::Response { id, body: &body }.to_vec();
                let _ = out.send((CALLS, message)).await;
            }
            (Line::Link(network, device), CallName::Link(id)) => network.respond(device, id, body).await,
            // A name comes in over the line that it is answered on.
            (Line::Local(_), CallName::Link(_)) | (Line::Link(..), CallName::Local(_)) => {}
        }
    }

    /// Sends a message on a channel; waits while the caller is slow.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, channel: ChannelName, message: Vec<u8>) -> Result<(), Gone> {
        match self {
            Line::Local(out) => out.send((channel.number(), message)).await.map_err(|_| Gone),
            Line::Link(network, device) => network.send(device, channel, message).await,
        }
    }

    /// Says that so many bytes of a channel have been used, so that the caller may send more.
    pub async fn consumed(&self, channel: ChannelName, bytes: usize) {
        // The socket itself holds the local caller back.
        if let Line::Link(network, device) = self {
            network.consumed(device, channel, bytes);
        }
    }

    /// Closes a channel.
    pub async fn close(&self, channel: ChannelName, code: Code, reason: &str) {
        match self {
            Line::Local(out) => {
                let close = Control::Close { channel: channel.number(), code: code.0, reason: reason.to_owned() };
                let _ = out.send((CONTROL, close.to_vec())).await;
            }
            Line::Link(network, device) => network.close_channel(device, channel, code, reason),
        }
    }

    /// Closes a channel without waiting for a slow caller.
    pub fn close_soon(&self, channel: ChannelName, code: Code, reason: &'static str) {
        match self {
            Line::Local(_) => {
                let line = self.clone();
                tokio::spawn(async move { line.close(channel, code, reason).await });
            }
            Line::Link(network, device) => network.close_channel(device, channel, code, reason),
        }
    }
}
