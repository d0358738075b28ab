//! The binary `happy`.

use std::process::ExitCode;

fn main() -> ExitCode {
    happy::cli::main()
}
