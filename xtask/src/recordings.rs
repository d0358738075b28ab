//! `cargo xtask recordings`: records real programs anew, in `screen/tests/recordings`.
//!
//! The recordings are what the tests of the terminal run over, so they are kept and not made for every run. Here they come from: look at what
//! has changed before it is committed, and at docs/TERMINAL.md, which says where our screen shows something else than xterm.js.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::{self, NODE, NPM, TMUX, Tool, VIM};
use crate::{report, root};

/// What is passed on to the recorder.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// See `cargo xtask recordings --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// The coding agents, each at the version whose dialogs the scenes know. They are large and only recorded, never built upon.
const AGENTS: [&str; 4] = [
    "@openai/codex@0.169.0",
    "@google/gemini-cli@0.61.0",
    "opencode-ai@1.18.33",
    "@mariozechner/pi-coding-agent@0.73.1",
];

/// Installs what is recorded and runs the recorder.
///
/// # Errors
/// When a program is missing and cannot be installed, or does not do what its scene expects.
pub fn run(arguments: Arguments) -> Result<()> {
    tools::require(&[NODE, NPM, TMUX, VIM])?;
    tools::require(&RECORDED.map(|(program, package)| Tool { program, package, purpose: "a recording" }))?;
    let agents = tools::target().join("recordings");
    install_agents(&agents)?;
    let status = tools::cargo()
        .args(["run", "--quiet", "--package", "happy-tests", "--bin", "record", "--"])
        .arg("--to")
        .arg(root().join("screen/tests/recordings"))
        .arg("--agents")
        .arg(&agents)
        .arg("--model")
        .arg(root().join("tests/terminal/model.mjs"))
        .args(arguments.options)
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the recorder ended with {status}");
    }
    Ok(())
}

fn install_agents(folder: &std::path::Path) -> Result<()> {
    let installed = folder.join("agents");
    let wanted = AGENTS.join("\n");
    if std::fs::read_to_string(&installed).is_ok_and(|names| names == wanted) {
        return Ok(());
    }
    report::step(&format!("npm install {}", AGENTS.join(" ")));
    std::fs::create_dir_all(folder)?;
    tools::quiet(
        Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(folder).args(AGENTS),
    )?;
    std::fs::write(installed, wanted)?;
    Ok(())
}

/// Programs that are recorded, and their Debian packages.
const RECORDED: [(&str, &str); 33] = [
    ("batcat", "bat"),
    ("bc", "bc"),
    ("cmatrix", "cmatrix"),
    ("curl", "curl"),
    ("dialog", "dialog"),
    ("emacs", "emacs-nox"),
    ("figlet", "figlet"),
    ("fzf", "fzf"),
    ("git", "git"),
    ("htop", "htop"),
    ("less", "less"),
    ("/usr/games/lolcat", "lolcat"),
    ("lynx", "lynx"),
    ("man", "man-db"),
    ("mc", "mc"),
    ("mcedit", "mc"),
    ("more", "util-linux"),
    ("nano", "nano"),
    ("ncdu", "ncdu"),
    ("nnn", "nnn"),
    ("ps", "procps"),
    ("pv", "pv"),
    ("python3", "python3"),
    ("ranger", "ranger"),
    ("/usr/games/sl", "sl"),
    ("tig", "tig"),
    ("top", "procps"),
    ("tput", "ncurses-bin"),
    ("unshare", "util-linux"),
    ("vttest", "vttest"),
    ("w3m", "w3m"),
    ("watch", "procps"),
    ("whiptail", "whiptail"),
];
