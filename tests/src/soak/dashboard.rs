//! A client of the local API, as the dashboard is one: it asks for lists again and again and follows what happens.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use super::ledger::{Ledger, Phase};
use crate::PATIENCE;

/// So often it asks.
const EVERY: Duration = Duration::from_secs(2);
/// So long it follows on one connection.
const FOLLOWS: Duration = Duration::from_secs(30);

/// Where the API is, and what opens it.
pub struct Dashboard {
    /// Its port.
    pub port: u16,
    /// The token.
    pub token: String,
    /// At least so many sessions are listed.
    pub sessions: usize,
}

impl Dashboard {
    /// Comes and goes until the end.
    pub async fn run(self, ledger: Arc<Ledger>) {
        let mut phase = ledger.phase.clone();
        let mut last = None;
        loop {
            let Ok(now) = phase.wait_for(|phase| *phase != Phase::Quiet).await.map(|phase| *phase) else { return };
            if now == Phase::End {
                return;
            }
            ledger.dashboards.fetch_add(1, Relaxed);
            if ledger.is_open()
                && let Err(error) = self.follow(&ledger, &mut last).await
            {
                ledger.trouble("troubles of the dashboard", format!("{error:#}"));
            }
            ledger.dashboards.fetch_sub(1, Relaxed);
        }
    }

    async fn request(&self, path: &str, more: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{more}\r\n",
            self.port, self.token
        );
        stream.write_all(head.as_bytes()).await?;
        Ok(stream)
    }

    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = self.request(path, "").await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.context("no answer in time")??;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }

    async fn follow(&self, ledger: &Ledger, last: &mut Option<String>) -> Result<()> {
        let more = last.as_ref().map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let mut lines = BufReader::new(self.request("/events", &more).await?).lines();
        let mut phase = ledger.phase.clone();
        let mut ticks = interval(EVERY);
        let until = Instant::now() + FOLLOWS;
        while ledger.is_open() && Instant::now() < until {
            tokio::select! {
                line = lines.next_line() => {
                    let line = line?.context("the stream of events ended")?;
                    if let Some(id) = line.strip_prefix("id:") {
                        *last = Some(id.trim().to_owned());
                    } else if line.starts_with("data:") {
                        ledger.did("events seen by the dashboard");
                    }
                }
                _ = ticks.tick() => {
                    let listed: Vec<Value> = serde_json::from_str(&self.get("/sessions").await?)?;
                    if listed.len() < self.sessions {
                        ledger.wrong(format!("only {} sessions are listed", listed.len()));
                    }
                    self.get("/prompts").await?;
                    self.get("/metrics").await?;
                    ledger.did("lists seen by the dashboard");
                }
                _ = phase.changed() => {}
            }
        }
        Ok(())
    }
}
