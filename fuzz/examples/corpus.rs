//! For `cargo xtask fuzz`: `corpus unpack TARGET FOLDER` writes seeds and kept inputs into a folder, `corpus pack TARGET FOLDER` keeps those of
//! a folder.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["unpack", target, folder] => {
            let inputs = happy_fuzz::seeds::of(target).into_iter().chain(happy_fuzz::corpus::read(target)?);
            for (n, input) in inputs.enumerate() {
                fs::write(Path::new(folder).join(format!("kept-{n}")), input)?;
            }
            Ok(())
        }
        ["pack", target, folder] => happy_fuzz::corpus::write(target, Path::new(folder)),
        _ => Err(io::Error::other("corpus unpack|pack TARGET FOLDER")),
    }
}
