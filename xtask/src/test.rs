//! `cargo xtask test`: what CI runs, and what a contributor runs before sending a change.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tools::{
    self, CHROMIUM, FAKETIME, GIT, NODE, NPM, OPENSSL, PEBBLE, REDIS, SYSTEMD_ANALYZE, TMUX, UNSHARE, VIM,
};
use crate::{report, root};

/// Which suites to run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these suites, by name; all of them without it.
    suites: Vec<String>,
    /// Lists the suites and their shares of time.
    #[arg(long)]
    list: bool,
}

/// A suite and the longest it may take. On two cores and from nothing all of them take some 40 minutes, most of it for building.
struct Suite {
    name: &'static str,
    minutes: u64,
    what: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite {
        name: "format",
        minutes: 1,
        what: "the sources are formatted",
        program: "cargo",
        arguments: &["fmt", "--all", "--check"],
    },
    Suite {
        name: "lint",
        minutes: 12,
        what: "clippy has nothing to say",
        program: "cargo",
        arguments: &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
    },
    Suite {
        name: "rust",
        minutes: 20,
        what: "every test in Rust",
        program: "cargo",
        arguments: &["nextest", "run", "--workspace"],
    },
    Suite {
        name: "examples",
        minutes: 4,
        what: "and every example in the documentation",
        program: "cargo",
        arguments: &["test", "--quiet", "--workspace", "--doc"],
    },
    Suite {
        name: "sim",
        minutes: 10,
        what: "50,000 random worlds break no promise of the link, and the planted bugs are found",
        program: "cargo",
        arguments: &["run", "--quiet", "--package", "xtask", "--", "sim", "--seeds", "50000", "--planted"],
    },
    Suite {
        name: "drivers",
        minutes: 6,
        what: "nor do those of the drivers and the relay over simulated TCP",
        program: "cargo",
        arguments: &["run", "--quiet", "--package", "xtask", "--", "sim", "--drivers", "--seeds", "100", "--planted"],
    },
    Suite {
        name: "deploy",
        minutes: 8,
        what: "every file in deploy/ passes the tool of its kind",
        program: "cargo",
        arguments: &["run", "--quiet", "--package", "xtask", "--", "deploy"],
    },
    Suite {
        name: "wasm",
        minutes: 4,
        what: "the cryptography gives the same bytes in wasm",
        program: "cargo",
        arguments: &["run", "--quiet", "--package", "xtask", "--", "vectors", "--wasm"],
    },
    Suite {
        name: "web",
        minutes: 6,
        what: "phone/dist is what its sources give",
        program: "cargo",
        arguments: &["run", "--quiet", "--package", "xtask", "--", "web", "--check"],
    },
    Suite {
        name: "terminal",
        minutes: 4,
        what: "real programs look as in xterm.js, or differ as docs/TERMINAL.md says",
        program: "node",
        arguments: &["--test", "--test-reporter=spec", "tests/terminal/"],
    },
    Suite {
        name: "browser",
        minutes: 6,
        what: "from the QR code to the shell in a real browser",
        program: "node",
        arguments: &["--test", "--test-reporter=spec", "tests/browser/"],
    },
];

/// Runs the suites, each within its share of time, and prints what each took.
///
/// # Errors
/// When a tool is missing, or when any suite failed or took too long.
pub fn run(arguments: Arguments) -> Result<()> {
    if let Some(unknown) = arguments.suites.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        let names = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
        bail!("there is no suite `{unknown}`; there are: {names}");
    }
    if arguments.list {
        SUITES
            .iter()
            .for_each(|suite| report::step(&format!("{:<8} {:>2} min  {}", suite.name, suite.minutes, suite.what)));
        return Ok(());
    }
    tools::require(&[CHROMIUM, FAKETIME, GIT, NODE, NPM, OPENSSL, PEBBLE, REDIS, SYSTEMD_ANALYZE, TMUX, UNSHARE, VIM])?;
    tools::require_rust_parts()?;
    tools::npm_ci(&root().join("phone"))?;

    let mut failed = Vec::new();
    let mut times = Vec::new();
    let mut built = false;
    let chosen =
        SUITES.iter().filter(|suite| arguments.suites.is_empty() || arguments.suites.iter().any(|n| n == suite.name));
    for suite in chosen {
        report::step(&format!("{}: {}", suite.name, suite.what));
        let began = Instant::now();
        built |= suite.name == "rust";
        let outcome = suite.run(built);
        times.push((suite, began.elapsed(), outcome.is_ok()));
        match outcome {
            Ok(()) => report::done(suite.name, began.elapsed()),
            Err(error) => {
                report::problem(&format!("{}: {error:#}", suite.name));
                failed.push(suite.name);
            }
        }
    }
    for (suite, took, ok) in &times {
        let mark = if *ok { "ok" } else { "FAILED" };
        anstream::println!(
            "suite {:<8} {:>5.0} s of {:>4} s  {mark}",
            suite.name,
            took.as_secs_f64(),
            suite.minutes * 60
        );
    }
    anstream::println!("suites: {} passed, {} failed", times.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

impl Suite {
    /// `built` says that the programs are there, or will be before the first test runs.
    fn run(&self, built: bool) -> Result<()> {
        let mut command = if self.program == "cargo" { tools::cargo() } else { Command::new(self.program) };
        command.args(self.arguments).current_dir(root()).stdin(Stdio::null());
        if built {
            command.env(tools::PROGRAMS, tools::target().join("debug"));
        }
        if self.name == "rust" {
            tools::require_nextest()?;
            // Most tests wait for programs that they have started.
            let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
            command.args(["--test-threads", &at_once.to_string()]);
        }
        if self.name == "terminal" {
            tools::require(&[NODE, NPM])?;
            tools::npm_ci(&root().join("tests/terminal"))?;
            tools::quiet(
                tools::cargo().args(["build", "--package", "happy-screen", "--example", "dump"]).current_dir(root()),
            )?;
        }
        if self.name == "browser" {
            prepare_browser()?;
            if !built {
                build_programs()?;
            }
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program))?;
        let deadline = Instant::now() + Duration::from_secs(self.minutes * 60);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                end(child.id());
                child.kill()?;
                child.wait()?;
                bail!("it took more than its {} minutes and was ended", self.minutes);
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if status.success() { Ok(()) } else { bail!("it ended with {status}") }
    }
}

/// Ends what a suite has started, the youngest first. Ending `cargo` alone would leave the test that hangs behind, and with it the next suite
/// without a processor. Where there is no `/proc`, that is what happens.
fn end(process: u32) {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    for child in children.collect::<String>().split_whitespace().filter_map(|id| id.parse::<u32>().ok()) {
        end(child);
        let pid = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
        // One that has ended meanwhile is what was wanted.
        let _ended = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    }
}

/// What the browser test needs: its tools and its driver.
///
/// # Errors
/// When one of them is missing and cannot be had.
pub fn prepare_browser() -> Result<()> {
    tools::require(&[CHROMIUM, TMUX, VIM, NODE, NPM, OPENSSL])?;
    tools::npm_ci(&root().join("tests/browser"))
}

/// Builds the programs that the browser test starts.
///
/// # Errors
/// When they do not build.
pub fn build_programs() -> Result<()> {
    tools::quiet(tools::cargo().args(["build", "--package", "happy", "--package", "happy-relay"]).current_dir(root()))?;
    // The slow line.
    tools::quiet(tools::cargo().args(["build", "--package", "happy-tests", "--bin", "chaos"]).current_dir(root()))
}
