//! Writes the seeds of a target into a folder: `seeds TARGET FOLDER`.

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err(std::io::Error::other("seeds TARGET FOLDER"));
    };
    for (n, seed) in happy_fuzz::seeds::of(&target).iter().enumerate() {
        std::fs::write(std::path::Path::new(&folder).join(format!("seed-{n}")), seed)?;
    }
    Ok(())
}
