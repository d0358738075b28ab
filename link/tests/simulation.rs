//! Random worlds: whatever the network does, every message arrives once and in order while its session lives, every call runs
//! at most once and is answered exactly once, and when the network is well again so is everything else.
//!
//! `SEEDS=from..to cargo test -p happy-link --test simulation` runs others; a failure names its seed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod model;

use std::collections::BTreeMap;

use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::{Keys, PairSecrets, Peer, Side, Suite};
use model::app::Act;
use model::null::NullSuite;
use model::{CALM, Happens, Weather, World, ms};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// How long things go wrong, and how long afterwards everything must be in order.
const STORM: u64 = 30_000;
const RECOVERY: u64 = 75_000;

fn weather(seed: u64) -> Weather {
    match seed % 6 {
        0 => CALM,
        1 => Weather { loss: 20, delay: 60, ..CALM },
        2 => Weather { loss: 200, repeat: 50, reorder: 200, delay: 150, ..CALM },
        3 => Weather { repeat: 300, reorder: 300, delay: 400, ..CALM },
        4 => Weather { loss: 30, garble: 50, delay: 40, ..CALM },
        _ => Weather { loss: 30, repeat: 30, reorder: 50, garble: 10, lies: 60, delay: 80 },
    }
}

fn null_device(index: usize) -> DeviceId {
    DeviceId::from_bytes([index as u8 + 1; 32])
}

fn null_suite(index: usize, _: u64) -> NullSuite {
    NullSuite { device: null_device(index) }
}

fn null_peer(me: usize, other: usize) -> Peer<DeviceId, DeviceId, u64> {
    let record = null_device(other);
    let side = if me == 0 { Side::Responder } else { Side::Initiator(record) };
    Peer { record, side, secrets: PairSecrets { current: 1, previous: None } }
}

fn identity(index: usize) -> Identity {
    Identity::generate(&mut ChaCha8Rng::seed_from_u64(index as u64))
}

fn prekey() -> SignedPrekey {
    SignedPrekey::generate(&mut ChaCha8Rng::seed_from_u64(99), &identity(0), 1, 1_700_000_000)
}

fn real_suite(index: usize, _: u64) -> Keys {
    let mut keys = Keys::new(identity(index));
    if index == 0 {
        keys.set_prekeys(vec![prekey()]);
    }
    keys
}

fn real_peer(me: usize, other: usize) -> Peer {
    let record = identity(other).record().clone();
    let bundle = || Bundle::new(&identity(0), &prekey(), None);
    let side = if me == 0 { Side::Responder } else { Side::Initiator(bundle()) };
    let secret = PairSecret::from_bytes(&[me.max(other) as u8; 40]).unwrap();
    Peer { record, side, secrets: PairSecrets { current: secret, previous: None } }
}

fn run<S: Suite>(mut world: World<S>, faults: u64) -> World<S> {
    world.faults = faults;
    world.start();
    for number in 0..faults {
        let at = model::below(&mut world.rng, STORM - 1000);
        world.at(ms(at + number), Happens::Fault);
    }
    for device in 0..world.devices.len() {
        // A device that is restarted goes on with a new life of its own.
        for _ in 0..3 {
            let at = ms(model::below(&mut world.rng, STORM / 2));
            world.at(at, Happens::App { device, boot: 0, what: Act::Random { left: 40 } });
        }
        for boot in 1..4 {
            let at = ms(STORM / 2 + model::below(&mut world.rng, STORM / 3));
            world.at(at, Happens::App { device, boot, what: Act::Random { left: 20 } });
        }
    }
    world.at(ms(STORM), Happens::Calm);
    world.run_until(ms(STORM + RECOVERY));
    world.check_at_the_end();
    world
}

fn null_world(seed: u64) -> World<NullSuite> {
    run(World::new(seed, 2, weather(seed), null_suite, null_peer), 2 + seed % 7)
}

fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let named = std::env::var("SEEDS").ok();
    let named = named.as_deref().and_then(|range| range.split_once(".."));
    named.map_or(usual, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

/// Runs seeds on two threads and adds up what they counted.
fn run_all(seeds: std::ops::Range<u64>, one: fn(u64) -> BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let halves = [0, 1].map(|half| {
        let seeds = seeds.clone();
        std::thread::spawn(move || {
            let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
            for seed in seeds.filter(|seed| seed % 2 == half) {
                let run = std::panic::catch_unwind(|| one(seed));
                let run = run.unwrap_or_else(|_| panic!("SEEDS={seed}..{} fails", seed + 1));
                run.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
            }
            counts
        })
    });
    let mut sum = BTreeMap::new();
    for half in halves {
        half.join().unwrap().into_iter().for_each(|(what, count)| *sum.entry(what).or_default() += count);
    }
    sum
}

#[test]
fn nothing_is_lost_doubled_or_stuck() {
    let counts = run_all(seeds(0..2000), |seed| null_world(seed).counts);
    println!("{counts:?}");
    if std::env::var("SEEDS").is_err() {
        // A simulation that never got into these situations would prove little.
        for what in [
            "answered",
            "closed by the device",
            "closed in order",
            "died after storing",
            "cut",
            "deadline passed",
            "displaced",
            "garbled",
            "half open",
            "indeterminate",
            "lie",
            "lost",
            "message",
            "process restart",
            "queue full",
            "quick restart",
            "relay restart",
            "resumed",
            "session",
            "stored",
            "writable",
        ] {
            assert!(counts.get(what).is_some_and(|count| *count > 20), "{what}: {counts:?}");
        }
    }
}

#[test]
fn the_same_holds_with_real_keys() {
    let counts = run_all(seeds(0..12), |seed| {
        run(World::new(seed, 1, weather(seed), real_suite, real_peer), 2 + seed % 5).counts
    });
    println!("{counts:?}");
}

#[test]
fn a_seed_tells_the_whole_story() {
    for seed in 0..24 {
        assert_eq!(null_world(seed).trace, null_world(seed).trace, "seed {seed} ran differently the second time");
    }
}
