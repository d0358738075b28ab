//! What it costs to store a message before it is sent: wall time here, because a disk is waited for.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anstream::println;
use anyhow::Result;
use happy_crypto::{
    Identity,
    durable::{CommitError, DurableRatchet, Predecessor, Storage},
};

use crate::{
    measure::{cpu_time, median},
    ours::Session,
};

/// Commits of each kind.
const COMMITS: usize = 201;

/// A file that is replaced as [`Storage`] asks for.
struct Place {
    path: PathBuf,
    /// Bytes of the last record.
    length: usize,
}

impl Storage for Place {
    type Error = std::io::Error;

    fn commit(&mut self, _: u64, _: u64, record: &[u8]) -> Result<(), CommitError<Self::Error>> {
        self.length = record.len();
        replace(&self.path, record).map_err(CommitError::Unsettled)
    }
}

/// Writes beside, syncs, renames, syncs the folder.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Measures a commit of the outbox beside the same bytes written by themselves, one after the other.
pub fn run() -> Result<()> {
    // Beside the program, so on a disk: the folder for temporary files is often none.
    let program = std::env::current_exe()?;
    let folder = tempfile::tempdir_in(program.parent().unwrap_or(Path::new(".")))?;
    let (mut rng, ratchet) = Session::new().into_sender();
    let peer = Identity::generate(&mut rng).device_id();
    let mut place = Place { path: folder.path().join("ratchet"), length: 0 };
    let mut durable = DurableRatchet::create(&mut rng, &mut place, &[5; 32], peer, ratchet, Predecessor::default())?;
    let (mut commits, mut writes, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let mut length = 0;
    for _ in 0..COMMITS {
        let (began, began_cpu) = (Instant::now(), cpu_time());
        let kept = durable.send(&mut rng, &[7; 64])?;
        commits.push(began.elapsed().as_secs_f64() * 1e6);
        cpu.push(cpu_time() - began_cpu);
        let id = kept.id();
        durable.acknowledge(id);
        if length == 0 {
            length = fs::metadata(folder.path().join("ratchet"))?.len() as usize;
        }
        let bytes = vec![7; length];
        let began = Instant::now();
        replace(&folder.path().join("bare"), &bytes)?;
        writes.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let (commit, write) = (median(commits), median(writes));
    println!(
        "one commit of the outbox, fsync included: {commit:.0} µs ({:.1} µs of them CPU); {length} bytes written, synced and renamed by \
         themselves: {write:.0} µs; ratio {:.2}",
        median(cpu) / 1e3,
        commit / write
    );
    Ok(())
}
