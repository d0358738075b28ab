//! The way of a key with nothing done on it: what the machine asks for waking one program after the other.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Three processes between this one and `cat` in a PTY, in the places of relay, daemon and holder and with sockets like theirs between them, which pass
/// on bytes and do nothing else.
pub struct Hops {
    near: Option<TcpStream>,
    children: Vec<Child>,
}

impl Hops {
    pub fn open() -> Result<Hops> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = File::options().read(true).write(true).open(OsStr::from_bytes(name.as_bytes()))?;
        // Its terminal echoes; what it prints itself comes after a line only.
        let cat = Command::new("cat").stdin(slave.try_clone()?).stdout(slave).stderr(Stdio::null()).spawn()?;
        let (near, relay_left) = tcp()?;
        let (relay_right, daemon_left) = tcp()?;
        let (daemon_right, holder_left) = UnixStream::pair()?;
        let ends: [(OwnedFd, OwnedFd); 3] = [
            (relay_left.into(), relay_right.into()),
            (daemon_left.into(), daemon_right.into()),
            (holder_left.into(), master),
        ];
        let mut hops = Hops { near: Some(near), children: vec![cat] };
        for (left, right) in ends {
            hops.children.push(Command::new(std::env::current_exe()?).arg("hop").stdin(left).stdout(right).spawn()?);
        }
        Ok(hops)
    }

    /// Types a key and waits for its echo.
    pub fn echo(&mut self) -> Result<Duration> {
        let near = self.near.as_mut().context("the first hop is gone")?;
        let began = Instant::now();
        near.write_all(b"x")?;
        near.read_exact(&mut [0])?;
        Ok(began.elapsed())
    }
}

impl Drop for Hops {
    fn drop(&mut self) {
        // Each ends with the one before it, and `cat` with its terminal. Gone already is as good.
        drop(self.near.take());
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn tcp() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Passes on what comes at its standard input to its standard output and the other way round, until one of them ends.
pub fn hop() -> Result<()> {
    let (stdin, stdout) = (stdin(), stdout());
    let ends = [stdin.as_fd(), stdout.as_fd()];
    let mut buffer = [0; 4096];
    loop {
        let mut ready = ends.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
        poll(&mut ready, None)?;
        for (index, ready) in ready.iter().enumerate() {
            if !ready.revents().is_empty() && !pass(ends[index], ends[1 - index], &mut buffer)? {
                return Ok(());
            }
        }
    }
}

/// False at the end, which of a PTY is an error.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<bool> {
    let Ok(count @ 1..) = rustix::io::read(from, &mut *buffer) else { return Ok(false) };
    let mut left = &buffer[..count];
    while !left.is_empty() {
        left = &left[rustix::io::write(to, left)?..];
    }
    Ok(true)
}
