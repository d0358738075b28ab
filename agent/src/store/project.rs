//! `.happy/settings.json` in the folder of a session: what a project says about the sessions that start there.
//!
//! Whoever wrote the project may be hostile, and a person looks into a strange repository by starting a session in it. So a project names
//! nothing that is run, connected to, written or let in; it can give a session its name and have more of its output kept, up to a bound. All
//! other keys are left alone and told in the log. The file is looked at in the one folder, never in those above it, no link is followed on
//! the way, and nothing but a small ordinary file is read.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, stat};
use serde::{Deserialize, Serialize};

use super::settings::Keep;

/// The largest file that is read.
const MAX_FILE: u64 = 16 * 1024;
/// The most output that a project can have kept: what a strange repository may cost in memory for each session that prints that much.
const MAX_KEEP: u64 = 64 * 1024 * 1024;
/// How many keys are named that are not heeded, and how much of each.
const MAX_TOLD: usize = 8;
const MAX_KEY: usize = 40;

/// What a project may decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Project {
    /// The name of sessions that were given none.
    pub name: Option<String>,
    /// How much output sessions keep, as `20M`, if that is more than what is usual on the machine; `64M` at most.
    #[cfg_attr(test, schemars(with = "Option<String>", regex(pattern = "^[0-9]+[kKmMgG]?$")))]
    pub keep: Option<Keep>,
}

impl Project {
    /// Reads what a folder says, and which keys of it are not for a project. A folder that says nothing is no error; neither is the home
    /// itself, whose settings are the machine's.
    ///
    /// # Errors
    /// When something is there that cannot be read or understood.
    pub fn read(folder: &Path, home: &Path) -> io::Result<(Project, Vec<String>)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let absent = |error: &rustix::io::Errno| matches!(*error, rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR);
        let folder = match openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            // The session itself will say what is wrong with its folder.
            Err(_) => return Ok(Default::default()),
            Ok(folder) => folder,
        };
        let own = match openat(&folder, ".happy", flags | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if absent(&error) => return Ok(Default::default()),
            opened => opened?,
        };
        let found = fstat(&own)?;
        if stat(home).is_ok_and(|home| (home.st_dev, home.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(Default::default());
        }
        // Without NONBLOCK a pipe of that name would wait for somebody to write.
        let file = match openat(&own, "settings.json", flags | OFlags::NONBLOCK, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(Default::default()),
            opened => opened?,
        };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no ordinary file"));
        }
        let mut text = Vec::new();
        std::fs::File::from(file).take(MAX_FILE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other("it is larger than 16 KiB"));
        }
        Self::parse(&text).map_err(io::Error::other)
    }

    fn parse(text: &[u8]) -> Result<(Project, Vec<String>), serde_json::Error> {
        let project: Project = serde_json::from_slice(text)?;
        let all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text)?;
        let others = all.keys().filter(|key| !matches!(key.as_str(), "name" | "keep"));
        let told = others.take(MAX_TOLD).map(|key| format!("{:?}", &key[..key.floor_char_boundary(MAX_KEY)]));
        Ok((project, told.collect()))
    }

    /// How many bytes of output shall be kept.
    pub fn keep(&self) -> Option<u64> {
        Some(self.keep.as_ref()?.bytes.min(MAX_KEEP))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const TEXT: &str = r#"{"name": "the build", "keep": "20M"}"#;

    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".happy")).unwrap();
        fs::write(folder.path().join(".happy/settings.json"), text).unwrap();
        folder
    }

    fn read(folder: &Path) -> io::Result<(Project, Vec<String>)> {
        Project::read(folder, Path::new("/nowhere"))
    }

    #[test]
    fn a_project_names_its_sessions_and_has_more_kept_within_a_bound() {
        let (project, left) = read(folder(TEXT).path()).unwrap();
        assert_eq!((project.name.as_deref(), project.keep(), left), (Some("the build"), Some(20 << 20), Vec::new()));
        let (project, _) = read(folder(r#"{"keep": "1G"}"#).path()).unwrap();
        assert_eq!(project.keep(), Some(MAX_KEEP));
    }

    #[test]
    fn what_a_hostile_project_would_like_to_decide_is_told_and_not_heeded() {
        let hostile = r#"{"relay": "https://evil.example", "command": ["sh"], "env": {"PATH": "."}, "record": true, "name": "ok",
                          "api_port": 1, "detach_key": "ctrl-c", "hook": "x", "shell": "/tmp/x", "a": 1, "b": 2}"#;
        let (project, left) = read(folder(hostile).path()).unwrap();
        assert_eq!(project, Project { name: Some("ok".into()), keep: None });
        assert!(left.contains(&r#""command""#.to_owned()) && left.len() == MAX_TOLD, "{left:?}");
        let long = format!(r#"{{"{}\u001b[2J": 1}}"#, "x".repeat(5_000));
        let (_, left) = read(folder(&long).path()).unwrap();
        assert!(left[0].len() < 60 && !left[0].contains('\x1b'), "{left:?}");
    }

    #[test]
    fn links_pipes_and_large_files_are_not_read() {
        let there = folder(TEXT);
        let path = there.path().join(".happy/settings.json");
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(read(there.path()).is_err());
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(read(there.path()).unwrap_err().to_string().contains("ordinary"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, format!("{TEXT}{}", " ".repeat(MAX_FILE as usize))).unwrap();
        assert!(read(there.path()).unwrap_err().to_string().contains("larger"));
        // The folder itself is a link.
        let other = tempfile::tempdir().unwrap();
        symlink(there.path().join(".happy"), other.path().join(".happy")).unwrap();
        assert_eq!(read(other.path()).unwrap_or_default(), Default::default());
    }

    #[test]
    fn a_folder_without_settings_and_the_home_itself_say_nothing() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(read(empty.path()).unwrap(), Default::default());
        assert_eq!(read(Path::new("/nowhere/at/all")).unwrap(), Default::default());
        let there = folder(TEXT);
        assert_eq!(Project::read(there.path(), &there.path().join(".happy")).unwrap(), Default::default());
        assert!(read(folder("{").path()).is_err());
    }
}
