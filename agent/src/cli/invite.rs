//! An invitation at the command line: link or QR code, the code typed, the result. `happy pair`, and the first part of `happy up`.

use std::time::{Duration, Instant};

use anstyle::Style;
use happy_rpc::Role;
use tokio::sync::mpsc;

use crate::cli::client::{CallFailure, Client, Happening};
use crate::cli::daemon::{Interrupts, connect};
use crate::cli::output::{
    BAD, FAINT, Form, GLUE, GOOD, STRONG, WARN, aside_sentences, paint, say, say_sentences, tame,
};
use crate::cli::panel::{Panel, PanelText, check_size};
use crate::cli::{InvitationArgs, stdin, tty};
use crate::daemon::local::{
    CodeAnswer, Invited, InvitedLink, LocalEvent, PairCancel, PairCode, PairEnd, PairStart, PairState, PairStatus,
    Reach,
};
use crate::service::role_name;
use crate::store::Home;
use crate::trouble::Trouble;

/// How an invitation ended.
pub enum Outcome {
    /// The device is a member now.
    Paired,
    /// It is not, and why.
    Ended(Trouble),
    /// The person pressed Ctrl-C.
    Interrupted,
}

/// `happy pair`.
pub async fn pair(home: &Home, form: Form, args: InvitationArgs) -> Result<u8, Trouble> {
    check(form, &args)?;
    let client = connect(home, None).await?;
    pair_with(&client, form, &args).await
}

/// Checks before anything is started that the invitation can be shown.
///
/// # Errors
/// When the terminal is too small for the QR code.
pub fn check(form: Form, args: &InvitationArgs) -> Result<(), Trouble> {
    if shows_code(form, args) { check_size() } else { Ok(()) }
}

fn shows_code(form: Form, args: &InvitationArgs) -> bool {
    form == Form::Text && !args.no_qr && tty::is_interactive()
}

/// Pairs one device through a running daemon.
pub async fn pair_with(client: &Client, form: Form, args: &InvitationArgs) -> Result<u8, Trouble> {
    let (mut lines, mut interrupts) = (stdin::lines(), Interrupts::new());
    match invite(client, form, args, &mut lines, &mut interrupts).await? {
        Outcome::Paired => Ok(0),
        Outcome::Ended(trouble) => Err(trouble),
        Outcome::Interrupted => Ok(130),
    }
}

/// Makes an invitation and sees it through.
pub async fn invite(
    client: &Client,
    form: Form,
    args: &InvitationArgs,
    lines: &mut mpsc::Receiver<String>,
    interrupts: &mut Interrupts,
) -> Result<Outcome, Trouble> {
    let role: Role = args.role.into();
    let invited = client.local(PairStart { role, name: args.name.clone() }).await?;
    let mut face = Face::show(client, form, args, &invited)?;
    let mut ends = Instant::now() + Duration::from_secs(invited.seconds_left);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut typing = true;
    // Events before this moment may have been missed.
    let mut state = client.local(PairStatus {}).await?;
    loop {
        if let PairState::CodeWanted { .. } = state {
            ends = Instant::now() + happy_pairing::TYPING_TIME;
        }
        if let Some(outcome) = face.enter(&state) {
            return Ok(outcome);
        }
        state = loop {
            tokio::select! {
                happening = client.event() => match happening {
                    Some(Happening::Event(body)) => {
                        if let Some(state) = our_event(&body, invited.invitation) {
                            break state;
                        }
                    }
                    Some(Happening::Link(_)) => {}
                    None => return Err(CallFailure::DaemonGone.into()),
                },
                line = lines.recv(), if typing => match line {
                    Some(line) => type_line(client, &mut face, &line, args).await?,
                    None => {
                        typing = false;
                        face.no_more_input();
                    }
                },
                _ = second.tick() => face.countdown(ends.saturating_duration_since(Instant::now())),
                () = interrupts.next() => {
                    let _ = client.local(PairCancel {}).await;
                    face.end("Cancelled.", false);
                    return Ok(Outcome::Interrupted);
                }
            }
        };
    }
}

fn our_event(body: &[u8], ours: u64) -> Option<PairState> {
    match serde_json::from_slice(body) {
        Ok(LocalEvent::PairChanged { invitation, state }) if invitation == ours => Some(state),
        // An event of another kind, or of another's invitation.
        _ => None,
    }
}

async fn type_line(client: &Client, face: &mut Face, line: &str, args: &InvitationArgs) -> Result<(), Trouble> {
    let (code, name) = split_code(line);
    face.ask_again();
    if code.is_empty() && name.is_empty() {
        return Ok(());
    }
    if code.len() != 6 {
        face.wrong("The code has six digits; the device shows them.");
        return Ok(());
    }
    let name = if name.is_empty() { args.name.clone() } else { Some(name) };
    match client.local(PairCode { code, name }).await? {
        CodeAnswer::Right {} => face.note("That is the code."),
        CodeAnswer::Wrong { left: 0 } => {}
        CodeAnswer::Wrong { left } => {
            let tries = if left == 1 { "try" } else { "tries" };
            face.wrong(&format!("Wrong code: {left} {tries} left."));
        }
        CodeAnswer::NotYet {} => face.wrong("No device shows a code yet."),
        CodeAnswer::Ended {} => {}
    }
    Ok(())
}

/// The six digits, with or without a space in them, and what stands after them: a name for the device.
fn split_code(line: &str) -> (String, String) {
    let mut code = String::new();
    for (at, c) in line.char_indices() {
        match c {
            '0'..='9' if code.len() < 6 => code.push(c),
            ' ' | '-' if code.len() < 6 => {}
            _ => return (code, line[at..].trim().to_owned()),
        }
    }
    (code, String::new())
}

/// Where an invitation is shown.
enum Face {
    /// Beside its QR code on a terminal.
    Panel(Panel),
    /// As lines of text.
    Lines,
    /// As lines of JSON.
    Json,
}

impl Face {
    fn show(client: &Client, form: Form, args: &InvitationArgs, invited: &Invited) -> Result<Face, Trouble> {
        if form == Form::Json {
            say(&serde_json::to_string(invited).unwrap_or_default());
            return Ok(Face::Json);
        }
        if let Some(trouble) = &invited.relay_trouble {
            let trouble = tame(trouble, 400);
            aside_sentences(
                WARN,
                &format!("The relay is not reached yet, so nobody can answer: {trouble}. It is tried on."),
            );
        }
        let machine = tame(&client.greeted().name, 20);
        let grant = grant(invited.role);
        if !shows_code(form, args) {
            say(&paint(STRONG, &format!("Pair a device with {machine}.")));
            let text = format!("{grant} The invitation works once and ends in {} seconds.", invited.seconds_left);
            say_sentences(Style::new(), &text);
            links(&invited.links);
            return Ok(Face::Lines);
        }
        let Some(best) = invited.links.first() else { return Err(no_address()) };
        let code = happy_pairing::qr::Code::new(&best.link).map_err(|error| {
            Trouble::new(format!("The link does not fit a QR code: {error}."), "Add `--no-qr` to have it as text.")
        })?;
        let text = PanelText {
            machine: &machine,
            origin: &best.origin,
            here: invited
                .links
                .iter()
                .find(|link| link.reach == Reach::ThisMachine)
                .map(|link| link.origin.as_str())
                .filter(|here| *here != best.origin),
            warning: match best.reach {
                _ if invited.relay_trouble.is_some() => {
                    "The relay is not reached yet, so nobody can answer. It is tried on."
                }
                Reach::ThisMachine => "For a browser on this machine only.",
                Reach::ThisNetwork => "A trial on this network: whoever controls it could change the page.",
                Reach::Relay => "",
            },
            grant,
        };
        let width = code.width() + 2 * happy_pairing::qr::QUIET;
        Ok(Face::Panel(Panel::draw(code.terminal(happy_pairing::qr::QUIET), width, &text)))
    }

    /// Shows a new state; gives the outcome when it is the last.
    fn enter(&mut self, state: &PairState) -> Option<Outcome> {
        if let Face::Json = self {
            say(&serde_json::to_string(state).unwrap_or_default());
        }
        match state {
            PairState::None | PairState::Waiting => None,
            PairState::Proven { .. } => {
                self.note("A device answers.");
                None
            }
            PairState::CodeWanted { name, .. } => {
                self.want_code(&tame(name, 32));
                None
            }
            PairState::Confirmed => {
                self.note("The code is right; finishing.");
                None
            }
            PairState::Paired { name, role, .. } => {
                self.end(&format!("{} is{GLUE}paired{GLUE}as{GLUE}{}.", tame(name, 32), role_name(*role)), true);
                Some(Outcome::Paired)
            }
            PairState::Ended { why } => {
                let trouble = ended(*why);
                // Why, and what to do, is said by whoever gets the outcome.
                if let Face::Panel(_) = self {
                    self.end("Nothing was paired.", false);
                }
                Some(Outcome::Ended(trouble))
            }
        }
    }

    fn want_code(&mut self, name: &str) {
        match self {
            Face::Panel(panel) => {
                panel.status(&format!("“{name}” shows{GLUE}a{GLUE}code. To name it, write the name after the code."))
            }
            Face::Lines => {
                let text =
                    format!("“{name}” shows a code. Type it here; to name the device, write the name after the code:");
                say_sentences(Style::new(), &text);
            }
            Face::Json => {}
        }
    }

    fn note(&mut self, text: &str) {
        match self {
            Face::Panel(panel) => {
                panel.status(text);
            }
            Face::Lines => say(text),
            Face::Json => {}
        }
    }

    fn wrong(&mut self, text: &str) {
        match self {
            Face::Panel(panel) => {
                panel.warn(text);
            }
            Face::Lines => say(&paint(BAD, text)),
            Face::Json => say(&serde_json::json!({ "state": "wrong_code", "message": text }).to_string()),
        }
    }

    fn ask_again(&mut self) {
        if let Face::Panel(panel) = self {
            panel.prompt_again();
        }
    }

    fn no_more_input(&mut self) {
        if let Face::Lines = self {
            say(&paint(FAINT, "Standard input ended: no code can be typed here."));
        }
    }

    fn countdown(&mut self, left: Duration) {
        if let Face::Panel(panel) = self {
            panel.countdown(left);
        }
    }

    fn end(&mut self, text: &str, good: bool) {
        match std::mem::replace(self, Face::Lines) {
            Face::Panel(panel) => panel.end(text, good),
            Face::Lines => say(&paint(if good { GOOD } else { BAD }, &text.replace(GLUE, " "))),
            Face::Json => *self = Face::Json,
        }
    }
}

fn links(links: &[InvitedLink]) {
    for link in links {
        let reach = match link.reach {
            Reach::ThisMachine => "For a browser or a shell on this machine:",
            Reach::ThisNetwork => "For this network, a trial, because whoever controls it could change the page:",
            Reach::Relay => "From wherever the relay can be reached:",
        };
        say(&paint(FAINT, reach));
        say(&link.link);
    }
}

/// What a role may do, as a sentence.
pub fn grant(role: Role) -> &'static str {
    match role {
        Role::Owner => "It may do everything here, and remove devices (owner).",
        Role::Operator => "It may start, steer and end sessions here (operator).",
        Role::Viewer => "It may look, but not type (viewer).",
        Role::Machine => "It may start, steer and end sessions here (machine).",
    }
}

fn no_address() -> Trouble {
    Trouble::new(
        "There is no address under which another device could reach this machine.",
        "Connect it to a network, or give a relay: `happy up --relay https://HOST`.",
    )
}

fn ended(why: PairEnd) -> Trouble {
    match why {
        PairEnd::Expired => Trouble::new("The invitation has expired.", "Make a new one with `happy pair`."),
        PairEnd::WrongCode => Trouble::new(
            "Three wrong codes: the invitation is over and nothing was paired.",
            "Make a new one with `happy pair`; type the code that the new device itself shows.",
        ),
        PairEnd::Cancelled => Trouble::new("The invitation was cancelled.", "Make a new one with `happy pair`."),
        PairEnd::Failed => Trouble::new(
            "The device went silent, or broke off, before it was paired.",
            "Make a new invitation with `happy pair` and try again.",
        ),
        PairEnd::NoRendezvous => Trouble::new(
            "The relay cannot be reached, so no device could answer the invitation.",
            "See `happy relay` for the reason; the daemon keeps trying to connect.",
        ),
        PairEnd::WrongOrigin => Trouble::new(
            "The device came from an address that is not in the link: somebody may have copied the page.",
            "Make a new invitation with `happy pair`, and look at the address before you confirm.",
        ),
        PairEnd::NotStored => Trouble::new(
            "The new device could not be stored, so it was not paired.",
            "`happy logs` says why; see that the disk has room and that the home can be written.",
        ),
        PairEnd::RemovedDevice => Trouble::new(
            "This device was removed from here for good, so it was not paired.",
            "It must start anew with new keys: press “Start anew” on a phone; a machine is told how by its `happy join`. Then make \
             a new invitation with `happy pair`.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it_with_a_name_after_it() {
        for (line, code, name) in [
            ("123456", "123456", ""),
            (" 123 456 ", "123456", ""),
            ("123-456 kitchen tablet", "123456", "kitchen tablet"),
            ("123456 2nd phone", "123456", "2nd phone"),
            ("12345", "12345", ""),
            ("", "", ""),
        ] {
            assert_eq!(split_code(line), (code.to_owned(), name.to_owned()), "{line:?}");
        }
    }
}
