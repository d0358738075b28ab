//! `happy prompts` and `happy answer`: what waits for a person, and what it is told.

use happy_rpc::{Prompt, PromptAnswer, PromptEnd, PromptKind, PromptList, PromptSource, Session};

use crate::cli::client::Client;
use crate::cli::daemon::connect;
use crate::cli::output::{FAINT, Form, GOOD, STRONG, WARN, ago, paint, say, tame};
use crate::cli::sessions::{command_at, short_id};
use crate::cli::{AnswerArgs, MachineArg};
use crate::store::Home;
use crate::trouble::Trouble;

/// Columns that a question takes at most.
const WIDTH: usize = 100;
/// Columns that the name of a session takes at most.
const MAX_NAME: usize = 32;
/// Prompts that a complaint names.
const NAMED: usize = 8;

/// `happy prompts`.
pub async fn list(home: &Home, form: Form, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let (prompts, sessions) = waiting(&client).await?;
    form.result(&prompts, |prompts| {
        if prompts.is_empty() {
            say("Nothing waits for you.");
        }
        prompts.iter().for_each(|prompt| show(prompt, name(prompt, &sessions)));
        if prompts.iter().any(|prompt| !prompt.choices.is_empty()) {
            say(&paint(FAINT, &format!("[answers one: {} ID NUMBER]", command_at("answer", client.target()))));
        }
    });
    Ok(0)
}

/// What waits, and the sessions.
async fn waiting(client: &Client) -> Result<(Vec<Prompt>, Vec<Session>), Trouble> {
    let explain = |failure| client.explain(failure, false);
    let prompts = client.call(PromptList::default()).await.map_err(explain)?;
    let sessions = match prompts.is_empty() {
        true => Vec::new(),
        false => client.sessions().await.map_err(explain)?,
    };
    Ok((prompts, sessions))
}

/// The name of a prompt's session; empty for one that has gone meanwhile.
fn name<'a>(prompt: &Prompt, sessions: &'a [Session]) -> &'a str {
    let session = sessions.iter().find(|session| session.id == prompt.session);
    session.map_or("", |session| &session.name)
}

fn show(prompt: &Prompt, name: &str) {
    let (style, source) = match prompt.source {
        PromptSource::Hook => (GOOD, "the program asks"),
        PromptSource::Notification => (GOOD, "the program calls for somebody"),
        PromptSource::Screen => (WARN, "looks like a question"),
    };
    let head = format!(
        "{}  {}  {}  {}  {}",
        paint(STRONG, &short_id(prompt.id)),
        short_id(prompt.session),
        tame(name, MAX_NAME),
        paint(style, source),
        paint(FAINT, &ago(prompt.appeared_at))
    );
    say(&head);
    for line in prompt.question.lines() {
        say(&format!("    {}", tame(line, WIDTH)));
    }
    for (index, choice) in prompt.choices.iter().enumerate() {
        say(&format!("  {} {}", paint(STRONG, &format!("{:>3}", index + 1)), tame(&choice.label, WIDTH)));
    }
    match prompt.kind {
        PromptKind::Password => say(&paint(FAINT, "      a password: type it in the session")),
        _ if prompt.choices.is_empty() => say(&paint(FAINT, "      look at the session")),
        _ => {}
    }
}

/// `happy answer`.
pub async fn answer(home: &Home, form: Form, args: AnswerArgs) -> Result<u8, Trouble> {
    let client = connect(home, args.machine.machine.as_deref()).await?;
    let (prompts, sessions) = waiting(&client).await?;
    let prompt = find(prompts, &sessions, &args.id)?;
    let choice = choose(&prompt, &args.choice)?;
    let answered = client.call(PromptAnswer { prompt: prompt.id, choice, until: None }).await;
    let answered = answered.map_err(|failure| client.explain(failure, true))?;
    form.result(&answered, |answered| {
        say(&format!("{} was answered: {}", short_id(answered.prompt), tame(&answered.label, WIDTH)));
    });
    Ok(0)
}

/// The one prompt that is meant: by the name of its session, by its id or the beginning of that, or by the beginning of the id of its session.
fn find(prompts: Vec<Prompt>, sessions: &[Session], wanted: &str) -> Result<Prompt, Trouble> {
    let lower = wanted.to_ascii_lowercase();
    let begins = |id: uuid::Uuid| !lower.is_empty() && id.to_string().starts_with(&lower);
    let told = |prompts: &[Prompt]| {
        let named = prompts.iter().take(NAMED).map(|prompt| match name(prompt, sessions) {
            "" => short_id(prompt.id),
            name => format!("{} of {}", short_id(prompt.id), tame(name, MAX_NAME)),
        });
        let more = prompts.len().checked_sub(NAMED + 1).map(|more| format!("{} more", more + 1));
        named.chain(more).collect::<Vec<_>>().join(", ")
    };
    // A whole name means more than the beginning of an id.
    let is_named = |prompt: &Prompt| !wanted.is_empty() && name(prompt, sessions) == wanted;
    let by_name = prompts.iter().any(is_named);
    let (mut fitting, others): (Vec<_>, Vec<_>) = prompts.into_iter().partition(|prompt| match by_name {
        true => is_named(prompt),
        false => begins(prompt.id) || begins(prompt.session),
    });
    match fitting.len() {
        1 => Ok(fitting.remove(0)),
        0 => Err(Trouble::new(
            format!("Nothing waits as `{}`.", tame(wanted, 64)),
            match others.is_empty() {
                true => "Nothing waits for you at all.".to_owned(),
                false => format!("There is {}; `happy prompts` shows more of it.", told(&others)),
            },
        )),
        _ => Err(Trouble::new(
            format!("`{}` means more than one prompt: {}.", tame(wanted, 64), told(&fitting)),
            "Give the beginning of the prompt's id, which stands first.",
        )),
    }
}

/// Which choice is meant: by its number as it is listed, from 1, its whole label, or the beginning of one label only.
fn choose(prompt: &Prompt, wanted: &str) -> Result<u32, Trouble> {
    let none = || {
        let hint = match prompt.choices.is_empty() {
            true => format!("It is answered in the session: `happy attach {}`.", short_id(prompt.session)),
            false => "Give the number of the choice as `happy prompts` shows it, or its text.".to_owned(),
        };
        Trouble::new(format!("There is no choice `{}`.", tame(wanted, 64)), hint)
    };
    let lower = wanted.trim().to_lowercase();
    let labels: Vec<String> = prompt.choices.iter().map(|choice| choice.label.to_lowercase()).collect();
    if let Some(number) = lower.parse::<usize>().ok().filter(|number| (1..=labels.len()).contains(number)) {
        return Ok(number as u32 - 1);
    }
    if let Some(index) = labels.iter().position(|label| *label == lower) {
        return Ok(index as u32);
    }
    let mut fitting = (0..labels.len()).filter(|index| !lower.is_empty() && labels[*index].starts_with(&lower));
    match (fitting.next(), fitting.next()) {
        (Some(index), None) => Ok(index as u32),
        _ => Err(none()),
    }
}

/// How a prompt ended, for people.
pub fn how(end: &PromptEnd) -> String {
    match end {
        PromptEnd::Answered(answered) => format!("{} by {}", tame(&answered.label, 40), tame(&answered.by, 40)),
        PromptEnd::Typed => "somebody typed".into(),
        PromptEnd::Gone => "not asked any more".into(),
        PromptEnd::Expired => "expired".into(),
    }
}

#[cfg(test)]
mod tests {
    use happy_rpc::PromptChoice;
    use uuid::Uuid;

    use super::*;

    fn waits(id: &str, session: Uuid) -> Prompt {
        Prompt {
            id: id.parse().unwrap(),
            session,
            source: PromptSource::Screen,
            kind: PromptKind::Numbers,
            question: "Go on?".into(),
            choices: Vec::new(),
            screen: String::new(),
            appeared_at: 0,
            expires_at: None,
        }
    }

    #[test]
    fn a_prompt_is_meant_by_the_name_of_its_session_when_it_alone_waits_there() {
        let session = |id: u128, name: &str| -> Session {
            let text = serde_json::json!({
                "id": Uuid::from_u128(id), "name": name, "title": "", "command": ["x"], "cwd": "/", "pid": 1, "cols": 80,
                "rows": 24, "viewers": 0, "controller": null, "created_at": 1, "output_offset": 0, "state": "running"
            });
            serde_json::from_value(text).unwrap()
        };
        let [build, web, twin] = [1, 2, 3].map(|n| (n << 120) + 7);
        let sessions = [session(build, "build"), session(web, "web"), session(twin, "web")];
        let (a, b, c) = (
            "aaaaaaaa-0000-4000-8000-000000000000",
            "bbbbbbbb-0000-4000-8000-000000000000",
            "cccccccc-0000-4000-8000-000000000000",
        );
        let all = || [(a, build), (b, web), (c, twin)].map(|(id, session)| waits(id, Uuid::from_u128(session))).into();
        let find = |wanted: &str| find(all(), &sessions, wanted).map(|prompt| prompt.id.to_string());
        assert_eq!(find("build").unwrap(), a);
        assert_eq!([find("bbb").unwrap(), find("02000000").unwrap()], [b, b]);
        assert_eq!(find("b").unwrap(), b, "the name is build, and not b");
        let many = find("web").unwrap_err();
        assert!(many.what.contains("more than one prompt: bbbbbbbb of web, cccccccc of web"), "{many}");
        let none = find("nosuch").unwrap_err();
        assert!(none.todo.contains("aaaaaaaa of build, bbbbbbbb of web"), "{none}");
        assert!(find("").is_err());
        assert!(super::find(Vec::new(), &[], "build").unwrap_err().todo.contains("Nothing waits for you at all"));
    }

    #[test]
    fn a_choice_is_meant_by_number_or_text_and_never_by_half_of_two() {
        let choice = |label: &str| PromptChoice { label: label.into(), keys: String::new() };
        let prompt = Prompt {
            id: Uuid::nil(),
            session: Uuid::nil(),
            source: PromptSource::Screen,
            kind: PromptKind::Numbers,
            question: "Go on?".into(),
            choices: vec![choice("Yes"), choice("Yes, and don't ask again"), choice("No")],
            screen: String::new(),
            appeared_at: 0,
            expires_at: None,
        };
        let chosen = |wanted| choose(&prompt, wanted).ok();
        assert_eq!([chosen("1"), chosen("3"), chosen("0"), chosen("4")], [Some(0), Some(2), None, None]);
        assert_eq!(
            [chosen("yes"), chosen("yes, and"), chosen("n"), chosen("y"), chosen("")],
            [Some(0), Some(1), Some(2), None, None]
        );
    }
}
