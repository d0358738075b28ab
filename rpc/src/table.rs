//! The table of calls and roles as a page for people: `docs/CALLS.md`.

use std::fmt::Write;

use crate::role::{Grant, Standing};
use crate::{CALLS, Described};

/// The text of `docs/CALLS.md`. `cargo xtask calls` writes it, and a test sees that it is what the code says.
pub fn page() -> String {
    let mut out = String::from(BEGINNING);
    let names: Vec<_> = Standing::ALL.iter().map(|standing| standing.name()).collect();
    // Writing to a string does not fail.
    let _ = writeln!(out, "| call | what it does | {} | in the audit log |", names.join(" | "));
    let _ = writeln!(out, "|---|---|{}---|", "---|".repeat(names.len()));
    for Described { method, doc, capability, is_audited, .. } in CALLS {
        let cells: Vec<_> = Standing::ALL
            .iter()
            .map(|standing| match capability.grant(*standing) {
                Grant::Yes => "yes",
                Grant::OwnSession => "its own",
                Grant::No => "–",
            })
            .collect();
        let audited = if *is_audited { "yes" } else { "refusals" };
        let _ = writeln!(out, "| `{method}` | {} | {} | {audited} |", doc.trim(), cells.join(" | "));
    }
    out.push_str(END);
    out
}

const BEGINNING: &str = "\
# Who may call what

Printed from `rpc/src` by `cargo xtask calls`; do not edit. `PROTOCOL 10` says how calls travel, `PROTOCOL 11` how a device gets its role, and [LOCAL](LOCAL.md#who-calls) how
a program inside of a session is known. The person at the machine is its owner. A role is looked up for every call, so one that ends, ends at once.

";

const END: &str = "
*its own*: only for the session that the caller runs in. Typing on a terminal channel, and deciding its size, needs what `session.type` needs, and is never given inside of a session. The paths of
`file.*` and `git.*` must also lie below the folders that are open ([LOCAL](LOCAL.md#files)).
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CALLS.md");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == page(), "docs/CALLS.md is not what the code says; write it with `cargo xtask calls`");
    }

    #[test]
    fn every_call_has_a_sentence() {
        for call in CALLS {
            assert!(call.doc.trim().ends_with('.') && !call.doc.contains('|'), "{}: {:?}", call.method, call.doc);
        }
        assert_eq!(CALLS.len(), crate::Request::METHODS.len());
    }
}
