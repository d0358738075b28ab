//! `happy join LINK`: this machine takes up another machine's invitation.

use happy_pairing::{Invitation, InvitationError};

use crate::cli::JoinArgs;
use crate::cli::client::sentence;
use crate::cli::client::{CallFailure, Happening};
use crate::cli::daemon::{Interrupts, connect_to_join};
use crate::cli::output::{FAINT, Form, GOOD, STRONG, WARN, paint, say_sentences, tame};
use crate::daemon::local::{Join, JoinState, LocalEvent};
use crate::service::role_name;
use crate::store::Home;
use crate::trouble::Trouble;

/// `happy join`.
pub async fn join(home: &Home, form: Form, args: JoinArgs) -> Result<u8, Trouble> {
    // Before a daemon is started for it.
    Invitation::parse_link(&args.link).map_err(|error| no_link(&error))?;
    let mut interrupts = Interrupts::new();
    let client = connect_to_join(home, form, &args.daemon).await?;
    client.local(Join { link: args.link, name: args.name }).await?;
    loop {
        let happening = tokio::select! {
            happening = client.event() => happening,
            () = interrupts.next() => return Ok(130),
        };
        let body = match happening {
            Some(Happening::Event(body)) => body,
            Some(Happening::Link(_)) => continue,
            None => return Err(CallFailure::DaemonGone.into()),
        };
        let Ok(LocalEvent::JoinChanged(state)) = serde_json::from_slice(&body) else { continue };
        match &state {
            JoinState::Connecting => form.step(&state, &paint(FAINT, "Connecting to the other machine.")),
            JoinState::ShowCode { code, machine, role } => {
                let text = format!(
                    "Type this code at {}. This machine will be {} there.\n\n    {}\n",
                    tame(machine, 64),
                    with_article(*role),
                    paint(STRONG, code)
                );
                form.step(&state, &text);
            }
            JoinState::Joined { name, role, relay_key, relay_key_changed, .. } => {
                let name = tame(name, 64);
                let done = format!("Joined {name} as {}. Try: happy ls --machine '{name}'", with_article(*role));
                form.step(&state, &paint(GOOD, &done));
                if let (Form::Text, Some(key)) = (form, relay_key) {
                    tell_relay_key(key, *relay_key_changed);
                }
                return Ok(0);
            }
            JoinState::Failed { why, remedy } => return Err(Trouble::new(why.clone(), remedy.clone())),
        }
    }
}

fn no_link(error: &InvitationError) -> Trouble {
    match error {
        InvitationError::NotALink => Trouble::new(
            "This is not the link of an invitation.",
            "Give the whole link that `happy pair` prints at the other machine, in quotes: 'https://HOST/#123…'.",
        ),
        InvitationError::Damaged => Trouble::new(
            "This link is incomplete or damaged.",
            "Copy it again, the whole of it, as `happy pair` prints it at the other machine, and put it in quotes.",
        ),
        other => Trouble::new(sentence(&other.to_string()), "Make a new link there with `happy pair`."),
    }
}

/// A machine is joined as one of these.
fn with_article(role: happy_rpc::Role) -> String {
    let name = role_name(role);
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// What was taken on trust is not taken in silence.
fn tell_relay_key(key: &str, changed: bool) {
    if changed {
        say_sentences(
            WARN,
            "The relay had another key when it was met before: it was set up anew, or somebody is in between.",
        );
    }
    say_sentences(
        FAINT,
        "No authority vouches for its relay. The relay's key is remembered, and no other is believed from now on; `happy relay` shows \
         the same key there, if nobody is in between:",
    );
    say_sentences(FAINT, key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_link_is_told_in_one_sentence_with_what_to_do() {
        for text in ["notalink", "https://relay.example/#12", "http://relay.example/#123", "ftp://x/#1", ""] {
            let trouble = no_link(&Invitation::parse_link(text).unwrap_err());
            assert!(trouble.what.ends_with('.') && !trouble.what.contains(": this"), "{trouble}");
            assert!(trouble.todo.contains("happy pair"), "{trouble}");
        }
    }
}
