//! A phone that comes and goes, and what it does while it is there.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use happy_rpc::{
    CallError, ErrorCode, MetricsGet, PromptAnswer, PromptList, SessionCreate, SessionKill, SessionList, SessionState,
};
use rand_core::Rng;
use tokio::time::{sleep, timeout};

use super::ledger::{Ledger, Phase};
use super::typist::Typist;
use crate::PATIENCE;
use crate::chaos::{Chaos, Weather};
use crate::phone::{Away, Phone};

/// What a bad line does to what passes.
const BAD: Weather = Weather {
    latency: Duration::from_millis(40),
    jitter: Duration::from_millis(60),
    rate: 0,
    slice: 700,
    stalled_up: false,
    stalled_down: false,
};
/// The device is gone, and nobody has been told.
const GONE: Weather = Weather { stalled_up: true, stalled_down: true, ..BAD };
/// At most so long it looks at something.
const LOOK: Duration = Duration::from_secs(3);
/// So often it tries to finish what it has begun.
const ATTEMPTS: u32 = 10;

/// A phone with its line to the relay.
pub struct Visitor {
    away: Option<Away>,
    line: Arc<Mutex<Chaos>>,
    weather: Weather,
    is_bad: bool,
    /// The machine may not know that it has left, and keeps everything for it: it could come back as if it had slept.
    is_expected: bool,
    typists: Vec<Typist>,
    ledger: Arc<Ledger>,
}

fn below(bound: u32) -> u32 {
    happy_link::driver::rng().next_u32() % bound
}

impl Visitor {
    /// A phone that is away, and its line. A bad one breaks now and then.
    pub fn new(number: usize, away: Away, line: Chaos, is_bad: bool, ledger: Arc<Ledger>) -> Visitor {
        let weather = if is_bad { BAD } else { Weather::default() };
        line.set(weather);
        let line = Arc::new(Mutex::new(line));
        let typists = ledger.echoes.iter().enumerate();
        let typists = typists.map(|(index, id)| Typist::new(*id, format!("p{number}s{index}"))).collect();
        Visitor { away: Some(away), line, weather, is_bad, is_expected: false, typists, ledger }
    }

    /// Comes and goes until the end, and finishes then what is unfinished.
    pub async fn run(mut self) -> Vec<Typist> {
        let striker = self.is_bad.then(|| tokio::spawn(strike(self.line.clone(), self.ledger.clone())));
        let mut phase = self.ledger.phase.clone();
        loop {
            let Ok(now) = phase.wait_for(|phase| *phase != Phase::Quiet).await.map(|phase| *phase) else { break };
            if now == Phase::End {
                break;
            }
            self.ledger.phones.fetch_add(1, Relaxed);
            // The phase may have changed before this one was counted.
            if self.ledger.is_open() {
                self.visit().await;
            }
            self.ledger.phones.fetch_sub(1, Relaxed);
            let pause = Duration::from_millis(u64::from(below(6_000)));
            let _ = timeout(pause, phase.wait_for(|phase| *phase != Phase::Run)).await.map(drop);
            if !self.ledger.is_open() {
                self.say_goodbye().await;
            }
        }
        if let Some(striker) = striker {
            striker.abort();
        }
        self.settle().await;
        self.typists
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Chaos> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn come(&mut self, weather: Weather) -> Option<Phone> {
        let origin = {
            let mut line = self.line();
            if self.is_expected {
                // The network notices.
                line.cut();
            }
            line.set(weather);
            line.origin()
        };
        match self.away.take()?.come_back(&origin).await {
            Ok(phone) => Some(phone),
            Err((away, error)) => {
                self.away = Some(away);
                self.trouble(&error.context("coming back"));
                None
            }
        }
    }

    /// Comes over a good line, if the machine may expect it, only to leave as one should.
    async fn say_goodbye(&mut self) {
        for _ in 0..ATTEMPTS {
            if !self.is_expected {
                return;
            }
            if let Some(phone) = self.come(Weather::default()).await {
                self.away = Some(phone.leave().await);
                self.expected(false);
            }
        }
    }

    fn expected(&mut self, is_expected: bool) {
        match (self.is_expected, is_expected) {
            (false, true) => drop(self.ledger.expected.fetch_add(1, Relaxed)),
            (true, false) => drop(self.ledger.expected.fetch_sub(1, Relaxed)),
            _ => {}
        }
        self.is_expected = is_expected;
    }

    fn trouble(&self, error: &anyhow::Error) {
        let whose = if self.is_bad { "troubles on a bad line" } else { "troubles on a good line" };
        self.ledger.trouble(whose, format!("{error:#}"));
    }

    async fn visit(&mut self) {
        let came = self.come(self.weather).await;
        // Of one with a bad line it is never certain that its goodbye has arrived.
        self.expected(self.is_bad || came.is_none());
        let Some(mut phone) = came else { return };
        self.ledger.did("visits");
        for _ in 0..2 + below(5) {
            if !self.ledger.is_open() {
                break;
            }
            if let Err(error) = self.act(&mut phone).await {
                self.trouble(&error);
                self.expected(true);
                break;
            }
            phone.catch_up();
        }
        if below(4) == 0 {
            self.ledger.did("goodbyes that never came");
            self.expected(true);
            self.line().set(GONE);
        }
        self.away = Some(phone.leave().await);
    }

    async fn act(&mut self, phone: &mut Phone) -> Result<()> {
        match below(10) {
            0..=1 => self.look(phone).await.context("looking"),
            2..=4 => self.type_lines(phone).await.context("typing"),
            5..=6 => self.answer(phone).await.context("answering"),
            7 => self.create(phone).await.context("creating"),
            8 => {
                let metrics = phone.call(MetricsGet {}).await.context("metrics")?;
                self.ledger.did("figures asked for");
                if (metrics.total.running as usize) < self.ledger.looks.len() {
                    self.ledger.wrong(format!("only {} sessions run", metrics.total.running));
                }
                Ok(())
            }
            _ => {
                phone.call(SessionList::default()).await.context("listing")?;
                self.ledger.did("lists asked for");
                Ok(())
            }
        }
    }

    /// Looks at up to three sessions, one after the other, and does not always say that it has seen enough.
    async fn look(&self, phone: &mut Phone) -> Result<()> {
        for _ in 0..=below(3) {
            let session = self.ledger.looks[below(self.ledger.looks.len() as u32) as usize];
            let (viewer, _) = phone.paint(session).await?;
            if let Ok(output) = timeout(LOOK, phone.output(&viewer)).await {
                output?;
            }
            if below(3) > 0 {
                phone.detach(&viewer).await?;
            }
            self.ledger.did("looks");
        }
        Ok(())
    }

    async fn type_lines(&mut self, phone: &mut Phone) -> Result<()> {
        let index = below(self.typists.len() as u32) as usize;
        let lines = if below(8) == 0 { 60 } else { 1 + below(4) };
        let typist = &mut self.typists[index];
        let viewer = typist.go_on(phone, lines.into(), &self.ledger).await?;
        // Who leaves at once sees it the next time.
        if below(4) > 0 {
            typist.read(phone, &viewer, &self.ledger).await?;
        }
        phone.detach(&viewer).await
    }

    async fn answer(&self, phone: &Phone) -> Result<()> {
        let prompts = phone.call(PromptList::default()).await?;
        self.ledger.did("prompts asked for");
        let Some(prompt) = prompts.get(below(prompts.len().max(1) as u32) as usize) else { return Ok(()) };
        let number = prompt.question.split_once("step ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let choice = below(2);
        let key = prompt.choices.get(choice as usize).and_then(|choice| choice.keys.chars().next());
        let (Some(number), Some(key)) = (number, key) else {
            self.ledger.wrong(format!("not a question that was asked: {prompt:?}"));
            return Ok(());
        };
        let question = (prompt.session, number);
        let answer = phone.call(PromptAnswer { prompt: prompt.id, choice, until: None }).await;
        // Of one that was refused, because somebody else was faster, nothing may come; of one that nobody has answered, something may.
        let is_refused = answer.as_ref().err().and_then(|error| error.downcast_ref::<CallError>());
        let is_refused = is_refused.is_some_and(|error| error.code != ErrorCode::Indeterminate);
        if !is_refused {
            self.ledger.answered(question, key, answer.is_ok());
        }
        match answer {
            Ok(_) => self.ledger.did("prompts answered"),
            Err(_) if is_refused => self.ledger.did("prompts answered too late"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create(&self, phone: &mut Phone) -> Result<()> {
        let command = ["sh", "-c", "echo up; exec cat"].map(str::to_owned).to_vec();
        let create = SessionCreate { command, cols: 80, rows: 24, keep: Some(64 * 1024), ..SessionCreate::default() };
        let session = phone.call(create).await?;
        let (mut viewer, _) = phone.paint(session.id).await?;
        phone.type_into(&mut viewer, b"hello\n").await?;
        let kill = SessionKill { session: session.id };
        phone.call(kill).await?;
        let ended = async {
            loop {
                let all = phone.call(SessionList::default()).await?;
                match all.iter().find(|listed| listed.id == session.id) {
                    Some(listed) if listed.state == SessionState::Running => sleep(Duration::from_millis(100)).await,
                    Some(_) => return Ok(()),
                    None => bail!("it is not listed"),
                }
            }
        };
        timeout(PATIENCE, ended).await.context("it does not end")??;
        phone.call(kill).await.context("taking it off the list")?;
        self.ledger.did("sessions begun and ended");
        Ok(())
    }

    /// Types what has not been taken and reads what has not been seen.
    async fn settle(&mut self) {
        for _ in 0..ATTEMPTS {
            let Some(mut phone) = self.come(self.weather).await else { continue };
            let mut outcome = Ok(());
            for typist in &mut self.typists {
                outcome = async {
                    let viewer = typist.go_on(&mut phone, 0, &self.ledger).await?;
                    typist.read(&mut phone, &viewer, &self.ledger).await?;
                    phone.detach(&viewer).await
                }
                .await;
                if outcome.is_err() {
                    break;
                }
            }
            self.away = Some(phone.leave().await);
            match outcome {
                Ok(()) => return,
                Err(error) => self.trouble(&error.context("finishing")),
            }
        }
        self.ledger.wrong("a phone cannot finish what it has begun".to_owned());
    }
}

/// Breaks a line now and then.
async fn strike(line: Arc<Mutex<Chaos>>, ledger: Arc<Ledger>) {
    loop {
        sleep(Duration::from_millis(5_000 + u64::from(below(10_000)))).await;
        if ledger.is_open() {
            line.lock().unwrap_or_else(PoisonError::into_inner).strike();
            ledger.did("lines broken");
        }
    }
}
