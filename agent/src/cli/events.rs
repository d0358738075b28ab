//! `happy events`: what happens on a machine, as it happens, through whatever breaks in between.

use happy_rpc::{Device, Event, EventPlace, Followed, Follower, Presence, Step};
use serde::Serialize;
use serde_json::Value;

use crate::cli::MachineArg;
use crate::cli::attach::find_again;
use crate::cli::client::{CallFailure, Client, Happening};
use crate::cli::daemon::{Interrupts, connect};
use crate::cli::output::{BAD, FAINT, Form, STRONG, aside, paint, reader_gone, tame};
use crate::cli::sessions::{short_id, state};
use crate::daemon::socket::Unanswered;
use crate::store::Home;
use crate::trouble::Trouble;

/// Columns of the longest name of an event, `session.list_again`.
const NAME: usize = 18;
/// Columns of a state such as `exited 127`.
const STATE: usize = 10;

/// `happy events`.
pub async fn events(home: &Home, form: Form, machine: MachineArg) -> Result<u8, Trouble> {
    let machine = machine.machine.as_deref();
    let mut interrupts = Interrupts::new();
    let mut client = connect(home, machine).await?;
    let mut watch = Watch { form, follower: Follower::default() };
    let mut gone = std::pin::pin!(reader_gone());
    loop {
        tokio::select! {
            outcome = watch.run(&client) => outcome?,
            () = interrupts.next() => return Ok(0),
            () = &mut gone => return Ok(0),
        }
        watch.note("happy: the daemon is gone; waiting for it");
        client = tokio::select! {
            client = find_again(home, machine, "then `happy events` again.") => client?,
            () = interrupts.next() => return Ok(0),
            () = &mut gone => return Ok(0),
        };
    }
}

struct Watch {
    form: Form,
    /// Outlives the connection to the daemon: with the next one it goes on where it stopped.
    follower: Follower,
}

impl Watch {
    /// Prints events until the daemon is gone.
    async fn run(&mut self, client: &Client) -> Result<(), Trouble> {
        let mut follows = true;
        loop {
            // Without a link nobody would answer.
            while follows && client.link_up() {
                match self.follow(client).await {
                    Ok(again) => follows = again,
                    Err(CallFailure::DaemonGone) => return Ok(()),
                    // The other machine was away or restarted meanwhile; looking changes nothing, so it is asked again.
                    Err(CallFailure::Unanswered(Unanswered::Indeterminate | Unanswered::DeadlinePassed)) => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
            match client.event().await {
                Some(Happening::Event(body)) => follows |= self.told(&body),
                Some(Happening::Link(up)) => {
                    follows |= up;
                    self.note(if up { "happy: the link is up" } else { "happy: the link is down; reconnecting" });
                }
                None => return Ok(()),
            }
        }
    }

    /// Prints what was missed. Whether there is more to ask for.
    async fn follow(&mut self, client: &Client) -> Result<bool, CallFailure> {
        let (question, asked) = self.follower.ask();
        // Not as events: a later version may tell some that this one does not know.
        let followed: Followed<Value> = client.call_as(asked).await?;
        let Some(caught) = self.follower.answered(question, &followed) else { return Ok(true) };
        let at = EventPlace { log: followed.log, number: followed.number };
        match (caught.lists, self.form) {
            (false, _) => {}
            (true, _) if caught.gap => self.form.step(&Beginning::Gap(at), &gap_line(at)),
            (true, Form::Json) => self.form.step(&Beginning::From(at), ""),
            (true, Form::Text) => self.note("happy: what happens from now on; Ctrl-C ends it"),
        }
        followed.missed.iter().skip(caught.skip).for_each(|told| self.print(told));
        Ok(caught.again)
    }

    /// Takes an event. Whether something before it was lost.
    fn told(&mut self, body: &[u8]) -> bool {
        let Ok(told) = serde_json::from_slice::<Value>(body) else { return false };
        let step = match place(&told) {
            Some(at) => self.follower.told(Some(at)),
            None if told["event"] == "session.list_again" => self.follower.lost(),
            // What only this machine's own socket tells: no event of the log.
            None => Step::Leave,
        };
        if step == Step::Take {
            self.print(&told);
        }
        step == Step::Ask
    }

    fn print(&self, told: &Value) {
        self.form.step(told, &line(told));
    }

    /// Says how the watching goes, beside the events.
    fn note(&self, text: &str) {
        if self.form == Form::Text {
            aside(&paint(FAINT, text));
        }
    }
}

/// What comes next is the event after this place.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Beginning {
    /// It was asked for the first time.
    From(EventPlace),
    /// Others were lost before.
    Gap(EventPlace),
}

fn gap_line(at: EventPlace) -> String {
    let text = "events were lost: the daemon was restarted there, or there were too many";
    format!("{:>6}  {}  {text}", at.number, paint(BAD, &format!("{:NAME$}", "gap")))
}

fn place(told: &Value) -> Option<EventPlace> {
    serde_json::from_value(told.get("at")?.clone()).ok()
}

/// An event for people.
fn line(told: &Value) -> String {
    let number = place(told).map(|at| at.number.to_string()).unwrap_or_default();
    let name = tame(told["event"].as_str().unwrap_or_default(), NAME);
    let what = match serde_json::from_value(told.clone()) {
        Ok(Event::SessionChanged(session)) => {
            let (style, state) = state(&session);
            let state = paint(style, &format!("{state:STATE$}"));
            format!("{}  {state}  {}", short_id(session.id), tame(&session.name, 40))
        }
        Ok(Event::SessionRemoved { session }) => short_id(session),
        Ok(Event::PromptAppeared(prompt)) => {
            let question = tame(prompt.question.lines().next_back().unwrap_or_default(), 60);
            format!("{}  {}  {question}", short_id(prompt.session), short_id(prompt.id))
        }
        Ok(Event::PromptEnded { prompt, session, end }) => {
            format!("{}  {}  {}", short_id(session), short_id(prompt), super::prompts::how(&end))
        }
        Ok(Event::ListAgain {}) => {
            "events were lost on their way to the daemon; `happy ls` shows how things are".into()
        }
        Ok(Event::MachineChanged(state)) => status_name(state.status).into(),
        Ok(Event::DevicesChanged(devices)) => devices.iter().map(device).collect::<Vec<_>>().join(", "),
        Err(_) => "this version does not know it".into(),
    };
    format!("{number:>6}  {}  {what}", paint(STRONG, &format!("{name:NAME$}"))).trim_end().to_owned()
}

/// What a daemon does, as people read it.
fn status_name(status: happy_rpc::MachineStatus) -> &'static str {
    match status {
        happy_rpc::MachineStatus::Running => "running",
        happy_rpc::MachineStatus::ShuttingDown => "shutting down",
        happy_rpc::MachineStatus::Offline => "offline",
    }
}

fn device(device: &Device) -> String {
    let how = match (device.removed_at, device.presence) {
        (Some(_), _) => "removed",
        (None, Presence::Here) => "here",
        (None, Presence::Away) => "away",
        (None, Presence::Unknown) => "unknown",
    };
    format!("{} {how}", tame(&device.name, 40))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(1);

    fn plain(line: &str) -> String {
        anstream::adapter::strip_str(line).to_string()
    }

    #[test]
    fn an_event_is_a_line_whatever_it_says() {
        let told = |event: &str, data: Value| {
            let told = serde_json::json!({ "event": event, "data": data, "at": { "log": LOG, "number": 17 } });
            plain(&line(&told))
        };
        let session = Uuid::from_u128(0x1a2b_3c4d << 96);
        let removed = told("session.removed", serde_json::json!({ "session": session }));
        assert_eq!(removed, "    17  session.removed     1a2b3c4d");
        let unknown = told("moon.\u{1b}[2Jchanged", Value::Null);
        assert!(unknown.ends_with("this version does not know it"), "{unknown}");
        assert!(!told("a\u{1b}\nb", Value::Null).chars().any(char::is_control));
        assert!(
            plain(&gap_line(EventPlace { log: LOG, number: 3 }))
                .starts_with("     3  gap                 events were lost")
        );
    }

    #[test]
    fn what_is_no_event_of_the_log_is_left() {
        let mut watch = Watch { form: Form::Json, follower: Follower::default() };
        assert!(!watch.told(br#"{"event":"join.changed","data":{"state":"show_code","code":"123 456"}}"#));
        assert!(!watch.told(b"nonsense"));
        let (question, _) = watch.follower.ask();
        let answer = Followed::<Value> { log: LOG, number: 3, missed: Vec::new(), complete: true, more: false };
        assert!(watch.follower.answered(question, &answer).is_some());
        assert!(watch.told(&Event::ListAgain {}.to_body()), "a loss is asked for");
        let next = |number: u64| {
            serde_json::to_vec(&serde_json::json!({ "event": "x", "data": 0, "at": { "log": LOG, "number": number } }))
        };
        assert!(!watch.told(&next(4).unwrap()), "an unknown event has a number like any other");
        assert!(watch.told(&next(6).unwrap()), "and a hole is one");
    }
}
