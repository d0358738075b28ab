//! `cargo xtask web`: builds the phone app.
