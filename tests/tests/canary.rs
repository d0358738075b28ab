//! Promise P5: what a relay handles contains nothing of what is typed and printed.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use happy_crypto::DeviceId;
use happy_relay::{Config, Door, Relay, Tap};
use happy_tests::process::Home;
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

/// Everything that passes, one byte after the other.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    fn contains(&self, needle: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).windows(needle.len()).any(|window| window == needle)
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Tap for Captured {
    fn received(&self, _: Option<DeviceId>, frame: &[u8]) {
        self.add(frame);
    }

    fn sent(&self, _: Option<DeviceId>, frame: &[u8]) {
        self.add(frame);
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Captured;

    fn make_writer(&'a self) -> Captured {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_sees_no_word_of_what_is_typed_and_printed() -> Result<()> {
    let (frames, log) = (Captured::default(), Captured::default());
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).with_ansi(false).init();
    let relay = Relay::new(Config { tap: Some(Arc::new(frames.clone())), ..Config::default() })?;
    let listening = relay.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Door::plain()).await?;
    let home = Home::start(&format!("http://127.0.0.1:{}", listening.address().port()))?;

    let [typed, printed, title, device, session_name] = ["typed", "printed", "title", "device", "session"]
        .map(|what| format!("canary-{what}-{}", Uuid::new_v4().simple()));
    let mut phone = home.let_pair("owner", &device).await?;
    let session =
        phone.create(&["sh", "-c", "stty -echo; while read line; do eval \"$line\"; done", &session_name]).await?;
    let mut viewer = phone.attach(session.id).await?;
    // The shell puts the printed canary together itself, so that it passes in one piece in this direction only.
    let (head, tail) = printed.split_at(10);
    let line = format!("printf '\\033]0;{title}\\007%s%s\\n' '{head}' '{tail}' # {typed}\n");
    phone.type_into(&mut viewer, line.as_bytes()).await?;
    phone.output_until(&viewer, &printed).await?;

    let metrics = Captured::default();
    metrics.add(relay.metrics().as_bytes());
    assert!(frames.len() > 4_000, "the relay carried only {} bytes", frames.len());
    assert!(log.len() > 0, "the relay logged nothing, so its log proves nothing");
    for canary in [&typed, &printed, &title, &device, &session_name] {
        for (place, captured) in [("frames", &frames), ("log", &log), ("metrics", &metrics)] {
            assert!(!captured.contains(canary.as_bytes()), "{canary} in the {place} of the relay");
        }
    }
    // The search itself works: the relay does see who speaks, in every frame.
    assert!(frames.contains(phone.device.as_bytes()), "the phone's id is in no frame");
    Ok(())
}
