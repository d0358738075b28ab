//! `happy join LINK`: this machine takes up another machine's invitation.

use crate::cli::JoinArgs;
use crate::cli::client::{CallFailure, Happening};
use crate::cli::daemon::{Interrupts, connect_or_start};
use crate::cli::output::{FAINT, Form, GOOD, STRONG, paint, tame};
use crate::daemon::local::{Join, JoinState, LocalEvent};
use crate::service::role_name;
use crate::store::Home;
use crate::trouble::Trouble;

/// `happy join`.
pub async fn join(home: &Home, form: Form, args: JoinArgs) -> Result<u8, Trouble> {
    let mut interrupts = Interrupts::new();
    let client = connect_or_start(home, &args.daemon).await?;
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
                let machine = tame(machine, 64);
                form.step(
                    &state,
                    &format!(
                        "Type this code at {machine}, which will make this machine its {}:\n\n    {}\n",
                        role_name(*role),
                        paint(STRONG, code)
                    ),
                );
            }
            JoinState::Joined { name, role, .. } => {
                let name = tame(name, 64);
                let done = format!("Joined {name} as {}. Try: happy ls --machine '{name}'", role_name(*role));
                form.step(&state, &paint(GOOD, &done));
                return Ok(0);
            }
            JoinState::Failed { why } => {
                return Err(Trouble::new(
                    why.clone(),
                    "Make a new invitation there with `happy pair`, and join again.",
                ));
            }
        }
    }
}
