//! `cargo xtask bench crypto`: happy-crypto beside vodozemac, and beside the primitives that it consists of.
//!
//! Everything is measured in the same run, in turns, by the CPU time of this thread (module [`measure`]). At the end stands a
//! line per goal, `goal NAME VALUE UNIT BOUND met|missed`, and a goal that is missed makes the program fail.

mod comparison;
mod measure;
mod memory;
mod ours;
mod raw;
mod report;
mod rival;
mod storage;

use std::{hint::black_box, process::ExitCode};

use anstream::println;
use anyhow::Result;
use clap::Parser;

use measure::{Cases, Effort};
use ours::{Pairing, Session};
use report::{Line, goal, table};

/// Measures the cryptography.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    effort: Effort,
}

/// Sizes, and what the cases of each are called: encrypting and decrypting here, at vodozemac, and as primitives, and one seal.
const SIZES: [(usize, [&str; 7]); 3] = [
    (
        64,
        [
            "encrypt 64 B",
            "vodozemac encrypt 64 B",
            "seal message 64 B",
            "decrypt 64 B",
            "vodozemac decrypt 64 B",
            "open message 64 B",
            "seal 64 B",
        ],
    ),
    (
        1_024,
        [
            "encrypt 1 KiB",
            "vodozemac encrypt 1 KiB",
            "seal message 1 KiB",
            "decrypt 1 KiB",
            "vodozemac decrypt 1 KiB",
            "open message 1 KiB",
            "seal 1 KiB",
        ],
    ),
    (
        65_536,
        [
            "encrypt 64 KiB",
            "vodozemac encrypt 64 KiB",
            "seal message 64 KiB",
            "decrypt 64 KiB",
            "vodozemac decrypt 64 KiB",
            "open message 64 KiB",
            "seal 64 KiB",
        ],
    ),
];

fn main() -> Result<ExitCode> {
    let Arguments { effort } = Arguments::parse();
    let mut cases = Cases::default();
    let mut lines = Vec::new();
    add_messages(&mut cases, &mut lines);
    add_agreements(&mut cases, &mut lines);
    add_forgeries(&mut cases, &mut lines);
    cases.measure(effort);

    println!("medians of turns of one thread; primitives: RustCrypto and dalek, built as here");
    table(&cases, &lines);
    let [.., one_seal] = SIZES[2].1;
    println!(
        "message: primitives: salt, chain step, two derivations and two seals, with the HMAC and HKDF of the libraries"
    );
    println!("one seal of 64 KiB with a fresh key: {:.2} µs", cases.median(one_seal) / 1e3);
    println!(
        "ping-pong: one direction, encrypt and decrypt with a step of the root each; primitives: {}",
        count(raw::TURN)
    );
    println!("pairing: from the bundle's bytes to the confirmed session; primitives: {}", count(raw::PAIRING));
    println!("         vodozemac: its 3DH, no signature, no ML-KEM, and the first message");
    println!("forgery: of 64 bytes; vodozemac: a new ratchet key and the largest number that it allows");
    storage::run()?;
    comparison::run();

    let met = [
        goal("encrypt-64-of-vodozemac", cases.ratio("encrypt 64 B", "vodozemac encrypt 64 B"), "×", 0.2),
        goal("encrypt-64-of-primitives", cases.ratio("encrypt 64 B", "seal message 64 B"), "×", 1.3),
        goal("encrypt-64k-of-one-seal", cases.ratio("encrypt 64 KiB", one_seal), "×", 1.1),
        goal("ping-pong-of-primitives", cases.ratio("ping-pong", "turn"), "×", 1.06),
        goal("forgery-of-vodozemac", cases.ratio("forgery", "vodozemac forgery"), "×", 0.01),
        goal("forgery-5-chains-of-vodozemac", cases.ratio("forgery, 5 chains", "vodozemac forgery"), "×", 0.025),
        goal("pairing-of-primitives", cases.ratio("pairing", "public keys"), "×", 1.2),
        goal("allocations-messages", allocations_of_messages() as f64, "allocations", 0.0),
        goal("allocations-forgery", allocations_of_a_forgery() as f64, "allocations", 0.0),
    ];
    Ok(if met.iter().all(|met| *met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn add_messages(cases: &mut Cases, lines: &mut Vec<Line>) {
    for (size, names) in SIZES {
        let [encrypt, rival_encrypt, raw_seal, decrypt, rival_decrypt, raw_open, one_seal] = names;
        let plaintext = vec![7; size];
        let (mut session, text) = (Session::new(), plaintext.clone());
        cases.add(encrypt, move || {
            black_box(session.encrypt(&text));
        });
        let mut ends = rival::Ends::new();
        cases.add(rival_encrypt, move || {
            black_box(ends.encrypt(&plaintext));
        });
        cases.add(raw_seal, raw::Message::sealing(size));
        cases.add(decrypt, ours::Decrypting::new(size));
        cases.add(rival_decrypt, rival::Decrypting::new(size));
        cases.add(raw_open, raw::Message::opening(size));
        cases.add(one_seal, raw::Seal::new(size));
        lines.push(Line { name: encrypt, cases: [encrypt, rival_encrypt, raw_seal] });
        lines.push(Line { name: decrypt, cases: [decrypt, rival_decrypt, raw_open] });
    }
}

fn add_agreements(cases: &mut Cases, lines: &mut Vec<Line>) {
    let (mut session, mut ends) = (Session::new(), rival::Ends::new());
    cases.add("ping-pong", move || session.turn());
    cases.add("vodozemac ping-pong", move || ends.turn());
    cases.add("turn", raw::PublicKeys::new(raw::TURN));
    lines.push(Line { name: "ping-pong 64 B, one direction", cases: ["ping-pong", "vodozemac ping-pong", "turn"] });

    let mut pairing = Pairing::new();
    cases.add("pairing", move || {
        black_box(pairing.pair());
    });
    cases.add("vodozemac set-up", rival::SetUps::new());
    cases.add("public keys", raw::PublicKeys::new(raw::PAIRING));
    lines.push(Line { name: "pairing, both sides", cases: ["pairing", "vodozemac set-up", "public keys"] });
}

fn add_forgeries(cases: &mut Cases, lines: &mut Vec<Line>) {
    let (mut ends, forgery) = (rival::Ends::new(), rival::forgery());
    cases.add("vodozemac forgery", move || assert!(!ends.decrypt(&forgery), "a forgery is refused"));
    for (name, mut session) in [("forgery", Session::new()), ("forgery, 5 chains", Session::with_older_chains())] {
        let forgery = session.forgery();
        cases.add(name, move || assert!(!session.decrypt(&forgery), "a forgery is refused"));
        lines.push(Line { name, cases: [name, "vodozemac forgery", ""] });
    }
}

/// Of a message of each size that is encrypted and decrypted, into buffers with room for it.
fn allocations_of_messages() -> u64 {
    let mut session = Session::new();
    SIZES
        .into_iter()
        .map(|(size, _)| {
            let plaintext = vec![7; size];
            // The first of this size makes room.
            let first = session.encrypt(&plaintext).to_vec();
            assert!(session.decrypt(&first), "a genuine message opens");
            let encrypting = memory::allocations(|| {
                session.encrypt(&plaintext);
            });
            let message = session.message().to_vec();
            encrypting + memory::allocations(|| assert!(session.decrypt(&message), "a genuine message opens"))
        })
        .sum()
}

/// Of a message that nobody sent, with and without older chains.
fn allocations_of_a_forgery() -> u64 {
    [Session::new(), Session::with_older_chains()]
        .into_iter()
        .map(|mut session| {
            let forgery = session.forgery();
            memory::allocations(|| assert!(!session.decrypt(&forgery), "a forgery is refused"))
        })
        .sum()
}

fn count(counts: raw::Counts) -> String {
    let raw::Counts { agreements, keys, verifications, encapsulations } = counts;
    let mut text = format!("{agreements} X25519 agreements, {keys} X25519 key pairs");
    if encapsulations > 0 {
        text += &format!(
            ", {verifications} strict Ed25519 verifications, {encapsulations} ML-KEM-768 key pair, encapsulation and decapsulation"
        );
    }
    text
}
