//! `happy completions` and `happy man`: both are made of the arguments themselves, so they cannot fall behind them.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use crate::cli::Cli;
use crate::cli::output::{Form, say};
use crate::trouble::Trouble;

/// `happy completions`.
pub fn completions(shell: Shell) -> Result<u8, Trouble> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "happy", &mut script);
    let written = anstream::stdout().write_all(&script);
    written.map(|()| 0).map_err(|error| {
        Trouble::new(
            format!("The script cannot be written: {}.", crate::trouble::reason(&error)),
            "Look at where it goes.",
        )
    })
}

#[derive(Serialize)]
struct Written<'a> {
    folder: &'a Path,
    pages: usize,
}

/// `happy man`.
pub fn man(form: Form, to: &Path) -> Result<u8, Trouble> {
    let cannot = |doing: &str, error: std::io::Error| {
        let what = format!("Cannot {doing} {}: {}.", to.display(), crate::trouble::reason(&error));
        Trouble::new(what, "Give a folder that you can write with `--to DIR`, for instance ~/.local/share/man/man1.")
    };
    std::fs::create_dir_all(to).map_err(|error| cannot("make the folder", error))?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, to).map_err(|error| cannot("write the pages into", error))?;
    let entries = std::fs::read_dir(to).map_err(|error| cannot("read", error))?;
    let is_ours = |name: &str| name.starts_with("happy") && name.ends_with(".1");
    let pages = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_ours)).count();
    form.result(&Written { folder: to, pages }, |written| {
        say(&format!(
            "{} pages are in {}; `man happy` finds them when that is on your MANPATH.",
            written.pages,
            to.display()
        ));
    });
    Ok(0)
}
