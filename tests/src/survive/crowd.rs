//! As many sessions as a machine may have: begun, listed, looked at, found again by the next daemon, and ended.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_rpc::{SessionKill, SessionState};
use tokio::runtime::Runtime;

use crate::goal::goal;
use crate::process::{Home, Relay, holders_in, wait_until};

/// How long each took, and what it weighed.
pub struct Crowd {
    sessions: usize,
    begun: Duration,
    listed: Duration,
    echoed: Duration,
    found_again: Duration,
    ended: Duration,
    /// Of all holders, what they share divided among those that share it, and of the daemon; MB.
    holders: f64,
    daemon: f64,
}

impl Crowd {
    /// Prints it, and a line for each goal.
    pub fn show(&self) {
        let each = |all: Duration| all.as_secs_f64() * 1e3 / self.sessions as f64;
        anstream::println!(
            "\n{} sessions at once: begun in {:.2} ms each, listed in {:.0} ms, a key echoed in {:.1} ms, found again after kill -9 in {:.2} s, ended in \
             {:.2} ms each; holders {:.0} MB in all, daemon {:.0} MB",
            self.sessions,
            each(self.begun),
            self.listed.as_secs_f64() * 1e3,
            self.echoed.as_secs_f64() * 1e3,
            self.found_again.as_secs_f64(),
            each(self.ended),
            self.holders,
            self.daemon
        );
        goal("survive-crowd-holders", self.holders, "MB", 4.0 * self.sessions as f64);
    }
}

/// Runs it; `limit` says whether so many are the most that there may be.
///
/// # Errors
/// What did not work.
pub fn run(runtime: &Runtime, sessions: usize, limit: bool) -> Result<Crowd> {
    let relay = Relay::start()?;
    let mut home = Home::start(&relay.origin())?;
    let mut phone = runtime.block_on(home.let_pair("owner", "phone"))?;
    let began = Instant::now();
    let mut ids = Vec::new();
    for number in 0..sessions {
        let created = runtime.block_on(phone.create(&["cat"])).with_context(|| format!("session {number}"))?;
        ids.push(created.id);
    }
    let begun = began.elapsed();
    if limit {
        let refused = runtime.block_on(phone.create(&["cat"])).err().context("one more than there may be was begun")?;
        ensure!(refused.to_string().contains("end some"), "one more was refused with `{refused:#}`");
    }
    let running = |home: &Home| -> Result<usize> {
        let all = home.json(["ls"])?;
        Ok(all.as_array().into_iter().flatten().filter(|session| session["state"] == "running").count())
    };
    let began = Instant::now();
    ensure!(running(&home)? == sessions, "{} of {sessions} are listed", running(&home)?);
    let listed = began.elapsed();

    let last = *ids.last().context("no session")?;
    let mut viewer = runtime.block_on(phone.attach(last))?;
    let began = Instant::now();
    runtime.block_on(async {
        phone.type_into(&mut viewer, b"x").await?;
        phone.output(&viewer).await
    })?;
    let echoed = began.elapsed();

    let holders: Vec<i32> = holders_in(home.path()).into_iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    ensure!(holders.len() == sessions, "{} holders", holders.len());
    let heavy: f64 = holders.iter().map(|pid| weight(*pid)).sum::<Result<f64>>()?;
    let daemon = home.json(["daemon", "status"])?["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let daemon = weight(daemon.context("no daemon")?)?;

    let began = Instant::now();
    home.kill_daemon()?;
    home.begin_daemon()?;
    wait_until("the daemon to answer", || Ok(home.json(["daemon", "status"]).is_ok()))?;
    let found = running(&home)?;
    let found_again = began.elapsed();
    ensure!(found == sessions, "{found} of {sessions} are found again");

    let began = Instant::now();
    runtime.block_on(async {
        // The link comes back by itself.
        phone.wait_for("the link", |event| matches!(event, happy_link::Event::LinkUp { .. }).then_some(())).await?;
        for id in &ids {
            phone.call(SessionKill { session: *id }).await?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    wait_until("the end of all", || Ok(running(&home)? == 0))?;
    let ended = began.elapsed();
    // Of the ended ones a bounded number is kept, and their holders.
    wait_until("the oldest to be forgotten", || {
        let listed = home.json(["ls"])?.as_array().map_or(0, Vec::len);
        Ok(listed <= 100 && holders_in(home.path()).len() <= 100)
    })?;
    let left = runtime.block_on(phone.call(happy_rpc::SessionList::default()))?;
    ensure!(left.iter().all(|session| session.state != SessionState::Running), "one runs on");
    Ok(Crowd { sessions, begun, listed, echoed, found_again, ended, holders: heavy, daemon })
}

/// Memory of a process, what it shares divided among those that share it, MB.
fn weight(process: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).context("it has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0 / 1e6)
}
