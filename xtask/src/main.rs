//! Every task a contributor runs: `cargo xtask TASK`.

mod attacks;
mod bench;
mod calls;
mod chaos;
mod deploy;
mod fuzz;
mod fuzz_model;
mod load;
mod miri;
mod mutants;
mod recordings;
mod report;
mod screens;
mod sim;
mod soak;
mod survive;
mod test;
mod tools;
mod up;
mod vectors;
mod wasm;
mod web;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// Every task a contributor runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds everything and starts `happy up`; what follows is passed on to it.
    Up(up::Arguments),
    /// Installs what the tests need, where it may, and runs all of them.
    Test(test::Arguments),
    /// Builds the phone app into phone/dist.
    Web(web::Arguments),
    /// Writes docs/CALLS.md, who may call what, from the code.
    Calls,
    /// Writes or compares the test vectors in crypto/vectors.
    Vectors(vectors::Arguments),
    /// Takes out each defence of docs/THREAT-MODEL.md by itself and sees its test turn red.
    Attacks(attacks::Arguments),
    /// Takes the pictures in docs/screens anew.
    Screens,
    /// Records real programs anew, in screen/tests/recordings.
    Recordings(recordings::Arguments),
    /// Measures, beside a baseline in the same run.
    Bench(bench::Arguments),
    /// Runs the link through random worlds in virtual time, and sees that it finds planted bugs.
    Sim(sim::Arguments),
    /// Puts a bad network in front of a relay.
    Chaos(chaos::Arguments),
    /// Kills, upgrades and stops the daemon of running sessions, and checks every byte that their viewers see.
    Survive(survive::Arguments),
    /// Lets a daemon with its sessions, and phones that come and go, run for an hour, and says what grew.
    Soak(soak::Arguments),
    /// Checks every file in deploy/ by the tool of its kind.
    Deploy,
    /// Loads a relay with strangers, floods, crowds and frozen readers, and says which bounds held.
    Load(load::Arguments),
    /// Searches for bytes that the decoders and the ratchet do not bear.
    Fuzz(fuzz::Arguments),
    /// Runs tests of the codecs and of the ratchet in an interpreter that sees undefined behaviour.
    Miri(miri::Arguments),
    /// Plays random schedules against the cryptography and its storage.
    FuzzModel(fuzz_model::Arguments),
    /// Changes the cryptography and the key storage in small ways and sees the tests turn red.
    Mutants(mutants::Arguments),
}

fn main() -> std::process::ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Up(arguments) => up::run(arguments),
        Task::Test(arguments) => test::run(arguments),
        Task::Web(arguments) => web::run(arguments),
        Task::Calls => calls::run(),
        Task::Vectors(arguments) => vectors::run(arguments),
        Task::Attacks(arguments) => attacks::run(arguments),
        Task::Screens => screens::run(),
        Task::Recordings(arguments) => recordings::run(arguments),
        Task::Bench(arguments) => bench::run(arguments),
        Task::Sim(arguments) => sim::run(arguments),
        Task::Chaos(arguments) => chaos::run(arguments),
        Task::Survive(arguments) => survive::run(arguments),
        Task::Soak(arguments) => soak::run(arguments),
        Task::Deploy => deploy::run(),
        Task::Load(arguments) => load::run(arguments),
        Task::Fuzz(arguments) => fuzz::run(arguments),
        Task::Miri(arguments) => miri::run(arguments),
        Task::FuzzModel(arguments) => fuzz_model::run(arguments),
        Task::Mutants(arguments) => mutants::run(arguments),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            report::problem(&format!("{error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    // The manifest of this package lies one folder below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
