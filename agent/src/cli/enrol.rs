//! `happy relay enroll URL`: a relay that is not open to everybody admits this machine from now on (`PROTOCOL 7`, Access).

use std::io::{IsTerminal, Read};

use happy_pairing::Origin;
use happy_relay::access;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::client::{Client, sentence};
use crate::cli::output::{Form, GOOD, paint, say};
use crate::cli::tty;
use crate::daemon::local::RelayEnrolled;
use crate::store::{Home, enrolments};
use crate::trouble::Trouble;

/// What `--json` prints.
#[derive(Serialize)]
struct Enrolled {
    relay: String,
    /// What the operator sees of it: it stands in the relay's configuration.
    key: String,
}

/// `happy relay enroll URL`. The secret is typed without being shown, or comes from a pipe; it is never an argument, which others could see.
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
    enrolments::put(home, &relay, &key)?;
    // A daemon that is not running reads it when it starts.
    if let Some(client) = Client::connect(&home.socket(), None).await? {
        client.local(RelayEnrolled { origin: relay.to_string() }).await?;
    }
    let enrolled = Enrolled { relay: relay.to_string(), key: key.public().to_string() };
    form.result(&enrolled, |enrolled| {
        say(&paint(GOOD, &format!("{} admits this machine by its enrolment key from now on.", enrolled.relay)));
        say(&format!("Its operator has the key as NAME:{}.", enrolled.key));
        say("Use the relay with `happy up --relay URL`; `happy relay` shows whether it is connected.");
    });
    Ok(0)
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
