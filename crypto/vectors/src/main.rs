//! Writes the vectors, or compares them: `cargo xtask vectors [--check]`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let check = std::env::args().any(|argument| argument == "--check");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut differ = 0;
    for file in happy_vectors::all() {
        let path = folder.join(file.name);
        let same = std::fs::read_to_string(&path).is_ok_and(|text| text == file.text);
        differ += usize::from(!same);
        let what = match (same, check) {
            (true, _) => "is up to date",
            (false, true) => "differs; run `cargo xtask vectors`",
            (false, false) => {
                std::fs::write(&path, &file.text)?;
                "was written"
            }
        };
        writeln!(std::io::stdout(), "crypto/vectors/{}: {} bytes, {what}", file.name, file.text.len())?;
    }
    Ok(if check && differ > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
