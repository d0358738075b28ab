//! What the people at a device do, what its program does with what the driver tells, and what both insist on.

use std::rc::Rc;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::{Answer, CallError, ChannelName, Class, Code, Event, LinkDown, RelayDown, RequestId, SendError};
use happy_wire::frame::INITIAL_LIMIT;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::device::{App, Channel, Wish};
use crate::world::host;

/// Of one device, so that a world stays small.
const MAX_CHANNELS: usize = 10;
/// A deadline that only an answer is earlier than.
const LATE: Duration = Duration::from_secs(3600);

/// A message says which it is, and its filling can be checked.
fn message(label: &str, sender: DeviceId, number: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{label}/{}/{number}:", sender.short()).into_bytes();
    let begin = bytes.len();
    bytes.resize(begin.max(length), number as u8);
    bytes
}

impl App {
    /// Does one thing after another until the storm is over or the driver shall start again.
    pub async fn people(self: &Rc<Self>) -> Wish {
        let hurry = Duration::from_millis(self.world.dice.borrow_mut().pick(&[100, 400, 1500]));
        loop {
            let pause = self.world.dice.borrow_mut().within(hurry);
            sleep(pause).await;
            if !self.world.is_stormy() {
                return Wish::Rest;
            }
            let (what, peer) = {
                let mut dice = self.world.dice.borrow_mut();
                (dice.below(1000), dice.pick(&self.peers))
            };
            match what {
                0..200 => self.open(peer),
                200..500 => drop(spawn_local(self.clone().ask(peer))),
                500..600 => drop(spawn_local(self.clone().tell(peer))),
                600..700 => self.close(),
                700..720 => self.handle.renew_keys(&peer),
                720..760 => self.handle.hurry(),
                760..800 => {
                    let active = self.world.dice.borrow_mut().chance(500);
                    self.handle.set_active(active);
                }
                800..808 => {
                    // The lid is closed: for this device much time passes at once.
                    let asleep = self.world.dice.borrow_mut().mostly_short(Duration::from_secs(600));
                    self.world.note(host(self.me), &format!("sleeps for {asleep:?}"));
                    tokio::time::advance(asleep).await;
                    self.world.count("fault: slept");
                }
                808..814 => return Wish::StartAgain,
                _ => {}
            }
        }
    }

    // Channels

    fn open(self: &Rc<Self>, peer: DeviceId) {
        if self.seen.borrow().channels.len() >= MAX_CHANNELS {
            return;
        }
        let class = self.world.dice.borrow_mut().pick(&[Class::Control, Class::Interactive, Class::Bulk]);
        let label = {
            let mut seen = self.seen.borrow_mut();
            seen.labels += 1;
            format!("{}.{}.{}", self.me, self.life, seen.labels)
        };
        if let Ok(number) = self.handle.open_channel(&peer, class, &label) {
            self.has_channel(peer, number, number.into(), label);
            self.world.count("channel opened");
        }
    }

    /// From now on there is such a channel, and perhaps somebody writes on it.
    fn has_channel(self: &Rc<Self>, peer: DeviceId, number: u32, name: ChannelName, label: String) {
        let channel = Channel { name, label: label.clone(), sent: 0, received: 0, unconsumed: 0, closed: false };
        let before = self.seen.borrow_mut().channels.insert((peer, number), channel);
        assert!(before.is_none_or(|before| before.closed), "channel {number} is open twice");
        if self.world.dice.borrow_mut().chance(700) {
            spawn_local(self.clone().write(peer, number, name, label));
        }
    }

    /// Sends numbered messages, now and then without the patience to wait until the channel takes one.
    async fn write(self: Rc<Self>, peer: DeviceId, number: u32, name: ChannelName, label: String) {
        let (messages, gap) = {
            let mut dice = self.world.dice.borrow_mut();
            (dice.below(60), Duration::from_millis(dice.pick(&[1, 10, 300])))
        };
        for at in 0..messages {
            let (pause, length, patience) = {
                let mut dice = self.world.dice.borrow_mut();
                let length = match dice.below(60) {
                    0..40 => dice.below(200),
                    40..58 => dice.below(20_000),
                    _ => dice.below(262_144),
                };
                // Never none: whoever gives up at once would begin again for ever, and time would stand still.
                let short = Duration::from_millis(1) + dice.within(Duration::from_millis(300));
                let patience = if dice.chance(100) { short } else { LATE * 24 };
                (dice.within(gap), length as usize, patience)
            };
            sleep(pause).await;
            if !self.world.is_stormy() {
                return;
            }
            let bytes = message(&label, self.handle.device(), at, length);
            let wait = self.world.waits(self.me, "send");
            let began = Instant::now();
            let sent = loop {
                match timeout(patience, self.handle.send(&peer, name, &bytes)).await {
                    Ok(sent) => break sent,
                    // It was not taken, so the same message has its turn again.
                    Err(_) => self.world.count("send given up and begun again"),
                }
            };
            drop(wait);
            if began.elapsed() > Duration::ZERO {
                self.world.count("send waited");
            }
            match sent {
                Ok(()) => {
                    let mut seen = self.seen.borrow_mut();
                    let channel = seen.channels.get_mut(&(peer, number)).filter(|channel| channel.label == label);
                    // Closed by the other side meanwhile, or the driver has told so and it was heard already.
                    let Some(channel) = channel else { return };
                    channel.sent += 1;
                }
                Err(SendError::Closed) => return,
                Err(error) => panic!("{}: a message was refused: {error}", host(self.me)),
            }
        }
    }

    fn close(&self) {
        let mut seen = self.seen.borrow_mut();
        let open = seen.channels.values_mut().filter(|channel| !channel.closed).count() as u64;
        let pick = self.world.dice.borrow_mut().below(open) as usize;
        let channel = seen.channels.iter_mut().filter(|(_, channel)| !channel.closed).nth(pick);
        let Some((&(peer, number), channel)) = channel else { return };
        channel.closed = true;
        // The reason tells how many messages the other side must have had by then.
        self.handle.close_channel(&peer, channel.name, Code::GOODBYE, &channel.sent.to_string());
        self.world.note(host(self.me), &format!("closes {number} with {}", peer.short()));
    }

    fn on_message(self: &Rc<Self>, peer: DeviceId, number: u32, bytes: &[u8]) {
        let mut seen = self.seen.borrow_mut();
        let channel = seen.channels.get_mut(&(peer, number));
        let channel = channel.unwrap_or_else(|| panic!("a message came on channel {number}, which is not open"));
        let expected = message(&channel.label, peer, channel.received, bytes.len());
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        assert!(bytes == expected, "message {} of {} was expected, not {head}", channel.received, channel.label);
        channel.received += 1;
        channel.unconsumed += bytes.len();
        assert!(channel.unconsumed <= INITIAL_LIMIT as usize, "{} bytes came unasked for", channel.unconsumed);
        let (name, label, length) = (channel.name, channel.label.clone(), bytes.len());
        drop(seen);
        self.world.count("message");
        let app = self.clone();
        let pause = {
            let mut dice = self.world.dice.borrow_mut();
            if dice.chance(900) { Duration::ZERO } else { dice.within(Duration::from_secs(2)) }
        };
        spawn_local(async move {
            sleep(pause).await;
            let mut seen = app.seen.borrow_mut();
            let channel = seen.channels.get_mut(&(peer, number)).filter(|channel| channel.label == label);
            if let Some(channel) = channel {
                channel.unconsumed -= length;
                app.handle.consumed(&peer, name, length);
            }
        });
    }

    fn on_closed(&self, peer: DeviceId, number: u32, code: Code, reason: &str) {
        let channel = self.seen.borrow_mut().channels.remove(&(peer, number));
        let channel = channel.unwrap_or_else(|| panic!("channel {number} was closed but never open"));
        assert!(code != Code::MALFORMED && code != Code::TOO_LARGE, "a channel ended with {code}: {reason}");
        if let (Code::GOODBYE, Ok(sent)) = (code, reason.parse::<u64>()) {
            assert_eq!(channel.received, sent, "messages before Close were lost on {}", channel.label);
            self.world.count("closed in order");
        }
    }

    // Calls

    /// Calls a peer and waits for the answer, or only for a while.
    async fn ask(self: Rc<Self>, peer: DeviceId) {
        let (is_command, deadline, patience, length) = {
            let mut dice = self.world.dice.borrow_mut();
            let deadline = if dice.chance(200) { dice.within(Duration::from_secs(10)) } else { LATE };
            let patience = dice.chance(250).then(|| dice.mostly_short(Duration::from_secs(6)));
            let length = dice.pick(&[0, 0, 0, 3000, 100_000]);
            (dice.chance(200), deadline, patience, length)
        };
        let kind = if is_command { "command" } else { "call" };
        let number = {
            let mut seen = self.seen.borrow_mut();
            seen.labels += 1;
            seen.labels
        };
        let body = message(&format!("{kind}/{}.{}", self.me, self.life), self.handle.device(), number, length);
        let wait = self.world.waits(self.me, kind);
        self.world.count(if is_command { "command" } else { "call" });
        let began = Instant::now();
        let call = async {
            match is_command {
                true => self.handle.command(&peer, body.clone(), Some(deadline)).await,
                false => self.handle.call(&peer, body.clone(), Some(deadline)).await,
            }
        };
        let answer = match patience {
            None => call.await,
            Some(patience) => match timeout(patience, call).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.seen.borrow_mut().cancelled += 1;
                    return self.world.count("call cancelled");
                }
            },
        };
        drop(wait);
        self.world.note(host(self.me), &format!("{kind} {number} came to {}", in_short(&answer)));
        match answer {
            Ok(Answer::Body(answer)) => {
                assert!(answer == body, "{}: {kind} {number} got the answer to another", host(self.me));
                let ran = self.world.book.borrow().ran.get(&body).copied();
                assert_eq!(ran, Some(1), "{}: an answer to what never ran", host(self.me));
                self.world.count("call answered");
            }
            Ok(Answer::Indeterminate) => {
                assert!(!is_command, "{}: a command was given up although the callee remembers", host(self.me));
                let callee = self.world.disks.iter().find(|disk| disk.borrow().device() == peer);
                let lives = callee.map_or(0, |disk| disk.borrow().epoch);
                assert!(lives > 1, "{}: indeterminate although the callee never died", host(self.me));
                self.world.count("call indeterminate");
            }
            Ok(Answer::DeadlinePassed) => {
                assert!(began.elapsed() >= deadline, "{}: the deadline passed too early", host(self.me));
                self.world.count("call past its deadline");
            }
            Ok(Answer::LinkGone) => {
                assert!(self.ended.get(), "{}: no peer was removed", host(self.me));
                self.world.count("call ended with its driver (LinkGone)");
            }
            Err(CallError::TooMany) => self.world.count("too many calls"),
            Err(error) => panic!("{}: a call was refused: {error}", host(self.me)),
        }
    }

    fn on_request(self: &Rc<Self>, peer: DeviceId, id: RequestId, body: Vec<u8>) {
        let mut runs = true;
        if body.starts_with(b"command/") {
            // What has taken effect is on the disk in the same moment, and the answer with it.
            let mut disk = self.world.disks[self.me].borrow_mut();
            runs = !disk.commands.contains(&body);
            if runs {
                disk.commands.push(body.clone());
            } else {
                self.world.count("command asked again");
            }
        }
        if runs && !body.starts_with(b"probe/") {
            let ran = {
                let mut book = self.world.book.borrow_mut();
                let ran = book.ran.entry(body.clone()).or_default();
                *ran += 1;
                *ran
            };
            assert_eq!(ran, 1, "{}: a call ran twice", host(self.me));
        }
        let app = self.clone();
        let pause = {
            let mut dice = self.world.dice.borrow_mut();
            if dice.chance(600) { Duration::ZERO } else { dice.within(Duration::from_secs(3)) }
        };
        spawn_local(async move {
            if app.world.is_stormy() {
                sleep(pause).await;
            }
            let _wait = app.world.waits(app.me, "respond");
            let answered = app.handle.respond(&peer, id, &body).await;
            let fine = answered.is_ok() || answered == Err(SendError::Closed) && app.ended.get();
            assert!(fine, "{}: an answer was refused: {answered:?}", host(app.me));
        });
    }

    // Events

    /// Tells a peer a few things in a row.
    async fn tell(self: Rc<Self>, peer: DeviceId) {
        let (many, length) = {
            let mut dice = self.world.dice.borrow_mut();
            (1 + dice.below(30), dice.pick(&[0, 1000, 60_000]))
        };
        let stream = {
            let mut seen = self.seen.borrow_mut();
            seen.labels += 1;
            format!("notice/{}.{}.{}", self.me, self.life, seen.labels)
        };
        for number in 1..=many {
            let body = message(&stream, self.handle.device(), number, length);
            let began = Instant::now();
            let wait = self.world.waits(self.me, "emit");
            let told = self.handle.emit(&peer, body).await;
            drop(wait);
            if began.elapsed() > Duration::ZERO {
                self.world.count("emit waited");
            }
            match told {
                Ok(()) => {}
                // Without a session there is nobody to be told.
                Err(SendError::Closed) => return,
                Err(error) => panic!("{}: an event was refused: {error}", host(self.me)),
            }
        }
    }

    fn on_notice(&self, peer: DeviceId, body: &[u8]) {
        let mut seen = self.seen.borrow_mut();
        let head = body.split(|byte| *byte == b':').next().unwrap_or_default();
        let at = head.iter().rposition(|byte| *byte == b'/').expect("a notice has a number");
        let number: u64 = String::from_utf8_lossy(&head[at + 1..]).parse().expect("a notice has a number");
        let session = seen.sessions.get(&peer).copied().unwrap_or_default();
        let (last, of) = seen.notices.insert(head[..at].to_vec(), (number, session)).unwrap_or((0, session));
        // Events end with the session; within it none is missing.
        let fits = if of == session && last > 0 { number == last + 1 } else { number > last };
        assert!(fits, "{}: event {number} came after {last}", host(self.me));
        self.world.count("event");
    }

    /// Takes what the driver tells.
    pub fn on_event(self: &Rc<Self>, event: Event) {
        self.world.note(host(self.me), &told(&event));
        match event {
            Event::Opened { peer, session, channel, label, .. } => {
                self.has_channel(peer, channel, ChannelName::of(session, channel), label);
            }
            Event::Message { peer, channel, bytes } => self.on_message(peer, channel, &bytes),
            Event::Closed { peer, channel, code, reason } => self.on_closed(peer, channel, code, &reason),
            Event::Request { peer, id, body } => self.on_request(peer, id, body),
            Event::Cancelled { .. } => self.world.count("callee told of a cancelled call"),
            Event::Delivered { .. } => self.world.count("command delivered"),
            Event::Notice { peer, body } => self.on_notice(peer, &body),
            Event::PairSecrets { peer, session } => drop(spawn_local(self.clone().store(peer, session))),
            Event::NewBundle { peer } => self.store_bundle(&peer),
            Event::LinkUp { peer, resumed, same_life } => self.on_up(peer, resumed, same_life),
            Event::LinkDown { peer, why } => {
                if let LinkDown::Ended { code, reason, .. } = &why {
                    assert!(
                        *code != Code::MALFORMED && *code != Code::TOO_MANY,
                        "an honest peer was accused: {reason}"
                    );
                }
                self.seen.borrow_mut().up.insert(peer, false);
                self.world.count("link down");
            }
            Event::RelayDown { why: RelayDown::Told(code) | RelayDown::Ours(code), .. } => {
                let honest = [Code::GOODBYE, Code::SILENT, Code::DISPLACED, Code::RESTARTING].contains(&code);
                assert!(honest, "{}: relay and device accuse each other: {code}", host(self.me));
            }
            Event::Refused { reason, .. } => panic!("{}: refused: {reason:?}", host(self.me)),
            Event::StaleDevice { .. } => panic!("{}: a device was taken for an old copy", host(self.me)),
            Event::Answer { id, .. } => {
                let cancelled = self.seen.borrow().cancelled;
                assert!(cancelled > 0, "{}: an answer to {id:?}, for which nobody waits", host(self.me));
                self.world.count("answer just after the call was cancelled");
            }
            _ => {}
        }
    }

    fn on_up(&self, peer: DeviceId, resumed: bool, same_life: bool) {
        assert!(!resumed || same_life, "a session outlived its process");
        let mut seen = self.seen.borrow_mut();
        if !resumed {
            let left = seen.channels.iter().find(|((of, _), channel)| *of == peer && channel.received > 0);
            let left = left.filter(|(_, channel)| !channel.closed).map(|(_, channel)| &channel.label);
            assert!(left.is_none(), "{}: channel {left:?} survived its session", host(self.me));
            *seen.sessions.entry(peer).or_default() += 1;
        }
        let before = seen.up.insert(peer, true);
        assert_ne!(before, Some(true), "{}: up twice", host(self.me));
        self.world.count(if resumed { "resumed session" } else { "new session" });
    }
}

/// An event without its contents.
fn told(event: &Event) -> String {
    match event {
        Event::Message { peer, channel, bytes } => format!("Message {} {channel} {}", peer.short(), bytes.len()),
        Event::Request { peer, id, body } => format!("Request {} {id:?} {}", peer.short(), body.len()),
        Event::Notice { peer, body } => format!("Notice {} {}", peer.short(), body.len()),
        Event::Answer { peer, id, answer } => {
            format!("Answer {} {id:?} {}", peer.short(), in_short(&Ok(answer.clone())))
        }
        other => format!("{other:?}"),
    }
}

fn in_short(answer: &Result<Answer, CallError>) -> String {
    match answer {
        Ok(Answer::Body(body)) => format!("{} bytes", body.len()),
        other => format!("{other:?}"),
    }
}
