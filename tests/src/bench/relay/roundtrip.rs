//! Round trips: one device to another and back, alone and while others talk.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::device::{Device, Prepared, SCRATCH};
use super::flow::{Flow, Shape};
use super::poll::Poll;
use super::server::Server;
use crate::sample::Sample;

/// Round trips of a quiet cell, for each server.
const QUIET: usize = 1_000;
/// Before each of them everybody falls asleep.
const PAUSE: Duration = Duration::from_millis(1);
/// A payload that goes round.
const PAYLOAD: usize = 64;
/// Who talks meanwhile, and how much in all: messages a second.
const TALK: Shape = Shape { pairs: 100, payload: 1024, window: 8 };
const TALK_RATE: f64 = 20_000.0;
const TALK_TIME: Duration = Duration::from_millis(1_200);
/// Between two round trips beside talk.
const BESIDE_PAUSE: Duration = Duration::from_micros(500);
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Two devices between which something goes to and fro.
pub struct Line {
    ends: [Device; 2],
    frames: [Prepared; 2],
    poll: Poll,
    scratch: Vec<u8>,
    /// Who is to get it next, and when it left.
    under_way: Option<(usize, Instant)>,
    /// Frames sent.
    pub sent: u64,
}

impl Line {
    pub fn new(one: &Server, other: &Server) -> Result<Line> {
        let (mut one, mut other) = (Device::connect(one)?, Device::connect(other)?);
        Device::pair(&mut one, &mut other)?;
        let frames = [one.prepare(&other.key, PAYLOAD, 1), other.prepare(&one.key, PAYLOAD, 1)];
        let poll = Poll::new()?;
        poll.add(&one, 0)?;
        poll.add(&other, 1)?;
        Ok(Line { ends: [one, other], frames, poll, scratch: vec![0; SCRATCH], under_way: None, sent: 0 })
    }

    fn send(&mut self, from: usize) -> Result<()> {
        let frame = self.frames[from].frame();
        self.sent += 1;
        ensure!(self.ends[from].write(self.frames[from].row(0, frame))? == frame, "a quiet socket is full");
        Ok(())
    }

    /// Lets it go.
    pub fn begin(&mut self) -> Result<()> {
        self.begin_at(Instant::now())
    }

    /// Lets it go, late perhaps: its time runs since `due`.
    fn begin_at(&mut self, due: Instant) -> Result<()> {
        self.under_way = Some((1, due));
        self.send(0)
    }

    /// Passes on what has come; the time when it is round.
    pub fn step(&mut self) -> Result<Option<Duration>> {
        let Some((at, left)) = self.under_way else { return Ok(None) };
        if self.ends[at].read(&mut self.scratch)?.payloads == 0 {
            return Ok(None);
        }
        if at == 1 {
            self.send(1)?;
            self.under_way = Some((0, left));
            return Ok(None);
        }
        self.under_way = None;
        Ok(Some(left.elapsed()))
    }

    /// One round trip, with everybody asleep while it is under way.
    pub fn echo(&mut self) -> Result<Duration> {
        // A relay that asked meanwhile whether they are still there gets its answer.
        for end in &mut self.ends {
            end.read(&mut self.scratch)?;
        }
        self.begin()?;
        let mut ready = Vec::new();
        loop {
            self.poll.wait(PATIENCE, &mut ready)?;
            ensure!(!ready.is_empty(), "nothing came");
            if let Some(took) = self.step()? {
                return Ok(took);
            }
        }
    }
}

/// Round trips at each server in turn, so that all meet the same weather: p50 and p99 of each, ms.
pub fn quiet(servers: &[&Server]) -> Result<Vec<[f64; 2]>> {
    let mut lines = servers.iter().map(|server| Line::new(server, server)).collect::<Result<Vec<_>>>()?;
    echoes(&mut lines)
}

/// The same over lines that exist.
pub fn echoes(lines: &mut [Line]) -> Result<Vec<[f64; 2]>> {
    let mut samples: Vec<Sample> = lines.iter().map(|_| Sample::default()).collect();
    for _ in 0..QUIET {
        for (line, sample) in lines.iter_mut().zip(&mut samples) {
            std::thread::sleep(PAUSE);
            sample.add(line.echo()?);
        }
    }
    Ok(samples.iter().map(|sample| [sample.percentile(50), sample.percentile(99)]).collect())
}

/// Round trips of many lines, each beginning at times that are fixed, whatever became of those before: one that waits is counted with all
/// of its waiting.
pub struct Rounds {
    lines: Vec<Line>,
    /// Which of the servers, for each line.
    servers: Vec<usize>,
    /// When each line is to begin next.
    due: Vec<Instant>,
    each: Duration,
    poll: Poll,
    count: usize,
}

impl Rounds {
    /// So many lines at each of the servers, a round trip every `each` on each line.
    pub fn new(servers: &[(&Server, usize)], each: Duration) -> Result<Rounds> {
        let (mut lines, mut of) = (Vec::new(), Vec::new());
        let poll = Poll::new()?;
        for (number, (server, count)) in servers.iter().enumerate() {
            for _ in 0..*count {
                let line = Line::new(server, server)?;
                line.ends.iter().enumerate().try_for_each(|(end, device)| poll.add(device, 2 * lines.len() + end))?;
                lines.push(line);
                of.push(number);
            }
        }
        let (now, count) = (Instant::now(), lines.len());
        let due = (0..count).map(|n| now + each * n as u32 / count as u32).collect();
        Ok(Rounds { lines, servers: of, due, each, poll, count: servers.len() })
    }

    /// Goes on until `enough`, and gives what was sampled for each server. A round trip belongs to where it ends.
    pub fn run(&mut self, enough: impl Fn() -> bool) -> Result<Vec<Sample>> {
        let mut samples: Vec<Sample> = (0..self.count).map(|_| Sample::default()).collect();
        while !enough() {
            self.begin_due()?;
            self.turn(&mut samples)?;
        }
        Ok(samples)
    }

    /// Takes what is under way.
    pub fn finish(&mut self) -> Result<()> {
        let mut samples: Vec<Sample> = (0..self.count).map(|_| Sample::default()).collect();
        let began = Instant::now();
        self.due.fill(began + 2 * PATIENCE);
        while self.lines.iter().any(|line| line.under_way.is_some()) {
            ensure!(began.elapsed() < PATIENCE, "a round trip did not end");
            self.turn(&mut samples)?;
        }
        Ok(())
    }

    fn begin_due(&mut self) -> Result<()> {
        let now = Instant::now();
        for (line, due) in self.lines.iter_mut().zip(&mut self.due) {
            if line.under_way.is_none() && *due <= now {
                line.begin_at(*due)?;
                *due += self.each;
            }
        }
        Ok(())
    }

    /// Waits for something to come, or for the next to begin.
    fn turn(&mut self, samples: &mut [Sample]) -> Result<()> {
        let idle = self.lines.iter().zip(&self.due).filter(|(line, _)| line.under_way.is_none()).map(|(_, due)| *due);
        let next = idle.min().map_or(self.each, |due| due.saturating_duration_since(Instant::now()));
        let mut ready = Vec::new();
        self.poll.wait(next.min(self.each), &mut ready)?;
        for number in ready {
            let (line, end) = (&mut self.lines[number / 2], number % 2);
            match line.under_way {
                Some((at, _)) if at == end => {
                    if let Some(took) = line.step()? {
                        samples[self.servers[number / 2]].add(took);
                    }
                }
                // A Ping of the relay, most likely.
                _ => drop(line.ends[end].read(&mut line.scratch)?),
            }
        }
        Ok(())
    }
}

/// Round trips beside talk.
pub struct Beside {
    pub p50: f64,
    pub p99: f64,
    /// The longest that any of the others got nothing, ms.
    pub gap: f64,
}

/// Round trips at one server while a hundred pairs talk.
pub fn beside(server: &Server) -> Result<Beside> {
    let mut line = Line::new(server, server)?;
    let mut talk = Flow::new(server, server, TALK)?;
    let before = server.books()?;
    let (mut ready, mut came, mut sample) = (Vec::new(), Vec::new(), Sample::default());
    let began = Instant::now();
    let (mut heard, mut gap) = (vec![began; TALK.pairs], Duration::ZERO);
    let (mut echoed, mut next) = (0, began);
    while began.elapsed() < TALK_TIME {
        let now = Instant::now();
        while (talk.sent as f64) < (now - began).as_secs_f64() * TALK_RATE {
            talk.grant((talk.sent % TALK.pairs as u64) as usize, 1)?;
        }
        talk.turn(Duration::ZERO, &mut ready, &mut came)?;
        for &(pair, _) in &came {
            let now = Instant::now();
            gap = gap.max(now - heard[pair]);
            heard[pair] = now;
        }
        if line.under_way.is_none() && now >= next {
            line.begin()?;
        } else if let Some(took) = line.step()? {
            sample.add(took);
            echoed += 1;
            next = Instant::now() + BESIDE_PAUSE;
        }
    }
    let ended = Instant::now();
    gap = heard.iter().map(|heard| ended - *heard).fold(gap, Duration::max);
    talk.drain()?;
    while line.under_way.is_some() {
        ensure!(ended.elapsed() < PATIENCE, "a round trip did not end");
        echoed += usize::from(line.step()?.is_some());
    }
    server.check(before, talk.sent + line.sent, talk.arrived + 2 * echoed as u64)?;
    Ok(Beside { p50: sample.percentile(50), p99: sample.percentile(99), gap: gap.as_secs_f64() * 1e3 })
}
