//! Devices that stop reading: what each costs the server, whether others notice, and when it is cut.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use happy_crypto::Identity;
use happy_link::driver::rng;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

use super::device::{Device, SCRATCH};
use super::roundtrip::{Line, echoes};
use super::server::Server;

/// Devices that are stuck.
const STUCK: usize = 16;
/// What their kernels keep, bytes, so that they are stuck soon.
const RECEIVE_BUFFER: usize = 16 * 1024;
const PAYLOAD: usize = 1024;
/// A write of the sender, frames.
const AT_ONCE: usize = 16;
/// By when the relay cuts them: PROTOCOL 7 says 10 s, and it may look a second late.
const CUT: Duration = Duration::from_secs(12);

pub struct Cost {
    /// Bytes of the server's memory for each.
    pub memory: f64,
    /// p99 of others' round trips while they are stuck, over that before.
    pub others: f64,
    /// From being full to the end of the last one, seconds.
    pub cut: f64,
}

pub fn measure(server: &Server) -> Result<Cost> {
    let mut lines = [Line::new(server, server)?];
    let mut pairs = Vec::new();
    for _ in 0..STUCK {
        let (mut sender, mut stuck) = (Device::connect(server)?, narrow(server)?);
        Device::pair(&mut sender, &mut stuck)?;
        pairs.push((sender, stuck));
    }
    let quiet = echoes(&mut lines)?;
    let empty = server.resident()?;
    let mut scratch = vec![0; SCRATCH];
    for (sender, stuck) in &mut pairs {
        let frames = sender.prepare(&stuck.key, PAYLOAD, AT_ONCE);
        while sender.read(&mut scratch)?.refused == 0 {
            let mut written = 0;
            while written < AT_ONCE * frames.frame() {
                written += sender.write(frames.row(written, AT_ONCE * frames.frame() - written))?;
            }
        }
    }
    let full = Instant::now();
    let memory = (server.resident()? - empty) / STUCK as f64;
    let beside = echoes(&mut lines)?;
    // The relay tells each sender that its peer is away.
    while server.connections()? > STUCK as u64 + 2 {
        ensure!(full.elapsed() < CUT, "a stuck device was not cut");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Cost { memory, others: beside[0][1] / quiet[0][1], cut: full.elapsed().as_secs_f64() })
}

/// A device whose kernel keeps little for it.
fn narrow(server: &Server) -> Result<Device> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, server.target.port)))?;
    Device::connect_as(&server.target, &Identity::generate(&mut rng()), TcpStream::from(socket))
}
