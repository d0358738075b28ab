//! `logs/daemon.log`: bounded by size, the one before it kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::store::file::PRIVATE;
use crate::trouble::Trouble;

/// A log file grows to this before it is set aside as `.1`, so both together take at most 8 MiB: weeks of an ordinary
/// daemon, and no disk is filled by one that complains all day.
pub const MAX_LOG: u64 = 4 * 1024 * 1024;

/// The log file; clones write to the same one.
#[derive(Clone)]
pub struct LogFile(Arc<Mutex<Open>>);

struct Open {
    path: PathBuf,
    file: File,
    len: u64,
    max: u64,
}

impl LogFile {
    /// Opens the file to be appended to.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<LogFile, Trouble> {
        Self::with_max(path, MAX_LOG)
    }

    fn with_max(path: &Path, max: u64) -> Result<LogFile, Trouble> {
        let (file, len) = append(path).map_err(|error| Trouble::file("open the log", path, &error))?;
        Ok(LogFile(Arc::new(Mutex::new(Open { path: path.to_owned(), file, len, max }))))
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

impl Open {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.len > 0 && self.len + line.len() as u64 > self.max {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            (self.file, self.len) = append(&self.path)?;
        }
        self.file.write_all(line)?;
        self.len += line.len() as u64;
        Ok(())
    }
}

/// One event on its way to the file.
pub struct Line(Arc<Mutex<Open>>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_at_most_and_the_newest_line_is_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("daemon.log");
        let log = LogFile::with_max(&path, 100).unwrap();
        for n in 0..100 {
            log.make_writer().write_all(format!("line {n:03} of the log\n").as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
        let (new, old) = (std::fs::read_to_string(&path).unwrap(), path.with_extension("log.1"));
        assert!(new.ends_with("line 099 of the log\n"), "{new}");
        assert!(new.len() <= 100 && std::fs::metadata(old).unwrap().len() <= 100);
    }
}
