//! One module per file of vectors.

mod bundle;
mod channels;
mod conversation;
mod durable;
mod frames;
mod handshake;
mod identity;
mod invitation;
mod login;
mod meeting;
mod membership;
mod packets;
mod padding;
mod refused;
mod relay;
mod sealed;
mod world;

use crate::json::Json;

/// A file of vectors.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What stands in it.
    pub text: String,
}

/// All files, made anew.
///
/// # Panics
/// When `happy_crypto` and the page do not agree.
#[must_use]
pub fn all() -> Vec<File> {
    let file = |name, json: Json| File { name, text: format!("{json}\n") };
    vec![
        file("identity.json", identity::vectors()),
        file("bundle.json", bundle::vectors()),
        file("invitation.json", invitation::vectors()),
        file("pairing.json", handshake::pairing()),
        file("link.json", handshake::link()),
        file("refused.json", refused::vectors()),
        file("conversation.json", conversation::vectors()),
        file("durable.json", durable::vectors()),
        file("login.json", login::vectors()),
        file("relay.json", relay::vectors()),
        file("packets.json", packets::vectors()),
        file("frames.json", frames::vectors()),
        file("padding.json", padding::vectors()),
        file("channels.json", channels::vectors()),
        file("membership.json", membership::vectors()),
        file("meeting.json", meeting::vectors()),
        file("sealed.json", sealed::vectors()),
    ]
}
