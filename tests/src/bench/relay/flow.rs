//! How many frames pass: pairs of devices, one of each sending whatever room its window has, in one write.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::device::{Device, Prepared, SCRATCH};
use super::poll::Poll;
use super::server::Server;

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(150);
/// What counts.
const MEASURED: Duration = Duration::from_millis(500);
/// What is under way arrives within this.
const DRAIN: Duration = Duration::from_secs(5);
/// How long one look for events may take.
const LOOK: Duration = Duration::from_millis(20);

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    pub pairs: usize,
    pub payload: usize,
    /// Frames under way at once, for each pair.
    pub window: usize,
}

/// What came of it.
#[derive(Clone, Copy)]
pub struct Passed {
    /// Frames that were counted.
    pub frames: u64,
    /// Frames a second.
    pub rate: f64,
    /// Processor time of the server for each frame, seconds.
    pub cpu: f64,
}

/// A pair, and what its window allows.
struct Pair {
    frames: Prepared,
    /// Bytes that may be written, and that were.
    granted: usize,
    written: usize,
    waits: bool,
}

/// The load: pairs at one server, or with the receivers at another.
pub struct Flow {
    poll: Poll,
    senders: Vec<Device>,
    receivers: Vec<Device>,
    pairs: Vec<Pair>,
    scratch: Vec<u8>,
    pub sent: u64,
    pub arrived: u64,
}

impl Flow {
    pub fn new(from: &Server, to: &Server, shape: Shape) -> Result<Flow> {
        let poll = Poll::new()?;
        let (mut senders, mut receivers, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..shape.pairs {
            let (mut one, mut other) = (Device::connect(from)?, Device::connect(to)?);
            Device::pair(&mut one, &mut other)?;
            let frames = one.prepare(&other.key, shape.payload, shape.window);
            poll.add(&one, number)?;
            poll.add(&other, shape.pairs + number)?;
            pairs.push(Pair { granted: 0, written: 0, waits: false, frames });
            senders.push(one);
            receivers.push(other);
        }
        Ok(Flow { poll, senders, receivers, pairs, scratch: vec![0; SCRATCH], sent: 0, arrived: 0 })
    }

    /// Allows a pair so many frames more.
    pub fn grant(&mut self, number: usize, frames: usize) -> Result<()> {
        let pair = &mut self.pairs[number];
        pair.granted += frames * pair.frames.frame();
        self.sent += frames as u64;
        self.write(number)
    }

    fn write(&mut self, number: usize) -> Result<()> {
        let (pair, sender) = (&mut self.pairs[number], &mut self.senders[number]);
        let mut full = !sender.flush()?;
        while pair.written < pair.granted && !full {
            let row = pair.frames.row(pair.written, pair.granted - pair.written);
            let (wanted, written) = (row.len(), sender.write(row)?);
            pair.written += written;
            full = written < wanted;
        }
        // TLS may have taken everything and the socket not.
        let waits = full || !sender.flush()?;
        if waits != pair.waits {
            pair.waits = waits;
            self.poll.writes(sender, number, waits)?;
        }
        Ok(())
    }

    /// Waits for events, and tells which pairs got how many payloads.
    pub fn turn(&mut self, patience: Duration, ready: &mut Vec<usize>, came: &mut Vec<(usize, u64)>) -> Result<()> {
        came.clear();
        self.poll.wait(patience, ready)?;
        for &number in ready.iter() {
            match number.checked_sub(self.pairs.len()) {
                None => {
                    let refused = self.senders[number].read(&mut self.scratch)?.refused;
                    ensure!(refused == 0, "the server refused {refused} frames");
                    self.write(number)?;
                }
                Some(receiver) => {
                    let payloads = self.receivers[receiver].read(&mut self.scratch)?.payloads;
                    self.arrived += payloads;
                    if payloads > 0 {
                        came.push((receiver, payloads));
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what is under way.
    pub fn drain(&mut self) -> Result<()> {
        let (mut ready, mut came) = (Vec::new(), Vec::new());
        let deadline = Instant::now() + DRAIN;
        while self.arrived < self.sent {
            ensure!(Instant::now() < deadline, "of {} frames {} arrived", self.sent, self.arrived);
            self.turn(LOOK, &mut ready, &mut came)?;
        }
        Ok(())
    }

    /// Keeps every window full for a while.
    fn run(&mut self, window: usize, time: Duration, started: bool) -> Result<(u64, Duration)> {
        let (mut ready, mut came) = (Vec::new(), Vec::new());
        let (began, before) = (Instant::now(), self.arrived);
        if !started {
            (0..self.pairs.len()).try_for_each(|number| self.grant(number, window))?;
        }
        while began.elapsed() < time {
            self.turn(LOOK, &mut ready, &mut came)?;
            for &(number, payloads) in &came {
                self.grant(number, payloads as usize)?;
            }
        }
        Ok((self.arrived - before, began.elapsed()))
    }
}

/// Measures one shape. `servers` are those whose processor time is counted.
pub fn measure(from: &Server, to: &Server, servers: &[&Server], shape: Shape) -> Result<Passed> {
    let before = from.books()?;
    let (passed, [_, sent]) = measure_beside(from, to, servers, shape, || Ok(0))?;
    from.check(before, sent, sent)?;
    Ok(passed)
}

/// The same with something else counted meanwhile; gives how much that grew, and how many frames were sent in all. The books are its caller's.
pub fn measure_beside(
    from: &Server,
    to: &Server,
    servers: &[&Server],
    shape: Shape,
    count: impl Fn() -> Result<u64>,
) -> Result<(Passed, [u64; 2])> {
    let used = || servers.iter().map(|server| Ok(server.processor_time()?.as_secs_f64())).sum::<Result<f64>>();
    let mut flow = Flow::new(from, to, shape)?;
    flow.run(shape.window, WARM_UP, false)?;
    let (used_before, counted_before) = (used()?, count()?);
    let (frames, took) = flow.run(shape.window, MEASURED, true)?;
    let (cpu, counted) = (used()? - used_before, count()? - counted_before);
    flow.drain()?;
    let passed = Passed { frames, rate: frames as f64 / took.as_secs_f64(), cpu: cpu / frames as f64 };
    Ok((passed, [counted, flow.sent]))
}
