//! Questions of programs: seen, told, answered once, and only while they stand there.

use happy::session::{Events, Sessions};
use happy_rpc::{
    CallError, ErrorCode, Event, Prompt, PromptAnswer, PromptAnswered, PromptEnd, PromptKind, PromptSource, Session,
};
use uuid::Uuid;

use crate::support::*;

/// Asks, and says what it was told, byte by byte as od shows it.
const ASKS: &str = "printf 'Remove it? [y/n] '; read line; echo got=$line; read line; echo then=$line; sleep 60";

async fn appeared(events: &mut Events, session: Uuid) -> Prompt {
    soon("a prompt", async {
        loop {
            match events.next().await.unwrap() {
                Event::PromptAppeared(prompt) if prompt.session == session => return prompt,
                _ => {}
            }
        }
    })
    .await
}

async fn ended(events: &mut Events, id: Uuid) -> PromptEnd {
    soon("the end of the prompt", async {
        loop {
            match events.next().await.unwrap() {
                Event::PromptEnded { prompt, end, .. } if prompt == id => return end,
                _ => {}
            }
        }
    })
    .await
}

async fn asked(sessions: &Sessions, script: &str) -> (Session, Prompt, Events) {
    let mut events = sessions.subscribe();
    let session = sessions.create(sh(script)).await.unwrap();
    let prompt = appeared(&mut events, session.id).await;
    (session, prompt, events)
}

async fn answer(sessions: &Sessions, prompt: &Prompt, choice: u32, by: &str) -> Result<PromptAnswered, CallError> {
    let answer = PromptAnswer { prompt: prompt.id, choice, until: None };
    sessions.answer(answer, by.to_owned()).await.map_err(Into::into)
}

#[tokio::test]
async fn a_question_is_told_to_everybody_and_answered_once() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, prompt, mut events) = asked(&sessions, ASKS).await;
    assert_eq!((prompt.source, prompt.kind), (PromptSource::Screen, PromptKind::YesNo));
    assert_eq!(prompt.question, "Remove it? [y/n]");
    let choices: Vec<_> = prompt.choices.iter().map(|choice| (choice.label.as_str(), choice.keys.as_str())).collect();
    assert_eq!(choices, [("Yes", "y\r"), ("No", "n\r")]);
    assert_eq!(sessions.prompts(None), std::slice::from_ref(&prompt));
    assert_eq!(sessions.prompts(Some(Uuid::nil())), []);
    assert_eq!(sessions.session(session.id).unwrap().prompt, Some(prompt.id));
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;

    // Two devices at once: one of them gave the answer, and the other is told who did.
    let (first, second) =
        tokio::join!(answer(&sessions, &prompt, 0, "Ada's phone"), answer(&sessions, &prompt, 1, "the desk"));
    let answered = first.unwrap();
    assert_eq!((answered.label.as_str(), answered.by.as_str()), ("Yes", "Ada's phone"));
    let refused = second.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (ErrorCode::Conflict, "Ada's phone has answered already: Yes")
    );
    assert_eq!(ended(&mut events, prompt.id).await, PromptEnd::Answered(answered));
    glass.until_text("got=y\r\n").await;
    assert_eq!(sessions.prompts(None), []);
    // And later neither.
    assert_eq!(answer(&sessions, &prompt, 0, "late").await.unwrap_err().code, ErrorCode::Conflict);
    glass.type_in(b"end\n").await;
    glass.until_text("then=end\r\n").await;
}

#[tokio::test]
async fn what_somebody_types_meanwhile_ends_the_question() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, prompt, mut events) = asked(&sessions, ASKS).await;
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    // Not even a whole answer: the program has read nothing of it.
    glass.type_in(b"n").await;
    glass.until("the acknowledgement", |glass| glass.taken == 1).await;
    let refused = answer(&sessions, &prompt, 0, "phone").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert_eq!(ended(&mut events, prompt.id).await, PromptEnd::Typed);
    glass.type_in(b"\n").await;
    glass.until_text("got=n\r\n").await;
    assert!(!glass.shows("then="), "nothing else was typed");
}

#[tokio::test]
async fn an_answer_to_what_is_not_asked_any_more_is_not_given() {
    let home = Home::new();
    let sessions = home.open().await;
    // The file is the sign for the program to ask something else, which it does where the first question stood.
    let go = home.path().join("go");
    let script = format!(
        "printf 'Keep it? [y/n] '; while [ ! -e {0} ]; do sleep 0.05; done; printf '\\rRemove it all? [y/n] '; touch {0}.asked; \
         read line; echo got=$line; sleep 60",
        go.display()
    );
    let (session, prompt, mut events) = asked(&sessions, &script).await;
    std::fs::write(&go, "").unwrap();
    soon("the second question", async {
        while !home.path().join("go.asked").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
    // The holder may have neither read nor looked yet.
    let refused = answer(&sessions, &prompt, 0, "phone").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict, "{refused}");
    assert!(refused.message.starts_with("no longer waiting"), "{refused}");
    let second = appeared(&mut events, session.id).await;
    assert!(second.id != prompt.id && second.question.ends_with("Remove it all? [y/n]"), "{second:?}");
    assert!(answer(&sessions, &prompt, 0, "phone").await.is_err());
    answer(&sessions, &second, 1, "phone").await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("got=n\r\n").await;
}

#[tokio::test]
async fn an_answer_that_comes_late_or_chooses_nothing_is_refused_and_the_question_stays() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, prompt, _) = asked(&sessions, ASKS).await;
    let late = PromptAnswer { prompt: prompt.id, choice: 0, until: Some(1) };
    let refused: CallError = sessions.answer(late, "phone".into()).await.unwrap_err().into();
    assert_eq!(refused.code, ErrorCode::Expired);
    assert_eq!(answer(&sessions, &prompt, 2, "phone").await.unwrap_err().code, ErrorCode::NotFound);
    let other = Prompt { id: Uuid::new_v4(), ..prompt.clone() };
    assert_eq!(answer(&sessions, &other, 0, "phone").await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(sessions.prompts(None), std::slice::from_ref(&prompt));
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    answer(&sessions, &prompt, 0, "phone").await.unwrap();
    glass.until_text("got=y\r\n").await;
}

#[tokio::test]
async fn a_question_and_who_answered_it_outlive_the_daemon() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, prompt, _) = asked(&sessions, ASKS).await;
    drop(sessions);
    let sessions = home.open().await;
    assert_eq!(sessions.prompts(None), std::slice::from_ref(&prompt), "the same, by its id");
    answer(&sessions, &prompt, 0, "phone").await.unwrap();
    drop(sessions);
    // The daemon was killed before it could say so, and is asked again.
    let sessions = home.open().await;
    let refused = answer(&sessions, &prompt, 0, "phone").await.unwrap_err();
    assert_eq!(refused.message, "phone has answered already: Yes");
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("got=y\r\n").await;
    assert!(!glass.shows("then="));
}

#[tokio::test]
async fn a_password_is_asked_for_without_buttons() {
    let home = Home::new();
    let sessions = home.open().await;
    let (_, prompt, _) = asked(&sessions, "stty -echo; printf 'Password: '; read line; sleep 60").await;
    assert_eq!((prompt.kind, prompt.choices.len(), prompt.question.as_str()), (PromptKind::Password, 0, "Password:"));
    assert_eq!(answer(&sessions, &prompt, 0, "phone").await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_program_that_calls_for_somebody_is_heard() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, prompt, mut events) =
        asked(&sessions, "printf '\\033]9;Come and look\\007'; read line; echo got=$line; sleep 60").await;
    assert_eq!((prompt.source, prompt.kind), (PromptSource::Notification, PromptKind::Somebody));
    assert_eq!(prompt.question, "Come and look");
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"here\n").await;
    assert_eq!(ended(&mut events, prompt.id).await, PromptEnd::Typed);
}

#[tokio::test]
async fn enter_follows_a_key_only_where_the_program_has_but_shown_it() {
    let home = Home::new();
    let sessions = home.open().await;
    // One that takes lines and edits them by itself, as readline does: it shows the key and waits for Enter.
    let lines = "stty -icanon -echo; printf 'Ok to proceed? (y) '; k=$(dd bs=1 count=1 2>/dev/null); printf y; \
                 e=$(dd bs=1 count=1 2>/dev/null | od -An -tx1); echo; echo got=$k$e; sleep 60";
    let (session, prompt, _) = asked(&sessions, lines).await;
    answer(&sessions, &prompt, 0, "phone").await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("got=y 0a\r\n").await;
    // One that acts on the key. What it asks next is not for the Enter of this one.
    let keys = "stty -icanon -echo; printf 'Sure? (y/n) '; k=$(dd bs=1 count=1 2>/dev/null); stty icanon echo; \
                printf \"\\ngot=$k\\nRemove all? [Y/n] \"; read line; echo then=$line; sleep 60";
    let (session, prompt, mut events) = asked(&sessions, keys).await;
    answer(&sessions, &prompt, 0, "phone").await.unwrap();
    let second = appeared(&mut events, session.id).await;
    assert!(second.question.ends_with("Remove all? [Y/n]"), "{second:?}");
    answer(&sessions, &second, 1, "phone").await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("then=n\r\n").await;
}

#[tokio::test]
async fn a_hook_asks_everybody_while_a_guess_gives_way_and_then_the_program_asks_itself() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, guess, mut events) = asked(&sessions, ASKS).await;
    let choices = ["Allow".to_owned(), "Deny".to_owned()];
    let ask = |wait| {
        let (sessions, choices, (here, gone)) = (sessions.clone(), choices.clone(), tokio::sync::watch::channel(()));
        let asking =
            tokio::spawn(async move { sessions.ask_people(session.id, "Allow Bash?", &choices, wait, gone).await });
        (asking, here)
    };
    let (asking, _here) = ask(DEADLINE);
    assert_eq!(ended(&mut events, guess.id).await, PromptEnd::Gone);
    let hook = appeared(&mut events, session.id).await;
    assert_eq!((hook.source, hook.question.as_str(), hook.choices.len()), (PromptSource::Hook, "Allow Bash?", 2));
    assert_eq!(sessions.prompts(None), std::slice::from_ref(&hook));
    assert_eq!(answer(&sessions, &guess, 0, "phone").await.unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(answer(&sessions, &hook, 2, "phone").await.unwrap_err().code, ErrorCode::NotFound);
    // Two at once: one of them counts.
    let (first, second) = tokio::join!(answer(&sessions, &hook, 1, "phone"), answer(&sessions, &hook, 0, "desk"));
    assert_eq!(first.unwrap().label, "Deny");
    assert!(second.is_err());
    let (choice, answered) = soon("the answer", asking).await.unwrap().unwrap().unwrap();
    assert_eq!((choice, answered.by.as_str()), (1, "phone"));
    // What is on the screen is told again, though not before the program has had the time to take it away.
    assert_eq!(ended(&mut events, hook.id).await, PromptEnd::Answered(answered));
    assert_eq!(sessions.prompts(None), []);
    assert_eq!(answer(&sessions, &guess, 0, "phone").await.unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(appeared(&mut events, session.id).await, guess);

    // Nobody answers in time, and a program that is gone waits no longer.
    let (asking, _here) = ask(std::time::Duration::from_millis(1));
    let hook = appeared(&mut events, session.id).await;
    assert_eq!(soon("the end", asking).await.unwrap().unwrap(), None);
    assert_eq!(ended(&mut events, hook.id).await, PromptEnd::Expired);
    let (asking, here) = ask(DEADLINE);
    while appeared(&mut events, session.id).await.source != PromptSource::Hook {}
    drop(here);
    assert_eq!(soon("the end", asking).await.unwrap().unwrap(), None);
    assert_eq!(sessions.prompts(None), std::slice::from_ref(&guess));
    // What cannot be shown whole is asked of nobody.
    let (_here, gone) = tokio::sync::watch::channel(());
    let long = "x".repeat(happy::prompt::MAX_QUESTION + 1);
    assert_eq!(sessions.ask_people(session.id, &long, &choices, DEADLINE, gone).await.unwrap(), None);
    // A session that is gone asks nothing.
    while !matches!(events.next().await.unwrap(), Event::PromptAppeared(prompt) if prompt == guess) {}
    let (asking, _here) = ask(DEADLINE);
    let hook = appeared(&mut events, session.id).await;
    sessions.kill(session.id).await.unwrap();
    soon("the end of the session", async {
        while sessions.session(session.id).is_some_and(|session| session.state == happy_rpc::SessionState::Running) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let _ = sessions.kill(session.id).await;
    })
    .await;
    assert_eq!(ended(&mut events, hook.id).await, PromptEnd::Gone);
    assert_eq!(soon("the end", asking).await.unwrap().unwrap(), None);
    assert_eq!(sessions.prompts(None), []);
}

#[tokio::test]
async fn a_hook_waits_no_longer_when_somebody_answers_the_dialog_in_the_terminal() {
    let home = Home::new();
    let sessions = home.open().await;
    let (session, guess, mut events) = asked(&sessions, ASKS).await;
    let (_here, gone) = tokio::sync::watch::channel(());
    let asking = {
        let (sessions, choices) = (sessions.clone(), ["Allow".to_owned(), "Deny".to_owned()]);
        tokio::spawn(async move { sessions.ask_people(session.id, "Allow Bash?", &choices, DEADLINE, gone).await })
    };
    assert_eq!(ended(&mut events, guess.id).await, PromptEnd::Gone);
    let hook = appeared(&mut events, session.id).await;
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"y\n").await;
    assert_eq!(ended(&mut events, hook.id).await, PromptEnd::Typed);
    assert_eq!(soon("the end", asking).await.unwrap().unwrap(), None);
    assert_eq!(sessions.prompts(None), []);
}

#[tokio::test]
async fn a_clock_above_a_question_in_a_line_does_not_make_it_another_while_its_answer_is_at_work() {
    let home = Home::new();
    let sessions = home.open().await;
    let script = r"printf '12:00:00\n\n\n\n\nGo on? [y/n] '; read line; printf '\0337\033[1;1H12:00:01\0338\033[6;1HGo on? [y/n] \033[K'; read line; sleep 60";
    let (session, prompt, mut events) = asked(&sessions, script).await;
    answer(&sessions, &prompt, 0, "phone").await.unwrap();
    let again = tokio::time::timeout(std::time::Duration::from_millis(1200), appeared(&mut events, session.id)).await;
    assert!(again.is_err(), "{again:?}");
    // It asks indeed, and is told once the answer has had its time.
    assert_eq!(appeared(&mut events, session.id).await.question.lines().next_back(), Some("Go on? [y/n]"));
}

#[tokio::test]
async fn the_same_question_is_not_asked_again_while_the_program_is_at_work_with_the_answer() {
    let home = Home::new();
    let sessions = home.open().await;
    // It has read the answer, draws its clock on above, and asks something else only when it is told to.
    let go = home.path().join("go");
    let script = format!(
        "stty -icanon -echo; printf '\\033[?25lDo you want to proceed?\\n > 1. Yes\\n   2. No\\nEsc to cancel\\n\\n'; k=$(dd bs=1 count=1 2>/dev/null); \
         printf '\\0337\\033[5;1H12:00:01\\0338'; while [ ! -e {0} ]; do sleep 0.05; done; printf '\\033[2J\\033[HDo you want to stop?\\n > 1. Yes\\n   2. No\\nEsc to cancel\\n'; \
         sleep 60",
        go.display()
    );
    let (session, prompt, mut events) = asked(&sessions, &script).await;
    assert_eq!(prompt.question, "Do you want to proceed?");
    answer(&sessions, &prompt, 0, "phone").await.unwrap();
    // Two looks later.
    let again = tokio::time::timeout(std::time::Duration::from_millis(1200), appeared(&mut events, session.id)).await;
    assert!(again.is_err(), "{again:?}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(appeared(&mut events, session.id).await.question, "Do you want to stop?");
}
