//! One module per file of vectors.

mod bundle;
mod conversation;
mod handshake;
mod identity;
mod invitation;
mod padding;
mod refused;
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
        file("padding.json", padding::vectors()),
        file("sealed.json", sealed::vectors()),
    ]
}
