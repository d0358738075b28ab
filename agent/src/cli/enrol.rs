//! `happy relay enroll URL`: a relay that is not open to everybody admits this machine from now on (`PROTOCOL 7`, Access).

use std::io::{IsTerminal, Read};
use std::time::Duration;

use happy_crypto::Identity;
use happy_link::{Event, Login};
use happy_pairing::Origin;
use happy_relay::access;
use happy_wire::Code;
use happy_wire::enrolment::EnrolmentKey;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::client::{Client, sentence};
use crate::cli::output::{Form, GOOD, WARN, paint, say, say_sentences, tame};
use crate::cli::tty;
use crate::daemon::local::RelayEnrolled;
use crate::daemon::network::{self, Dialled};
use crate::daemon::trust::Expected;
use crate::store::{Home, RelayKeys, enrolments, random};
use crate::trouble::Trouble;

/// How long the relay may take to answer: five seconds until it is reached, ten for the login (`PROTOCOL 7`).
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The most of a relay's own words that is shown, letters.
const ITS_WORDS: usize = 200;

/// What `--json` prints.
#[derive(Serialize)]
struct Enrolled {
    relay: String,
    /// What the operator sees of it: it stands in the relay's configuration.
    key: String,
    /// What the relay said to a login with it.
    answer: &'static str,
    /// Why it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What came of a login with the new key.
enum Answer {
    Accepted,
    /// It said no, and would say so again.
    Refused(Trouble),
    /// It was not reached, or has no time now.
    Unknown(String),
}

/// `happy relay enroll URL`. The secret is typed without being shown, or comes from a pipe; it is never an argument, which others could see.
/// The relay is asked at once whether it takes the key: what it refuses is not kept, what could not be asked is.
pub async fn enrol(home: &Home, form: Form, url: &str) -> Result<u8, Trouble> {
    let relay = Origin::parse(url).map_err(|error| {
        Trouble::new(format!("`{url}` cannot be a relay: {error}."), "Give its address like https://relay.example.")
    })?;
    let secret = match std::io::stdin().is_terminal() {
        true => match tty::ask_hidden("Enrolment secret: ")? {
            Some(secret) => secret,
            None => return Ok(130),
        },
        false => piped()?,
    };
    let key = access::enrolment_key(&secret).map_err(|error| {
        Trouble::new(sentence(&error.to_string()), "Ask the relay's operator for the secret, and give the whole of it.")
    })?;
    let why = match ask(home, &relay, &key).await? {
        Answer::Accepted => None,
        // A key from before may still be good, and where everybody is admitted a wrong one is worse than none.
        Answer::Refused(trouble) => return Err(trouble),
        Answer::Unknown(why) => Some(why),
    };
    enrolments::put(home, &relay, &key)?;
    // A daemon that is not running reads it when it starts.
    if let Some(client) = Client::connect(&home.socket(), None).await? {
        client.local(RelayEnrolled { origin: relay.to_string() }).await?;
    }
    let answer = if why.is_none() { "accepted" } else { "unknown" };
    let enrolled = Enrolled { relay: relay.to_string(), key: key.public().to_string(), answer, why };
    form.result(&enrolled, |enrolled| {
        match &enrolled.why {
            None => {
                say(&paint(GOOD, &format!("{} admits this machine by its enrolment key from now on.", enrolled.relay)))
            }
            Some(why) => {
                let untested = format!("The key for {} is kept, but not tested: {why}.", enrolled.relay);
                say_sentences(WARN, &untested);
            }
        }
        say(&format!("Its operator has the key as NAME:{}.", enrolled.key));
        say("Use the relay with `happy up --relay URL`; `happy relay` shows whether it is connected.");
    });
    Ok(0)
}

/// Logs in with the key, once, as a device that is made for this and forgotten. As this machine, it would take the place of the daemon's
/// connection (`PROTOCOL 7`, a newer login displaces).
async fn ask(home: &Home, relay: &Origin, key: &EnrolmentKey) -> Result<Answer, Trouble> {
    let identity = Identity::generate(&mut random());
    let login = Login::Enrolled { epoch: 1, key: key.clone() };
    let expected = Expected::Kept(RelayKeys::open(home)?);
    let Dialled { handle, mut events, verifier } = network::dial(&identity, Vec::new(), login, relay, expected)?;
    let answered = timeout(ANSWER_WITHIN, answer(&mut events, relay, key)).await;
    let trouble = handle.trouble();
    handle.shutdown().await;
    let trouble = verifier.map_or(trouble.clone(), |verifier| verifier.explain(trouble));
    Ok(match (answered, trouble) {
        (Ok(Some(answer)), _) => answer,
        (_, Some(trouble)) => Answer::Unknown(tame(&trouble, ITS_WORDS)),
        (Ok(None), None) => Answer::Unknown("the connection broke before the relay had answered".into()),
        (Err(_), None) => Answer::Unknown(format!("the relay did not answer within {} s", ANSWER_WITHIN.as_secs())),
    })
}

/// What the relay says to the login; none when the connection ends without a word of it.
async fn answer(events: &mut mpsc::Receiver<Event>, relay: &Origin, key: &EnrolmentKey) -> Option<Answer> {
    loop {
        match events.recv().await? {
            Event::RelayUp { .. } => return Some(Answer::Accepted),
            Event::Goaway { code: Code::NOT_PERMITTED, .. } => {
                return Some(Answer::Refused(Trouble::new(
                    format!("{relay} refuses the key of this secret, so nothing was changed here."),
                    format!(
                        "See that the secret is right and for this relay. Its operator must have its key as NAME:{}, and have \
                         restarted the relay since.",
                        key.public()
                    ),
                )));
            }
            Event::Goaway { code: Code::LOGIN_REFUSED, text } => {
                return Some(Answer::Refused(Trouble::new(
                    format!(
                        "{relay} refuses the login, so nothing was changed here. It says: {}.",
                        tame(&text, ITS_WORDS)
                    ),
                    "Give the address that the relay's operator gave you, letter by letter.",
                )));
            }
            Event::Goaway { text, .. } => {
                return Some(Answer::Unknown(format!("the relay says: {}", tame(&text, ITS_WORDS))));
            }
            // One attempt is enough; a person waits.
            Event::RelayDown { .. } => return None,
            _ => {}
        }
    }
}

fn piped() -> Result<Zeroizing<String>, Trouble> {
    let mut secret = Zeroizing::new(String::new());
    // Too long a secret is seen to be too long.
    let most = access::MAX_SECRET as u64 + 3;
    std::io::stdin().lock().take(most).read_to_string(&mut secret).map_err(|error| {
        Trouble::new(
            format!("The secret cannot be read: {}.", crate::trouble::reason(&error)),
            "Give it on the standard input, as text.",
        )
    })?;
    Ok(secret)
}
